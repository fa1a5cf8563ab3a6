import pytest
import torch
from ultralytics.nn.modules.block import Attention

from mlflow_yolo.compression.pruning.groups import find_groups
from mlflow_yolo.compression.pruning.halves import Halved, halve_blocks

NETWORKS = [f"yolo{version}n{task}" for version in ("v8", "11", "26") for task in ("", "-seg", "-cls")]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_put_out_and_attention_is_in_no_group(name, network_of):
    network = network_of(name)
    halve_blocks(network)
    written = {layer for group in find_groups(network) for layer, _ in group.writers}
    head = network.model[-1]
    place = f"model.{len(network.model) - 1}"
    if name.endswith("-cls"):
        fixed = {f"{place}.linear"}
    else:
        branches = [f"{one}cv{i}" for one in ("", "one2one_") for i in (2, 3, 4) if hasattr(head, f"{one}cv{i}")]
        fixed = {f"{place}.{branch}.{level}.2" for branch in branches for level in range(3)} | {f"{place}.dfl"}
        fixed |= {f"{place}.proto.cv3", f"{place}.proto.semseg.2"}
    attention = {
        f"{block}.{layer}"
        for block, module in network.named_modules()
        if isinstance(module, Attention)
        for layer in ("qkv", "proj", "pe")
    }
    assert not written & (fixed | attention)
    assert f"{place}.conv" in written if name.endswith("-cls") else f"{place}.cv2.0.0" in written


def test_both_halves_are_there_or_neither(network_of):
    network = network_of("yolo26n")
    halve_blocks(network)
    found = {group.name for group in find_groups(network)}
    halves = {name: block for name, block in network.named_modules() if isinstance(block, Halved)}
    paired = {name for name in halves if f"{name}.cv0" in found}
    assert paired == {name for name in halves if f"{name}.cv1" in found}
    assert set(halves) - paired == {"model.10", "model.22"}  # C2PSA, and C3k2 with attention


def test_layers_that_are_added_together_form_one_group(network_of):
    network = network_of("yolov8n")
    halve_blocks(network)
    group = next(group for group in find_groups(network) if group.name == "model.4.cv1")
    assert [layer for layer, _ in group.writers] == ["model.4.cv1", "model.4.m.0.cv2", "model.4.m.1.cv2"]


def test_what_is_read_by_a_depthwise_convolution_goes_with_it(network_of):
    network = network_of("yolo11n")
    halve_blocks(network)
    group = next(group for group in find_groups(network) if group.name == "model.16.cv2")
    assert "model.23.cv3.0.0.0" in [layer for layer, _ in group.writers]


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n-seg"])
def test_network_is_left_as_it_was(name, network_of, images):
    network = network_of(name)
    halve_blocks(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    find_groups(network)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_readers_come_with_the_place_a_channel_has_among_their_inputs(network_of):
    network = network_of("yolov8n")
    halve_blocks(network)
    width = network.model[2].cv0.conv.out_channels
    groups = {group.name: group for group in find_groups(network)}
    ((reader, places),) = groups["model.2.cv0"].readers([1, 3])
    assert (reader, places) == (network.model[2].cv2.conv, [1, 3])
    readers = {reader: sorted(places) for reader, places in groups["model.2.cv1"].readers([0])}
    # cv2 reads cv0, cv1 and the bottleneck's sum, one after the other
    assert readers == {network.model[2].m[0].cv1.conv: [0], network.model[2].cv2.conv: [width, 2 * width]}
