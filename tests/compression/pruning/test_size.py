import pytest
import torch
from torch import nn
from ultralytics.nn.modules.block import Attention

from mlflow_yolo.compression.pruning.size import compare_widths, count_macs, measure_size, removed_share


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo11n-cls", "yolo26n"])
def test_multiply_adds_are_those_of_convolutions_linear_layers_and_attention(name, network_of):
    counted = []

    def count(layer, inputs, output):
        if isinstance(layer, nn.Linear):
            counted.append(layer.in_features * layer.out_features)
        elif isinstance(layer, nn.ConvTranspose2d):  # every input pixel meets the whole kernel
            counted.append(inputs[0][0].numel() * layer.out_channels * layer.kernel_size[0] ** 2)
        elif isinstance(layer, nn.Conv2d):
            area = layer.kernel_size[0] * layer.kernel_size[1]
            counted.append(output[0].numel() * layer.in_channels // layer.groups * area)
        elif isinstance(layer, Attention):  # query with key, then attention with value
            positions = inputs[0].shape[2] * inputs[0].shape[3]
            counted.append(layer.num_heads * positions**2 * (layer.key_dim + layer.head_dim))

    network = network_of(name)
    deployed = network_of(name).fuse(verbose=False)
    for layer in deployed.modules():
        layer.register_forward_hook(count)
    with torch.no_grad():
        deployed(torch.zeros(1, 3, 64, 64))
    assert count_macs(network, 64) == sum(counted)
    assert hasattr(network.model[0], "bn")  # it was a copy that was fused


def test_macs_of_the_stem_alone(network_of):
    network = network_of("yolov8n-cls")
    more = count_macs(network, 96) / count_macs(network, 64)
    assert 2.0 < more < 2.25  # (96 / 64)^2, less what does not depend on the size


def test_widths_and_parameters(network_of):
    size = measure_size(network_of("yolov8n-seg"), 64)
    assert size.widths["model.0"] == 8
    assert size.widths["model.2.cv1"] == 16
    assert size.widths["model.22.cv3.0.2"] == 3
    assert size.widths["model.22.proto.upsample"] == 32  # of a transposed convolution the second dimension
    assert size.parameters == sum(parameter.numel() for parameter in network_of("yolov8n-seg").parameters())


def test_widths_side_by_side(network_of):
    before, after = (measure_size(network_of("yolov8n-cls"), 32) for _ in range(2))
    after.widths["model.1"] = 6
    changed = [width for width in compare_widths(before, after) if width.before != width.after]
    assert [(width.block, width.layer, width.before, width.after) for width in changed] == [(1, "model.1", 16, 6)]
    assert removed_share(before, after) == pytest.approx(10 / sum(before.widths.values()))
