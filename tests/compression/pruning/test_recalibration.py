import pytest
import torch
from torch import nn

from mlflow_yolo.compression.pruning.recalibration import recalibrate
from mlflow_yolo.exceptions import ArgumentError


def test_statistics_are_the_average_of_the_batches():
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=0.03)).eval()
    network[0].running_mean.fill_(9.0)
    first = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)  # mean 2, unbiased variance 2
    second = torch.tensor([5.0, 9.0]).reshape(2, 1, 1, 1)  # mean 7, unbiased variance 8
    recalibrate(network, [{"img": first}, {"img": second}])
    assert network[0].running_mean.item() == 4.5
    assert network[0].running_var.item() == 5.0
    assert network[0].momentum == 0.03
    assert not network.training


def test_weights_stay_and_outputs_follow_the_new_statistics(network_of, batches):
    network = network_of("yolo11n-cls")
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    recalibrate(network, batches)
    assert all(torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())
    once = {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name}
    recalibrate(network, batches)  # nothing of the old statistics is left in the new ones
    assert all(torch.equal(buffer, once[name]) for name, buffer in network.named_buffers() if "running" in name)


def test_without_batches_nothing_is_forgotten(network_of):
    network = network_of("yolov8n-cls")
    before = network.model[0].bn.running_mean.clone()
    with pytest.raises(ArgumentError, match="no training batches"):
        recalibrate(network, iter([]))
    assert torch.equal(network.model[0].bn.running_mean, before)
