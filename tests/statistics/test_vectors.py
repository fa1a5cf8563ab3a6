import numpy as np
import pytest
import torch
from torch import Tensor

from mlflow_yolo.statistics.vectors import ManyBlocks, OneBlock, to_host

SIZES = [1, 700, 40_000]


def vector(seed: int) -> Tensor:
    return torch.randn(sum(SIZES), generator=torch.Generator().manual_seed(seed)) + 0.1


def reduce_by(name: str, *vectors: Tensor, together: bool) -> np.ndarray:
    """Return the numbers of one reduction, (3,) or (3, 2)."""
    if together:
        found = getattr(ManyBlocks(SIZES, torch.device("cpu")), name)(*vectors)
        return torch.stack(found, 1).numpy() if isinstance(found, tuple) else found.numpy()
    parts = zip(*(v.split(SIZES) for v in vectors), strict=True)
    return np.array([getattr(OneBlock(torch.empty(len(part[0]))), name)(*part) for part in parts])


@pytest.mark.parametrize("together", [False, True])
def test_reductions_of_blocks_equal_numpy_in_double_precision(together: bool) -> None:
    left, right = vector(0), vector(1)
    pairs = [
        (a.double().numpy(), b.double().numpy()) for a, b in zip(left.split(SIZES), right.split(SIZES), strict=True)
    ]
    expected = {
        "total": [a.sum() for a, _ in pairs],
        "l2": [np.sqrt((a**2).sum()) for a, _ in pairs],
        "l1_and_max": [(np.abs(a).sum(), np.abs(a).max()) for a, _ in pairs],
    }
    for name, values in expected.items():
        assert reduce_by(name, left, together=together) == pytest.approx(np.array(values), rel=1e-5)
    dots = reduce_by("dot", left, right, together=together)
    assert dots == pytest.approx(np.array([a @ b for a, b in pairs]), rel=1e-4, abs=1e-2)
    distances = reduce_by("distance", left, right, together=together)
    assert distances == pytest.approx(np.array([np.linalg.norm(a - b) for a, b in pairs]), rel=1e-5)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_element_shows_in_its_block_only(together: bool, bad: float) -> None:
    broken = vector(0)
    broken[5] = bad
    assert np.isfinite(reduce_by("l2", broken, together=together)).tolist() == [True, False, True]
    magnitudes = reduce_by("l1_and_max", broken, together=together)
    assert np.isfinite(magnitudes).tolist() == [[True, True], [False, False], [True, True]]


@pytest.mark.parametrize("together", [False, True])
def test_reductions_leave_the_vectors_as_they_are(together: bool) -> None:
    left, right = vector(0), vector(1)
    for name in ("total", "l2", "l1_and_max"):
        reduce_by(name, left, together=together)
    for name in ("dot", "distance"):
        reduce_by(name, left, right, together=together)
    assert torch.equal(left, vector(0))
    assert torch.equal(right, vector(1))


def test_tensors_come_back_to_the_host_with_their_shapes() -> None:
    tensors = [torch.tensor(1.5), torch.arange(6.0).reshape(2, 3), torch.empty(0), torch.tensor([7.0])]
    arrays = to_host(tensors)
    assert [array.shape for array in arrays] == [(), (2, 3), (0,), (1,)]
    assert all(np.array_equal(a, t.numpy()) for a, t in zip(arrays, tensors, strict=True))
    assert to_host([]) == []
