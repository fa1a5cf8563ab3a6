"""The whole command, on the shipped checkpoint and on BCCD, held against Ultralytics' own validation."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_yolo import checkpoints
from mlflow_yolo.cli import main
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.data import localise
from mlflow_yolo.studies.thresholds.inside import best_operating_point

Run = Callable[..., tuple[int, str, str]]
BCCD = Path(__file__).resolve().parents[4] / "shared" / "data" / "bccd"
FILES = {
    "table.csv", "per_class.csv", "summary.txt", "operating_point.json", "surface.png", "surface.html", "curves.png"
}  # fmt: skip


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


@pytest.fixture
def run(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*words, "--output", str(tmp_path / "out")])
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the data.yaml of a few scenes of digits, with boxes and with outlines."""
    root = tmp_path_factory.mktemp("scenes")
    return {
        name: generate(name, cache_dir=root / name, n_train=4, n_val=24, n_test=12) for name in ("digits", "digits-seg")
    }


def validated(model: str, data: str, directory: Path, **arguments: Any) -> dict[str, Any]:
    """Return Ultralytics' own statistics and metrics of a validation."""
    from ultralytics import YOLO
    from ultralytics.models.yolo.detect import DetectionValidator

    kept: dict[str, Any] = {}

    class Keeping(DetectionValidator):
        def get_stats(self) -> dict[str, Any]:
            kept.update({name: np.concatenate(values) for name, values in self.metrics.stats.items()})
            return super().get_stats()

    network = YOLO(model)
    found = network.val(
        Keeping, data=data, device="cpu", batch=16, workers=0, plots=False, project=str(directory), **arguments
    )
    return {**kept, "mAP50": found.box.map50, "mAP50-95": found.box.map}


def by_hand(found: Mapping[str, Any]) -> dict[str, float]:
    """Return mean precision, recall and F1 at IoU .50 of every detection that was kept."""
    classes = np.unique(found["target_cls"])
    counts = []
    for one in classes:
        mine = found["pred_cls"] == one
        counts.append((found["tp"][mine, 0].sum(), mine.sum(), (found["target_cls"] == one).sum()))
    return {
        "precision": float(np.mean([tp / n for tp, n, _ in counts if n])),
        "recall": float(np.mean([tp / m for tp, _, m in counts])),
        "f1": float(np.mean([2 * tp / (n + m) for tp, n, m in counts])),
    }


@pytest.mark.slow
def test_a_checkpoint_gets_its_operating_point(
    run: Run, client: MlflowClient, scenes: Mapping[str, Path], tmp_path: Path
) -> None:
    data = str(scenes["digits"])
    code, out, _ = run("thresholds", "--data", data, "--conf", "0.1:0.9:0.2", "--iou", "0.3:0.7:0.2", "--device", "cpu")
    assert code == 0
    (folder,) = (tmp_path / "out").glob("thresholds-*/thresholds")
    assert {file.name for file in folder.iterdir()} == FILES
    point = json.loads((folder / "operating_point.json").read_text())
    assert f"conf {point['conf']:g}" in out or "a conf for each class" in out

    table = pd.read_csv(folder / "table.csv")
    assert len(table) == 5 * 3
    model = str(checkpoints.path())
    for conf, iou in ((0.3, 0.3), (0.7, 0.7)):
        theirs = validated(model, data, tmp_path, split="val", imgsz=128, conf=conf, iou=iou)
        (row,) = table[np.isclose(table.conf, conf) & np.isclose(table.iou, iou)].to_dict("records")
        for name in ("mAP50", "mAP50-95"):
            assert row[name] == pytest.approx(theirs[name], abs=1e-12)
        for name, value in by_hand(theirs).items():
            assert row[name] == pytest.approx(value, abs=1e-12), name
        assert row["detections"] == len(theirs["conf"]) / 24

    (found,) = client.search_runs(["0"])
    assert found.info.status == "FINISHED"
    assert found.data.params["op/conf"] == str(point["conf"])
    assert found.data.params["objective"] == "f1"
    assert "Ship" in found.data.tags["mlflow.note.content"]
    assert {file.path for file in client.list_artifacts(found.info.run_id, "thresholds")} == {
        f"thresholds/{name}" for name in FILES
    }
    assert found.inputs.dataset_inputs
    if not point["per_class"]:
        theirs = validated(model, data, tmp_path, split="test", imgsz=128, conf=point["conf"], iou=point["iou"])
        for name, value in by_hand(theirs).items():
            assert found.data.metrics[f"op/{name}"] == pytest.approx(value, abs=1e-9)


@pytest.mark.slow
def test_a_variant_gets_its_operating_point_written_into_it(
    run: Run, scenes: Mapping[str, Path], tmp_path: Path
) -> None:
    from mlflow_yolo.runtime.detector import Detector
    from mlflow_yolo.variant import read_variant

    data = str(scenes["digits"])
    made = tmp_path / "made"
    with pytest.raises(SystemExit):
        main(["export", "--data", data, "--output", str(made)])
    folder = made / "fp32-onnx"
    before = read_variant(folder)
    words = ["thresholds", "--data", data, "--model", str(folder), "--iou", "0.5,0.7", "--per_class", "true"]
    code, _, err = run(*words, "--write", "true", "--objective", "recall@0.7", "--split", "val")
    assert code == 0, err
    after = read_variant(folder)
    assert after.sha256 == before.sha256
    point = after.operating_point
    assert set(point["per_class"]) == set(before.names)
    assert (point["objective"], point["measured_on"]) == ("recall@0.7", "val, cross-fitted")
    assert Detector(folder).names == before.names


