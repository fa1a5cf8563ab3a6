"""One explanation from end to end: what is printed, written and logged, for every task."""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from mlflow_yolo.explanation import workflow
from mlflow_yolo.explanation.findings import Settings
from mlflow_yolo.explanation.workflow import run_explain
from mlflow_yolo.tracking.delivery.replay import replay
from mlflow_yolo.tracking.stores.target import Target
from tests.conftest import _copy_store
from tests.explanation.classifiers import fitted_classifier, stripes
from tests.explanation.conftest import make_lively
from tests.training.task_data import SUFFIXES, narrow_model, task_data

pytestmark = pytest.mark.slow
Explain = Callable[..., str]

FEW = Settings(per_class=2, instances=3, perturbed=1)
DETECTION_FILES = {
    *(f"{name}.png" for name in ("confusion_matrix", "error_types", "per_class", "most_confused_pairs")),
    *("reliability.png", "confidence_histogram.png", "report.html", "summary.txt", "recommendations.txt"),
    *(f"{name}.csv" for name in ("per_class", "confusion_matrix", "most_confused_pairs", "worst_predictions")),
    *(f"{name}.csv" for name in ("high_confidence_errors", "error_types", "calibration", "faithfulness")),
    *(
        f"{name}.csv"
        for name in ("calibration_per_class", "deletion_insertion", "deletion_insertion_detections", "bias")
    ),
    *("bias_confused_pairs.csv", "bias_co_occurrence.csv"),
}


GIVEN: Mapping[str, Any] = {
    "data": "digits",
    "model": "digits",
    "split": "auto",
    "imgsz": None,
    "batch": 5,
    "device": "cpu",
    "categories": None,
    "trust": False,
    "settings": FEW,
}


@pytest.fixture
def explain(store: str, tmp_path: Path) -> Explain:
    """Return a function that explains the shipped detector, unless told otherwise, and returns what is printed."""
    tracking = Target(store, "Default", None, None, "mine")
    return lambda **changed: run_explain(**{**GIVEN, "tracking": tracking, "output": tmp_path / "runs", **changed})


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


def folder_of(text: str) -> Path:
    """Return the folder that the last line of the output names."""
    return Path(text.splitlines()[-1].removeprefix("report: ")).parent


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        return opened.size


