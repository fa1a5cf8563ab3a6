"""Objects are explained where the model sees their true class best; all at once as one by one."""

import pytest
import torch

from mlflow_yolo.attribution.outputs import ClassificationOutputs, DetectionOutputs
from mlflow_yolo.attribution.targets import Object
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.maps.objects import best_anchors


@pytest.fixture
def outputs() -> DetectionOutputs:
    """Return random predictions of two levels, 4 x 6 cells of 8 pixels and 2 x 3 of 16, for two images."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 30, generator=generator)
    return DetectionOutputs(logits, torch.zeros(2, 4, 30), ((4, 6), (2, 3)), (8.0, 16.0))


def test_all_objects_at_once_are_each_object_by_itself(outputs: DetectionOutputs) -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(40, 2, 2, generator=generator).sort(dim=1).values * torch.tensor([48.0, 32.0])
    boxes = torch.cat((corners.reshape(40, 4), torch.tensor([[5.0, 5.5, 5.5, 6.0], [-9.0, -9.0, -8.0, -8.0]])))
    classes = torch.randint(5, (42,), generator=generator)

    found = best_anchors(outputs, 1, boxes, classes).terms(outputs, 1)

    singles = [Object(tuple(b.tolist()), int(c)).terms(outputs, 1) for b, c in zip(boxes, classes, strict=True)]
    assert torch.equal(found.values, torch.cat([one.values for one in singles]))
    assert torch.equal(found.levels, torch.cat([one.levels for one in singles]))
    assert set(found.levels.tolist()) == {0, 1}


def test_the_best_anchor_of_the_true_class_is_taken_and_of_no_other(outputs: DetectionOutputs) -> None:
    outputs.logits[0] = 0.0
    outputs.logits[0, 3, 7] = 1.0  # row 1, column 1 of the finer level: pixels 8 to 16
    outputs.logits[0, 2, 8] = 9.0  # another class, in the box
    outputs.logits[0, 3, 20] = 9.0  # the class, outside

    found = best_anchors(outputs, 0, torch.tensor([[8.0, 8.0, 24.0, 16.0]]), torch.tensor([3]))

    assert (found.anchors.tolist(), found.classes.tolist()) == ([7], [3])


def test_a_classifier_has_no_anchors() -> None:
    with pytest.raises(ArgumentError, match="no anchors"):
        best_anchors(ClassificationOutputs(torch.zeros(1, 3)), 0, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
