"""What each statistic costs alone: the figures that explain a missed target of `step_overhead`.

The real collector is given one kind of statistics at a time and one training's gradients and weights, read again and
again, each time with cold caches as after a backward pass. The time is CPU time, which other processes disturb less.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from mlflow_yolo.blocks import COPIES, block_of
from mlflow_yolo.statistics import collector
from mlflow_yolo.statistics.activations import ActivationProbe
from mlflow_yolo.statistics.collector import StepCollector
from mlflow_yolo.statistics.drift import DRIFT
from mlflow_yolo.statistics.gradients import GRADIENTS
from mlflow_yolo.statistics.measure import Measure
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
        `global norm` (each step that is not sampled); `read` (a sampled step with no statistics but norms: copying
        gradients and weights, update, sum for the gradient noise); on top of it `gradients`, `updates`, `drift`,
        `histograms`; `end of epoch` (noise, drift, histograms, one copy to the host); `activations`, those of a
        training step where all passes are measured, and `activations, validation`, those of one batch.
    """
    torch.set_num_threads(threads)
    network = _network()
    read = _step_ms(network, (), repetitions)
    costs = {"global norm": _step_ms(network, (), repetitions, every_n_steps=_NEVER), "read": read}
    for name, measure in {"gradients": GRADIENTS, "updates": WEIGHTS, "drift": DRIFT}.items():
        costs[name] = _step_ms(network, (measure,), repetitions) - read
    costs["histograms"] = _step_ms(network, (), repetitions, complete=True) - read
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


def _step_ms(network: Any, measures: Sequence[Measure], repetitions: int, **options: Any) -> float:
    """Return what collecting around an optimizer step costs with these measures."""
    with _without_drift():
        watch = _collector(network, **{"every_n_steps": 1, "measures": measures, **options})
    times = []
    for _ in range(repetitions + 1):
        _evict()
        before = _cpu_ms(watch.before_step)
        _move(network)
        _evict()
        times.append(before + _cpu_ms(watch.after_step))
    return statistics.median(times[1:])


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
    """Return what a probe adds to a forward pass: the median of the differences between neighbours."""
    blocks = [(i, layer) for i, layer in enumerate(network.model) if type(layer).__name__ not in COPIES]
    differences = []
    for _ in range(repetitions):
        plain = _cpu_ms(lambda: network(images))
        with ExitStack() as stack:
            probe = stack.enter_context(ActivationProbe(blocks, max_batches=max_batches))
            watched = _cpu_ms(lambda: network(images))
            watched += _cpu_ms(lambda probe=probe: probe.end_step(0))  # type: ignore[misc]
        differences.append(watched - plain)
    return statistics.median(differences)


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
