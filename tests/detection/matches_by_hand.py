"""Statistics of a split written down by hand, or drawn at random, and the slow way to measure them."""

from collections.abc import Sequence

import numpy as np

from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.operating_measures import Weighing


def arrays_of(
    detections: Sequence[tuple[int, int, float, bool]],
    objects: Sequence[tuple[int, int]],
    *,
    n_images: int,
    n_classes: int,
) -> MatchArrays:
    """Return the statistics of detections (image, class, score, right) and objects (image, class).

    What is right is right at IoU .50 to .70, and of masks at .50 alone where the class is even.
    """
    rows = sorted(detections, key=lambda row: (row[0], -row[2]))
    right = np.array([row[3] for row in rows], dtype=bool).reshape(-1, 1)
    classes = np.array([row[1] for row in rows], np.float32)
    return MatchArrays(
        tp=right & (np.arange(10) < 5),
        conf=np.array([row[2] for row in rows], np.float32),
        pred_cls=classes,
        image=np.array([row[0] for row in rows], np.int64),
        target_cls=np.array([row[1] for row in sorted(objects)], np.float32),
        target_image=np.array([row[0] for row in sorted(objects)], np.int64),
        n_images=n_images,
        n_classes=n_classes,
        tp_mask=right & (np.arange(10) < 1) & (classes % 2 == 0).reshape(-1, 1),
    )


def random_arrays(
    rng: np.random.Generator,
    *,
    n_images: int = 12,
    n_classes: int = 4,
    n_detections: int = 120,
    decimals: int | None = None,
    skill: float = 1.0,
) -> MatchArrays:
    """Return random statistics: right detections have higher scores, some classes have no object, many scores tie.

    Args:
        rng: The draws.
        n_images: Images.
        n_classes: Classes; the last one has no object.
        n_detections: Detections.
        decimals: Of the scores, None for all: with few there are ties.
        skill: How far the scores of right detections lie above the others.
    """
    objects = [
        (int(rng.integers(n_images)), int(rng.integers(max(n_classes - 1, 1)))) for _ in range(n_detections // 3)
    ]
    free = list(rng.permutation(len(objects)))
    detections = []
    for _ in range(n_detections):
        image, class_id, right = int(rng.integers(n_images)), int(rng.integers(n_classes)), False
        if free and rng.random() < 0.4:
            (image, class_id), right = objects[free.pop()], True
        score = float(1 / (1 + np.exp(-rng.normal(skill if right else -skill, 1.2))))
        detections.append((image, class_id, score if decimals is None else round(score, decimals), right))
    return arrays_of(detections, objects, n_images=n_images, n_classes=n_classes)


def slowly(
    arrays: MatchArrays, conf: Sequence[float], weighing: Weighing, *, level: int = 0, masks: bool = False
) -> dict[str, float]:
    """Return what is measured above a confidence for each class, counted detection by detection."""
    right = arrays.tp_mask if masks else arrays.tp
    assert right is not None
    tp, fp, fn = (np.zeros(arrays.n_classes) for _ in range(3))
    for score, class_id, verdict in zip(arrays.conf, arrays.pred_cls.astype(int), right[:, level], strict=True):
        if score > np.float32(conf[class_id]):
            tp[class_id] += verdict
            fp[class_id] += not verdict
    objects = [int((arrays.target_cls == class_id).sum()) for class_id in range(arrays.n_classes)]
    for class_id, n in enumerate(objects):
        fn[class_id] = n - tp[class_id]
    present = [class_id for class_id, n in enumerate(objects) if n]
    loud = [class_id for class_id in present if tp[class_id] + fp[class_id] > 0]

    def f(class_id: int, beta: float) -> float:
        weighted = (1 + beta**2) * tp[class_id]
        return float(weighted / (weighted + beta**2 * fn[class_id] + fp[class_id])) if weighted else 0.0

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    return {
        "precision": mean([tp[c] / (tp[c] + fp[c]) for c in loud]),
        "recall": mean([tp[c] / objects[c] for c in present]),
        "f1": mean([f(c, 1.0) for c in present]),
        "f_beta": mean([f(c, weighing.beta) for c in present]),
        "cost": (weighing.c_fp * fp.sum() + weighing.c_fn * fn.sum()) / arrays.n_images,
        "detections": (tp + fp).sum() / arrays.n_images,
        "tp": tp.sum(),
        "fp": fp.sum(),
        "fn": fn.sum(),
    }
