"""What models cost on this machine: measured side by side in interleaved rounds, each turn in a fresh process.

A, B, C, then in another order C, A, B: a machine that slows down for a minute slows all of them, and the ratio of two
candidates is taken within rounds (`runtime.speed`). The orders follow a Williams design, in which no candidate always
comes after the same other one.

Source: Kalibera and Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013), for repeating the whole process and
not only the loop in it; Williams, Experimental Designs Balanced for the Estimation of Residual Effects of Treatments
(Australian Journal of Scientific Research, 1949), for the orders.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import ArgumentError, CheckpointError, DatasetError
from mlflow_yolo.runtime.benchmark_result import BenchmarkResult as BenchmarkResult
from mlflow_yolo.runtime.benchmark_result import summarise
from mlflow_yolo.runtime.benchmark_state import BenchmarkState, read_state
from mlflow_yolo.runtime.hardware import Hardware, read_hardware, usable_cores
from mlflow_yolo.runtime.turn import run_turn
from mlflow_yolo.variant import Variant, digest, is_variant, read_variant, size_mb

Progress = Callable[[int, int, str], object]
"""Told before every turn: turns done, turns in all, and whose turn it is; `done` at the end."""

MOST_IMAGES = 8
"""Images that are kept preprocessed: more would only add to the memory, for the time hardly depends on the image."""


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Attributes:
        name: Its name in tables and figures.
        path: A variant's folder, a model file or a checkpoint.
        opener: `module:function`, called in the worker with (path, threads=, imgsz=, **options); returns what has
            `preprocess`, `infer` and `postprocess` as `runtime.pipeline.Pipeline` has them.
        imgsz: Image size to open it with, pixels, as one number or (height, width); None means its own.
        options: Further keyword arguments for the opener; JSON values.
    """

    name: str
    path: Path
    opener: str = "mlflow_yolo.runtime.pipeline:open_pipeline"
    imgsz: int | tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def run_benchmark(
    candidates: Sequence[Candidate],
    images: Sequence[Path],
    *,
    runs: int = 100,
    rounds: int = 10,
    warmup: int = 10,
    threads: int = 1,
    batches: Sequence[int] = (1, 4, 8),
    state: Path | None = None,
    progress: Progress | None = None,
    time_limit_s: float = 300.0,
) -> list[BenchmarkResult]:
    """Return what each candidate costs, in the order given.

    Args:
        candidates: What to measure, under different names.
        images: Files to run on; of more than eight, eight spread evenly over them are taken.
        runs: Timed runs of each candidate in all, at least; rounded up to a multiple of `rounds`.
        rounds: Times that each candidate gets a turn. Fewer than six make the interval of a ratio wide.
        warmup: Runs before the timed ones, in every turn.
        threads: Threads of inference, and cores that the process stays on.
        batches: Batch sizes of the throughput.
        state: JSON file from which an interrupted benchmark goes on at the round it had come to. What was measured of
            other files, on another machine or with other settings is not used: see `benchmark_state.read_state`.
            A candidate that failed stays failed; remove the file to try it again.
        progress: See `Progress`.
        time_limit_s: Longest time of one turn.

    Returns:
        One result a candidate. One that cannot be opened, crashes or takes too long has an `error`; the others go on.

    Raises:
        ArgumentError: A number is out of range, or two candidates share a name.
        CheckpointError: A candidate's path does not exist.
        DatasetError: There are no images, or one does not exist.
    """
    _check_numbers(runs=runs, rounds=rounds, threads=threads, warmup=warmup, batches=batches)
    _check_candidates(candidates)
    files = _chosen(images)
    hardware = read_hardware(threads)
    setting = {
        "machine": hardware.fingerprint,
        "images": [digest(file) for file in files],
        "runs": runs,
        "rounds": rounds,
        "warmup": warmup,
        "batches": list(batches),
    }
    known = read_state(state, setting=setting, identities={one.name: _identity(one) for one in candidates})
    job = {
        "images": [str(file) for file in files],
        "runs": -(-runs // rounds),
        "warmup": warmup,
        "threads": threads,
        "cores": usable_cores()[-threads:],  # the first ones serve most interrupts
        "batches": list(batches),
    }
    _measure(candidates, known, job, rounds=rounds, state=state, progress=progress, time_limit_s=time_limit_s)
    return [_result(one, known, hardware, warmup) for one in candidates]


def turn_order(n: int, round_index: int) -> list[int]:
    """Return in which order `n` candidates are measured in a round.

    Over n rounds (2 n where n is odd) each candidate comes equally often at every place and directly after every other.
    """
    zigzag = [i // 2 if i % 2 == 0 else n - 1 - i // 2 for i in range(n)]
    turn, shift = divmod(round_index, n) if n else (0, 0)
    order = [(i + shift) % n for i in zigzag]
    return order[::-1] if turn % 2 else order


def _measure(
    candidates: Sequence[Candidate],
    known: BenchmarkState,
    job: Mapping[str, Any],
    *,
    rounds: int,
    state: Path | None,
    progress: Progress | None,
    time_limit_s: float,
) -> None:
    """Do the rounds that are missing; the state is written after each, so that no round is ever half a one."""
    tell = progress or (lambda done, total, name: None)
    total = rounds * len(candidates)
    for index in range(known.rounds_done(), rounds):
        turns = {}
        for place, i in enumerate(turn_order(len(candidates), index)):
            one = candidates[i]
            tell(index * len(candidates) + place, total, one.name)
            if not known.measured[one.name].error:
                turns[one.name] = run_turn({**job, **_opening(one)}, time_limit_s=time_limit_s)
        for name, turn in turns.items():
            known.measured[name].add(turn)
        known.write(state)
        if not any(not one.error for one in known.measured.values()):
            break
    tell(total, total, "done")


def _opening(candidate: Candidate) -> dict[str, Any]:
    """Return the part of a job that says how the candidate is opened."""
    imgsz = list(candidate.imgsz) if isinstance(candidate.imgsz, tuple) else candidate.imgsz
    path, options = str(candidate.path.resolve()), dict(candidate.options)
    return {"path": path, "opener": candidate.opener, "imgsz": imgsz, "options": options}


def _identity(candidate: Candidate) -> dict[str, Any]:
    """Return what the candidate is: a moved file is the same, a changed one is another."""
    opening = _opening(candidate)
    del opening["path"]
    file, variant = _model_file(candidate.path)
    how = [variant.imgsz, dict(variant.runtime)] if variant else []
    return {**opening, "sha256": digest(file), "variant": how}


def _model_file(path: Path) -> tuple[Path, Variant | None]:
    """Return what is loaded, which of a variant's folder is one file, and the variant; a broken one is its folder."""
    if is_variant(path):
        with contextlib.suppress(CheckpointError):
            variant = read_variant(path, check=False)
            return (path.parent if path.is_file() else path) / variant.file, variant
    return path, None


def _result(candidate: Candidate, known: BenchmarkState, hardware: Hardware, warmup: int) -> BenchmarkResult:
    one = known.measured[candidate.name]
    turns = [] if one.error else one.turns
    return summarise(
        candidate.name,
        turns,
        size_mb=size_mb(_model_file(candidate.path)[0]),
        n_warmup=warmup,
        hardware=replace(hardware, load1=known.load1, provider=turns[0]["provider"] if turns else ""),
        benchmark=known.benchmark,
        date=known.date,
        error=one.error,
    )


def _chosen(images: Sequence[Path]) -> list[Path]:
    """Return up to `MOST_IMAGES` files, spread evenly."""
    if not images:
        raise DatasetError("there are no images to measure on. Name a split that has some.")
    n = min(len(images), MOST_IMAGES)
    files = [Path(images[i * len(images) // n]).resolve() for i in range(n)]
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        raise DatasetError(f"{missing} does not exist. Restore the image, or leave it out.")
    return files


def _check_candidates(candidates: Sequence[Candidate]) -> None:
    names = [one.name for one in candidates]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ArgumentError(f"two candidates are called {double!r}. Give each a name of its own.")
    missing = next((one.path for one in candidates if not one.path.exists()), None)
    if missing is not None:
        raise CheckpointError(f"{missing} does not exist. Name a model file or a variant's folder.")


def _check_numbers(*, batches: Sequence[int], threads: int, warmup: int, **positive: int) -> None:
    for name, value in {**positive, "threads": threads, **{f"batches: {size}": size for size in batches}}.items():
        if value < 1:
            raise ArgumentError(f"{name}={value} is out of range. Use 1 or more.")
    if warmup < 0:
        raise ArgumentError(f"warmup={warmup} is out of range. Use 0 or more.")
    cores = len(usable_cores())
    if threads > cores:
        raise ArgumentError(f"threads={threads} is out of range: this process may use {cores} cores. Use 1 to {cores}.")
