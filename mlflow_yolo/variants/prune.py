"""The command `prune`: fewer channels, trained on, judged against the unpruned model trained on for as long."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlflow_yolo.compression.batches import TrainingBatches, training_batches
from mlflow_yolo.compression.distillation.settings import DEFAULT_LOSSES, Distillation, parse_distillation
from mlflow_yolo.compression.distillation.teacher import open_teacher
from mlflow_yolo.compression.pruning.dead import dead_channels, prune_dead
from mlflow_yolo.compression.pruning.health import channel_health
from mlflow_yolo.compression.pruning.record import PruningRecord
from mlflow_yolo.compression.pruning.sparse import sparsify
from mlflow_yolo.compression.pruning.structured import prune
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.widths import widths as draw_widths
from mlflow_yolo.stages import Stages
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variants.comparison import Comparison, Effort, Entry, compare, distinct
from mlflow_yolo.variants.fine_tuning import FineTuning, fine_tune, keep
from mlflow_yolo.variants.pruning_order import PruningOrder
from mlflow_yolo.variants.results import log_results, write_results
from mlflow_yolo.variants.subject import Subject, read_subject
from mlflow_yolo.variants.table import terminal_text
from mlflow_yolo.variants.workplace import Workplace, workplace

RESULT = "pruned.pt"
CONTROL = "control.pt"
UNTRAINED = "untrained.pt"
RECORD = "pruning.json"

N_BATCHES = 8
"""Training batches for recalibration and for the gradients of `taylor`."""


N_HEALTH_BATCHES = 32
"""Training batches that channels are judged on."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """What pruning made.

    Attributes:
        checkpoint: The result, `pruned.pt`.
        untrained: The same before it was trained on.
        control: The unpruned checkpoint trained on for as long, None where none was.
        record: What was removed.
    """

    checkpoint: Path
    untrained: Path
    control: Path | None
    record: PruningRecord


def run_prune(
    *,
    data: str,
    model: str,
    order: PruningOrder,
    training: FineTuning,
    teacher: str | None,
    control: bool,
    split: str,
    imgsz: int | None,
    trust: bool,
    effort: Effort,
    tracking: Target,
    output: str | None,
) -> str:
    """Prune a checkpoint, train it on, compare it, keep everything in a run, and return the lines to print.

    Args:
        data: As for a training.
        model: A checkpoint.
        order: What is removed.
        training: How it is trained on; 0 epochs for not at all.
        teacher: A checkpoint whose scores and boxes are learned while training on, None for the labels alone.
        control: Whether the unpruned checkpoint is trained on for as long, to compare with.
        split: Of the scores.
        imgsz: Side of the input, None for the one the model was trained with.
        trust: Load a checkpoint that names foreign classes.
        effort: How thoroughly latencies are measured.
        tracking: Where the run goes.
        output: The folder, None for a new one below `runs`. The result is `pruned.pt` in it.

    Raises:
        InputError: Something in the input cannot work; nothing has been written.
    """
    training.check()
    effort.check()
    subject = read_subject(model, data, split=split, imgsz=imgsz, trust=trust)
    distillation = distillation_of(teacher, subject, trust=trust)
    question = {**order.question, **training.question, "control": control, "teacher": teacher or ""}
    with workplace("prune", output, subject, question, tracking) as place, Stages() as stages:
        pruned = prune_and_train(
            subject, order, training, place=place, stages=stages, distillation=distillation, control=control
        )
        entries = [Entry(subject.checkpoint.name, subject.checkpoint, subject.imgsz)]
        others = [pruned.control, pruned.untrained if training.epochs else None, pruned.checkpoint]
        entries = distinct(entries + [Entry(path.name, path, subject.imgsz) for path in others if path is not None])
        names = {entry.path: entry.name for entry in entries}
        comparison = compare(
            entries,
            subject.dataset,
            subject.split,
            effort=effort,
            directory=place.directory,
            stages=stages,
            reference=names[pruned.control or subject.checkpoint],
        )
        folder = write_results(comparison, place.directory)
        log_results(place.run, comparison, folder, tracking, lineage={names[pruned.checkpoint]: lineage(pruned.record)})
        place.run.log_file(pruned.checkpoint)
    return _text(pruned, comparison)


def prune_and_train(
    subject: Subject,
    order: PruningOrder,
    training: FineTuning,
    *,
    place: Workplace,
    stages: Stages,
    distillation: Distillation | None = None,
    control: bool = False,
) -> Pruned:
    """Prune a checkpoint and train it on; every step that was done before an interruption is left as it is."""
    untrained, path = place.directory / UNTRAINED, place.directory / RESULT
    record = _prune(subject, untrained, order, place=place, stages=stages)
    tune: Callable[..., Path] = partial(
        fine_tune,
        settings=training,
        parent=place.run,
        tracking=place.tracking,
        directory=place.directory,
        stages=stages,
    )
    trained_control = None
    if training.epochs:
        tune(subject.of(untrained), path, name="fine-tuning", distillation=distillation)
        trained_control = tune(subject, place.directory / CONTROL, name="control") if control else None
    elif not path.exists():
        keep(untrained, path)
    return Pruned(path, untrained, trained_control, record)


def _prune(subject: Subject, path: Path, order: PruningOrder, *, place: Workplace, stages: Stages) -> PruningRecord:
    """Write the pruned checkpoint before any training, and its record; both are left as they are where they exist."""
    note = place.directory / RECORD
    if not (path.is_file() and note.is_file()):
        unfinished = path.with_name(f".{path.name}")
        made = _PRUNERS[order.method](subject, unfinished, order, place, stages)
        note.write_text(json.dumps(made.to_json(), indent=1))
        unfinished.replace(path)
    record = PruningRecord.from_json(json.loads(note.read_text()))
    log_pruning(record, subject, place)
    return record


def _structured(subject: Subject, path: Path, order: PruningOrder, place: Workplace, stages: Stages) -> PruningRecord:
    assert order.settings is not None
    batches = _batches(subject, n=N_BATCHES, seed=order.settings.seed)
    progress = stages.count("pruning", unit="step")
    return prune(
        subject.checkpoint,
        path,
        order.settings,
        imgsz=subject.imgsz,
        batches=lambda: batches,
        trust=True,  # it was scanned, or trusted, when it was read
        progress=progress,
    )


def _dead(subject: Subject, path: Path, order: PruningOrder, place: Workplace, _: Stages) -> PruningRecord:
    batches = _batches(subject, n=N_HEALTH_BATCHES, seed=0)
    health = channel_health(subject.checkpoint, batches)
    if not health.enough_images:
        print(
            f"note: channels were judged on {health.n_images} images only; rare objects' may look dead.",
            file=sys.stderr,
        )
    dead = dead_channels(health, openness=order.threshold)
    return prune_dead(subject.checkpoint, path, dead, imgsz=subject.imgsz, batches=lambda: batches, trust=True)


def _unstructured(subject: Subject, path: Path, order: PruningOrder, _: Workplace, __: Stages) -> PruningRecord:
    return sparsify(subject.checkpoint, path, order.ratio, imgsz=subject.imgsz, trust=True)


_PRUNERS: Mapping[str, Callable[[Subject, Path, PruningOrder, Workplace, Stages], PruningRecord]] = {
    "structured": _structured,
    "dead": _dead,
    "unstructured": _unstructured,
}


def _batches(subject: Subject, *, n: int, seed: int) -> TrainingBatches:
    return training_batches(subject.checkpoint, subject.dataset, imgsz=subject.imgsz, n=n, seed=seed)


def log_pruning(record: PruningRecord, subject: Subject, place: Workplace) -> None:
    """Log what was removed: numbers, widths as a table and as a figure."""
    run, folder = place.run, place.directory / "pruning"
    folder.mkdir(exist_ok=True)
    run.log_metrics(
        {
            "prune/ratio_reached": record.ratio_reached,
            "prune/parameters_before": record.parameters_before,
            "prune/parameters_after": record.parameters_after,
            "prune/gmacs_before": record.macs_before / 1e9,
            "prune/gmacs_after": record.macs_after / 1e9,
            "prune/size_mb_before": record.size_mb_before,
            "prune/size_mb_after": record.size_mb_after,
        }
        | ({} if record.score_change is None else {"prune/score_change": record.score_change})
    )
    record.to_frame().to_csv(folder / "widths.csv", index=False)
    names = {block.index: block.name for block in subject.model.blocks}
    blocks = {names[index]: width for index, width in sorted(record.block_widths().items())}
    before, after = ([width[i] for width in blocks.values()] for i in (0, 1))
    figure = draw_widths(list(blocks), before, after, title=record_sentence(record).partition(":")[0])
    (folder / "widths.png").write_bytes(png_bytes(figure))
    run.log_file(folder)
    run.log_file(place.directory / RECORD, "pruning")


def lineage(record: PruningRecord) -> dict[str, str]:
    """Return the tags of what was made from a pruned checkpoint."""
    return {
        "prune.method": record.method,
        "prune.ratio": "" if record.ratio is None else f"{record.ratio:g}",
        "prune.ratio_reached": f"{record.ratio_reached:.4f}",
        "prune.params": str(record.parameters_after),
        "prune.macs": str(record.macs_after),
        "prune.importance": record.importance,
    }


def record_sentence(record: PruningRecord) -> str:
    """Return what was removed, in a sentence, and what is to be known of it."""
    before, after = record.macs_before / 1e9, record.macs_after / 1e9
    what = "weights" if record.method == "unstructured" else "channels"
    size = (
        f"Pruned {record.ratio_reached:.0%} of all {what}: {record.parameters_before:,} to "
        f"{record.parameters_after:,} parameters, {before:.2f} to {after:.2f} GMACs at {record.imgsz} px "
        f"({record.macs_ratio:.0%}), {record.size_mb_before:.1f} to {record.size_mb_after:.1f} MB."
    )
    change = (
        f"Its scores change by at most {record.score_change:.2g} on {record.n_images} training images."
        if record.score_change is not None
        else ""
    )
    note = f"Note: {record.note}." if record.note else ""
    return " ".join(filter(None, [size, change, note]))


def distillation_of(teacher: str | None, subject: Subject, *, trust: bool) -> Distillation | None:
    """Return what a pruned model learns from a teacher: class scores, and boxes where there are any.

    Raises:
        ArgumentError: The teacher cannot be loaded, or does not fit the student.
    """
    if teacher is None:
        return None
    distillation = parse_distillation(teacher, DEFAULT_LOSSES[subject.model.task], trust=trust)
    open_teacher(distillation, task=subject.model.task, names=subject.model.names)
    return distillation


def _text(pruned: Pruned, comparison: Comparison) -> str:
    return "\n\n".join([record_sentence(pruned.record), terminal_text(comparison), f"result: {pruned.checkpoint}"])
