"""The command `distill`: a student trained with a teacher, judged against the same training without one."""

from functools import partial
from pathlib import Path

from mlflow_yolo.compression.distillation.settings import DEFAULT_LOSSES, parse_distillation
from mlflow_yolo.compression.distillation.teacher import open_teacher
from mlflow_yolo.stages import Stages
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variants.comparison import Effort, Entry, compare, distinct
from mlflow_yolo.variants.fine_tuning import FineTuning, fine_tune
from mlflow_yolo.variants.results import log_results, write_results
from mlflow_yolo.variants.subject import read_subject
from mlflow_yolo.variants.table import terminal_text
from mlflow_yolo.variants.workplace import workplace

RESULT = "distilled.pt"
CONTROL = "control.pt"


def run_distill(
    *,
    data: str,
    model: str,
    teacher: str,
    losses: str | None,
    temperature: str,
    training: FineTuning,
    control: bool,
    split: str,
    imgsz: int | None,
    trust: bool,
    effort: Effort,
    tracking: Target,
    output: str | None,
) -> str:
    """Train a student with a teacher, compare it, keep everything in a run, and return the lines to print.

    Args:
        data: As for a training.
        model: The student's checkpoint.
        teacher: A checkpoint of the same task and classes.
        losses: Names and weights of what is learned from it, None for what suits the task.
        temperature: See `compression.distillation.settings.parse_distillation`.
        training: How the student is trained on.
        control: Whether the student is also trained without the teacher, to compare with.
        split: Of the scores.
        imgsz: Side of the input, None for the one the student was trained with.
        trust: Load checkpoints that name foreign classes.
        effort: How thoroughly latencies are measured.
        tracking: Where the run goes.
        output: The folder, None for a new one below `runs`. The result is `distilled.pt` in it.

    Raises:
        InputError: Something in the input cannot work; nothing has been written.
    """
    training.check()
    effort.check()
    subject = read_subject(model, data, split=split, imgsz=imgsz, trust=trust)
    losses = losses or DEFAULT_LOSSES[subject.model.task]
    distillation = parse_distillation(teacher, losses, temperature=temperature, trust=trust)
    open_teacher(distillation, task=subject.model.task, names=subject.model.names)
    question = {
        "teacher": distillation.teacher,
        **{f"loss/{name}": weight for name, weight in distillation.weights.items()},
        **{f"temperature/{name}": value for name, value in distillation.temperatures.items()},
        **training.question,
        "control": control,
    }
    with workplace("distill", output, subject, question, tracking) as place, Stages() as stages:
        tune = partial(
            fine_tune,
            subject,
            settings=training,
            parent=place.run,
            tracking=tracking,
            directory=place.directory,
            stages=stages,
        )
        result = tune(place.directory / RESULT, name="distillation", distillation=distillation)
        others = [tune(place.directory / CONTROL, name="control")] if control else []
        taught = Path(distillation.teacher)
        paths = [subject.checkpoint, *([taught] if taught.is_file() else []), *others, result]
        entries = distinct([Entry(path.name, path, subject.imgsz) for path in dict.fromkeys(paths)])
        names = {entry.path: entry.name for entry in entries}
        comparison = compare(
            entries,
            subject.dataset,
            subject.split,
            effort=effort,
            directory=place.directory,
            stages=stages,
            reference=names[others[0] if others else subject.checkpoint],
        )
        folder = write_results(comparison, place.directory)
        tags = {"kd.teacher": taught.name, **{f"kd.{name}": f"{w:g}" for name, w in distillation.weights.items()}}
        log_results(place.run, comparison, folder, tracking, lineage={names[result]: tags})
        place.run.log_file(result)
    return f"{terminal_text(comparison)}\n\nresult: {result}"
