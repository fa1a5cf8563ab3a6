import numpy as np
import pytest
from torch import nn

from mlflow_yolo.statistics.channel_status import channel_status, status_fractions
from mlflow_yolo.statistics.channels import channel_table
from mlflow_yolo.statistics.layers import LayerChannels
from mlflow_yolo.statistics.saturation import pre_activations


def found(*rows: tuple[float, float, float]) -> LayerChannels:
    openness, spread, off = (np.array(column) for column in zip(*rows, strict=True))
    return LayerChannels(off, np.zeros(len(off)), openness, spread, 100)


def test_status_by_each_limit() -> None:
    rows = [
        (0.5, 1.0, 0.0),  # alive
        (0.5, 0.0009, 0.0),  # spread under a thousandth of the median
        (0.5, 0.0011, 0.0),  # just over
        (0.009, 1.0, 0.0),
        (0.011, 1.0, 0.0),
        (0.049, 1.0, 0.0),
        (0.051, 1.0, 0.0),
        (0.5, 1.0, 0.951),
        (0.5, 1.0, 0.949),
    ]
    health = found(*rows)
    status = channel_status(health.openness, health.spread, health.off_fraction)
    expected = ["alive", "dead", "alive", "dead", "near-dead", "near-dead", "alive", "near-dead", "alive"]
    assert status.tolist() == expected
    assert status_fractions(status) == pytest.approx({"dead_fraction": 2 / 9, "near_dead_fraction": 3 / 9})


def test_the_order_of_channels_and_the_scale_of_the_layer_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    openness, spread, off = rng.uniform(0, 0.1, 50), rng.uniform(0, 1, 50) ** 9, rng.uniform(0.9, 1, 50)
    status = channel_status(openness, spread, off)
    order = rng.permutation(50)
    assert channel_status(openness[order], spread[order] * 7, off[order]).tolist() == status[order].tolist()


def test_a_layer_without_any_spread_is_dead_as_a_whole_and_no_channel_gives_nothing() -> None:
    assert channel_status(np.ones(3), np.zeros(3), np.zeros(3)).tolist() == ["dead"] * 3
    assert channel_status(np.empty(0), np.empty(0), np.empty(0)).tolist() == []
    assert status_fractions([]) == {}


class ConvBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()


def test_the_table_has_one_row_a_channel_with_data_and_closed_form_side_by_side() -> None:
    with_norm, fused = ConvBlock(), ConvBlock()
    del fused.bn
    layers = [(4, layer) for block in (with_norm, fused, ConvBlock()) for layer in pre_activations(block)]
    health = found((0.5, 1.0, 0.2), (0.001, 1.0, 0.999))
    table = channel_table(layers, ["a", "b", "never ran"], {0: health, 1: health}, n_images=256)
    frame = table.to_frame()
    assert list(frame) == [
        *("block", "layer", "activation", "channel", "openness", "spread", "off_fraction"),
        *("bn_openness", "bn_off_fraction", "status", "n_images", "enough_images"),
    ]
    assert frame.layer.tolist() == ["a", "a", "b", "b"]
    assert frame.channel.tolist() == [0, 1, 0, 1]
    assert frame.status.tolist() == ["alive", "dead"] * 2
    assert frame.bn_off_fraction.tolist() == pytest.approx([0.5, 0.5, np.nan, np.nan], nan_ok=True)
    assert table.fractions(4) == {"dead_fraction": 0.5, "near_dead_fraction": 0.0}
    assert table.fractions(5) == {}
    assert frame.enough_images.all()


def test_too_few_images_are_said_and_no_layer_is_an_empty_table() -> None:
    table = channel_table([], [], {}, n_images=255)
    assert not table.enough_images
    assert len(table) == 0
    assert table.to_frame().empty
