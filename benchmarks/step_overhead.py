"""What watching a training costs a step: YOLO11n on the embedded digits, Ultralytics' own trainer.

    python -m benchmarks.step_overhead            # some twelve minutes on two cores; leave the machine alone meanwhile
    python -m benchmarks.step_overhead --quick    # exercises the code, judges no time

Compared is one training with itself, in blocks of steps with and without the watcher (see `switch`): gradients and
updates at every step, everything at every step (`all`), the default sampling, and `wandb.watch(log="all", log_freq=1)`.
The ratio is that of the parts of a step in which the watcher works; that of whole steps, with an interval many times as
wide, says whether it slows anything down besides. The default is judged by the whole epoch: sampled steps, the others
and the epoch's end, each as often as it occurs; the end (validation with activations, rows, metrics) is charged to the
time of the steps alone. Writing and drawing happen in threads meanwhile; their CPU time is among the figures
(`background_cpu_s`).
"""

import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arms import MLFLOW_YOLO, NOBODY, WANDB, Trained, Training, Watcher, is_installed, train
from benchmarks.outcome import Outcome, Target, finish, machine, read_arguments
from benchmarks.pairing import Estimate, amortised_ratio, paired_ratio
from benchmarks.switch import Step

EVERY_STEP = Watcher(MLFLOW_YOLO, {"every_n_steps": 1})
DEFAULT = Watcher(MLFLOW_YOLO)
ALL = Watcher(MLFLOW_YOLO, {"log_statistics": "all"})

N_VAL = 128
"""Images of the validation: at 32 a batch, the four batches whose activations are measured."""
_QUIET_LOAD = 0.5


@dataclass(frozen=True)
class Comparison:
    """One training, half of it watched.

    Attributes:
        watcher: By whom.
        imgsz: Pixels.
        n_batches: Different batches in an epoch; it has twice as many steps.
        epochs: How many.
        block: Steps between two changes: 4 where what the watcher remembers of the step before saves it work, and the
            first of each block is then left out; 1 where it samples seldom and remembers nothing.
    """

    watcher: Watcher
    imgsz: int
    n_batches: int
    epochs: int
    block: int


FULL: Mapping[str, Comparison] = {
    "nobody, 160 px": Comparison(Watcher(NOBODY), 160, 48, 1, 4),
    "every step, 160 px": Comparison(EVERY_STEP, 160, 48, 2, 4),
    "every step, 320 px": Comparison(EVERY_STEP, 320, 36, 2, 4),
    "all, 160 px": Comparison(ALL, 160, 48, 2, 4),
    "default, 160 px": Comparison(DEFAULT, 160, 48, 4, 1),
    "wandb, 160 px": Comparison(Watcher(WANDB), 160, 48, 1, 4),
}
QUICK: Mapping[str, Comparison] = {
    "all, 64 px": Comparison(ALL, 64, 4, 1, 2),
    "default, 64 px": Comparison(DEFAULT, 64, 4, 1, 1),
}
CUDA: Mapping[str, Comparison] = {"every step, 640 px, AMP, GPU": Comparison(EVERY_STEP, 640, 40, 2, 4)}


def main() -> int:
    """Measure, print, and return the exit code."""
    quick: bool = read_arguments(__doc__).quick
    comparisons, batch = (QUICK, 4) if quick else (FULL, 16)
    found: dict[str, Trained] = {}
    figures: dict[str, Any] = {"quick": quick, "batch": batch, "machine": machine()}
    if not quick and figures["machine"]["load_average"] > _QUIET_LOAD:
        print(f"the machine is busy (load {figures['machine']['load_average']:.1f}): nothing below can be relied on")
    for name, comparison in comparisons.items():
        if is_installed(comparison.watcher.kind):
            found[name] = _measure(name, comparison, batch=batch, device="cpu")
        else:
            print(f"{name}: skipped, {comparison.watcher.kind} is not installed; make bench-install does that")
    found |= _measure_cuda(figures, quick=quick)
    figures |= {name: summary(trained) for name, trained in found.items()}
    figures["ms_alone"] = _costs(batch=batch, imgsz=64 if quick else 160, repetitions=2 if quick else 15)
    if quick:
        return finish(Outcome("step_overhead", None, None, (), figures))
    targets = _targets(found, figures)
    return finish(Outcome("step_overhead", targets[0].value, targets[0].limit, targets, figures))


