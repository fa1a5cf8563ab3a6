"""The command `benchmark`: what do these files cost and score on this machine?"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mlflow_yolo import keys
from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.models.data import check_names
from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.links import link_tags
from mlflow_yolo.stages import Stages
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variant import digest, is_variant
from mlflow_yolo.variants.comparison import Effort, Entry, compare, distinct, entry_of
from mlflow_yolo.variants.origins import further_tags
from mlflow_yolo.variants.records import write_records
from mlflow_yolo.variants.results import log_results, write_results
from mlflow_yolo.variants.subject import Subject, read_measured, read_subject
from mlflow_yolo.variants.table import terminal_text
from mlflow_yolo.variants.workplace import workplace


def run_benchmark_command(
    *,
    data: str,
    model: str | Fetched,
    variants: Sequence[str | Fetched],
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
        model: The checkpoint, variant or registered version that is the first row.
        variants: Folders of variants, or of folders of variants; registered versions and other checkpoints may join.
            None of them: the first row alone.
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
    subject = read_measured(model, data, split=split, imgsz=imgsz, trust=trust)
    named: list[Path | Fetched] = [subject.registered or subject.checkpoint]
    for one in variants:
        named += [one] if isinstance(one, Fetched) else find_variants(one)
    entries = distinct([_entry(one, subject, data, imgsz=imgsz, trust=trust) for one in named])
    links = {entry.name: link_tags(one) for entry, one in zip(entries, named, strict=True) if isinstance(one, Fetched)}
    question = {"variants": ", ".join(map(_label, entries[1:])), **asdict(effort)}
    with workplace("benchmark", output, subject, question, tracking) as place, Stages() as stages:
        comparison = compare(
            entries, subject.dataset, subject.split, effort=effort, directory=place.directory, stages=stages
        )
        folder = write_results(comparison, place.directory)
        more = further_tags(entries, [entry.path for entry in entries if entry.variant is None])
        place.run.set_tags(subject.tags)
        lineage = {name: {**tags, **links.get(name, {})} for name, tags in more.items()}
        log_results(place.run, comparison, folder, tracking, lineage=lineage)
        write_records(comparison, place.directory, command="benchmark", more=more)
    return f"{terminal_text(comparison)}\n\nfiles: {folder}"


def _entry(one: Path | Fetched, subject: Subject, data: str, *, imgsz: int | None, trust: bool) -> Entry:
    """Return a row to be, checked to be about the same classes as the first one."""
    if isinstance(one, Fetched):
        name = keys.segment(f"{one.name}-{one.version}")
        return _checked(entry_of(one.folder, name=name), subject, called=one.uri)
    if is_variant(one):
        return _checked(entry_of(one), subject, called=str(one))
    if one == subject.checkpoint:
        return Entry(one.name, one, subject.imgsz)
    return Entry(one.name, one, read_subject(str(one), data, split=subject.split, imgsz=imgsz, trust=trust).imgsz)


def _checked(entry: Entry, subject: Subject, *, called: str) -> Entry:
    assert entry.variant is not None
    check_names(entry.variant.names, subject.dataset, model=called)
    if entry.variant.task != subject.model.task:
        raise CheckpointError(f"{called} is for {entry.variant.task}, {subject.label} for {subject.model.task}.")
    return entry


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
