"""The command `benchmark`: what do these files cost and score on this machine?"""

from dataclasses import asdict
from pathlib import Path

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.models.data import check_names
from mlflow_yolo.stages import Stages
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variant import digest, is_variant
from mlflow_yolo.variants.comparison import Effort, Entry, compare, distinct, entry_of
from mlflow_yolo.variants.results import log_results, write_results
from mlflow_yolo.variants.subject import read_subject
from mlflow_yolo.variants.table import terminal_text
from mlflow_yolo.variants.workplace import workplace


def run_benchmark_command(
    *,
    data: str,
    model: str,
    variants: str | None,
    split: str,
    imgsz: int | None,
    trust: bool,
    effort: Effort,
    tracking: Target,
    output: str | None,
) -> str:
    """Measure a checkpoint and variants side by side, keep it in runs, and return the lines to print.

    Args:
        data: As for a training.
        model: The checkpoint, always the first row.
        variants: Comma-separated folders: variants, or folders of variants; other checkpoints may join. None for the
            checkpoint alone.
        split: Of the scores.
        imgsz: Side of the checkpoint's input, None for the one it was trained with.
        trust: Load a checkpoint that names foreign classes.
        effort: How thoroughly.
        tracking: Where the runs go.
        output: The folder, None for a new one below `runs`. The same command on the same folder goes on.

    Raises:
        InputError: Something in the input cannot work; nothing has been written.
    """
    effort.check()
    subject = read_subject(model, data, split=split, imgsz=imgsz, trust=trust)
    entries = [Entry(subject.checkpoint.name, subject.checkpoint, subject.imgsz)]
    for path in find_variants(variants or ""):
        if path.suffix == ".pt":
            other = read_subject(str(path), data, split=split, imgsz=imgsz, trust=trust)
            entries.append(Entry(path.name, path, other.imgsz))
            continue
        entry = entry_of(path)
        assert entry.variant is not None
        check_names(entry.variant.names, subject.dataset, model=str(path))
        if entry.variant.task != subject.model.task:
            raise CheckpointError(f"{path} is for {entry.variant.task}, {model} for {subject.model.task}.")
        entries.append(entry)
    entries = distinct(entries)
    question = {"variants": ", ".join(map(_label, entries[1:])), **asdict(effort)}
    with workplace("benchmark", output, subject, question, tracking) as place, Stages() as stages:
        comparison = compare(
            entries, subject.dataset, subject.split, effort=effort, directory=place.directory, stages=stages
        )
        folder = write_results(comparison, place.directory)
        log_results(place.run, comparison, folder, tracking)
    return f"{terminal_text(comparison)}\n\nfiles: {folder}"


def find_variants(text: str) -> list[Path]:
    """Return the variants and checkpoints that a comma-separated list names; a folder stands for those in it.

    Raises:
        CheckpointError: A path does not exist or holds no variant.
    """
    found: list[Path] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        path = Path(word).expanduser()
        if path.suffix == ".pt" and path.is_file():
            found.append(path)
        elif is_variant(path):
            found.append(path.parent if path.is_file() else path)
        else:
            below = sorted(filter(_is_finished, path.iterdir())) if path.is_dir() else []
            if not below:
                raise CheckpointError(
                    f"variants={word} is neither a variant's folder nor a folder of variants. "
                    "Make some with export, quantize or compress."
                )
            found += below
    return found


def _is_finished(path: Path) -> bool:
    """Return whether a folder is a variant; a hidden one was being made when its process was killed."""
    return is_variant(path) and not path.name.startswith(".")


def _label(entry: Entry) -> str:
    sha256 = entry.variant.sha256 if entry.variant else digest(entry.path)
    return f"{entry.name} ({sha256[:12]})"