def _measure(name: str, comparison: Comparison, *, batch: int, device: str) -> Trained:
    """Train in a folder that is removed afterwards, and print what came out."""
    from mlflow_yolo.datasets.digits import generate

    imgsz, n_train = comparison.imgsz, comparison.n_batches * batch
    folder = Path(tempfile.mkdtemp(prefix="step-overhead-"))
    try:
        data = generate("digits", cache_dir=folder, imgsz=imgsz, n_train=n_train, n_val=min(N_VAL, n_train), n_test=1)
        training = Training(
            str(data), imgsz, batch, comparison.epochs, comparison.block, device=device, amp=device != "cpu"
        )
        trained = train(training, comparison.watcher, folder / "run")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    check(name, comparison, trained)
    print(_line(name, trained), flush=True)
    return trained


def check(name: str, comparison: Comparison, trained: Trained) -> None:
    """Make sure that what is claimed to be cheap was done at all.

    Raises:
        RuntimeError: A watched step that had to be sampled has no row in the run's statistics.
    """
    if comparison.watcher.kind != MLFLOW_YOLO:
        return
    watched = {(step.epoch, step.number) for step in trained.record.steps if step.watched}
    missing = watched - trained.sampled if comparison.watcher != DEFAULT else set()
    if missing or not trained.sampled:
        raise RuntimeError(f"{name}: {len(missing) or len(watched)} of {len(watched)} watched steps left no statistics")


def step_ratio(trained: Trained) -> Estimate:
    """Return the median over pairs of whole steps on the same batch: with the watcher / without."""
    pairs = _pairs(trained)
    return paired_ratio([a.span.seconds for a, _ in pairs], [b.span.seconds for _, b in pairs])


def added_ratio(trained: Trained) -> Estimate:
    """Return 1 + what the watcher adds to a step / a step without it: see `switch` for how that is taken apart."""
    pairs = _pairs(trained)
    return amortised_ratio([(*_parts(pairs), 1.0)], base=_bare_step_s(trained))


def epoch_ratio(trained: Trained) -> Estimate:
    """Return 1 + what the watcher adds to an epoch / the epoch's steps without it: see `amortised_ratio`."""
    record, pairs = trained.record, _pairs(trained)
    sampled = [pair for pair in pairs if (pair[0].epoch, pair[0].number) in trained.sampled]
    others = [pair for pair in pairs if (pair[0].epoch, pair[0].number) not in trained.sampled]
    n_steps = len(record.steps) / len(record.ends)
    # The watcher sees every second step only, and so never the last of an epoch, which it samples in any case.
    n_sampled = min(n_steps, n_steps * len(sampled) / len(pairs) + 1)
    ends = record.ends_inside_s, [0.0] * len(record.ends_inside_s)
    strata = [(*_parts(sampled), n_sampled), (*_parts(others), n_steps - n_sampled), (*ends, 1.0)]
    return amortised_ratio(strata, base=n_steps * _bare_step_s(trained))


def _parts(pairs: Sequence[tuple[Step, Step]]) -> tuple[list[float], list[float]]:
    """Return seconds of the parts of a step in which the watcher works, with it and without."""
    return [a.tail.seconds + a.inside_s for a, _ in pairs], [b.tail.seconds + b.inside_s for _, b in pairs]


def _bare_step_s(trained: Trained) -> float:
    return statistics.median(step.span.seconds for step in trained.record.steps if not step.watched)


