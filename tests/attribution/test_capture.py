import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.attribution.capture import at_rest, forward
from mlflow_yolo.exceptions import ArgumentError

Snapshot = dict[str, Any]


def class_score(run: Any) -> Tensor:
    """Return a number that every anchor of every image takes part in."""
    logits: Tensor = run.outputs.logits
    return (logits * torch.linspace(-1, 1, logits.shape[-1])).sum()


def plainly_differentiated(network: nn.Module, images: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return the output of a block and its gradient by ordinary backpropagation from the input on."""
    kept: list[Tensor] = []
    children: Any = network.model
    handle = children[block].register_forward_hook(lambda module, inputs, output: kept.append(output))
    raw = network(images.clone().requires_grad_())[1]
    handle.remove()
    raw = raw.get("one2many", raw) if isinstance(raw, dict) else raw
    logits = raw["scores"] if isinstance(raw, dict) else raw
    score = (logits * torch.linspace(-1, 1, logits.shape[-1])).sum()
    return kept[0].detach(), torch.autograd.grad(score, kept[0])[0]


def snapshot(network: nn.Module) -> Snapshot:
    """Return everything about a model that an explanation could disturb."""
    head: Any = network.model[-1]  # type: ignore[index]
    return {
        "tensors": {name: (id(t), t._version, t.clone()) for name, t in network.state_dict(keep_vars=True).items()},
        "gradients": {
            name: (id(p.grad), p.grad.clone()) for name, p in network.named_parameters() if p.grad is not None
        },
        "requires_grad": {name: p.requires_grad for name, p in network.named_parameters()},
        "training": {name: module.training for name, module in network.named_modules()},
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in network.modules()
        ],
        "head": {name: id(value) for name, value in vars(head).items()},
        "random": torch.get_rng_state(),
    }


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def in_training(network: nn.Module, images: Tensor) -> nn.Module:
    """Return the model in the middle of an epoch: mode, frozen blocks and norms, gradients, cached anchors."""
    with torch.no_grad():
        network(images)  # the anchors of an evaluation
    network.train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(("model.0.", "model.3.")))
        if parameter.requires_grad and not name.startswith("model.5."):
            parameter.grad = torch.full_like(parameter, 0.5)
    children: Any = network.model
    children[3].eval()
    children[7].register_forward_hook(lambda module, inputs, output: None)
    return network


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n-seg", "yolo11n-cls"])
@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_a_model_in_training_is_given_back_untouched(
    name: str, fails: bool, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network = in_training(build(name), pictures(2))
    before = snapshot(network)
    try:
        with forward(network, pictures(2), [2, 4]) as run:
            run.gradients(class_score(run), [2, 4])
            if fails:
                raise KeyError("on purpose")
    except KeyError:
        assert fails
    assert same(snapshot(network), before)


def test_a_model_is_given_back_when_its_forward_pass_or_outputs_fail(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network = in_training(build("yolo11n"), pictures(1))
    before = snapshot(network)
    with pytest.raises(RuntimeError), forward(network, pictures(1, channels=4), [4]):
        raise AssertionError("an input of four channels went through")
    with pytest.raises(ArgumentError), forward(network, pictures(1), [4], branch="one2one"):
        raise AssertionError("a branch that is not there was read")
    assert same(snapshot(network), before)


def test_the_snapshot_sees_what_it_should(build: Callable[..., nn.Module], pictures: Callable[..., Tensor]) -> None:
    network = in_training(build("yolo11n"), pictures(1))
    before = snapshot(network)
    children: Any = network.model
    changes: list[Callable[[], Any]] = [
        lambda: children[3].train(),
        lambda: children[1].conv.weight.requires_grad_(False),
        lambda: children[1].conv.weight.grad.add_(1),
        lambda: children[1].bn.num_batches_tracked.add_(1),
        lambda: children[4].register_forward_hook(print),
        lambda: setattr(children[-1], "anchors", children[-1].anchors.clone()),
        lambda: setattr(children[-1], "shape", None),
        lambda: torch.rand(1),
    ]
    for change in changes:
        change()
        after = snapshot(network)
        assert not same(after, before)
        before = after


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize(("name", "block"), [("yolov8n", 4), ("yolo11n", 16), ("yolo26n", 6), ("yolo11n-cls", 2)])
def test_gradients_are_those_of_ordinary_backpropagation(
    name: str, block: int, fused: bool, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network = build(name, fused=fused, end_to_end=False if "26" in name else None).double()
    images = pictures(2).double()  # in single precision either is off by 1e-4
    activation, gradient = plainly_differentiated(network, images, block)
    with forward(network, images, [2, block]) as run:
        found = run.gradients(class_score(run), [2, block])
        again = run.gradients(class_score(run), [block])  # any number of times
    torch.testing.assert_close(run.activations[block].detach(), activation)
    scale = float(gradient.abs().max())
    assert scale > 0
    torch.testing.assert_close(found[block], gradient, atol=1e-9 * scale, rtol=1e-9)
    torch.testing.assert_close(again[block], gradient, atol=1e-9 * scale, rtol=1e-9)


def test_the_graph_begins_at_the_first_block_kept(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    with forward(build("yolo11n"), pictures(1), [6, 16]) as run:
        assert run.activations[6].is_leaf
        assert not run.activations[16].is_leaf
    with forward(build("yolo11n"), pictures(1), [6], needs_gradient=False) as run:
        assert not run.outputs.logits.requires_grad


def test_a_block_without_influence_has_a_gradient_of_zeros(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    with forward(build("yolo11n"), pictures(1), [4, 22]) as run:
        found = run.gradients(run.outputs.logits[0, 0, 0], [22, 4])  # the first anchor is of the finest level
    assert bool((found[22] == 0).all())
    assert found[22].shape == run.activations[22].shape
    assert bool((found[4] != 0).any())


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n", "yolo26n-seg", "yolo11n-obb", "yolo11n-pose", "yolo11n-cls"])
def test_a_batch_is_its_images_one_by_one(
    name: str, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network, images = build(name).double(), pictures(3).double()  # rounding differs with the size of a batch
    with forward(network, images, [4]) as run:
        together = run.gradients(class_score(run), [4])[4]
    for i in range(3):
        with forward(network, images[i : i + 1], [4]) as run:
            alone = run.gradients(class_score(run), [4])[4]
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-9 * float(alone.abs().max()), rtol=1e-9)


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_works_in_inference_mode_and_after_a_validation_in_it(
    name: str, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network: Any = build(name)
    with forward(network, pictures(2), [4]) as run:
        expected = run.gradients(class_score(run), [4])[4]
    with torch.inference_mode():
        network(pictures(2))  # a validation: the head keeps anchors that can take part in no graph
        anchors = network.model[-1].anchors
        assert anchors.is_inference()
        with forward(network, pictures(2), [4]) as run:
            inside = run.gradients(class_score(run), [4])[4]
        assert torch.is_inference_mode_enabled()
    with torch.no_grad(), forward(network, pictures(2), [4]) as run:
        after = run.gradients(class_score(run), [4])[4]
    assert network.model[-1].anchors is anchors
    torch.testing.assert_close(inside, expected)
    torch.testing.assert_close(after, expected)


def test_a_model_loaded_in_inference_mode_can_be_explained(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    with torch.inference_mode():
        loaded = build("yolo11n")
        images = pictures(1)
    assert next(loaded.parameters()).is_inference()
    found = []
    for network in (build("yolo11n"), loaded):
        with forward(network, images, [1]) as run:
            found.append(run.gradients(class_score(run), [1])[1])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["yolo11n", "yolo26n-seg", "yolo11n-cls"])
def test_a_half_precision_model_is_explained_in_single_precision(
    name: str, dtype: torch.dtype, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    rounded = build(name).to(dtype).float()
    half = copy.deepcopy(rounded).to(dtype)
    before = snapshot(half)
    found = []
    for network, images in ((rounded, pictures(1)), (half, pictures(1))):
        with forward(network, images, [4]) as run:
            found.append(run.gradients(class_score(run), [4])[4])
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0])
    assert same(snapshot(half), before)


def test_mixed_precision_around_it_changes_nothing(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network, found = build("yolo11n"), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), forward(network, pictures(1), [4]) as run:
            found.append(run.gradients(class_score(run), [4])[4])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_at_rest_leaves_no_anchors_behind_where_there_were_none(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network: Any = build("yolo11n")
    for name in ("shape", "anchors", "strides"):
        vars(network.model[-1]).pop(name, None)
    before = set(vars(network.model[-1]))
    with at_rest(network):
        network(pictures(1))
    assert set(vars(network.model[-1])) == before
