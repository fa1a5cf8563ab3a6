"""Every candidate measured side by side: cost in interleaved rounds, accuracy by one evaluator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.bootstrap import Difference
from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError
from mlflow_yolo.runtime.accuracy import Accuracy, agreement_with, difference, measure_accuracy
from mlflow_yolo.runtime.benchmark import BenchmarkResult, Candidate, run_benchmark
from mlflow_yolo.runtime.hardware import usable_cores
from mlflow_yolo.runtime.speed import Ratio, speedup
from mlflow_yolo.stages import Stages
from mlflow_yolo.variant import Variant, digest, read_variant
from mlflow_yolo.variants.checkpoints import OPENER, open_pipeline

CHECKPOINT = "pt"
"""The kind of a checkpoint that PyTorch runs."""

REFERENCE = "fp32-onnx"
"""What the others are compared with, where it is there; else the first of them."""


@dataclass(frozen=True)
class Entry:
    """One thing to measure.

    Attributes:
        name: Unique among those compared.
        path: A `.pt` file or a variant's folder.
        imgsz: Side of a checkpoint's input, pixels; None for a variant.
        variant: What the folder says, None for a checkpoint.
    """

    name: str
    path: Path
    imgsz: int | None = None
    variant: Variant | None = None

    @property
    def kind(self) -> str:
        """`pt`, or the variant's kind."""
        return self.variant.kind if self.variant else CHECKPOINT

    @property
    def runtime(self) -> str:
        """What runs it: `PyTorch`, `ONNX Runtime` or `OpenVINO`."""
        if self.variant is None:
            return "PyTorch"
        return "OpenVINO" if self.kind.endswith("openvino") else "ONNX Runtime"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input, pixels."""
        return self.variant.imgsz if self.variant else (self.imgsz or 0, self.imgsz or 0)


@dataclass(frozen=True, eq=False)
class Row:
    """What one entry costs and scores.

    Attributes:
        entry: What was measured.
        cost: Latency, throughput, memory, size, and the hardware they hold for.
        accuracy: Its scores, None where it could not be run.
        speed: How many times as fast as the reference, with its interval; None where one of them failed.
        change: Headline value minus the reference's, with its interval over images; None for the reference itself.
        agreement: How far it agrees with the reference's detections, in [0, 1].
        error: Why it could not be measured, empty otherwise.
    """

    entry: Entry
    cost: BenchmarkResult
    accuracy: Accuracy | None
    speed: Ratio | None
    change: Difference | None
    agreement: float
    error: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """All rows, the checkpoint first.

    Attributes:
        rows: In the order in which they were given.
        reference: Name of the row that the others are compared with.
        dataset: The data of the scores.
        split: Its split.
    """

    rows: tuple[Row, ...]
    reference: str
    dataset: Dataset
    split: str

    @property
    def metric(self) -> str:
        """Name of the headline value."""
        return "top1" if self.dataset.task == "classify" else "mAP50-95"

    def row(self, name: str) -> Row:
        """Return a row by its name."""
        return next(row for row in self.rows if row.entry.name == name)


@dataclass(frozen=True)
class Effort:
    """How thoroughly costs are measured.

    Attributes:
        runs: Timed inferences of each candidate.
        rounds: Turns in which they are made, all candidates in each.
        threads: Threads of one inference.
        batches: Batch sizes whose throughput is measured.
    """

    runs: int = 100
    rounds: int = 10
    threads: int = 1
    batches: tuple[int, ...] = (1, 4, 8)

    def check(self) -> None:
        """Raise ArgumentError for the first value that cannot be used."""
        for name in ("runs", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name}={getattr(self, name)} measures nothing. Use {name}=1 or more.")
        if self.threads > (cores := len(usable_cores())):
            raise ArgumentError(f"threads={self.threads} are more than the {cores} cores of this process. Use fewer.")


def entry_of(path: Path, *, name: str | None = None, imgsz: int | None = None) -> Entry:
    """Return the entry of a checkpoint or a variant's folder.

    Raises:
        CheckpointError: The folder holds no variant, or its bytes have changed.
    """
    if path.suffix == ".pt":
        return Entry(name or path.name, path, imgsz)
    return Entry(name or path.name, path, None, read_variant(path))


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries under different names: a name that occurs twice is led by its folder's name."""
    names = [entry.name for entry in entries]
    seen: dict[str, int] = {}
    result = []
    for entry in entries:
        name = entry.name if names.count(entry.name) == 1 else f"{_folder_of(entry.path)}-{entry.name}"
        seen[name] = seen.get(name, 0) + 1
        result.append(replace(entry, name=name if seen[name] == 1 else f"{name}-{seen[name]}"))
    return result


def _folder_of(path: Path) -> str:
    """Return the name of the folder that tells a file from others; Ultralytics' `weights` does not."""
    return next(parent.name for parent in path.absolute().parents if parent.name != "weights")


