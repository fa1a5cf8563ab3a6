"""Classification and segmentation go the same way as detection, under their own keys."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from mlflow_yolo.blocks import parse_freeze
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.detection.samples import load_samples
from mlflow_yolo.keys import MAX_METRIC_KEYS
from mlflow_yolo.models.checkpoint import read_model
from mlflow_yolo.studies.freeze.analysis import Child, analyse
from mlflow_yolo.training.job import read_json, run_job
from mlflow_yolo.training.plan import Plan

pytestmark = pytest.mark.slow


def narrow(name: str, n_classes: int, folder: Path) -> Path:
    """Return a yaml of this model at a sixteenth of its width."""
    from ultralytics.nn.tasks import yaml_model_load

    content = yaml_model_load(name) | {"nc": n_classes, "scales": {"n": [0.33, 0.0625, 256]}, "scale": "n"}
    content.pop("yaml_file", None)
    file = folder / name
    file.write_text(yaml.safe_dump(content))
    return file


def train(job: dict[str, Any], folder: Path, client: MlflowClient) -> tuple[dict[str, Any], Any]:
    """Return the result and the run of one job."""
    reports: list[dict[str, Any]] = []
    code = run_job(job, directory=folder, report=reports.append)
    assert code == 0, reports
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert "mlflow_yolo.statistics" not in run.data.tags
    assert len(run.data.metrics) <= MAX_METRIC_KEYS
    assert len(reports) == 1
    return read_json(folder / "result.json"), run


def test_a_classifier_is_judged_by_top1_on_val_and_test(
    small_plan: Plan, job_of: Callable[..., dict[str, Any]], client: MlflowClient, tmp_path: Path
) -> None:
    data = generate("digits-cls", cache_dir=tmp_path / "cache", imgsz=32, n_train=20, n_val=10, n_test=10)
    model = narrow("yolo11n-cls.yaml", 10, tmp_path)
    plan = replace(small_plan, model=str(model), data=str(data), task="classify", imgsz=32)

    result, run = train(job_of(plan), tmp_path / "child", client)

    found = run.data.metrics
    assert {"final/top1", "final/top5", "test/top1", "test/top5", "metrics/accuracy_top1", "overfit_gap"} <= set(found)
    assert not [key for key in found if "mAP" in key or "/AP-" in key]
    for split, prefix in (("val", "final"), ("test", "test")):
        with np.load(tmp_path / "child" / result["predictions"][split]) as file:
            labels = file["labels"]
        assert labels.shape == (10, 2)
        assert found[f"{prefix}/top1"] == pytest.approx((labels[:, 0] == labels[:, 1]).mean(), abs=1e-6)
        folders = [path.parent.name for path in sorted((data / split).rglob("*.png"))]
        assert sorted(result["names"][true] for true in labels[:, 0]) == sorted(folders)
    assert found["bn_eval"] > 0

    blocks = read_model(str(model)).blocks
    freezes = parse_freeze("0,2", blocks)
    analysis = analyse([Child(freeze, 0, tmp_path / "child", result) for freeze in freezes], n_resamples=20)
    assert analysis is not None
    assert (analysis.metric, analysis.split, analysis.baseline.mean) == ("top1", "test", found["test/top1"])


def test_a_segmenter_has_boxes_and_masks(
    small_plan: Plan, job_of: Callable[..., dict[str, Any]], client: MlflowClient, tmp_path: Path
) -> None:
    data = generate("digits-seg", cache_dir=tmp_path / "cache", imgsz=64, n_train=8, n_val=4, n_test=4)
    model = narrow("yolo11n-seg.yaml", 10, tmp_path)
    plan = replace(small_plan, model=str(model), data=str(data), task="segment")

    result, run = train(job_of(plan), tmp_path / "child", client)

    names = ("mAP50", "mAP50-95", "precision", "recall", "F1")
    expected = {f"{split}/{set_}{name}" for split in ("final", "test") for set_ in ("", "mask/") for name in names}
    assert expected <= set(run.data.metrics)
    assert "metrics/mAP50-95M" in run.data.metrics
    assert len(load_samples(tmp_path / "child" / result["predictions"]["test"])) == 4
    assert json.loads(json.dumps(result)) == result
