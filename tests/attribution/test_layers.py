from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.attribution.layers import Layers, read_layers
from mlflow_yolo.exceptions import ArgumentError

STAGES = (2, 4, 4, 8, 8, 16, 16, 32, 32)


@pytest.mark.parametrize(
    ("name", "by_level"),
    [
        ("yolov8n", (4, 6, 8)),
        ("yolo11n", (4, 6, 8)),
        ("yolo26n", (4, 6, 8)),
        ("yolo26n-seg", (4, 6, 8)),
        ("yolo11n-pose", (4, 6, 8)),
        ("yolo11n-obb", (4, 6, 8)),
        ("yolov8n-p2", (2, 4, 6, 8)),
        ("yolov8n-p6", (4, 6, 8, 10)),
        ("yolov8n-cls", (8,)),
        ("yolo11n-cls", (9,)),
        ("yolo26n-cls", (9,)),
    ],
)
def test_the_default_block_is_the_backbone_stage_of_the_level(
    name: str, by_level: tuple[int, ...], build: Callable[..., nn.Module]
) -> None:
    layers = read_layers(build(name))
    assert layers.by_level == by_level
    assert layers.strides[:9] == STAGES
    assert layers.strides[-1] == 0


@pytest.mark.parametrize("name", ["yolo11n", "yolo11n-cls"])
def test_strides_are_those_of_the_blocks_outputs(
    name: str, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network = build(name)
    layers = read_layers(network)
    with_grid = [i for i, stride in enumerate(layers.strides) if stride]
    with forward(network, pictures(1, size=64), with_grid) as run:
        for block in with_grid:
            assert run.activations[block].shape[-1] == 64 // layers.strides[block]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_models_of_any_channels_can_be_read(channels: int, build: Callable[..., nn.Module]) -> None:
    assert read_layers(build("yolo11n", channels=channels)).by_level == (4, 6, 8)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_reading_leaves_the_model_as_it_was(fused: bool, build: Callable[..., nn.Module]) -> None:
    network: Any = build("yolo26n", fused=fused).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    anchors = network.model[-1].anchors
    read_layers(network)
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())
    assert network.model[-1].anchors is anchors
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_half_precision_model_can_be_read_in_inference_mode(build: Callable[..., nn.Module]) -> None:
    with torch.inference_mode():
        assert read_layers(build("yolo11n").half()).by_level == (4, 6, 8)


@pytest.mark.parametrize("block", [3, -1, -6, 17, 99, -99])
def test_a_block_without_a_grid_is_an_error_that_names_one_with(block: int) -> None:
    layers = Layers((2, 4, 8, 0, 0), (2,))
    with pytest.raises(ArgumentError, match=rf"block={block} .*block=2"):
        layers.check(block)


def test_a_block_can_be_counted_from_the_end() -> None:
    layers = Layers((2, 4, 8, 0), (2,))
    assert [layers.check(block) for block in (0, 2, -2, -4)] == [0, 2, 2, 0]


def test_the_deepest_block_with_enough_cells() -> None:
    layers = Layers((*STAGES, 32, 0), (9,))
    assert layers.deepest_with(16, (224, 224)) == 9  # 7 x 7
    assert layers.deepest_with(16, (32, 32)) == 4  # 8 pixels a cell: 4 x 4
    assert layers.deepest_with(16, (64, 64)) == 6
    assert layers.deepest_with(16, (100, 100)) == 9  # a rest of a cell is a cell: 4 x 4 of 32 pixels
    assert layers.deepest_with(16, (2, 2)) == 0  # no block has that many


def test_what_has_no_blocks_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="Linear"):
        read_layers(nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_what_is_upstream_of_a_level_is_what_has_a_gradient_from_it(name: str, build: Callable[..., nn.Module]) -> None:
    network = build(name)
    layers = read_layers(network)
    blocks = [block for block, stride in enumerate(layers.strides) if stride]
    with forward(network, torch.rand(1, 3, 64, 64), blocks, branch="auto") as run:
        for level, upstream in enumerate(layers.upstream):
            score = run.outputs.logits[0, :, run.outputs.levels == level].sum()  # type: ignore[union-attr]
            found = run.gradients(score, blocks)
            assert {block for block, gradient in found.items() if gradient.any()} == upstream - {
                len(layers.strides) - 1
            }


def test_a_block_that_some_level_is_not_made_from_is_refused_with_one_that_works(
    build: Callable[..., nn.Module],
) -> None:
    layers = read_layers(build("yolo11n"))
    assert layers.check_sees_all(4) == 4
    assert layers.check_sees_all(16) == 16
    with pytest.raises(ArgumentError, match=r"block=22 has no influence on predictions of stride 8 and 16.*block=4"):
        layers.check_sees_all(22)
    assert read_layers(build("yolo11n-cls")).check_sees_all(9) == 9
