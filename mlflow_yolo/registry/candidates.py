"""Which variants can be registered: those whose bytes are the ones that a benchmark measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.registry.record import RECORD_FILE, Record, read_record
from mlflow_yolo.variant import Variant, is_variant, read_variant

RECORDS = Path("benchmark") / "records"
_MOST_PARENTS = 3
"""`compress` makes `<output>/variants/<row>`, `export` makes `<output>/<kind>`."""


@dataclass(frozen=True)
class Candidate:
    """A variant that was measured.

    Attributes:
        folder: The variant's folder.
        variant: What `variant.json` says.
        record: What was measured of it.
        measured: The folder with the record and the predictions.
    """

    folder: Path
    variant: Variant
    record: Record
    measured: Path

    @property
    def name(self) -> str:
        """What its row is called in the comparison."""
        return self.record.variant.name


@dataclass(frozen=True)
class Failed:
    """A variant that the benchmark could not run, which is passed over.

    Attributes:
        name: Its row.
        reason: Why.
    """

    name: str
    reason: str


def find_candidates(paths: Sequence[Path]) -> tuple[list[Candidate], list[Failed]]:
    """Return the measured variants that paths mean, parents before what was made from them, and what had failed.

    Args:
        paths: Output folders of `compress` or `benchmark`, folders of such folders, variants' folders in one of them,
            or folders of variants. A variant that was measured several times counts with its newest benchmark.

    Raises:
        CheckpointError: A path does not exist or holds nothing that was measured, a variant was not measured, or its
            bytes have changed since (both digests are named).
    """
    candidates: dict[str, Candidate] = {}
    failed = []
    for path in paths:
        for found in _below(path.expanduser()):
            if isinstance(found, Failed):
                failed.append(found)
                continue
            earlier = candidates.get(found.variant.sha256)
            if earlier is None or earlier.record.variant.cost.date <= found.record.variant.cost.date:
                candidates[found.variant.sha256] = found
    return _parents_first(candidates), [one for one in failed if one.name not in _names(candidates)]


def _below(path: Path) -> Iterator[Candidate | Failed]:
    if (path / RECORDS).is_dir():
        yield from _of_output(path)
    elif is_variant(path):
        yield _of_variant(path.parent if path.is_file() else path)
    else:
        children = sorted(path.iterdir()) if path.is_dir() else []
        outputs = [child for child in children if (child / RECORDS).is_dir()]
        variants = [child for child in children if is_variant(child) and not child.name.startswith(".")]
        if not outputs and not variants:
            raise CheckpointError(
                f"variants={path} holds nothing that was measured. Name the output folder of compress or benchmark."
            )
        for output in outputs:
            yield from _of_output(output)
        yield from map(_of_variant, variants)


def _of_output(output: Path) -> Iterator[Candidate | Failed]:
    for measured in _records(output):
        record = read_record(measured)
        reason = _failure(record)
        if reason:
            yield Failed(record.variant.name, reason)
        else:
            yield _candidate(output / record.about["folder"], record, measured)


def _of_variant(folder: Path) -> Candidate:
    """Return a variant with the record that lies in a folder above it."""
    variant = read_variant(folder)
    known = [
        (output, measured, read_record(measured))
        for output in list(folder.resolve().parents)[:_MOST_PARENTS]
        for measured in _records(output)
    ]
    same = [one for one in known if one[2].variant.sha256 == variant.sha256]
    here = [one for one in known if (one[0] / one[2].about["folder"]).resolve() == folder.resolve()]
    for _, measured, record in [*same, *here]:
        if reason := _failure(record):
            raise CheckpointError(f"{folder} could not be measured: {reason}")
        return _candidate(folder, record, measured, variant)
    raise CheckpointError(
        f"{folder} was not benchmarked, so nobody knows what it costs and scores. "
        f"Measure it: mlflow-yolo benchmark --variants {folder}, and register that command's output."
    )


def _records(output: Path) -> list[Path]:
    return sorted(file.parent for file in (output / RECORDS).glob(f"*/{RECORD_FILE}"))


def _candidate(folder: Path, record: Record, measured: Path, variant: Variant | None = None) -> Candidate:
    variant = variant or read_variant(folder)
    if variant.sha256 != record.variant.sha256:
        raise CheckpointError(
            f"{folder / variant.file} has changed since it was measured: sha256 {variant.sha256}, the benchmark "
            f"measured {record.variant.sha256}. Measure it again: mlflow-yolo benchmark --variants {folder}"
        )
    return Candidate(folder, variant, record, measured)


def _failure(record: Record) -> str:
    if record.about.get("error") or record.variant.cost.error or record.variant.scores is None:
        return record.about.get("error") or record.variant.cost.error or "it has no scores"
    return ""


def _names(candidates: dict[str, Candidate]) -> set[str]:
    return {one.name for one in candidates.values()}


def _parents_first(candidates: dict[str, Candidate]) -> list[Candidate]:
    ordered: dict[str, Candidate] = {}

    def add(candidate: Candidate) -> None:
        parent = candidate.record.parent
        if candidate.variant.sha256 in ordered:
            return
        if parent is not None and parent.sha256 in candidates and parent.sha256 != candidate.variant.sha256:
            add(candidates[parent.sha256])
        ordered.setdefault(candidate.variant.sha256, candidate)

    for candidate in candidates.values():
        add(candidate)
    return list(ordered.values())
