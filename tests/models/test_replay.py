"""One forward pass gives the statistics of every validation, byte by byte: Ultralytics' own validators are run anew."""

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.segment import SegmentationValidator

from mlflow_yolo import checkpoints
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.detection.ultralytics_ap import average_precision_surface
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.data import localise
from mlflow_yolo.models.heads import Heads
from mlflow_yolo.models.replay import collect_heads
from mlflow_yolo.models.validation import validate
from tests.models.found_data import calmed, found_data
from tests.models.raw_outputs import assert_same_bytes
from tests.runtime.small_models import make_checkpoint

pytestmark = pytest.mark.slow

EVERY = tuple(itertools.product((0.4, 0.7), (300, 12), (0.001, 0.25, 0.5)))
SOME = ((0.4, 300, 0.001), (0.7, 300, 0.25), (0.4, 12, 0.25), (0.7, 12, 0.5))
"""Combinations of IoU, max_det and conf: two by two by three, and every value at least once."""
BCCD = Path(__file__).resolve().parents[3] / "shared" / "data" / "bccd"


class Remembering:
    """Keeps the statistics that a validator computes its metrics from, and the metrics."""

    def get_stats(self) -> dict[str, Any]:
        self.statistics = {name: np.concatenate(values) for name, values in self.metrics.stats.items()}
        self.values: dict[str, float] = super().get_stats()
        return self.values


class RememberingDetection(Remembering, DetectionValidator):
    """`DetectionValidator` with `statistics`."""


class RememberingSegmentation(Remembering, SegmentationValidator):
    """`SegmentationValidator` with `statistics`."""


VALIDATORS = {"detect": RememberingDetection, "segment": RememberingSegmentation}


@dataclass(frozen=True)
class Case:
    """A checkpoint and data to validate it on."""

    weights: str
    dataset: Dataset
    folder: Path
    arguments: dict[str, Any]
    imgsz: int = 64
    batch: int = 2

    def given(self, **arguments: Any) -> dict[str, Any]:
        same = {"split": "val", "imgsz": self.imgsz, "batch": self.batch, "device": "cpu", "directory": self.folder}
        return {**same, "arguments": {**self.arguments, **arguments}}

    def heads(self, **more: Any) -> Heads:
        return collect_heads(self.weights, self.dataset, **self.given(), **more)

    def validated(self, **arguments: Any) -> Any:
        return validate(self.weights, self.dataset, **self.given(**arguments), validator=VALIDATORS[self.dataset.task])


def small_case(version: str, task: str, folder: Path, **arguments: Any) -> Case:
    checkpoint = calmed(make_checkpoint(version, task, folder))
    data = found_data(checkpoint, folder / "data", task=task, imgsz=64, batch=2, **arguments)
    dataset = localise(load_dataset(data, task=task), folder)
    return Case(str(checkpoint), dataset, folder / "validated", arguments)


def check_all(case: Case, heads: Heads, combinations: Sequence[tuple[float, int, float]]) -> None:
    """Compare each combination with a validation of its own: the statistics byte by byte, and mAP."""
    for iou, max_det, conf in combinations:
        arrays, validator = heads.replay(iou=iou, max_det=max_det), case.validated(conf=conf, iou=iou, max_det=max_det)
        assert_same_bytes(arrays.above(conf), validator.statistics)
        for kind in "BM" if heads.task == "segment" else "B":
            found = average_precision_surface(arrays, [conf], masks=kind == "M")[0]
            theirs = [validator.values[f"metrics/{name}({kind})"] for name in ("mAP50", "mAP50-95")]
            np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("version", "task", "arguments"),
    [
        (version, task, arguments)
        for version in ("yolov8n", "yolo11n", "yolo26n")
        for task in ("detect", "segment")
        for arguments in ([{}, {"nms": False}] if version == "yolo26n" else [{}])
    ],
)
def test_every_combination_is_a_validation_with_these_values(
    version: str, task: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    case = small_case(version, task, tmp_path, **arguments)
    heads = case.heads()

    check_all(case, heads, EVERY if version == "yolo11n" else SOME)
    wide, narrow = heads.replay(iou=0.7, conf=0.1), heads.replay(iou=0.4, conf=0.1)
    assert heads.end2end == bool(arguments)
    assert (wide.conf.tobytes() == narrow.conf.tobytes()) == heads.end2end
    for right in (wide.tp, wide.tp_mask) if task == "segment" else (wide.tp,):
        assert right is not None
        assert 3 < right[:, 0].sum() < len(wide.conf) / 2
        assert right[:, 9].sum() < right[:, 0].sum()
    assert heads.n_images == 5
    assert set(wide.target_image) == {heads.images.index(f"images/val/{name}.png") for name in range(4)}


def test_a_trained_checkpoint_on_images_of_several_shapes(tmp_path: Path) -> None:
    data = generate("digits", cache_dir=tmp_path / "data", imgsz=96, n_train=1, n_val=6, n_test=1)
    case = Case(str(checkpoints.path()), localise(load_dataset(data), tmp_path), tmp_path / "validated", {}, imgsz=96)

    check_all(case, case.heads(), SOME)


def test_all_classes_can_count_as_one(tmp_path: Path) -> None:
    case = small_case("yolo11n", "detect", tmp_path, single_cls=True)
    heads = case.heads()

    assert_same_bytes(heads.replay(iou=0.6).above(0.2), case.validated(conf=0.2, iou=0.6).statistics)
    assert set(heads.replay(iou=0.6).pred_cls) == {0}


def test_only_what_is_above_the_lowest_confidence_is_kept(tmp_path: Path) -> None:
    case = small_case("yolo11n", "detect", tmp_path)
    told: list[tuple[int, int]] = []

    heads = case.heads(conf=0.3, progress=lambda done, total: told.append((done, total)))

    assert heads.conf == 0.3
    assert heads.candidates.scores.min() > 0.3
    assert_same_bytes(heads.replay(iou=0.6).above(0.4), case.validated(conf=0.4, iou=0.6).statistics)
    assert told == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ArgumentError, match=r"conf=0\.2"):
        heads.replay(iou=0.6, conf=0.2)


def test_bccd_is_replayed_as_it_is_validated(tmp_path: Path) -> None:
    if not (BCCD / "yolo11n-bccd.pt").is_file():
        pytest.skip("the BCCD data are not here")
    shutil.copytree(BCCD, tmp_path / "bccd")  # Ultralytics writes a cache beside the labels
    dataset = localise(load_dataset(tmp_path / "bccd" / "data.yaml"), tmp_path)
    case = Case(str(BCCD / "yolo11n-bccd.pt"), dataset, tmp_path / "validated", {}, imgsz=160, batch=16)
    heads = case.heads()

    check_all(case, heads, SOME[1:3])
    assert heads.n_images == dataset.splits["val"].n_images


@pytest.mark.parametrize("task", ["classify", "obb"])
def test_tasks_without_boxes_to_suppress_are_refused(task: str, tmp_path: Path) -> None:
    dataset = Dataset.__new__(Dataset)
    object.__setattr__(dataset, "task", task)

    with pytest.raises(ArgumentError, match=task):
        collect_heads("none.pt", dataset, split="val", imgsz=64, batch=1, device="cpu", directory=tmp_path)


def test_a_confidence_that_is_none_is_refused(tmp_path: Path) -> None:
    dataset = Dataset.__new__(Dataset)
    object.__setattr__(dataset, "task", "detect")

    with pytest.raises(ArgumentError, match="conf=2"):
        collect_heads("none.pt", dataset, split="val", imgsz=64, batch=1, device="cpu", directory=tmp_path, conf=2)