def summary(trained: Trained) -> dict[str, Any]:
    """Return the figures of a comparison."""
    record, added, whole = trained.record, added_ratio(trained), step_ratio(trained)
    step_ms = 1000 * _bare_step_s(trained)
    return {
        "ratio": added.value,
        "interval_95": [added.low, added.high],
        "added_ms": (added.value - 1) * step_ms,
        "whole_step_ratio": whole.value,
        "whole_step_interval_95": [whole.low, whole.high],
        "pairs": whole.n,
        "step_ms": step_ms,
        "steps_per_epoch": len(record.steps) / len(record.ends),
        "sampled_steps": len(trained.sampled),
        "watched_steps": sum(step.watched for step in record.steps),
        "epoch_end_ms": 1000 * statistics.median(record.ends_inside_s),
        "background_cpu_s": statistics.fmean(record.background_cpu_s),
        "threads": trained.threads,
    }


def _pairs(trained: Trained) -> list[tuple[Step, Step]]:
    """Return the pairs that count: not those of the training's start, and not the first of a block if it has more."""
    several = any(step.place for step in trained.record.steps)
    return trained.record.pairs(from_block=1, from_place=1 if several else 0)


def _line(name: str, trained: Trained) -> str:
    s = summary(trained)
    (low, high), (whole_low, whole_high) = s["interval_95"], s["whole_step_interval_95"]
    return (
        f"{name}: x {s['ratio']:.4f} [{low:.4f}, {high:.4f}], {s['added_ms']:+.1f} ms on a step of {s['step_ms']:.0f} "
        f"ms; whole steps x {s['whole_step_ratio']:.3f} [{whole_low:.3f}, {whole_high:.3f}], {s['pairs']} pairs; "
        f"epoch's end +{s['epoch_end_ms']:.0f} ms, threads {s['background_cpu_s']:.2f} s CPU; "
        f"{s['sampled_steps']} of {s['watched_steps']} steps sampled"
    )


def _measure_cuda(figures: dict[str, Any], *, quick: bool) -> dict[str, Trained]:
    import torch

    if quick or not torch.cuda.is_available():
        figures["cuda"] = "not reached: no GPU" if not quick else "not reached: --quick"
        return {}
    figures["cuda"] = torch.cuda.get_device_name()
    return {name: _measure(name, comparison, batch=16, device="0") for name, comparison in CUDA.items()}


def _costs(*, batch: int, imgsz: int, repetitions: int) -> dict[str, float]:
    from benchmarks.statistic_costs import statistic_costs

    costs = statistic_costs(imgsz=imgsz, batch=batch, repetitions=repetitions)
    for name, ms in costs.items():
        print(f"{ms:8.2f} ms a step: {name}")
    return costs


def _targets(found: Mapping[str, Trained], figures: dict[str, Any]) -> list[Target]:
    """Return every promise with what was found; adds to the figures what the default costs an epoch."""
    value = {name: added_ratio(trained).value for name, trained in found.items()}
    epoch = epoch_ratio(found["default, 160 px"])
    figures["default, 160 px"] |= {"epoch_ratio": epoch.value, "epoch_interval_95": [epoch.low, epoch.high]}
    # wandb works in hooks of tensors, all over the backward pass: only whole steps can be compared.
    wandb = step_ratio(found["wandb, 160 px"]).value if "wandb, 160 px" in found else None
    targets = [
        Target("gradients and updates at every step, 160 px", value["every step, 160 px"], 1.03),
        Target("gradients and updates at every step, 320 px", value["every step, 320 px"], 1.01),
        Target("all at every step, 160 px", value["all, 160 px"], 1.10),
        Target("default sampling, whole epoch, 160 px, upper 95 % bound", epoch.high, 1.01),
        Target(
            "all at every step / wandb.watch(all, 1)", wandb and step_ratio(found["all, 160 px"]).value / wandb, 1.0
        ),
    ]
    return targets + [Target(f"gradients and updates at {name}", value[name], 1.03) for name in CUDA if name in value]


if __name__ == "__main__":
    sys.exit(main())
