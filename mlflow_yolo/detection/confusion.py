"""The confusion matrix of a detector at its operating point, axes [true, predicted], background last.

Boxes are matched without looking at their classes, so that an object found under the wrong name is one confusion and
not a miss and a false alarm. Ultralytics' own matrix has its axes the other way round, and its validator fills it at
conf=0.001 unless the user says otherwise.
"""

from collections.abc import Sequence

import numpy as np

from mlflow_yolo.detection import boxes
from mlflow_yolo.detection.boxes import Floats, Ints
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import ArgumentError


def confusion_matrix(samples: Sequence[Sample], *, n_classes: int, conf: float, iou: float = 0.5) -> Ints:
    """Return how often objects of each class were detected as each class.

    Of all pairs of a detection and an object the one that overlaps most is matched first, each at most once.

    Args:
        samples: The images.
        n_classes: Number of classes.
        conf: Detections below this score are left out.
        iou: Pairs below this overlap do not match.

    Returns:
        (C+1, C+1) counts [true, predicted]. The last column counts missed objects, the last row detections of
        background; their common cell is 0. All 0 for no samples.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1.

    Source: ours; the matching follows Ultralytics' ConfusionMatrix, but a detection whose best object is taken may
    take its next.
    """
    matrix = np.zeros((n_classes + 1, n_classes + 1), dtype=np.int64)
    for sample in samples:
        kept = sample.scores >= conf
        true, predicted = sample.gt_classes, sample.classes[kept]
        _check_classes(sample, n_classes)
        of_gt = _match_by_overlap(boxes.iou(sample.gt_boxes, sample.boxes[kept]), threshold=iou)
        missed = of_gt < 0
        np.add.at(matrix, (true[~missed], predicted[of_gt[~missed]]), 1)
        np.add.at(matrix[:, -1], true[missed], 1)
        np.add.at(matrix[-1], np.delete(predicted, of_gt[~missed]), 1)
    return matrix


def normalise(matrix: Ints) -> Floats:
    """Return the matrix with each row, a true class, as fractions of its sum.

    Args:
        matrix: (C+1, C+1) counts [true, predicted].

    Returns:
        (C+1, C+1); each row sums to 1, or to 0 where the class does not occur. The diagonal is the recall. The last
        row is the share of each class in the detections of background.
    """
    total = matrix.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0))


def _check_classes(sample: Sample, n_classes: int) -> None:
    for class_id in (*sample.gt_classes, *sample.classes):
        if not 0 <= class_id < n_classes:
            raise ArgumentError(
                f"{sample.image!r} has class {class_id} with n_classes={n_classes}: use 0 to {n_classes - 1}."
            )


def _match_by_overlap(overlap: Floats, *, threshold: float) -> Ints:
    """Return, for each row, its column or -1; the greatest overlap is matched first."""
    column_of = np.full(overlap.shape[0], -1, dtype=np.int64)
    rows, columns = np.nonzero(overlap >= threshold)
    taken: set[int] = set()
    for pair in np.argsort(-overlap[rows, columns], kind="stable"):
        row, column = int(rows[pair]), int(columns[pair])
        if column_of[row] < 0 and column not in taken:
            column_of[row] = column
            taken.add(column)
    return column_of
