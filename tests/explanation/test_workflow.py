"""One explanation from end to end: what is printed, written and logged, for every task."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_yolo.explanation.findings import Settings
from mlflow_yolo.explanation.workflow import run_explain
from mlflow_yolo.tracking.stores.target import Target
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
    *(f"{name}.csv" for name in ("deletion_insertion", "deletion_insertion_detections", "bias")),
    *("bias_confused_pairs.csv", "bias_co_occurrence.csv"),
}


@pytest.fixture
def explain(store: str, tmp_path: Path) -> Explain:
    """Return a function that explains the shipped detector, unless told otherwise, and returns what is printed."""

    def call(**changed: Any) -> str:
        given: dict[str, Any] = {
            "data": "digits",
            "model": "digits",
            "split": "auto",
            "imgsz": None,
            "batch": 5,
            "device": "cpu",
            "categories": None,
            "trust": False,
            "settings": FEW,
            "tracking": Target(store, "Default", None, None, "mine"),
            "output": tmp_path / "runs",
        }
        return run_explain(**{**given, **changed})

    return call


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


def folder_of(text: str) -> Path:
    """Return the folder that the last line of the output names."""
    return Path(text.splitlines()[-1].removeprefix("report: ")).parent


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


def test_a_detector_is_explained_in_one_run(explain: Explain, client: MlflowClient, few_digits: Path) -> None:
    text = explain(data=str(few_digits))

    folder = folder_of(text)
    written = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {file for file in written if "/" not in file} == DETECTION_FILES
    assert {f"worst/{digit}.jpg" for digit in range(10)} <= written
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
    assert run.data.params.keys() == {"model", "data", "split", "imgsz"}
    assert (run.data.params["split"], run.data.params["imgsz"]) == ("test", "128")
    logged = {
        file.path for place in ("explain", "explain/worst") for file in client.list_artifacts(run.info.run_id, place)
    }
    assert {f"explain/{name}" for name in written if not name.startswith("pairs/")} <= logged
    assert run.inputs.dataset_inputs[0].dataset.name
    first = (folder / "summary.txt").read_text().splitlines()[0]
    assert text.startswith(first)
    assert run.data.tags["mlflow.note.content"].startswith(first)


def test_what_is_logged_and_printed_is_what_the_tables_hold(
    explain: Explain, client: MlflowClient, few_digits: Path
) -> None:
    text = explain(data=str(few_digits))

    folder = folder_of(text)
    (run,) = client.search_runs(["0"])
    tables = {file.stem: pd.read_csv(file) for file in folder.glob("*.csv")}
    for row in tables["faithfulness"][tables["faithfulness"]["class"] == "all"].to_dict("records"):
        assert run.data.metrics[f"explain/energy_ratio/{row['maps']}"] == pytest.approx(row["energy_ratio"])
        assert row["energy_ratio"] == pytest.approx(row["energy"] / row["coverage"])
    for row in tables["error_types"].to_dict("records"):
        assert run.data.metrics[f"explain/delta_ap50/{row['type']}"] == pytest.approx(row["delta_ap50"])
    single = tables["deletion_insertion_detections"]
    for row in tables["deletion_insertion"].to_dict("records"):
        key = "usual_gradcam" if "gradcam" in row["map"] else row["map"]
        mean = single[single["map"] == row["map"]]["deletion"].mean()
        if row["n"]:
            assert run.data.metrics[f"explain/deletion/{key}"] == pytest.approx(mean) == pytest.approx(row["deletion"])
    cases = tables["worst_predictions"]
    n_right, n_found = int(cases["right"].sum()), int(cases["detection"].notna().sum())
    n_objects = int(tables["per_class"]["n_objects"].sum())
    assert f"finds {n_right} of {n_objects} objects of test, and {n_right} of its {n_found} detections" in text
    assert run.data.metrics["explain/operating_conf"] <= cases["conf"][cases["detection"].notna()].min()


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_every_task_with_boxes_is_explained(explain: Explain, tmp_path: Path, task: str) -> None:
    data = task_data(task, tmp_path / "data")
    weights = lively_checkpoint("yolo11n", task, data, tmp_path)

    folder = folder_of(explain(data=str(data), model=str(weights), imgsz=64, split="val"))

    assert len(pd.read_csv(folder / "worst_predictions.csv")) > 4
    assert (pd.read_csv(folder / "faithfulness.csv")["n"] > 0).any()
    assert "where nothing is labelled" in page_of(folder)


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
