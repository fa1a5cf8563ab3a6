"""The command `thresholds`: which confidence and IoU to ship, from one forward pass over a split."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mlflow_yolo import keys
from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.objective import parse_objective
from mlflow_yolo.detection.operating_choice import DEFAULT_IOU
from mlflow_yolo.detection.operating_measures import Weighing
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.data import localise, new_directory
from mlflow_yolo.models.heads import Heads
from mlflow_yolo.models.replay import collect_heads
from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.links import link_tags
from mlflow_yolo.stages import Stages
from mlflow_yolo.studies.thresholds.artifacts import OPERATING_POINT, write_files
from mlflow_yolo.studies.thresholds.inside import nearest
from mlflow_yolo.studies.thresholds.question import Question, parse_grid
from mlflow_yolo.studies.thresholds.recommendation import DEFAULT_CONF, recommend
from mlflow_yolo.studies.thresholds.report import note, terminal_text
from mlflow_yolo.studies.thresholds.result import Result, metrics, operating_point, params
from mlflow_yolo.studies.thresholds.subject import CHOOSING_SPLIT, Subject, read_subject
from mlflow_yolo.studies.thresholds.variant_heads import collect_variant_heads
from mlflow_yolo.tracking.events.command_run import command_run, log_dataset
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variant import read_variant, write_variant


def read_question(
    *, conf: str, iou: str, objective: str, beta: float, c_fp: float, c_fn: float, max_det: int, match_iou: float,
    judge: str, per_class: str,
) -> Question:  # fmt: skip
    """Return the words of the command line as they will be used.

    Raises:
        ArgumentError: One of them cannot be used.
    """
    return Question(
        confs=parse_grid(conf, "conf"),
        ious=parse_grid(iou, "iou"),
        objective=parse_objective(objective, weighing=Weighing(beta, c_fp, c_fn)),
        max_det=max_det,
        match_iou=match_iou,
        judge=judge.lower(),
        per_class=per_class.lower(),
    )


def run_thresholds(
    *,
    model: str | Fetched,
    data: str,
    split: str,
    imgsz: int | None,
    batch: int,
    device: str,
    trust: bool,
    question: Question,
    write: bool,
    tracking: Target,
    output: Path,
) -> str:
    """Choose an operating point, keep it in a run, and return the lines to print.

    Args:
        model: A checkpoint, a variant's folder, or a registered version.
        data: As for a training.
        split: Split that the point is reported on, `auto` for test where there is one. It is always chosen on val;
            reported on val it is cross-fitted.
        imgsz: Input size, None for the one the model was trained with.
        batch: Images a batch.
        device: A device, or `auto`.
        trust: Load a checkpoint that names foreign classes.
        question: What is asked.
        write: Put the point into the variant's `variant.json`.
        tracking: Where the run goes.
        output: Folder below which files are written.

    Raises:
        InputError: Something in the input cannot work; nothing has been written.
    """
    subject = read_subject(model, data, split=split, imgsz=imgsz, batch=batch, device=device, trust=trust)
    question.masks(subject.task)
    if write and subject.registered is not None:
        raise ArgumentError(
            f"write=true, but {subject.name} is registered, and what is registered does not change. "
            "Leave write out, and register a new version with --operating-point."
        )
    if write and subject.folder is None:
        raise ArgumentError(
            f"write=true, but model={model} is no variant's folder. Name one made by export or quantize."
        )
    directory = new_directory(output, "thresholds")
    with command_run(tracking, directory) as run:
        run.log_params(_asked(subject, question))
        if subject.registered is not None:
            run.set_tags(link_tags(subject.registered))
        log_dataset(run, subject.dataset, context="thresholds")
        result, at_choice = find_point(subject, question, directory)
        folder = write_files(result, at_choice, directory)
        run.log_params(params(result))
        run.log_metrics(metrics(result))
        run.log_file(folder)
        run.set_tags({keys.TAG_NOTE: note(result)})
        if write and subject.folder is not None:
            write_into(subject.folder, result)
    return f"{terminal_text(result)}\n\noperating point: {folder / OPERATING_POINT}"


def find_point(subject: Subject, question: Question, directory: Path) -> tuple[Result, MatchArrays]:
    """Return the operating point, and what was detected on the choosing split at its overlap.

    Args:
        subject: The model and its data.
        question: What is asked.
        directory: Where a data.yaml is written, and Ultralytics may write.
    """
    masks = question.masks(subject.task)
    lowest = min(question.span[0], DEFAULT_CONF)
    with Stages() as stages:
        chosen_on = _collect(subject, CHOOSING_SPLIT, lowest, directory, stages)
        reported_on = _collect(subject, subject.reporting, lowest, directory, stages) if subject.is_held_out else None
    if chosen_on.end2end:
        question = replace(question, ious=(nearest(question.ious),))
    arrays = chosen_on.replay_all(sorted({*question.ious, DEFAULT_IOU}), max_det=question.max_det, conf=lowest)

    def held_out(ious: set[float]) -> Mapping[float, MatchArrays]:
        assert reported_on is not None
        return reported_on.replay_all(sorted(ious), max_det=question.max_det, conf=lowest)

    max_det = chosen_on.limit(question.max_det)
    found = recommend(
        arrays, question, masks=masks, limit=max_det, held_out=held_out if reported_on is not None else None
    )
    n_images = chosen_on.n_images, (reported_on or chosen_on).n_images
    nms = "none" if chosen_on.end2end else "agnostic" if chosen_on.agnostic else "by class"
    return Result(subject, question, found, masks, max_det, nms, n_images), arrays[found.point[1]]


def write_into(folder: Path, result: Result) -> None:
    """Put the operating point into a variant's `variant.json`; its bytes are checked before."""
    write_variant(folder, replace(read_variant(folder), operating_point=operating_point(result)))


def _collect(subject: Subject, split: str, lowest: float, directory: Path, stages: Stages) -> Heads:
    kept = directory / "measured" / split
    if subject.is_variant:
        return collect_variant_heads(
            subject.source,
            subject.dataset,
            split=split,
            conf=lowest,
            directory=kept,
            progress=stages.count(split, "picture"),
        )
    return collect_heads(
        subject.source,
        localise(subject.dataset, directory),
        split=split,
        imgsz=subject.imgsz,
        batch=subject.batch,
        device=subject.device,
        directory=kept,
        conf=lowest,
        progress=stages.count(split),
    )


def _asked(subject: Subject, question: Question) -> dict[str, object]:
    objective = question.objective
    return {
        "model": subject.label,
        "data": subject.dataset.name,
        "split": subject.reporting,
        "chosen_on": CHOOSING_SPLIT,
        "imgsz": subject.imgsz,
        "objective": objective.word,
        "beta": objective.weighing.beta,
        "c_fp": objective.weighing.c_fp,
        "c_fn": objective.weighing.c_fn,
        "conf": _grid(question.confs),
        "iou": _grid(question.ious),
        "max_det": question.max_det,
        "match_iou": question.match_iou,
    }


def _grid(values: tuple[float, ...]) -> str:
    return f"{values[0]:g} to {values[-1]:g}, {len(values)} values"
