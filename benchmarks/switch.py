"""One training in which a watcher is present half of the time: what it costs is the difference of neighbours.

Two trainings cannot be compared to a per cent: with the same code, data and seed, side by side and step by step, one
process was 8 % slower than the other from beginning to end (measured; it depends on where memory happens to lie). Here
both kinds of step belong to the same training: the same model at the same addresses, the same images, a second apart.

Steps come in blocks of a few, in pairs of blocks on the same batches, one with the watcher and one without, in random
order. A watcher that is absent has no callback, no wrapped optimizer step and no hook.

Forward and backward vary by some ten per cent from step to step, many times of what is to be found. What a watcher does
there, it does in callbacks and module hooks, whose time is taken directly (`inside_s`); the rest of the step, where the
optimizer works, is short enough to be compared (`tail`).
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_QUIET_S = 0.05
_QUIET_FRACTION = 0.1
_SETTLE_LIMIT_S = 60.0

now = time.perf_counter
"""The real clock; see `Clock`."""


class Clock:
    """A clock that stands still while the watcher is absent.

    It replaces `time.perf_counter` in this process: a watcher that may use some share of the training time must not
    count steps as training that it did not watch.
    """

    def __init__(self) -> None:
        self._missed = 0.0
        self._stopped_at: float | None = None

    def __call__(self) -> float:
        return (now() if self._stopped_at is None else self._stopped_at) - self._missed

    def stop(self) -> None:
        """Stand still."""
        if self._stopped_at is None:
            self._stopped_at = now()

    def go(self) -> None:
        """Go on from where it stood."""
        if self._stopped_at is not None:
            self._missed += now() - self._stopped_at
            self._stopped_at = None


class Switch:
    """Takes everything that a watcher has attached to a trainer away, and puts it back.

    That is: callbacks, an `optimizer_step` set on the trainer, and forward hooks of the model's modules.
    """

    def __init__(self, trainer: Any, *, own: Sequence[Callable[..., Any]], notify: Callable[[bool], None]) -> None:
        """Look at what is attached now; the watcher is present.

        Args:
            trainer: An Ultralytics trainer that has started.
            own: Callbacks that stay, whether the watcher is present or not.
            notify: Called with whether the watcher is present from now on.
        """
        self._trainer, self._own, self._notify = trainer, list(own), notify
        self._hooks: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._callbacks: dict[str, list[Any]] = {}
        self._optimizer_step: Any = None
        self.is_present = True

    def take_away(self) -> None:
        """Make the watcher absent, also for what is left of the event that is being handled."""
        if not self.is_present:
            return
        self.is_present = False
        for event, functions in self._trainer.callbacks.items():
            self._callbacks[event] = list(functions)
            functions[:] = [function for function in functions if function in self._own]
        self._optimizer_step = vars(self._trainer).pop("optimizer_step", None)
        for module in self._trainer.model.modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                if hooks:
                    self._hooks.append((hooks, dict(hooks)))
                    hooks.clear()
        self._notify(False)

    def put_back(self) -> None:
        """Make the watcher present again, from the next event on."""
        if self.is_present:
            return
        self.is_present = True
        for event, functions in self._callbacks.items():
            self._trainer.callbacks[event] = functions
        if self._optimizer_step is not None:
            self._trainer.optimizer_step = self._optimizer_step
        for hooks, content in self._hooks:
            hooks.update(content)
        self._hooks.clear()
        self._notify(True)


@dataclass(frozen=True)
class Span:
    """How long something took.

    Attributes:
        seconds: By the clock.
        cpu_s: CPU time of the whole process, threads that send and draw included.
    """

    seconds: float
    cpu_s: float

    def __add__(self, other: "Span") -> "Span":
        return Span(self.seconds + other.seconds, self.cpu_s + other.cpu_s)

    def __sub__(self, other: "Span") -> "Span":
        return Span(self.seconds - other.seconds, self.cpu_s - other.cpu_s)


@dataclass(frozen=True)
class Step:
    """One optimizer step, from the first callback of its batch to the last; loading the images is left out.

    Attributes:
        epoch: From 0.
        block: Number of its pair of blocks, from 0 over the training.
        place: Number within its block, from 0.
        watched: Whether the watcher was present.
        number: Watched steps of this epoch before it: the watcher's own count.
        span: How long it took.
        tail: The part of it after the backward pass: optimizer step, moving average and callbacks.
        inside_s: Of the part before, the seconds inside the watcher's callbacks and module hooks.
    """

    epoch: int
    block: int
    place: int
    watched: bool
    number: int
    span: Span
    tail: Span = Span(0.0, 0.0)
    inside_s: float = 0.0


@dataclass
class Record:
    """What was seen.

    Attributes:
        steps: In order.
        ends: Of each epoch's end with the watcher, without writing `results.csv` and the checkpoint.
        bare_ends: Of a validation without the watcher at the same place.
        ends_inside_s: Of each epoch's start and end the seconds inside the watcher's callbacks and module hooks.
        background_cpu_s: What threads used after each epoch's end, until the process was at rest.
    """

    steps: list[Step] = field(default_factory=list)
    ends: list[Span] = field(default_factory=list)
    bare_ends: list[Span] = field(default_factory=list)
    ends_inside_s: list[float] = field(default_factory=list)
    background_cpu_s: list[float] = field(default_factory=list)

    def pairs(self, *, from_block: int = 1, from_place: int = 0) -> list[tuple[Step, Step]]:
        """Return (watched, not watched) steps on the same batch.

        Args:
            from_block: First pair of blocks; a training's first steps are slow.
            from_place: First place within a block; what a watcher remembers of the step before is out of date at 0.
        """
        by_place = {(step.block, step.place, step.watched): step for step in self.steps}
        places = sorted({(block, place) for block, place, _ in by_place if block >= from_block and place >= from_place})
        return [(by_place[*place, True], by_place[*place, False]) for place in places]


class Blocks:
    """A data loader whose batches come twice: a few, the same ones again, the next few.

    Everything else is the loader's own.
    """

    def __init__(self, loader: Any, size: int) -> None:
        """Wrap a loader.

        Args:
            loader: Yields dictionaries; Ultralytics replaces entries of a batch, so each is handed out as a copy.
            size: Batches in a block.
        """
        self._loader, self._size = loader, size

    def __len__(self) -> int:
        return 2 * len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        batches = iter(self._loader)
        while block := list(itertools.islice(batches, self._size)):
            yield from (dict(batch) for batch in (*block, *block))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _spent() -> Span:
    """Return the time and the CPU time of this process until now."""
    return Span(now(), time.process_time())


class Watch:
    """Times the steps and the ends of epochs of one training, and switches the watcher."""

    def __init__(
        self, *, block: int, clock: Clock, seed: int, notify: Callable[[bool], None], synchronise: Callable[[], object]
    ) -> None:
        """Prepare; `attach` begins.

        Args:
            block: Steps in a block; an epoch must have a multiple of it.
            clock: Stands still while the watcher is absent.
            seed: Of the order within the pairs of blocks.
            notify: Called with whether the watcher is present from now on.
            synchronise: Waits for the device.
        """
        self.record = Record()
        self._clock, self._block = clock, block
        self._generator = np.random.default_rng(seed)
        self._notify, self._synchronise = notify, synchronise
        self._watched_first = True
        self._number = 0
        self._between = Span(0.0, 0.0)
        self._left_out = Span(0.0, 0.0)
        self._start: Span | None = None
        self._tail_start: Span | None = None
        self._inside_s = self._inside_body_s = self._inside_between_s = 0.0
        self._depth = 0
        self._switch: Switch | None = None

    def attach(self, trainer: Any, *, stock: Mapping[str, Sequence[Callable[..., Any]]]) -> None:
        """Put the watch around all callbacks, at the end of `on_train_start`.

        Args:
            trainer: The trainer, with the watcher attached.
            stock: Its callbacks without the watcher, which stay.
        """
        events = trainer.callbacks
        for event, functions in events.items():
            functions[:] = [f if f in stock.get(event, ()) else self.timed(f) for f in functions]
        first = {"on_train_batch_start": self._begin_step, "on_train_epoch_end": self._begin_end}
        last = {"on_train_batch_end": self._end_step, "on_fit_epoch_end": self._end_end}
        for event, function in {**first, "on_train_epoch_start": self._begin_start}.items():
            events[event].insert(0, function)
        for event, function in {**last, "on_train_epoch_start": self._end_start}.items():
            events[event].append(function)
        own = [*first.values(), *last.values(), self._begin_start, self._end_start]
        kept = [function for functions in stock.values() for function in functions]
        self._switch = Switch(trainer, own=[*own, *kept], notify=self._notify)
        for name in ("save_metrics", "save_model"):
            setattr(trainer, name, self._leaving_out(getattr(trainer, name)))
        trainer.validate = self._validating_twice(trainer.validate)
        background_cpu_s()

    def double(self, trainer: Any) -> None:
        """Let every block of batches come twice; call it in `on_pretrain_routine_end`."""
        trainer.train_loader = Blocks(trainer.train_loader, self._block)

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a callback or hook of the watcher so that the time inside it is counted, once where calls nest."""

        def called(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = now()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self._inside_s += now() - start

        return called

    def end_backward(self) -> None:
        """Note that a backward pass has ended; what follows of the step is its tail."""
        self._synchronise()
        self._tail_start, self._inside_body_s = _spent(), self._inside_s

    def _begin_step(self, trainer: Any) -> None:
        assert self._switch is not None
        within = len(self.record.steps) % (2 * self._block)
        if within == 0:
            self._watched_first = bool(self._generator.integers(2))
        if self._watched_first == (within >= self._block):
            self._clock.stop()
            self._switch.take_away()
        self._begin()

    def _end_step(self, trainer: Any) -> None:
        assert self._switch is not None
        assert self._tail_start is not None
        span, watched, n = self._stop(), self._switch.is_present, len(self.record.steps)
        tail = _spent() - self._tail_start
        block, place = n // (2 * self._block), n % self._block
        self.record.steps.append(
            Step(int(trainer.epoch), block, place, watched, self._number, span, tail, self._inside_body_s)
        )
        self._number += watched
        self._switch.put_back()
        self._clock.go()

    def _begin_start(self, trainer: Any) -> None:
        self._number = 0
        self._begin()

    def _end_start(self, trainer: Any) -> None:
        self._between, self._inside_between_s = self._stop(), self._inside_s

    def _begin_end(self, trainer: Any) -> None:
        self._left_out = Span(0.0, 0.0)
        self._begin()

    def _end_end(self, trainer: Any) -> None:
        if self._start is None:  # Ultralytics calls this once more, with the values of best.pt
            return
        self.record.ends.append(self._between + self._stop() - self._left_out)
        self.record.ends_inside_s.append(self._inside_between_s + self._inside_s)
        with self._absent():
            self.record.background_cpu_s.append(background_cpu_s())

    @contextmanager
    def _absent(self) -> Iterator[None]:
        assert self._switch is not None
        self._clock.stop()
        self._switch.take_away()
        yield
        self._switch.put_back()
        self._clock.go()

    def _begin(self) -> None:
        self._synchronise()
        self._inside_s = 0.0
        self._start = _spent()

    def _stop(self) -> Span:
        assert self._start is not None
        self._synchronise()
        span, self._start = _spent() - self._start, None
        return span

    def _leaving_out(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function so that its time is not charged to the epoch's end."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = _spent()
            try:
                return function(*args, **kwargs)
            finally:
                self._left_out += _spent() - start

        return timed

    def _validating_twice(self, validate: Callable[[], Any]) -> Callable[[], Any]:
        """Return the validation so that it also runs without the watcher, before or after; the result is the same."""

        def validate_bare() -> None:
            with self._absent():
                start = _spent()
                validate()
                self._synchronise()
                self.record.bare_ends.append(_spent() - start)

        bare = self._leaving_out(validate_bare)

        def validated() -> Any:
            bare_first = bool(self._generator.integers(2))
            if bare_first:
                bare()
            result = validate()
            if not bare_first:
                bare()
            return result

        return validated


def background_cpu_s() -> float:
    """Wait until the threads of this process are at rest; return the CPU seconds that they took until then."""
    start = used = time.process_time()
    deadline = now() + _SETTLE_LIMIT_S
    while now() < deadline:
        time.sleep(_QUIET_S)
        before, used = used, time.process_time()
        if used - before < _QUIET_S * _QUIET_FRACTION:
            break
    return used - start
