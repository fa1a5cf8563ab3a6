import numpy as np
import pytest
import torch

from mlflow_yolo.compression.pruning.groups import find_groups
from mlflow_yolo.compression.pruning.halves import halve_blocks
from mlflow_yolo.compression.pruning.importance import channel_importance, loss_gradients
from mlflow_yolo.exceptions import ArgumentError


def group_of(network, name):
    halve_blocks(network)
    return next(group for group in find_groups(network) if group.name == name)


def parts(network, value):
    """What makes the stem's channels (a convolution, a batch norm) and what reads them, reduced by `value`."""
    stem, after = network.model[0], network.model[1].conv
    made = value(stem.conv.weight).reshape(len(stem.conv.weight), -1).sum(1)
    read = value(after.weight).transpose(1, 0, 2, 3).reshape(after.in_channels, -1).sum(1)
    return made, value(stem.bn.weight), read


@pytest.mark.parametrize(("kind", "power"), [("l1", 1), ("l2", 2)])
def test_magnitude_is_the_mean_over_the_layers_that_make_or_read_a_channel(kind, power, network_of):
    network = network_of("yolov8n-cls")
    made, scale, read = parts(network, lambda weight: np.abs(weight.detach().numpy()) ** power)
    expected = (made + scale + read) / 3
    found = channel_importance(group_of(network, "model.0"), kind)
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-5)


def test_batch_norm_importance_is_its_scale(network_of):
    network = network_of("yolov8n-cls")
    scale = network.model[0].bn.weight.detach().abs().numpy()
    np.testing.assert_allclose(channel_importance(group_of(network, "model.0"), "bn"), scale / scale.mean(), rtol=1e-5)


def test_a_group_without_batch_norm_falls_back_to_l2(network_of):
    network = network_of("yolov8n-seg")
    group = group_of(network, "model.22.proto.upsample")
    torch.testing.assert_close(channel_importance(group, "bn"), channel_importance(group, "l2"))
    assert channel_importance(group, "l2").std() > 0


def test_taylor_importance_is_weight_times_gradient_of_the_summed_loss(network_of, batches):
    network = network_of("yolov8n-cls")
    batches = [{"img": batch["img"], "cls": torch.tensor([0, 2])} for batch in batches]
    reference = network_of("yolov8n-cls").train()
    for batch in batches:
        torch.nn.functional.cross_entropy(reference(batch["img"]), batch["cls"]).backward()
    made, _, read = parts(reference, lambda weight: (weight * weight.grad).detach().abs().numpy())
    expected = (made + read) / 2
    group = group_of(network, "model.0")
    with loss_gradients(network, batches):
        found = channel_importance(group, "taylor")
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-3)


@pytest.mark.parametrize("name", ["yolo26n", "yolo26n-seg"])
def test_gradients_leave_no_trace(name, network_of, batches):
    network = network_of(name)
    before, arguments = {key: value.clone() for key, value in network.state_dict().items()}, dict(network.args)
    with loss_gradients(network, batches):
        assert all(parameter.grad is not None for parameter in network.parameters())
        assert any(float(parameter.grad.abs().sum()) > 0 for parameter in network.model[-1].one2one_cv2.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.args == arguments
    assert network.criterion is None
    assert not network.training


def test_channels_without_any_gradient_are_worth_nothing(network_of, batches):
    network = network_of("yolov8n-cls")
    group = group_of(network, "model.0")
    with loss_gradients(network, [{"img": batches[0]["img"], "cls": torch.tensor([0, 2])}]):
        for parameter in network.parameters():
            parameter.grad.zero_()
        assert channel_importance(group, "taylor").tolist() == [0.0] * group.n_channels


def test_gradients_of_no_batch_are_refused(network_of):
    network = network_of("yolov8n-cls")
    with pytest.raises(ArgumentError, match="no training batches"), loss_gradients(network, []):
        pass
    assert not network.training
