"""Raw outputs of a detector's head made up around objects, and what Ultralytics' own validators make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import ops

from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.models.candidates import read_candidates, read_final
from mlflow_yolo.models.heads import Heads
from mlflow_yolo.models.keeper import Keeper

SIDE = 64
N_PROTOTYPES = 4
FIELDS = ("tp", "conf", "pred_cls", "target_cls")


@dataclass(frozen=True, eq=False)
class Picture:
    """One image: what the head says of it and what is there.

    Attributes:
        prediction: (4 + C + E, A) raw output, or (N, 6 + E) of a head that suppresses by itself.
        boxes: (M, 4) xyxy of the objects.
        classes: (M,) theirs.
        masks: (M, SIDE / 4, SIDE / 4) theirs: each fills its box.
        prototypes: (N_PROTOTYPES, SIDE / 4, SIDE / 4).
    """

    prediction: torch.Tensor
    boxes: torch.Tensor
    classes: torch.Tensor
    masks: torch.Tensor
    prototypes: torch.Tensor


def some_pictures(
    seed: int, *, n_classes: int, ties: bool = False, n_extra: int = 0, counts: Sequence[tuple[int, int]] | None = None
) -> list[Picture]:
    """Return images of (anchors, objects): by default some usual, one without objects, one without detections."""
    rng = np.random.default_rng(seed)
    counts = counts or [(80, 6), (60, 0), (0, 3), (1, 1), (120, 15)]
    return [_picture(rng, n, m, n_classes, ties=ties, n_extra=n_extra) for n, m in counts]


def _picture(rng: np.random.Generator, n: int, m: int, n_classes: int, *, ties: bool, n_extra: int) -> Picture:
    low = rng.uniform(0, SIDE - 24, (m, 2))
    boxes = np.hstack([low, low + rng.uniform(10, 22, (m, 2))])
    classes = rng.integers(0, n_classes, m)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    chosen = rng.integers(0, max(m, 1), n)
    if m:
        place = np.hstack(
            [centres[chosen] + rng.normal(0, 1.5, (n, 2)), sides[chosen] * rng.uniform(0.8, 1.25, (n, 2))]
        )
    else:
        place = np.hstack([rng.uniform(5, SIDE - 5, (n, 2)), rng.uniform(5, 20, (n, 2))])
    scores = rng.random((n, n_classes)) ** 4
    if m and n:
        scores[np.arange(n), classes[chosen]] = rng.random(n)
    if ties:
        scores = np.round(scores, 1)
    # The first prototype is positive everywhere, so that most masks fill their boxes; the others take pieces away.
    extra = np.hstack([np.ones((n, 1)), rng.normal(0, 0.5, (n, n_extra - 1))]) if n_extra else np.zeros((n, 0))
    prototypes = rng.normal(0, 0.6, (N_PROTOTYPES, SIDE // 4, SIDE // 4))
    prototypes[0] = 1
    grid = (np.arange(SIDE // 4) + 0.5) * 4
    within = [(grid >= boxes[:, [axis]]) & (grid < boxes[:, [axis + 2]]) for axis in (1, 0)]
    return Picture(
        prediction=torch.from_numpy(np.hstack([place, scores, extra]).T.astype(np.float32)),
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        classes=torch.from_numpy(classes.astype(np.float32)),
        masks=torch.from_numpy((within[0][:, :, None] & within[1][:, None, :]).astype(np.float32)),
        prototypes=torch.from_numpy(prototypes.astype(np.float32)),
    )


def heads_of(
    pictures: Sequence[Picture],
    *,
    n_classes: int,
    task: str = "detect",
    conf: float = 0.001,
    end2end: bool = False,
    agnostic: bool = False,
    single_cls: bool = False,
    **keeper: Any,
) -> Heads:
    """Return what our side keeps of the images."""
    kept = Keeper(keeper.pop("folder", None), single_cls=single_cls, **keeper)
    for index, one in enumerate(pictures):
        found = (
            read_final(one.prediction, conf=conf)
            if end2end
            else read_candidates(one.prediction, conf=conf, n_classes=n_classes)
        )
        masks = (one.prototypes.numpy(), one.masks.numpy().astype(np.bool_)) if task == "segment" else None
        kept.add(f"{index}.png", found, one.boxes.numpy(), one.classes.numpy(), masks)
    return kept.heads(
        names=tuple(f"class {index}" for index in range(n_classes)),
        task=task,
        split="val",
        conf=conf,
        end2end=end2end,
        agnostic=agnostic or single_cls,
    )


def validated(
    pictures: Sequence[Picture],
    folder: Path,
    *,
    n_classes: int,
    task: str = "detect",
    end2end: bool = False,
    native: bool = False,
    **arguments: Any,
) -> dict[str, np.ndarray]:
    """Return Ultralytics' statistics of the images: everything behind the head done anew, by its own validator."""
    kind = {"detect": DetectionValidator, "segment": SegmentationValidator}[task]
    validator = kind(args={"save_dir": str(folder), "task": task, **arguments})
    validator.nc, validator.end2end = n_classes, end2end
    validator.process = ops.process_mask_native if native else ops.process_mask
    collected: dict[str, list[np.ndarray]] = {}
    for one in pictures:
        raw = one.prediction[None]
        output = ((raw, one.prototypes[None]), {}) if task == "segment" else (raw, {})
        pred = validator._prepare_pred(validator.postprocess(output)[0])
        right = validator._process_batch(pred, {"cls": one.classes, "bboxes": one.boxes, "masks": one.masks})
        found = {"conf": pred["conf"], "pred_cls": pred["cls"], "target_cls": one.classes}
        for name, values in {**right, **found}.items():
            collected.setdefault(name, []).append(np.asarray(values))
    return {name: np.concatenate(values) for name, values in collected.items()}


def assert_same_bytes(found: MatchArrays, expected: Mapping[str, np.ndarray]) -> None:
    """Compare ours with Ultralytics' statistics; its scores and classes are doubles where an image has no detection."""
    for name in FIELDS:
        theirs = expected[name] if expected[name].dtype == np.bool_ else expected[name].astype(np.float32)
        assert getattr(found, name).tobytes() == theirs.tobytes(), name
    if "tp_m" in expected:
        assert found.tp_mask is not None
        assert found.tp_mask.tobytes() == expected["tp_m"].tobytes()
    else:
        assert found.tp_mask is None
