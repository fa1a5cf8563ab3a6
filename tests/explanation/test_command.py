"""The command `explain`: bad input is one line and exit code 2, and nothing is written; odd input is explained."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from mlflow_yolo.cli import main
from tests.explanation.classifiers import fitted_classifier, stripes

Run = Callable[..., tuple[int, str, str]]
QUICK = ["--per_class", "1", "--instances", "2", "--perturbed", "0", "--device", "cpu"]


@pytest.fixture
def run(store: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns exit code, output and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["explain", *QUICK, *words])
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture
def data(few_digits: Path, tmp_path: Path) -> Path:
    """Return the data.yaml of a copy of a few scenes of digits that a test may change."""
    root = tmp_path / "data"
    shutil.copytree(few_digits.parent, root, ignore=shutil.ignore_patterns("*.cache"))
    content = yaml.safe_load((root / "data.yaml").read_text())
    (root / "data.yaml").write_text(yaml.safe_dump({**content, "path": str(root)}))
    return root / "data.yaml"


def unreadable(data: Path) -> list[str]:
    (data.parent / "groups.yaml").write_text("[odd: {")
    return ["--categories", str(data.parent / "groups.yaml")]


def two_classes(data: Path) -> list[str]:
    root = stripes(data.parent.parent / "stripes", n_classes=2, n_images=1, side=32)
    return ["--data", str(root)]


def exported(data: Path) -> list[str]:
    (data.parent / "best.onnx").write_bytes(b"")
    return ["--model", str(data.parent / "best.onnx")]


def fewer_names(data: Path) -> list[str]:
    content = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump({**content, "names": [str(i) for i in range(12)]}))
    return []


BAD: dict[str, tuple[list[str] | Callable[[Path], list[str]], str]] = {
    "unknown method": (["--method", "smoothgrad"], "method=smoothgrad does not exist"),
    "a method for classifiers": (["--method", "cam"], "method=cam"),
    "block without a map": (["--block", "23"], "block=23 has no map"),
    "block that does not exist": (["--block", "99"], "block=99 has no map"),
    "block that small objects are not found with": (["--block", "22"], "block=22 has no influence on predictions of"),
    "other classes": (fewer_names, "the model has 10 classes and data has 12"),
    "missing split": (["--split", "holdout"], "split=holdout does not exist"),
    "missing categories": (["--categories", "none.yaml"], "none.yaml"),
    "unreadable categories": (unreadable, "groups.yaml"),
    "exported": (exported, "is exported: it has no gradients"),
    "missing model": (["--model", "none.pt"], "model=none.pt"),
    "missing data": (["--data", "none.yaml"], "data=none.yaml"),
    "classification data": (two_classes, "stripes"),
    "conf above 1": (["--conf", "1.5"], "conf=1.5"),
    "conf below 0": (["--conf", "-0.1"], "conf=-0.1"),
    "conf is no number": (["--conf", "nan"], "conf=nan"),
    "negative per_class": (["--per_class", "-1"], "per_class=-1 is negative"),
    "negative instances": (["--instances", "-1"], "instances=-1 is negative"),
    "negative perturbed": (["--perturbed", "-1"], "perturbed=-1 is negative"),
    "no batch": (["--batch", "0"], "batch=0"),
    "no size": (["--imgsz", "0"], "imgsz=0"),
    "no device": (["--device", "cuda:9"], "device=cuda:9"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_cannot_work_is_one_line_and_nothing_is_written(
    run: Run, data: Path, store: str, tmp_path: Path, case: str
) -> None:
    words, value = BAD[case]
    given = words(data) if callable(words) else words
    before = sorted(tmp_path.rglob("*"))
    code, shown, error = run("--data", str(data), *given, "--output", str(tmp_path / "out"))

    assert (code, shown) == (2, "")
    assert len(error.splitlines()) == 1, error
    assert value in error
    assert sorted(tmp_path.rglob("*")) == before
    client = MlflowClient(tracking_uri=store)
    assert client.search_runs(["0"]) == []
    client._tracking_client.store.engine.dispose()


slow = pytest.mark.slow


def folder_of(shown: str) -> Path:
    return Path(shown.splitlines()[-1].removeprefix("report: ")).parent


def explained(run: Run, data: Path, tmp_path: Path, *words: str) -> Path:
    code, shown, error = run("--data", str(data), *words, "--output", str(tmp_path / "out"))
    assert (code, error) == (0, ""), error
    return folder_of(shown)


@slow
def test_a_split_without_any_detection_is_said_to_have_none(run: Run, data: Path, tmp_path: Path) -> None:
    folder = explained(run, data, tmp_path, "--conf", "1")

    assert "the model finds 0 of" in (folder / "summary.txt").read_text()
    assert "0 of its 0 detections are right" in (folder / "summary.txt").read_text()
    cases = pd.read_csv(folder / "worst_predictions.csv")
    assert set(cases["subtype"]) == {"missed"}


@slow
def test_a_class_that_is_never_there_nor_predicted_has_a_page_that_says_so(
    run: Run, data: Path, tmp_path: Path
) -> None:
    for file in (data.parent / "labels" / "test").glob("*.txt"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if line.split()[0] != "7"))

    folder = explained(run, data, tmp_path, "--conf", "0.99")

    row = pd.read_csv(folder / "per_class.csv").set_index("class").loc[7]
    assert (row["n_objects"], row["n_detections"]) == (0, 0)
    assert np.isnan(row["ap50_95"])
    assert not (folder / "worst" / "7.jpg").exists()
    assert '"7"' in (folder / "report.html").read_text()


@slow
def test_pictures_without_objects_grey_ones_and_ones_with_four_channels_are_explained(
    run: Run, data: Path, tmp_path: Path
) -> None:
    images = sorted((data.parent / "images" / "test").iterdir())
    Image.open(images[0]).convert("L").save(images[0])
    Image.open(images[1]).convert("RGBA").save(images[1])
    for image in images[2:]:
        (data.parent / "labels" / "test" / f"{image.stem}.txt").write_text("")

    folder = explained(run, data, tmp_path)

    cases = pd.read_csv(folder / "worst_predictions.csv")
    with_objects = {Path(name).name for name in cases["name"][cases["object"].notna()]}
    assert with_objects == {images[0].name, images[1].name}
    assert {"background"} <= set(cases["subtype"])


@slow
@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB"])
def test_a_classifier_with_one_cell_is_mapped_at_a_finer_block(run: Run, tmp_path: Path, mode: str) -> None:
    data = stripes(tmp_path / "data", n_classes=3, n_images=3, side=32)
    weights = fitted_classifier(data, tmp_path / "stripes.pt", imgsz=32)
    for file in data.glob("val/*/*.png"):
        Image.open(file).convert(mode).save(file)

    folder = explained(run, data, tmp_path, "--model", str(weights), "--imgsz", "32")

    page = (folder / "report.html").read_text()
    assert "hirescam, block 4" in page  # of stride 8, so 4 x 4 cells; what comes later has 2 x 2
    assert len(list((folder / "worst").iterdir())) == 3


@slow
def test_a_classifier_asked_for_a_class_it_never_predicts(run: Run, tmp_path: Path) -> None:
    data = stripes(tmp_path / "data", n_classes=3, n_images=3, side=32)
    weights = fitted_classifier(data, tmp_path / "stripes.pt", imgsz=128)
    shutil.rmtree(data / "val" / "001 stripes")
    (data / "val" / "001 stripes").mkdir()

    code, shown, error = run(
        "--data", str(data), "--model", str(weights), "--imgsz", "128", "--output", str(tmp_path / "out")
    )

    if code:  # Ultralytics takes no empty folder of a class: then it is said
        assert (code, len(error.splitlines())) == (2, 1)
    else:
        row = pd.read_csv(folder_of(shown) / "per_class_accuracy.csv").iloc[1]
        assert row["n"] == 0


def test_an_interruption_promises_nothing(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow_yolo.explanation.workflow.detect_split", interrupt)
    code, shown, error = run("--data", str(data), "--output", str(tmp_path / "out"))
    assert (code, shown, error.strip()) == (130, "", "interrupted.")