def compare(
    entries: Sequence[Entry],
    dataset: Dataset,
    split: str,
    *,
    effort: Effort,
    directory: Path,
    stages: Stages,
    reference: str = REFERENCE,
) -> Comparison:
    """Measure every entry and return what each costs and scores.

    A candidate that cannot be run becomes a row with its error; the others go on. What was measured is kept in
    `directory`, so that the same call goes on where an interrupted one stopped.

    Args:
        entries: What to measure, the checkpoint first.
        dataset: The data.
        split: The split of the scores; latencies are measured on some of its images.
        effort: How thoroughly.
        directory: Where predictions and timings are kept.
        stages: Told how far it is.
        reference: Name or kind of the entry that the others are compared with; the first one where it is not there.
    """
    scored = {entry.name: _score(entry, dataset, split, directory, stages) for entry in entries}
    costs = run_benchmark(
        [Candidate(entry.name, entry.path, opener=OPENER, imgsz=entry.imgsz) for entry in entries],
        dataset.splits[split].images,
        runs=effort.runs,
        rounds=effort.rounds,
        threads=effort.threads,
        batches=effort.batches,
        state=directory / "timings.json",
        progress=_turns(stages),
    )
    cost = {result.name: result for result in costs}
    base = _reference([entry for entry in entries if isinstance(scored[entry.name], Accuracy)] or entries, reference)
    rows = tuple(_row(entry, cost, scored, base, n_classes=len(dataset.names)) for entry in entries)
    return Comparison(rows, base, dataset, split)


def predictions_file(entry: Entry, dataset: Dataset, split: str, directory: Path) -> Path:
    """Return where `compare` keeps what an entry predicts; other bytes, data or sizes have another file."""
    key = "-".join((digest(entry.path)[:12], dataset.fingerprint, split, "x".join(map(str, entry.size))))
    return directory / "predictions" / f"{entry.name}-{key}.npz"


def parent_of(row: Row, comparison: Comparison) -> Row | None:
    """Return what a variant is judged against: the float32 ONNX it was made from, and for that one its checkpoint.

    The float32 ONNX of another checkpoint or size (`pruned-`, `control-`, `256px-`) is judged against the reference;
    None for a checkpoint, and for a variant beside which nothing was measured.
    """
    if row.entry.variant is None:
        return None
    sources = row.entry.variant.sources
    others = [other for other in comparison.rows if other.entry.name != row.entry.name]
    variants = {other.entry.variant.sha256: other for other in others if other.entry.variant}
    made_from = variants.get(str(sources.get("fp32_sha256") or sources.get("onnx_sha256")))
    reference = [other for other in others if other.entry.name == comparison.reference]
    checkpoints = [other for other in others if other.entry.variant is None]
    own = [other for other in checkpoints if _sha256(other) == sources.get("checkpoint_sha256")]
    return next(iter([*([made_from] if made_from else []), *reference, *own, *checkpoints]), None)


def _sha256(row: Row) -> str:
    return digest(row.entry.path) if row.entry.path.is_file() else ""


def _reference(entries: Sequence[Entry], wanted: str) -> str:
    """Return the name of the first entry with the wanted name, else of the wanted kind, else of the first."""
    called = [entry.name for entry in entries if entry.name == wanted]
    return next(iter(called + [entry.name for entry in entries if entry.kind == wanted] + [entries[0].name]))


def _turns(stages: Stages) -> Callable[[int, int, str], None]:
    count = stages.count("benchmark", unit="turn")
    return lambda done, total, name: count(done, total) if done else None


def _score(entry: Entry, dataset: Dataset, split: str, directory: Path, stages: Stages) -> Accuracy | str:
    """Return what an entry scores, or why it could not be run."""
    try:
        return measure_accuracy(
            partial(open_pipeline, entry.path, imgsz=entry.imgsz),
            dataset,
            split,
            keep=predictions_file(entry, dataset, split, directory),
            progress=stages.count(f"{split} of {entry.name}", unit="image"),
        )
    except MlflowYoloError as error:
        return str(error)
    except Exception as error:  # the runtime's own failure on this file; the other candidates still count
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _row(
    entry: Entry,
    cost: dict[str, BenchmarkResult],
    scored: dict[str, Accuracy | str],
    reference: str,
    *,
    n_classes: int,
) -> Row:
    own, base = scored[entry.name], scored[reference]
    error = own if isinstance(own, str) else cost[entry.name].error
    if isinstance(own, str) or isinstance(base, str):
        return Row(entry, cost[entry.name], None, None, None, float("nan"), error)
    is_reference = entry.name == reference
    timed = not cost[entry.name].error and not cost[reference].error
    return Row(
        entry,
        cost[entry.name],
        own,
        speedup(cost[reference], cost[entry.name]) if timed else None,
        None if is_reference else difference(base, own, n_classes=n_classes),
        1.0 if is_reference else agreement_with(base, own),
        error,
    )


def is_worse_by_at_most(row: Row, points: float) -> bool:
    """Return whether a row's headline value lies at most `points` hundredths below the reference's."""
    return row.accuracy is not None and (row.change is None or row.change.difference >= -points / 100)


def is_measured(row: Row) -> bool:
    """Return whether a row has both a cost and scores."""
    return row.accuracy is not None and not np.isnan(row.cost.latency_p50_ms)
