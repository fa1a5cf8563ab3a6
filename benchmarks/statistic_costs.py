"""What each statistic costs alone: the figures that explain a missed target of `step_overhead`.

The real collector is given one kind of statistics at a time and one training's gradients and weights, read again and
again, each time with cold caches as after a backward pass. The time is CPU time, which other processes disturb less.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from mlflow_yolo.blocks import COPIES, block_of
from mlflow_yolo.statistics import collector
from mlflow_yolo.statistics.activations import ActivationProbe, _Hook
from mlflow_yolo.statistics.collector import StepCollector
from mlflow_yolo.statistics.drift import DRIFT
from mlflow_yolo.statistics.gradients import GRADIENTS
from mlflow_yolo.statistics.weights import WEIGHTS

_CACHE_FLOATS = 16 * 2**20
_NEVER = 10**9
_BUDGET = float("inf")


def statistic_costs(*, imgsz: int, batch: int, repetitions: int, threads: int = 1) -> dict[str, float]:
    """Return milliseconds a step by name; differences to `read` are what a statistic adds to reading the vectors.

    Args:
        imgsz: Pixels, for the activations; the rest depends on the model only.
        batch: Images a step, likewise.
        repetitions: The result is the median of so many.
        threads: Threads that torch uses, as the training does.

    Returns:
        `global norm` (a step that is not sampled, where the trainer does not tell the norm it clips by); `read` (a
        sampled step with no statistics but norms: copying gradients and weights, update, sum for the gradient noise);
        on top of it `gradients`, `updates`, `drift`, `histograms`; `end of epoch` (noise, drift, histograms, one copy
        to the host); `activations`, those of a training step where all passes are measured, and `activations,
        validation`, those of one batch.
    """
    torch.set_num_threads(threads)
    network = _network()
    with _without_drift():
        watches = {
            "global norm": _collector(network, every_n_steps=_NEVER),
            "read": _collector(network, every_n_steps=1, measures=()),
            "gradients": _collector(network, every_n_steps=1, measures=(GRADIENTS,)),
            "updates": _collector(network, every_n_steps=1, measures=(WEIGHTS,)),
            "drift": _collector(network, every_n_steps=1, measures=(DRIFT,)),
            "histograms": _collector(network, complete=True, measures=()),
        }
    costs = _step_ms(network, watches, repetitions)
    costs["end of epoch"] = _epoch_ms(network, repetitions)
    images = torch.rand(batch, 3, imgsz, imgsz)
    costs["activations"] = _forward_ms(network, images, max_batches=None, repetitions=repetitions)
    with torch.inference_mode():
        network.eval()
        costs["activations, validation"] = _forward_ms(network, images, max_batches=_NEVER, repetitions=repetitions)
    return costs


def _network() -> Any:
    """Return YOLO11n with a gradient of every parameter."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    network = DetectionModel("yolo11n.yaml", verbose=False)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    return network


def _step_ms(network: Any, watches: Mapping[str, StepCollector], repetitions: int) -> dict[str, float]:
    """Return what collecting around an optimizer step costs, by name; in turns, those after `read` less that."""
    rounds: list[dict[str, float]] = []
    for _ in range(repetitions + 1):
        times = {}
        for name, watch in watches.items():
            _evict()
            before = _cpu_ms(watch.before_step)
            _move(network)
            _evict()
            times[name] = before + _cpu_ms(watch.after_step)
        whole = ("global norm", "read")
        rounds.append({name: ms if name in whole else ms - times["read"] for name, ms in times.items()})
    return {name: statistics.median(times[name] for times in rounds[1:]) for name in watches}


def _epoch_ms(network: Any, repetitions: int) -> float:
    """Return what the end of an epoch of one sampled step costs."""
    watch, times = _collector(network, every_n_steps=1), []
    for _ in range(repetitions):
        watch.before_step()
        watch.after_step()
        _evict()
        times.append(_cpu_ms(watch.end_epoch))
    return statistics.median(times)


def _forward_ms(network: Any, images: torch.Tensor, *, max_batches: int | None, repetitions: int) -> float:
    """Return what a probe adds to a forward pass: the time inside its hooks and at the step's end."""
    blocks = [(i, layer) for i, layer in enumerate(network.model) if type(layer).__name__ not in COPIES]
    times = []
    for _ in range(repetitions):
        with _timed(_Hook, "__call__") as inside, ActivationProbe(blocks, max_batches=max_batches) as probe:
            network(images)
            times.append(sum(inside) + _cpu_ms(partial(probe.end_step, 0)))
    return statistics.median(times)


@contextmanager
def _timed(owner: type, name: str) -> Iterator[list[float]]:
    """Let a method note how many milliseconds each of its calls takes."""
    kept, times = getattr(owner, name), list[float]()

    def timed(*args: Any) -> None:
        times.append(_cpu_ms(partial(kept, *args)))

    setattr(owner, name, timed)
    try:
        yield times
    finally:
        setattr(owner, name, kept)


def _collector(network: Any, **options: Any) -> StepCollector:
    names: Mapping[int, str] = {i: f"{i:02d}" for i in range(len(network.model))}
    return StepCollector(
        list(network.named_parameters()), block_of=block_of, names=names, budget=_BUDGET, max_norm=10.0, **options
    )


@contextmanager
def _without_drift() -> Iterator[None]:
    """Let complete collectors that are made inside not measure drift at every step."""
    kept, collector.EVERY_STEP_IF_COMPLETE = collector.EVERY_STEP_IF_COMPLETE, ()
    try:
        yield
    finally:
        collector.EVERY_STEP_IF_COMPLETE = kept


def _move(network: Any) -> None:
    """Take an optimizer step of the plainest kind."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-1e-3)


def _evict() -> None:
    """Push weights and gradients out of the processor's caches, as a backward pass does."""
    torch.ones(_CACHE_FLOATS).sum()


def _cpu_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1000.0
