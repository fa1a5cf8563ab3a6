"""A pass of Ultralytics' validator: over the split asked for, with the validator asked for, quiet where asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_yolo import checkpoints
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.models.data import localise
from mlflow_yolo.models.validation import validate
from mlflow_yolo.models.validators import RecordingDetectionValidator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pass_over(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    from mlflow_yolo.datasets.digits import generate

    folder = tmp_path_factory.mktemp("validation")
    dataset = localise(load_dataset(generate("digits", cache_dir=folder, n_train=1, n_val=2, n_test=3)), folder)

    def call(split: str, **changed: Any) -> Any:
        given: dict[str, Any] = {"imgsz": 64, "batch": 2, "device": "cpu", "directory": folder / "measured"}
        return validate(str(checkpoints.path()), dataset, split=split, **{**given, **changed})

    return call


def test_the_split_asked_for_is_gone_through_once(pass_over: Callable[..., Any]) -> None:
    done = pass_over("test")
    assert isinstance(done, RecordingDetectionValidator)
    assert len(done.samples) == len({sample.image for sample in done.samples}) == 3
    assert all(Path(sample.image).parts[:2] == ("images", "test") for sample in done.samples)


def test_who_is_told_about_progress_hears_nothing_else(
    pass_over: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[int, int]] = []
    caplog.clear()
    pass_over("test", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert "Speed" not in caplog.text
    pass_over("val")
    assert "Speed" in caplog.text


def test_only_arguments_of_validation_count(pass_over: Callable[..., Any]) -> None:
    done = pass_over("val", arguments={"conf": 0.5, "max_det": 2, "plots": True, "epochs": 7, "imgsz": 320})
    assert (done.args.conf, done.args.max_det, done.args.plots, done.args.imgsz) == (0.5, 2, False, 64)
    assert all(len(sample.scores) <= 2 and (sample.scores > 0.5).all() for sample in done.samples)


def test_another_validator_can_be_asked_for(pass_over: Callable[..., Any]) -> None:
    class Counting(RecordingDetectionValidator):
        n = 0

        def update_metrics(self, preds: Any, batch: Any) -> None:
            self.n += len(preds)
            super().update_metrics(preds, batch)

    assert pass_over("val", validator=Counting).n == 2
