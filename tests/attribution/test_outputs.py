from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils.ops import xywh2xyxy
from ultralytics.utils.tal import make_anchors

from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.attribution.outputs import ClassificationOutputs, DetectionOutputs, read_outputs
from mlflow_yolo.exceptions import ArgumentError

VERSIONS = ("yolov8n", "yolo11n", "yolo26n")
DETECTORS = [version + task for version in VERSIONS for task in ("", "-seg", "-pose", "-obb")]


def outputs_of(network: nn.Module, images: Tensor, branch: str = "auto") -> tuple[DetectionOutputs, Any]:
    with forward(network, images, [0], branch=branch) as run:
        assert isinstance(run.outputs, DetectionOutputs)
        return run.outputs, run.decoded


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", DETECTORS)
def test_logits_and_boxes_are_those_that_ultralytics_decodes(
    name: str, fused: bool, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    found, decoded = outputs_of(build(name, fused=fused, end_to_end=False), pictures(2))
    rows = decoded[0] if isinstance(decoded, tuple) else decoded
    torch.testing.assert_close(found.logits.sigmoid(), rows[:, 4:7])
    left, top, right, bottom = found.distances.unbind(1)
    torch.testing.assert_close(torch.stack((left + right, top + bottom), 1), rows[:, 2:4])
    if not name.endswith("obb"):
        expected = xywh2xyxy(rows[:, :4].transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(found.boxes, expected, atol=1e-3, rtol=0)  # pixels
    assert not found.is_end_to_end
    assert found.logits.requires_grad
    assert found.distances.requires_grad


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", ["yolo26n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb", "yolov10n"])
def test_one_to_one_predictions_are_those_of_the_anchors_that_ultralytics_ranks_first(
    name: str, fused: bool, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network: Any = build(name, fused=fused, end_to_end=True)
    found, decoded = outputs_of(network, pictures(2))
    assert found.is_end_to_end
    rows = decoded[0] if isinstance(decoded, tuple) else decoded
    scores, classes, anchors = network.model[-1].get_topk_index(found.logits.sigmoid().transpose(1, 2), 300)
    torch.testing.assert_close(rows[:, :, 4:6], torch.cat((scores, classes), -1))
    if not name.endswith("obb"):
        boxes = found.boxes.gather(2, anchors[:, None].expand(-1, 4, -1)).transpose(1, 2)
        torch.testing.assert_close(rows[:, :, :4], boxes)


def test_the_branch_can_be_chosen_whichever_one_predicts(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    many, one = build("yolo26n", end_to_end=False), build("yolo26n", end_to_end=True)
    expected = {"one2many": outputs_of(many, pictures(1))[0], "one2one": outputs_of(one, pictures(1))[0]}
    assert not torch.allclose(expected["one2many"].logits, expected["one2one"].logits)
    for network in (many, one):
        for branch, of in expected.items():
            found = outputs_of(network, pictures(1), branch)[0]
            torch.testing.assert_close(found.logits, of.logits)
            assert found.is_end_to_end == (branch == "one2one")


@pytest.mark.parametrize("name", ["yolo26n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"])
@pytest.mark.parametrize("removed", ["one2many", "one2one"])
def test_the_branch_that_fusing_removed_is_an_error_that_names_it(
    name: str, removed: str, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network = build(name, fused=True, end_to_end=removed == "one2many")
    with pytest.raises(ArgumentError, match=removed):
        outputs_of(network, pictures(1), removed)


@pytest.mark.parametrize(("name", "branch"), [("yolo11n", "one2one"), ("yolo11n", "two2two")])
def test_a_branch_that_never_was_is_an_error(
    name: str, branch: str, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    with pytest.raises(ArgumentError, match=branch):
        outputs_of(build(name), pictures(1), branch)


@pytest.mark.parametrize("end_to_end", [False, True], ids=["one2many", "one2one"])
@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo11n-seg", "yolo26n-seg"])
def test_a_mask_is_that_of_ultralytics_and_its_prototypes_are_part_of_the_graph(
    name: str, end_to_end: bool, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network: Any = build(name, end_to_end=end_to_end if "26" in name else None)
    found, (rows, prototypes) = outputs_of(network, pictures(2))
    anchor, row = 7, rows[1, 7:, 7]
    if found.is_end_to_end:
        index = network.model[-1].get_topk_index(found.logits.sigmoid().transpose(1, 2), 300)[2]
        anchor, row = int(index[1, 5]), rows[1, 5, 6:]
    torch.testing.assert_close(found.mask_logits(1, anchor), torch.einsum("m,mhw->hw", row, prototypes[1]))
    assert found.prototypes is not None
    assert found.prototypes.requires_grad  # in the one2one dictionary Ultralytics detaches them


def test_a_detector_without_masks_says_so(build: Callable[..., nn.Module], pictures: Callable[..., Tensor]) -> None:
    found, _ = outputs_of(build("yolo11n"), pictures(1))
    with pytest.raises(ArgumentError, match="mask"):
        found.mask_logits(0, 0)


def test_levels_and_centres_are_those_of_ultralytics_anchors() -> None:
    sizes, strides = ((6, 8), (3, 4), (2, 2)), (8.0, 16.0, 32.0)
    found = DetectionOutputs(torch.zeros(1, 1, 64), torch.zeros(1, 4, 64), sizes, strides)
    anchors, stride = make_anchors([torch.zeros(1, 1, *size) for size in sizes], torch.tensor(strides), 0.5)
    torch.testing.assert_close(found.centres, anchors * stride)
    assert found.levels.tolist() == [0] * 48 + [1] * 12 + [2] * 4
    assert found.centres[8].tolist() == [4.0, 12.0]  # the second row's first cell


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", [version + "-cls" for version in VERSIONS])
def test_a_classifier_gives_the_logits_of_its_probabilities(
    name: str, fused: bool, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    with forward(build(name, fused=fused), pictures(2), [0]) as run:
        assert isinstance(run.outputs, ClassificationOutputs)
        torch.testing.assert_close(run.outputs.logits.softmax(1), run.decoded)


def test_a_head_that_was_exported_or_is_no_yolo_head_is_an_error(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network: Any = build("yolo11n")
    network.model[-1].export = True
    with pytest.raises(ArgumentError, match="exported"):
        outputs_of(network, pictures(1))
    for raw in ((torch.zeros(1), torch.zeros(1, 2, 3)), (torch.zeros(1), {"boxes": torch.zeros(1, 4, 1)})):
        with pytest.raises(ArgumentError, match="Identity"):
            read_outputs(nn.Identity(), raw)
