import pytest
import torch
from ultralytics.nn.modules import C2PSA, C2f, C3k2

from mlflow_yolo.compression.pruning.halves import Halved, halve_blocks, join_blocks

NETWORKS = [f"yolo{version}n{task}" for version in ("v8", "11", "26") for task in ("", "-seg", "-cls")]


def tensors(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in (outputs.values() if isinstance(outputs, dict) else outputs) for tensor in tensors(part)]


def same(first, second):
    first, second = tensors(first), tensors(second)
    return len(first) == len(second) > 0 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_taking_apart_and_joining_changes_no_bit_of_any_output(name, network_of, images):
    network, stock = network_of(name), network_of(name)
    with torch.no_grad():
        expected = stock(images)
        halve_blocks(network)
        kinds = [type(block) for block in network.model]
        assert Halved in kinds
        assert not {C2f, C3k2, C2PSA} & set(kinds)
        assert same(network(images), expected)
        join_blocks(network)
        assert same(network(images), expected)
    assert [type(block) for block in network.model] == [type(block) for block in stock.model]
    assert [name for name, _ in network.named_modules()] == [name for name, _ in stock.named_modules()]
    state = stock.state_dict()
    assert list(network.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_training_mode_and_its_batch_statistics_survive(name, network_of, images):
    network, stock = network_of(name).train(), network_of(name).train()
    halve_blocks(network)
    assert all(module.training for module in network.modules())
    with torch.no_grad():
        assert same(network(images), stock(images))
    join_blocks(network)
    state = stock.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_batch_norm_keeps_its_epsilon_and_momentum(network_of):
    network = network_of("yolo11n")
    halve_blocks(network)
    join_blocks(network)
    norm = network.model[2].cv1.bn
    assert (norm.eps, norm.momentum) == (1e-3, 0.03)  # Ultralytics' own, not PyTorch's 1e-5 and 0.1


def test_halves_of_different_widths_are_not_joined(network_of):
    network = network_of("yolo11n")
    halve_blocks(network)
    network.model[2].cv1 = network.model[4].cv1
    with pytest.raises(AssertionError, match="halves"):
        join_blocks(network)
