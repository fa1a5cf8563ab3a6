"""The table of blocks, against hand arithmetic on a small model."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_yolo.blocks import Block, read_blocks
from mlflow_yolo.training.block_table import BlockRow, block_table


class Chain(nn.Module):
    """Two blocks in order, as an Ultralytics network holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.MaxPool2d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


CHAIN = (Block(0, "Conv2d", "backbone"), Block(1, "MaxPool2d", "head"))


def test_shapes_parameters_and_flops_are_those_of_hand_arithmetic() -> None:
    first, second = block_table(Chain(), CHAIN, imgsz=32)

    assert (first.block, first.part, first.input_shape, first.output_shape) == (
        "00-Conv2d",
        "backbone",
        "3x32x32",
        "8x16x16",
    )
    assert first.parameters == 3 * 8 * 3 * 3
    # Two operations a multiplication and addition, 27 of them for each of the 8 x 16 x 16 outputs.
    assert first.gflops == pytest.approx(2 * 27 * 8 * 16 * 16 / 1e9)
    assert (second.input_shape, second.output_shape, second.parameters) == ("8x16x16", "8x8x8", 0)


def test_flops_follow_the_area_and_parameters_do_not() -> None:
    small, large = (block_table(Chain(), CHAIN, imgsz=size)[0] for size in (32, 64))

    assert large.gflops == pytest.approx(4 * small.gflops)
    assert large.parameters == small.parameters


def test_times_are_positive_milliseconds() -> None:
    assert all(0 < row.ms < 1000 for row in block_table(Chain(), CHAIN, imgsz=32))


@pytest.fixture(scope="module")
def network(small_model: Path) -> Any:
    from ultralytics import YOLO

    return YOLO(small_model).model


@pytest.fixture(scope="module")
def rows(network: Any) -> list[BlockRow]:
    return block_table(network, read_blocks(network.yaml), imgsz=64)


def test_a_real_model_has_every_block_and_all_its_parameters(network: Any, rows: list[BlockRow]) -> None:
    assert len(rows) == len(network.model) == 24
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in network.parameters())


def test_the_flops_of_all_blocks_are_those_of_the_model(network: Any, rows: list[BlockRow]) -> None:
    from ultralytics.utils.torch_utils import get_flops

    assert sum(row.gflops for row in rows) == pytest.approx(get_flops(network, imgsz=64), rel=0.02)


def test_copies_have_shapes_and_no_parameters(rows: list[BlockRow]) -> None:
    concat = next(row for row in rows if row.block.endswith("Concat"))

    assert concat.parameters == 0
    assert concat.output_shape.split("x")[1:] == concat.input_shape.split("x")[1:]


def test_the_model_is_left_as_it_was(network: Any) -> None:
    before = copy.deepcopy(network.state_dict())
    network.train()
    block_table(network, read_blocks(network.yaml), imgsz=64)

    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_model_that_cannot_take_the_size_says_so() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        block_table(Chain(), CHAIN, imgsz=32, channels=1)
