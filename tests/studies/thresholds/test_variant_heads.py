"""An exported variant is replayed as it is scored elsewhere: same images, same detections, objects in its own frame."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils.metrics import box_iou

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.runtime.scoring import samples_of
from mlflow_yolo.studies.thresholds.variant_heads import collect_variant_heads
from tests.runtime.small_models import IMGSZ, make_model

pytestmark = pytest.mark.slow
NAMES = ["one", "two", "three", "four"]
SHAPES = {"a": (48, 64), "b": (120, 80), "c": (96, 128)}


class Matching(BaseValidator):
    """Ultralytics' matching without the rest of a validator."""

    def __init__(self) -> None:
        self.iouv = torch.linspace(0.5, 0.95, 10)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Return a function (version, task) that gives the ONNX file of a small model, made once."""
    made: dict[tuple[str, str], Path] = {}

    def get(version: str, task: str) -> Path:
        if (version, task) not in made:
            made[version, task] = make_model(version, task, tmp_path_factory.mktemp("model")).onnx
        return made[version, task]

    return get


def pictures(folder: Path, rows: str) -> Dataset:
    """Return a data set of three pictures of noise, of which `b` has no objects and the others have these."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for name, (height, width) in SHAPES.items():
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / "images" / f"{name}.png")
        (folder / "labels" / f"{name}.txt").write_text("" if name == "b" else rows)
    content = {"path": str(folder), "train": "images", "val": "images", "names": NAMES}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return load_dataset(folder / "data.yaml")


@pytest.mark.parametrize("version", ["yolov8n", "yolo26n"])
def test_detections_and_verdicts_are_those_of_the_pipeline(
    version: str, exported: Callable[[str, str], Path], tmp_path: Path
) -> None:
    file = exported(version, "detect")
    first = samples_of(open_pipeline(file), pictures(tmp_path / "empty", "0 .5 .5 .5 .5\n"), "val", conf=0.2, iou=0.6)
    size = np.array(SHAPES["a"])[[1, 0, 1, 0]]
    found = np.clip(first[0].boxes / size, 0, 1)
    low, high = found[:, :2], found[:, 2:]
    rows = [
        f"{class_id} {' '.join(f'{value:.6f}' for value in [*centre, *side])}"
        for class_id, centre, side in zip(first[0].classes, (low + high) / 2, high - low, strict=True)
        if side.min() > 0.05
    ]
    data = pictures(tmp_path / "data", "\n".join(dict.fromkeys(rows[:20])) + "\n")

    heads = collect_variant_heads(file, data, split="val", conf=0.05)

    assert heads.images == ("images/a.png", "images/b.png", "images/c.png")
    assert (heads.names, heads.task, heads.split, heads.conf) == (tuple(NAMES), "detect", "val", 0.05)
    n_right = 0
    for iou, conf in ((0.3, 0.1), (0.7, 0.3)):
        arrays = heads.replay(iou=iou).above(conf)
        samples = samples_of(open_pipeline(file), data, "val", conf=conf, iou=iou)
        np.testing.assert_array_equal(arrays.conf, np.concatenate([one.scores for one in samples]).astype(np.float32))
        np.testing.assert_array_equal(arrays.pred_cls, np.concatenate([one.classes for one in samples]))
        right = [verdicts(one.boxes, one.classes, one.gt_boxes, one.gt_classes) for one in samples]
        # Boxes are compared in the frame of the input here and of the image there: a last digit may decide.
        assert (arrays.tp != np.concatenate(right)).mean() < 0.002
        n_right += int(arrays.tp[:, 0].sum())
        assert arrays.target_cls.tolist() == np.concatenate([one.gt_classes for one in samples]).tolist()
    assert n_right > 1


def verdicts(boxes: np.ndarray, classes: np.ndarray, gt_boxes: np.ndarray, gt_classes: np.ndarray) -> np.ndarray:
    if not len(gt_classes):
        return np.zeros((len(boxes), 10), np.bool_)
    ious = box_iou(torch.from_numpy(gt_boxes), torch.from_numpy(boxes))
    return Matching().match_predictions(torch.from_numpy(classes), torch.from_numpy(gt_classes), ious).numpy()


def test_outlines_become_masks_in_the_frame_of_the_input(exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    # A large square with a small one upon it. Image a is 64 x 48 in an input of 128 x 96: twice its size, no padding.
    rows = "0 .25 .25 .375 .25 .375 .5 .25 .5\n1 .125 .1666667 .625 .1666667 .625 .8333333 .125 .8333333\n"
    data = pictures(tmp_path / "data", rows)
    told: list[tuple[int, int]] = []

    heads = collect_variant_heads(
        exported("yolo11n", "segment"), data, split="val", progress=lambda done, total: told.append((done, total))
    )

    assert IMGSZ == (96, 128)
    assert told == [(3, 3)]
    assert heads.objects.classes.tolist() == [1, 0, 1, 0]  # the larger first, as Ultralytics has them
    np.testing.assert_allclose(heads.objects.boxes[:2], [[16, 16, 80, 80], [32, 24, 48, 48]], atol=1e-3)
    assert heads.masks is not None
    (image, *_) = heads.masks.images
    masks = np.unpackbits(image.gt_bits, count=int(np.prod(image.gt_shape))).reshape(image.gt_shape)
    assert image.gt_shape == (2, 24, 32)
    assert masks[1].sum() == pytest.approx(4 * 6, abs=6)
    assert masks[0].sum() == pytest.approx(16 * 16 - 4 * 6, abs=18)
    assert not (masks[0] & masks[1]).any()
    arrays = heads.replay(iou=0.7)
    assert arrays.tp_mask is not None
    assert arrays.tp_mask.shape == arrays.tp.shape


def test_what_cannot_be_replayed_is_refused(exported: Callable[[str, str], Path], tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", "0 .5 .5 .5 .5\n")

    with pytest.raises(ArgumentError, match="split=test"):
        collect_variant_heads(exported("yolov8n", "detect"), data, split="test")
    with pytest.raises(ArgumentError, match="task=classify"):
        collect_variant_heads(exported("yolo11n", "classify"), data, split="val")
    with pytest.raises(CheckpointError, match="five"):
        collect_variant_heads(exported("yolov8n", "detect"), replace(data, names=(*NAMES[:3], "five")), split="val")
