from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.statistics.drift import DRIFT
from mlflow_yolo.statistics.gradient_noise import GRADIENT_NOISE
from mlflow_yolo.statistics.gradients import GRADIENTS
from mlflow_yolo.statistics.stretch import Layout
from mlflow_yolo.statistics.weights import WEIGHTS


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """Switch automatic differentiation off, as the collector does around all of it."""
    with torch.no_grad():
        yield


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 2, 2), (4,), (7,), (30, 5)]
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def layout_of(tensors: list[nn.Parameter], *, together: bool = False) -> Layout:
    """Return a layout in which block 2 has the first two parameters, 5 the third and 9 the last."""
    return Layout([(b, p, p.detach().clone()) for b, p in zip((2, 2, 5, 9), tensors, strict=True)], together=together)


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def read(layout: Layout, what: str) -> Tensor:
    return torch.cat([getattr(stretch, what) for stretch in layout.stretches])


def step(layout: Layout, gradients: list[Tensor], *, scale: float = 1.0) -> None:
    """Read everything around a step that moves the weights by -0.1 of the gradients."""
    layout.read_weights()
    layout.read_gradients(gradients, scale)
    for p, g in zip(layout.parameters, gradients, strict=True):
        p.sub_(g, alpha=0.1)


@pytest.mark.parametrize("together", [False, True])
def test_vectors_hold_the_parameters_block_by_block(together: bool) -> None:
    tensors = parameters()
    layout = layout_of(tensors, together=together)
    layout.read_weights()
    assert torch.equal(read(layout, "weights"), flat(tensors))
    assert [block for stretch in layout.stretches for block in stretch.sizes] == [2, 5, 9]
    assert layout.sizes.tolist() == [52, 7, 150]
    assert len(layout.stretches) == (1 if together else 3)


@pytest.mark.parametrize("together", [False, True])
def test_measures_give_the_same_for_blocks_apart_and_together(together: bool) -> None:
    tensors = parameters()
    layout = layout_of(tensors, together=together)
    gradients = [torch.ones_like(p) * (i + 1) for i, p in enumerate(tensors)]
    step(layout, gradients)
    sums = []
    for stretch in layout.stretches:
        stretch.read_step()
        stretch.add_gradient(True)
        for measure in (GRADIENTS, WEIGHTS, DRIFT, GRADIENT_NOISE):
            sums += measure.reduce(stretch)
    found = layout.by_block(sums)
    blocks = [flat(gradients[:2]), flat(gradients[2:3]), flat(gradients[3:])]
    update_l2 = [0.1 * float(g.norm()) for g in blocks]
    assert found.shape == (3, 10)
    assert found[:, 0].tolist() == pytest.approx([float(g.sum()) for g in blocks], rel=1e-6)
    assert found[:, 2].tolist() == [2.0, 3.0, 4.0]
    assert found[:, 3].tolist() == pytest.approx(update_l2, rel=1e-5)
    assert found[:, 6].tolist() == pytest.approx(update_l2, rel=1e-5)  # drift: so far one step
    assert found[:, 9].tolist() == pytest.approx([float(g.norm()) for g in blocks], rel=1e-6)


def test_the_update_is_what_was_added_and_the_copies_of_gradients_are_unscaled() -> None:
    tensors = parameters()
    layout = layout_of(tensors, together=True)
    gradients = [torch.full_like(p, 8.0) for p in tensors]
    before = flat(tensors).clone()
    step(layout, gradients, scale=4.0)
    layout.stretches[0].read_step()
    assert torch.equal(layout.stretches[0].update, flat(tensors) - before)
    assert torch.equal(layout.stretches[0].gradient, torch.full((209,), 2.0))
    assert float(gradients[0].max()) == 8.0


def test_gradients_in_another_memory_layout_go_with_their_weights() -> None:
    tensors = parameters()
    layout = layout_of(tensors)
    rows = tensors[0].detach().contiguous(memory_format=torch.channels_last)
    layout.read_gradients([rows, *(p.detach() for p in tensors[1:])], 1.0)
    layout.read_weights()
    assert torch.equal(read(layout, "gradient"), read(layout, "weights"))


