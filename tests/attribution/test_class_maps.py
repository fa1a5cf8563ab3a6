from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.attribution.cam import METHODS
from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.attribution.class_maps import class_maps, watch_classifier
from mlflow_yolo.exceptions import ArgumentError

CLASSIFIERS = ["yolov8n-cls", "yolo11n-cls", "yolo26n-cls"]


def relative_difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


def test_class_maps_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    weight = torch.tensor([[1.0, 1.0], [2.0, -1.0], [0.0, 4.0]])
    maps = class_maps(features, weight)
    assert maps.tolist() == [[[[2.0, 1.0]], [[-0.5, 2.0]], [[6.0, 0.0]]]]
    assert class_maps(features, weight, torch.tensor([[2, 0]])).tolist() == [[[[6.0, 0.0]], [[2.0, 1.0]]]]


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_maps_of_all_classes_are_those_of_the_gradient_and_sum_to_the_logits(
    name: str, fused: bool, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network: Any = build(name, fused=fused).double()  # so that 1e-6 speaks of the formula and not of rounding
    images, head = pictures(2, size=160).double().requires_grad_(), network.model[-1]
    kept: list[Tensor] = []
    handle = head.conv.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with watch_classifier(network) as seen:
        _, logits = network(images)
    handle.remove()
    maps = class_maps(kept[0].detach(), head.linear.weight.detach())
    assert maps.shape == (2, 3, 5, 5)
    torch.testing.assert_close(seen.maps().double(), maps, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(maps.sum((2, 3)) + head.linear.bias, logits, rtol=1e-6, atol=1e-9)
    for class_id in range(3):
        (gradient,) = torch.autograd.grad(logits[:, class_id].sum(), kept[0], retain_graph=True)
        hires = METHODS["hirescam"].make(kept[0].detach(), gradient)
        grad = METHODS["gradcam"].make(kept[0].detach(), gradient)
        assert relative_difference(maps[:, class_id], hires) < 1e-6
        assert relative_difference(maps[:, class_id].relu(), grad) < 1e-6


def test_the_last_batch_is_the_one_that_counts_and_classes_can_be_chosen(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network: Any = build("yolo11n-cls")
    with watch_classifier(network) as seen, torch.no_grad():
        assert seen.features.numel() == 0
        network(pictures(3))
        network(pictures(2, size=96))
    maps = seen.maps()
    assert maps.shape == (2, 3, 3, 3)
    chosen = seen.maps(torch.tensor([[2, 0], [1, 1]]))
    torch.testing.assert_close(chosen, torch.stack((maps[0, [2, 0]], maps[1, [1, 1]])))
    with torch.no_grad():
        _, logits = network(pictures(2, size=96))
    difference = maps[:, 2].sum((1, 2)) - maps[:, 0].sum((1, 2))
    bias = network.model[-1].linear.bias.detach()
    torch.testing.assert_close(difference + bias[2] - bias[0], logits[:, 2] - logits[:, 0], rtol=1e-5, atol=1e-5)


def test_no_hook_is_left_even_after_an_error(build: Callable[..., nn.Module]) -> None:
    network: Any = build("yolo11n-cls")
    with pytest.raises(KeyError), watch_classifier(network):
        raise KeyError
    assert not network.model[-1].conv._forward_hooks


def test_features_of_half_precision_make_single_precision_maps(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network: Any = build("yolo11n-cls").half()
    with watch_classifier(network) as seen, torch.no_grad():
        _, logits = network(pictures(2).half())
    assert seen.maps().dtype == torch.float32
    expected = logits.float() - network.model[-1].linear.bias.detach().float()
    torch.testing.assert_close(seen.maps().sum((2, 3)), expected, rtol=1e-2, atol=1e-2)


def test_a_detector_has_no_class_maps(build: Callable[..., nn.Module]) -> None:
    with pytest.raises(ArgumentError, match="Detect"), watch_classifier(build("yolo11n")):
        raise AssertionError("a detector was watched")


def test_class_maps_are_what_the_pass_gives_at_the_last_convolution(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network = build("yolo11n-cls")
    with watch_classifier(network) as seen, forward(network, pictures(2), [0]) as run:
        pass
    bias = network.model[-1].linear.bias.detach()  # type: ignore[index]
    torch.testing.assert_close(seen.maps().sum((2, 3)) + bias, run.outputs.logits.detach(), rtol=1e-5, atol=1e-5)
