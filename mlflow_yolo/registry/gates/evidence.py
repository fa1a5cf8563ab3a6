"""What gates look at: a version's bytes, what was measured of it, and of those that it is compared with.

Nothing is read before a gate asks for it: a damaged file fails the gates that need it, each with the reason, and not
the others.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.registry.fetching import Fetched, fetch
from mlflow_yolo.registry.record import PARENT_PREDICTIONS, PREDICTIONS, Measured, Record, Scores, read_record
from mlflow_yolo.runtime.accuracy import Accuracy, read_accuracy
from mlflow_yolo.runtime.hardware import Hardware, read_hardware
from mlflow_yolo.variant import Variant, read_variant

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_SAME = 1e-6
"""How far a stored score may be from what its predictions give: no more than another order of summing explains."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A registered version and what was measured of it.

    Attributes:
        fetched: The version.
        benchmark: The folder with its record and predictions: its own, or that of a measurement made here.
    """

    fetched: Fetched
    benchmark: Path

    @cached_property
    def variant(self) -> Variant:
        """What `variant.json` says; its digest is not compared with the bytes."""
        return read_variant(self.fetched.folder, check=False)

    @cached_property
    def file(self) -> Path:
        """The file, or folder, that is deployed."""
        return self.fetched.folder / self.variant.file

    @cached_property
    def record(self) -> Record:
        """What was measured.

        Raises:
            CheckpointError: There is no record, it cannot be read, or it is one of other bytes.
        """
        record = read_record(self.benchmark)
        if record.variant.sha256 != self.fetched.sha256:
            raise CheckpointError(
                f"the benchmark is of sha256 {record.variant.sha256[:12]}, the file is {self.fetched.sha256[:12]}. "
                "Measure it again with --rebenchmark."
            )
        return record

    @cached_property
    def accuracy(self) -> Accuracy:
        """Its scores, computed again from its predictions.

        Raises:
            InputError: There are none, they are damaged, or they do not give the recorded score.
        """
        return self._scored(self.record.variant, PREDICTIONS)

    @cached_property
    def parent_accuracy(self) -> Accuracy:
        """The scores of the parent that it was measured with.

        Raises:
            InputError: As for `accuracy`, or no parent was measured.
        """
        if self.record.parent is None:
            raise CheckpointError(
                f"no parent of {self.record.variant.name} was measured with it. Benchmark both together and register "
                "that, or name the gate in --override."
            )
        return self._scored(self.record.parent, PARENT_PREDICTIONS)

    @property
    def scores(self) -> Scores:
        """On what data its scores hold, and which they were.

        Raises:
            CheckpointError: It was not scored.
        """
        return _scores(self.record.variant)

    def _scored(self, measured: Measured, file: str) -> Accuracy:
        scores = _scores(measured)
        variant = self.variant
        found = read_accuracy(self.benchmark / file, names=variant.names, task=variant.task, split=scores.split)
        metric, value = found.headline
        same = scores.metric == metric and _equal(value, scores.values.get(metric, math.nan))
        if not same or found.n_images != scores.n_images:
            raise CheckpointError(
                f"{file} gives {metric} {value:.4f} on {found.n_images} images, but the record of {measured.name} says "
                f"{scores.metric} {scores.headline:.4f} on {scores.n_images}. Measure it again with --rebenchmark."
            )
        return found


@dataclass(frozen=True, eq=False)
class Evidence:
    """What gates look at.

    Attributes:
        candidate: The version that is judged.
        champion: The version that is champion of the target now, None where there is none.
        parent: The version that it was made from, None where that is not registered any more or never was.
        parent_note: Why a parent that is named could not be read, empty otherwise.
        read_hardware: Returns this machine for a number of threads.
    """

    candidate: Subject
    champion: Subject | None = None
    parent: Fetched | None = None
    parent_note: str = ""
    read_hardware: Callable[[int], Hardware] = read_hardware


def read_evidence(client: "MlflowClient", candidate: Fetched, champion: Fetched | None) -> Evidence:
    """Return what is stored at a version, and at the champion.

    Args:
        client: Of the registry, asked for the parent that the version's tag `parent_version` names.
        candidate: The version that is judged.
        champion: The champion of its target.

    Raises:
        StoreError: The registry does not answer.
    """
    version = candidate.tags.get("parent_version", "")
    parent, note = None, ""
    if version:
        try:
            parent = fetch(f"models:/{candidate.name}/{version}", client=client)
        except (ArgumentError, CheckpointError) as error:
            note = str(error)
    return Evidence(
        candidate=Subject(candidate, candidate.benchmark),
        champion=Subject(champion, champion.benchmark) if champion else None,
        parent=parent,
        parent_note=note,
    )


def _scores(measured: Measured) -> Scores:
    if measured.scores is None:
        reason = f": {measured.cost.error}" if measured.cost.error else ""
        raise CheckpointError(f"{measured.name} was not scored{reason}. Measure it again with --rebenchmark.")
    return measured.scores


def _equal(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) <= _SAME