def page_of(folder: Path) -> str:
    page = (folder / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing is fetched
    return page


def items_of(page: str) -> dict[str, list[str]]:
    """Return the names of the classes and of the pairs that can be chosen on the page."""
    script = re.search(r'<script type="application/json" id="explain">(.*?)</script>', page, re.DOTALL)
    assert script is not None
    browsers = json.loads(script[1])["browsers"]
    return {browser["heading"]: [item["name"] for item in browser["items"]] for browser in browsers}


@dataclass(frozen=True)
class Explained:
    """One explanation that several tests look at."""

    text: str
    folder: Path
    run: Any
    logged: set[str]

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv")


@pytest.fixture(scope="module")
def detector(few_digits: Path, tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Explained:
    return explained(tmp_path_factory.mktemp("detector"), store_template, data=str(few_digits))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Explained:
    folder = tmp_path_factory.mktemp("classifier")
    data = stripes(folder / "data", n_classes=12, n_images=5, side=48)
    weights = fitted_classifier(data, folder / "stripes.pt", imgsz=128, n_images=2)
    groups = folder / "categories.yaml"
    groups.write_text(yaml.safe_dump({"first": [f"{i:03d} stripes" for i in range(6)]}))
    groups.write_text(groups.read_text() + yaml.safe_dump({"second": [f"{i:03d} stripes" for i in range(6, 12)]}))
    return explained(folder, store_template, data=str(data), model=str(weights), imgsz=128, categories=str(groups))


def explained(folder: Path, store_template: Path, **changed: Any) -> Explained:
    """Explain into a store of its own."""
    uri = _copy_store(store_template, folder)
    text = run_explain(**{**GIVEN, "tracking": Target(uri, "Default", None, None, "mine"), "output": folder, **changed})
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs(["0"])
    places = ("explain", "explain/worst", "explain/pairs")
    logged = {file.path for place in places for file in client.list_artifacts(run.info.run_id, place)}
    client._tracking_client.store.engine.dispose()
    return Explained(text, folder_of(text), run, logged)


def test_a_detector_is_explained_in_one_run(detector: Explained) -> None:
    folder, run = detector.folder, detector.run
    written = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {file for file in written if "/" not in file} == DETECTION_FILES
    assert {f"worst/{digit}.jpg" for digit in range(10)} <= written
    assert {f"explain/{name}" for name in written} <= detector.logged
    assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
    assert run.data.params.keys() == {"model", "data", "split", "imgsz"}
    assert (run.data.params["split"], run.data.params["imgsz"]) == ("test", "128")
    assert run.inputs.dataset_inputs[0].dataset.name
    first = (folder / "summary.txt").read_text().splitlines()[0]
    assert detector.text.startswith(first)
    assert run.data.tags["mlflow.note.content"].startswith(first)
    assert items_of(page_of(folder))["Class by class"] == [str(digit) for digit in range(10)]


def test_what_is_logged_and_printed_is_what_the_tables_hold(detector: Explained) -> None:
    metrics, faithful = detector.run.data.metrics, detector.table("faithfulness")
    assert set(faithful["maps"]) >= {"TP", "class"}
    for row in faithful[faithful["class"] == "all"].to_dict("records"):
        assert metrics[f"explain/energy_ratio/{row['maps']}"] == pytest.approx(row["energy_ratio"])
        assert row["energy_ratio"] == pytest.approx(row["energy"] / row["coverage"])
    for row in detector.table("error_types").to_dict("records"):
        assert metrics[f"explain/delta_ap50/{row['type']}"] == pytest.approx(row["delta_ap50"])
    single = detector.table("deletion_insertion_detections")
    assert list(single["map"]) == ["layercam", "gradcam, block 10", "random"] * FEW.perturbed
    for row in detector.table("deletion_insertion").to_dict("records"):
        key, mine = row["map"].replace("gradcam, block 10", "usual_gradcam"), single[single["map"] == row["map"]]
        assert row["n"] == mine["insertion"].notna().sum()
        if row["n"]:
            assert metrics[f"explain/insertion/{key}"] == pytest.approx(row["insertion"])
            assert row["insertion"] == pytest.approx(mine["insertion"].mean())
    cases = detector.table("worst_predictions")
    n_right, n_found = int(cases["right"].sum()), int(cases["detection"].notna().sum())
    n_objects = int(detector.table("per_class")["n_objects"].sum())
    expected = f"finds {n_right} of {n_objects} objects of test, and {n_right} of its {n_found} detections"
    assert expected in detector.text
    assert metrics["explain/operating_conf"] <= cases["conf"][cases["detection"].notna()].min()


def test_the_report_of_a_classifier_has_all_that_is_looked_for(classifier: Explained) -> None:
    folder, names = classifier.folder, [f"{i:03d} stripes" for i in range(12)]
    per_class = classifier.table("per_class_accuracy")
    pairs = classifier.table("most_confused_pairs")
    pictures = {file.stem for file in (folder / "worst").iterdir()}
    panels = list((folder / "pairs").iterdir())

    assert min(size_of(folder / "confusion_matrix.png")) > 300
    assert list(per_class["name"]) == names
    assert (per_class["n"] == 5).all()
    assert {"true", "predicted", "count", "rate", "low", "high"} <= set(pairs.columns)
    assert min(size_of(folder / "most_confused_pairs.png")) > 100
    assert pictures == set(names)
    assert 1 <= len(panels) <= 5
    assert all("__" in panel.stem for panel in panels)
    assert "images of val" in (folder / "summary.txt").read_text().splitlines()[0]
    assert (folder / "recommendations.txt").read_text().strip()
    found = items_of(page_of(folder))
    assert found["Class by class"] == names
    assert len(found["Confused pairs"]) == len(panels)
    assert (folder / "categories.csv").exists()
    assert {f"explain/{file.name}" for file in folder.iterdir()} <= classifier.logged


def test_the_numbers_of_a_classifier_are_those_of_its_images(classifier: Explained) -> None:
    images, metrics = classifier.table("worst_predictions"), classifier.run.data.metrics
    right = images["true"] == images["predicted"]
    assert len(images) == 60
    assert 0.2 < right.mean() < 1  # worth a test
    assert metrics["explain/top1"] == pytest.approx(right.mean())
    assert f"right on {right.sum()} of 60 images of val" in classifier.text
    accuracy = right.groupby(images["true"]).mean()
    assert classifier.table("per_class_accuracy").set_index("name")["accuracy"].to_dict() == pytest.approx(
        dict(accuracy)
    )
    assert metrics["explain/accuracy_lowest_class"] == pytest.approx(accuracy.min())
    wrong = images[~right]
    counts = wrong.groupby(["true", "predicted"]).size()
    for row in classifier.table("most_confused_pairs").to_dict("records"):
        assert row["count"] == counts[row["true"], row["predicted"]]
    assert metrics["explain/high_confidence_errors"] == (wrong["conf"] > 0.9).sum()
    within = (wrong["true"].str[:3].astype(int) < 6) == (wrong["predicted"].str[:3].astype(int) < 6)
    assert metrics["explain/errors_within_category"] == pytest.approx(within.mean())


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_every_task_with_boxes_is_explained(explain: Explain, tmp_path: Path, task: str) -> None:
    data = task_data(task, tmp_path / "data")
    weights = lively_checkpoint("yolo11n", task, data, tmp_path)

    folder = folder_of(explain(data=str(data), model=str(weights), imgsz=64, split="val"))

    cases = pd.read_csv(folder / "worst_predictions.csv")
    assert cases["detection"].notna().sum() > 4
    assert (pd.read_csv(folder / "faithfulness.csv")["n"] > 0).any()
    assert items_of(page_of(folder))["Class by class"]


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_an_end_to_end_model_is_explained_at_the_branch_it_was_validated_with(
    explain: Explain, tmp_path: Path, task: str
) -> None:
    data = task_data(task, tmp_path / "data")
    weights = lively_checkpoint("yolo26n", task, data, tmp_path)
    folder = folder_of(explain(data=str(data), model=str(weights), imgsz=64))
    assert len(pd.read_csv(folder / "worst_predictions.csv")) > 4


def lively_checkpoint(version: str, task: str, data: Path, folder: Path) -> Path:
    """Return a checkpoint of an untrained model that detects something."""
    model = make_lively(str(narrow_model(version, task, data, folder)))
    file = folder / f"{version}{SUFFIXES[task]}.pt"
    model.save(file)
    return file


@pytest.mark.parametrize(
    ("error", "status", "state"), [(KeyboardInterrupt, "KILLED", "interrupted"), (OSError, "FAILED", None)]
)
def test_what_ends_in_the_middle_ends_its_run(
    explain: Explain,
    client: MlflowClient,
    few_digits: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    status: str,
    state: str | None,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error("out of ink")

    monkeypatch.setattr(workflow, "explain_detector", fail)
    with pytest.raises(error):
        explain(data=str(few_digits))

    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.data.tags.get("mlflow_yolo.state")) == (status, state)


def test_a_dead_server_loses_nothing(
    explain: Explain,
    client: MlflowClient,
    store: str,
    few_digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    settings = Settings(per_class=1, instances=0, perturbed=0)
    text = explain(data=str(few_digits), settings=settings, tracking=Target(dead, "Default", None, None, "mine"))

    assert dead in capsys.readouterr().err
    folder = folder_of(text)
    assert (folder / "report.html").is_file()
    assert replay(tmp_path / "runs", tracking_uri=store).n_pending == 0
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert "explain/d_ece" in run.data.metrics
    logged = {file.path for file in client.list_artifacts(run.info.run_id, "explain")}
    assert logged == {f"explain/{file.name}" for file in folder.iterdir()}


def test_a_run_that_mlflow_run_opened_is_adopted_and_left_open(
    explain: Explain, client: MlflowClient, store: str, few_digits: Path
) -> None:
    theirs = client.create_run("0").info.run_id
    settings = Settings(per_class=0, instances=0, perturbed=0)
    explain(data=str(few_digits), settings=settings, tracking=Target(store, None, "0", theirs, None))

    (run,) = client.search_runs(["0"])
    assert run.info.run_id == theirs
    assert "explain/d_ece" in run.data.metrics
    assert run.info.status == "RUNNING"
