"""Candidate, parent and champion measured anew on this machine, in turns, and scored on data of the caller's."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import InputError, MlflowYoloError
from mlflow_yolo.models.data import choose_split
from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.gates.evidence import Evidence, Subject
from mlflow_yolo.registry.record import (
    PARENT_PREDICTIONS,
    PREDICTIONS,
    Measured,
    Record,
    Scores,
    read_record,
    write_record,
)
from mlflow_yolo.runtime.accuracy import Accuracy, agreement_with, measure_accuracy
from mlflow_yolo.runtime.benchmark import BenchmarkResult, Candidate, Progress, run_benchmark
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.stages import Stages
from mlflow_yolo.variant import read_variant

RECORDS = "records"
"""Folder of the new records, one a version."""


@dataclass(frozen=True, eq=False)
class _Scored:
    """One version, scored: its folder below `directory`, its scores or why there are none."""

    fetched: Fetched
    folder: Path
    accuracy: Accuracy | None
    error: str = ""


def rebenchmark(
    candidate: Fetched,
    parent: Fetched | None,
    champion: Fetched | None,
    *,
    data: str,
    split: str,
    directory: Path,
    runs: int = 100,
    rounds: int = 10,
    threads: int = 1,
    stages: Stages | None = None,
) -> Evidence:
    """Return evidence that was measured here and now, with a record of each version below `directory`.

    The numeric parity of a float32 export with its checkpoint is taken over: the bytes are the same, and checkpoints
    are not in the registry. So are a checkpoint's predictions, where the data are those that they were made on.

    Args:
        candidate: The version that is judged.
        parent: The version that it was made from, None where that is not registered.
        champion: The champion of its target, None where there is none.
        data: See `load_dataset`.
        split: The split of the scores, `auto` for test where there is one; latencies are measured on some of its
            images.
        directory: Where predictions, timings and records are kept; the same call goes on where one was interrupted.
        runs: Timed inferences of each version.
        rounds: Turns in which they are made, every version in each.
        threads: Threads of one inference.
        stages: Told how far it is.

    Returns:
        Evidence whose `candidate.benchmark` is a folder as a registered version carries it. A version that cannot be
        run is recorded with the reason, and the gates that need it fail.

    Raises:
        DatasetError: The data cannot be used.
        ArgumentError: They have no such split, or a number is out of range.
    """
    dataset, stages = load_dataset(data), stages or Stages()
    split = choose_split(dataset, split)
    versions = {one.version: one for one in (candidate, parent, champion) if one is not None}
    with stages:
        scored = {number: _score(one, dataset, split, directory, stages) for number, one in versions.items()}
        results = run_benchmark(
            [Candidate(f"version {number}", one.folder) for number, one in versions.items()],
            dataset.splits[split].images,
            runs=runs,
            rounds=rounds,
            threads=threads,
            state=directory / "timings.json",
            progress=_turns(stages),
        )
    measured = {
        number: _measured(scored[number], result, dataset) for number, result in zip(versions, results, strict=True)
    }
    of_parent = (scored[parent.version], measured[parent.version]) if parent else None
    _write(scored[candidate.version], measured[candidate.version], of_parent, dataset, split)
    if champion is not None and champion.version != candidate.version:
        _write(scored[champion.version], measured[champion.version], None, dataset, split)
    return Evidence(
        candidate=Subject(candidate, scored[candidate.version].folder),
        champion=Subject(champion, scored[champion.version].folder) if champion else None,
        parent=parent,
    )


def _turns(stages: Stages) -> Progress:
    count = stages.count("benchmark", unit="turn")
    return lambda done, total, name: count(done, total) if done else None


def _score(fetched: Fetched, dataset: Dataset, split: str, directory: Path, stages: Stages) -> _Scored:
    """Score one version; its predictions are kept under a name that says of what bytes and data they are."""
    folder = directory / RECORDS / f"{fetched.version}-{fetched.sha256[:12]}-{dataset.fingerprint}-{split}"
    try:
        accuracy = measure_accuracy(
            partial(open_pipeline, fetched.folder),
            dataset,
            split,
            keep=folder / PREDICTIONS,
            progress=stages.count(f"{split} of version {fetched.version}", unit="image"),
        )
    except MlflowYoloError as error:
        return _Scored(fetched, folder, None, str(error))
    except Exception as error:  # the runtime's own failure on this file; the other versions still count
        return _Scored(fetched, folder, None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return _Scored(fetched, folder, accuracy)


def _measured(scored: _Scored, cost: BenchmarkResult, dataset: Dataset) -> Measured:
    accuracy, variant = scored.accuracy, read_variant(scored.fetched.folder, check=False)
    scores = None
    if accuracy is not None:
        scores = Scores(
            metric=accuracy.headline[0],
            values=accuracy.values,
            per_class=accuracy.per_class,
            split=accuracy.split,
            n_images=accuracy.n_images,
            dataset=dataset.fingerprint,
            conf=accuracy.conf,
        )
    cost = replace(cost, error=cost.error or scored.error)
    return Measured(cost.name, variant.kind, scored.fetched.sha256, cost, scores)


def _write(
    own: _Scored, measured: Measured, parent: tuple[_Scored, Measured] | None, dataset: Dataset, split: str
) -> None:
    """Write the record of one version, and the predictions of its parent beside its own."""
    stored = _stored(own.fetched)
    agreement, of_parent = float("nan"), parent[1] if parent else None
    own.folder.mkdir(parents=True, exist_ok=True)
    if parent is not None and parent[0].accuracy is not None:
        shutil.copyfile(parent[0].folder / PREDICTIONS, own.folder / PARENT_PREDICTIONS)
        if own.accuracy is not None:
            agreement = agreement_with(parent[0].accuracy, own.accuracy)
    kept = own.fetched.benchmark / PARENT_PREDICTIONS
    if parent is None and stored is not None and kept.is_file() and _holds_here(stored, dataset, split):
        of_parent, agreement = stored.parent, stored.agreement
        shutil.copyfile(kept, own.folder / PARENT_PREDICTIONS)
    record = Record(
        variant=measured,
        parent=of_parent,
        agreement=agreement,
        parity=stored.parity if stored else None,
        run_id=stored.run_id if stored else own.fetched.run_id,
        tags={**_unmeasured(stored), **_tags(measured)},
        about={"command": "promote --rebenchmark", "data": dataset.name},
    )
    write_record(own.folder, record)


def _stored(fetched: Fetched) -> Record | None:
    """Return the record that the version was registered with, None where it has none that can be used."""
    try:
        record = read_record(fetched.benchmark)
    except InputError:
        return None
    return record if record.variant.sha256 == fetched.sha256 else None


def _holds_here(stored: Record, dataset: Dataset, split: str) -> bool:
    """Return whether the stored scores of a parent that is not registered are on the same images."""
    scores = stored.parent.scores if stored.parent else None
    return scores is not None and (scores.dataset, scores.split) == (dataset.fingerprint, split)


def _unmeasured(stored: Record | None) -> dict[str, str]:
    """Return the tags that say what a version is and not what it was measured to be."""
    tags = stored.tags if stored else {}
    return {name: text for name, text in tags.items() if not name.startswith(("acc.", "bench.", "parent."))}


def _tags(measured: Measured) -> Mapping[str, str]:
    tags, scores = measured.cost.tags(), measured.scores
    if scores is None:
        return tags
    about = {"split": scores.split, "n_images": str(scores.n_images), "dataset": scores.dataset}
    values = {name: f"{value:.6f}" for name, value in scores.values.items()}
    return {**tags, **{f"acc.{name}": text for name, text in {**values, **about}.items()}}