@pytest.mark.slow
def test_masks_are_judged_of_a_segmentation_model(run: Run, scenes: Mapping[str, Path], tmp_path: Path) -> None:
    import yaml
    from ultralytics import YOLO
    from ultralytics.nn.tasks import yaml_model_load

    content = yaml_model_load("yolo11n-seg.yaml") | {"nc": 10, "scales": {"n": [0.33, 0.0625, 256]}, "scale": "n"}
    content.pop("yaml_file", None)
    file = tmp_path / "yolo11n-seg.yaml"
    file.write_text(yaml.safe_dump(content))
    network = YOLO(str(file))
    names = load_dataset(str(scenes["digits-seg"])).names
    network.model.names = dict(enumerate(names))
    network.save(str(tmp_path / "untrained.pt"))
    words = ["--data", str(scenes["digits-seg"]), "--model", str(tmp_path / "untrained.pt"), "--imgsz", "64"]
    code, _, err = run("thresholds", *words, "--conf", "0.001:0.9:0.3", "--iou", "0.7", "--device", "cpu")
    assert code == 0, err
    (point,) = (tmp_path / "out").glob("*/thresholds/operating_point.json")
    assert json.loads(point.read_text())["judged_by"] == "masks"


@pytest.mark.slow
def test_a_trial_gets_the_best_point_of_its_checkpoint(scenes: Mapping[str, Path], tmp_path: Path) -> None:
    dataset = localise(load_dataset(str(scenes["digits"])), tmp_path)
    about: dict[str, Any] = {"imgsz": 128, "batch": 8, "device": "cpu", "directory": tmp_path / "measured"}
    model = str(checkpoints.path())
    point = best_operating_point(model, dataset, conf=(0.2, 0.6), iou=(0.6, 0.7), **about)
    assert set(point) == {"conf", "iou", "f1", "precision", "recall"}
    assert 0.2 <= point["conf"] <= 0.6
    assert point["iou"] in (0.6, 0.65, 0.7)
    for name, value in by_hand(
        validated(model, str(dataset.yaml), tmp_path, split="val", imgsz=128, conf=point["conf"], iou=point["iou"])
    ).items():
        assert point[name] == pytest.approx(value, abs=1e-12)
    others = [
        by_hand(validated(model, str(dataset.yaml), tmp_path, split="val", imgsz=128, conf=conf, iou=0.65))["f1"]
        for conf in (0.2, 0.35, 0.6)
    ]
    assert point["f1"] >= max(others)
    for given in ({"conf": (0.6, 0.2)}, {"iou": (0.5, 1.5)}, {"objective": "best"}):
        with pytest.raises(ArgumentError):
            best_operating_point(model, dataset, **given, **about)


@pytest.mark.slow
def test_bccd_gets_better_thresholds_than_the_default(run: Run, tmp_path: Path) -> None:
    if not (BCCD / "data.yaml").is_file():
        pytest.skip("the BCCD data is not on this machine")
    model = str(BCCD / "yolo11n-bccd.pt")
    code, out, err = run("thresholds", "--data", str(BCCD / "data.yaml"), "--model", model, "--device", "cpu")
    assert code == 0, err
    (folder,) = (tmp_path / "out").glob("thresholds-*/thresholds")
    point = json.loads((folder / "operating_point.json").read_text())
    assert set(point["per_class"]) == {"RBC", "WBC", "Platelets"}
    assert "better than Ultralytics' own" in out
    assert len(pd.read_csv(folder / "table.csv")) == 209


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--objective", "mAP"], "objective=mAP"),
        (["--conf", "0.9:0.1:0.1"], "conf=0.9:0.1:0.1"),
        (["--conf", "0:1:0.1"], "conf=0"),
        (["--iou", "x"], "iou=x"),
        (["--split", "train"], "split=train"),
        (["--split", "holdout"], "split=holdout"),
        (["--model", "missing.pt"], "missing.pt"),
        (["--model", "yolo11n-cls.yaml"], "classifier"),
        (["--model", "yolo11n-pose.yaml"], "pose"),
        (["--model", "yolo11n.yaml"], "80 classes"),
        (["--data", "missing.yaml"], "missing.yaml"),
        (["--judge", "masks"], "judge=masks"),
        (["--write", "true"], "write=true"),
        (["--c_fp", "-1"], "c_fp=-1"),
        (["--max_det", "0"], "max_det=0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str], named: str, run: Run, scenes: Mapping[str, Path], tmp_path: Path
) -> None:
    code, out, err = run("thresholds", "--data", str(scenes["digits"]), *words)
    (line,) = [line for line in err.splitlines() if not line.startswith("YOLO11")]
    assert (code, out) == (2, "")
    assert line.startswith("error: ")
    assert named in line
    assert not (tmp_path / "out").exists()