def test_a_missing_gradient_is_zero_in_the_vector_and_not_counted() -> None:
    tensors = parameters()
    layout = layout_of(tensors)
    gradients = [None, torch.ones(4), None, torch.ones(30, 5)]
    layout.read_gradients(gradients, 1.0)
    assert [float(stretch.gradient.sum()) for stretch in layout.stretches] == [4.0, 0.0, 150.0]
    assert layout.elements_with(gradients).tolist() == [4, 0, 150]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_reduced_in_single(dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.zeros(4, dtype=dtype))
    layout = Layout([(0, parameter, parameter.detach())])
    norms = layout.read_gradients([torch.full((4,), 49152.0, dtype=dtype)], 1.0)
    assert norms.tolist() == [98304.0]  # beyond float16
    assert layout.stretches[0].gradient.dtype == torch.float32


def test_double_precision_stays() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 1e-12], dtype=torch.float64))
    layout = Layout([(0, parameter, parameter.detach())])
    layout.read_weights()
    assert float(layout.stretches[0].weight_total) == 1.0 + 1e-12


def test_weights_are_read_again_only_if_they_were_changed() -> None:
    tensors = parameters()
    layout = layout_of(tensors)
    layout.read_weights()
    for change in (
        lambda: tensors[0].mul_(2.0),
        lambda: setattr(tensors[1], "data", torch.ones(4)),
        lambda: tensors[3].copy_(torch.zeros(30, 5)),
    ):
        change()
        layout.read_weights()
        assert torch.equal(read(layout, "weights"), flat(tensors))
        layout.stretches[0].weights.fill_(7.0)
        layout.read_weights()
        assert read(layout, "weights")[0] == 7.0  # not read again
        tensors[2].add_(0.0)
        layout.read_weights()
        assert read(layout, "weights")[0] == tensors[0].flatten()[0]


def test_weights_that_are_not_contiguous_are_read_at_every_step() -> None:
    tensors = parameters()
    tensors[0].data = tensors[0].detach().contiguous(memory_format=torch.channels_last)
    layout = layout_of(tensors)
    for _ in range(2):
        layout.read_weights()
        assert torch.equal(read(layout, "weights"), flat(tensors))
        tensors[0].add_(1.0)


def test_an_optimizer_may_put_the_weights_elsewhere() -> None:
    tensors = parameters()
    layout = layout_of(tensors, together=True)
    layout.read_weights()
    tensors[2].data = tensors[2].detach() + 5.0
    layout.expect_step()
    layout.stretches[0].read_step()
    assert layout.stretches[0].update.sum() == pytest.approx(7 * 5.0, rel=1e-5)


def test_only_a_finite_gradient_is_added() -> None:
    tensors = parameters()
    stretch = layout_of(tensors, together=True).stretches[0]
    for value, finite in (
        (1.0, True),
        (float("nan"), False),
        (2.0, torch.tensor(True)),
        (float("inf"), torch.tensor(False)),
    ):
        stretch.read_gradient([torch.full_like(p, value) for p in tensors], 1.0)
        stretch.add_gradient(finite)
    assert torch.equal(stretch.gradient_sum, torch.full((209,), 3.0))


def test_references_are_views_in_the_shape_of_the_parameters() -> None:
    tensors = parameters()
    for together in (False, True):
        layout = layout_of(tensors, together=together)
        references = layout.references()
        assert all(torch.equal(r, p) for r, p in zip(references, tensors, strict=True))
        layout.stretches[0].reference.zero_()
        assert not references[0].any()


def test_a_change_of_type_is_noticed() -> None:
    model = nn.Linear(2, 2)
    layout = Layout([(0, p, p.detach()) for p in model.parameters()])
    assert layout.is_in_place()
    model.double()
    assert not layout.is_in_place()


def test_blocks_and_owners_are_listed() -> None:
    layout = layout_of(parameters())
    assert np.array_equal(layout.owners, [2, 2, 5, 9])
    assert layout.blocks_there.tolist() == layout.blocks.tolist() == [2, 5, 9]
