"""The place around an optimizer step: what is called there, what is overheard, and that nothing is left behind."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlflow_yolo.tracking.blocks.optimizer_hook import OptimizerHook

CLIPPING = torch.nn.utils.clip_grad
STOCK = CLIPPING._get_total_norm  # type: ignore[attr-defined]


class Trainer:
    def __init__(self) -> None:
        self.weights = torch.nn.Parameter(torch.zeros(2))
        self.weights.grad = torch.tensor([3.0, 4.0])
        self.fails = False

    def optimizer_step(self) -> None:
        torch.nn.utils.clip_grad_norm_([self.weights], max_norm=1.0)
        if self.fails:
            raise RuntimeError("out of memory")


@pytest.fixture
def seen() -> list[Any]:
    """Return what the hook has told, in order."""
    return []


def hook_of(seen: list[Any]) -> OptimizerHook:
    return OptimizerHook(
        lambda _: seen.append("before"), lambda norm: seen.append(float(norm)), lambda _: seen.append("after")
    )


def test_the_norm_is_told_between_before_and_after_and_clipping_is_as_ever(seen: list[Any]) -> None:
    trainer, hook = Trainer(), hook_of(seen)
    hook.attach(trainer)
    hook.attach(trainer)  # a second time changes nothing
    trainer.optimizer_step()

    assert seen == ["before", 5.0, "after"]
    assert torch.allclose(trainer.weights.grad, torch.tensor([0.6, 0.8]))  # type: ignore[arg-type]
    hook.detach()
    assert "optimizer_step" not in vars(trainer)


def test_torchs_function_is_given_back_even_where_the_step_fails(seen: list[Any]) -> None:
    trainer, hook = Trainer(), hook_of(seen)
    hook.attach(trainer)
    trainer.fails = True
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.optimizer_step()

    assert CLIPPING._get_total_norm is STOCK  # type: ignore[attr-defined]
    torch.nn.utils.clip_grad_norm_([trainer.weights], max_norm=1.0)
    assert seen == ["before", 5.0]


def test_two_trainings_in_two_threads_hear_their_own_norm_and_leave_nothing_behind() -> None:
    heard: dict[int, list[float]] = {0: [], 1: []}
    both_inside = threading.Barrier(2)

    def train(number: int) -> None:
        trainer = SimpleNamespace(weights=torch.nn.Parameter(torch.zeros(1)))
        trainer.weights.grad = torch.full((1,), 1.0 + number)

        def step() -> None:
            both_inside.wait(10)
            torch.nn.utils.clip_grad_norm_([trainer.weights], max_norm=100.0)
            both_inside.wait(10)

        trainer.optimizer_step = step
        hook = OptimizerHook(lambda _: None, lambda norm: heard[number].append(float(norm)), lambda _: None)
        hook.attach(trainer)
        trainer.optimizer_step()
        hook.detach()
        assert trainer.optimizer_step is step

    threads = [threading.Thread(target=train, args=(number,)) for number in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {0: [1.0], 1: [2.0]}
    assert CLIPPING._get_total_norm is STOCK  # type: ignore[attr-defined]


def test_a_torch_without_that_function_tells_nothing(seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, hook = Trainer(), hook_of(seen)
    trainer.optimizer_step = lambda: None  # type: ignore[method-assign]
    monkeypatch.delattr(CLIPPING, "_get_total_norm")
    hook.attach(trainer)
    trainer.optimizer_step()

    assert seen == ["before", "after"]
    assert not hasattr(CLIPPING, "_get_total_norm")
