import numpy as np
import torch

from mlflow_yolo.statistics.vectors import flatten, to_host


def test_a_flat_vector_holds_all_elements_in_order_and_is_a_copy() -> None:
    first, second = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0])
    vector = flatten([first, second])
    vector.mul_(0)
    assert torch.equal(flatten([first, second]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))


def test_a_single_tensor_is_copied_too() -> None:
    only = torch.ones(3)
    flatten([only]).zero_()
    assert torch.equal(only, torch.ones(3))


def test_memory_layout_does_not_change_the_elements() -> None:
    weight = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.equal(flatten([weight.to(memory_format=torch.channels_last)]), flatten([weight]))


def test_half_precision_becomes_single_and_double_stays() -> None:
    assert flatten([torch.ones(2, dtype=torch.float16)]).dtype == torch.float32
    assert flatten([torch.ones(2, dtype=torch.float64)]).dtype == torch.float64


def test_no_tensors_give_an_empty_vector_and_nothing_on_the_host() -> None:
    assert flatten([]).numel() == 0
    assert to_host([]) == []


def test_tensors_come_back_to_the_host_with_their_shapes() -> None:
    tensors = [torch.tensor(1.5), torch.arange(6.0).reshape(2, 3), torch.empty(0), torch.tensor([7.0])]
    arrays = to_host(tensors)
    assert [array.shape for array in arrays] == [(), (2, 3), (0,), (1,)]
    assert all(np.array_equal(a, t.numpy()) for a, t in zip(arrays, tensors, strict=True))
