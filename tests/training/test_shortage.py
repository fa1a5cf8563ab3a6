"""Running out of memory or disk is told from every other failure."""

import errno

import pytest
import torch

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.training.shortage import is_shortage


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed."),
        WorkError("the training of seed 3 failed: OSError: [Errno 28] No space left on device"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:40],
)
def test_what_may_be_there_on_another_try(error: BaseException) -> None:
    assert is_shortage(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),  # a word of the input, not of the machine
        FileNotFoundError(errno.ENOENT, "No such file"),
        RuntimeError("shape mismatch"),
        ArgumentError("batch=0 is out of range."),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_fail_again(error: BaseException) -> None:
    assert not is_shortage(error)


def test_an_error_that_was_raised_from_a_shortage_is_one() -> None:
    cause = WorkError("could not be saved")
    cause.__cause__ = OSError(errno.ENOSPC, "No space left on device")

    assert is_shortage(cause)


def test_an_error_while_a_shortage_was_handled_is_one_unless_it_denies_it() -> None:
    def fail(*, from_none: bool) -> BaseException:
        try:
            try:
                raise MemoryError
            except MemoryError:
                if from_none:
                    raise WorkError("something else") from None
                raise WorkError("something else")  # noqa: B904
        except WorkError as error:
            return error

    assert is_shortage(fail(from_none=False))
    assert not is_shortage(fail(from_none=True))


def test_errors_that_refer_to_each_other_are_looked_at_once() -> None:
    one, other = RuntimeError("a"), RuntimeError("b")
    one.__cause__, other.__cause__ = other, one

    assert not is_shortage(one)
