from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.switch import Blocks, Clock, Record, Span, Step, Switch, Watch


class Trainer:
    """Calls its callbacks as Ultralytics' trainer does."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Any]] = {"step": []}
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        self.steps: list[str] = []

    def optimizer_step(self) -> None:
        self.steps.append("plain")

    def run(self, event: str) -> None:
        for callback in self.callbacks.get(event, []):
            callback(self)


@pytest.fixture
def trainer() -> Trainer:
    """Return a trainer with a callback of its own, and a watcher's callback, wrapped step and hook."""
    trainer = Trainer()
    trainer.callbacks["step"] = [own, watching]
    trainer.optimizer_step = lambda: trainer.steps.append("wrapped")  # type: ignore[method-assign]
    trainer.model[0].register_forward_hook(lambda *_: trainer.steps.append("hook"))
    return trainer


def own(trainer: Trainer) -> None:
    trainer.steps.append("own")


def watching(trainer: Trainer) -> None:
    trainer.steps.append("watched")


def train_one_step(trainer: Trainer) -> list[str]:
    trainer.steps.clear()
    trainer.run("step")
    trainer.model(torch.zeros(1, 2))
    trainer.optimizer_step()
    return list(trainer.steps)


def test_absent_watcher_leaves_nothing_of_itself_and_comes_back_whole(trainer: Trainer) -> None:
    told: list[bool] = []
    switch = Switch(trainer, own=[own], notify=told.append)
    assert train_one_step(trainer) == ["own", "watched", "hook", "wrapped"]

    switch.take_away()
    switch.take_away()
    assert train_one_step(trainer) == ["own", "plain"]

    switch.put_back()
    switch.put_back()
    assert train_one_step(trainer) == ["own", "watched", "hook", "wrapped"]
    assert told == [False, True]


def test_watcher_that_is_taken_away_by_a_callback_misses_the_rest_of_the_event(trainer: Trainer) -> None:
    def begin(_: Trainer) -> None:
        switch.take_away()

    trainer.callbacks["step"].insert(0, begin)
    switch = Switch(trainer, own=[begin, own], notify=lambda present: None)

    trainer.run("step")

    assert trainer.steps == ["own"]


def test_watcher_that_is_put_back_by_a_callback_waits_for_the_next_event(trainer: Trainer) -> None:
    def end(_: Trainer) -> None:
        switch.put_back()

    trainer.callbacks["step"].append(end)
    switch = Switch(trainer, own=[own, end], notify=lambda present: None)
    switch.take_away()

    trainer.run("step")
    assert trainer.steps == ["own"]
    trainer.run("step")
    assert trainer.steps == ["own", "own", "watched"]


def test_every_block_of_batches_comes_twice_as_copies() -> None:
    loader = [{"img": 0}, {"img": 1}, {"img": 2}, {"img": 3}]

    batches = list(Blocks(loader, 2))

    assert [batch["img"] for batch in batches] == [0, 1, 0, 1, 2, 3, 2, 3]
    assert len(Blocks(loader, 2)) == 8
    batches[0]["img"] = 9
    assert batches[2]["img"] == 0
    assert loader[0]["img"] == 0


def test_blocks_pass_on_everything_else_of_the_loader() -> None:
    assert Blocks(SimpleNamespace(num_workers=3), 2).num_workers == 3


def test_clock_stands_still_while_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter([10.0, 11.0, 15.0, 16.0])
    monkeypatch.setattr("benchmarks.switch.now", lambda: next(times))
    clock = Clock()

    assert clock() == 10.0
    clock.stop()  # at 11
    assert [clock(), clock()] == [11.0, 11.0]
    clock.go()  # at 15: 4 s were missed
    assert clock() == 12.0


def test_pairs_are_of_one_batch_and_leave_out_what_they_are_told() -> None:
    def step(block: int, place: int, watched: bool) -> Step:
        return Step(0, block, place, watched, 0, Span(100 * block + 10 * place + watched, 0.0))

    order = [(0, True), (1, True), (0, False), (1, False)]
    steps = [step(0, *at) for at in order] + [step(1, *at) for at in reversed(order)]

    pairs = Record(steps).pairs(from_block=0)
    assert [(a.span.seconds, b.span.seconds) for a, b in pairs] == [(1, 0), (11, 10), (101, 100), (111, 110)]
    assert [a.span.seconds for a, _ in Record(steps).pairs(from_block=1, from_place=1)] == [111]


def test_time_inside_the_watcher_is_counted_once_where_calls_nest(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr("benchmarks.switch.now", lambda: float(next(seconds)))
    watch = Watch(block=1, clock=Clock(), seed=0, notify=lambda present: None, synchronise=lambda: None)
    inner = watch.timed(lambda: "result")

    assert watch.timed(inner)() == "result"  # begins at 0, inner at 1, outer ends at 2
    assert watch._inside_s == 2.0
