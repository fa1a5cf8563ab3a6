"""One explanation from the command line: a pass over a split, what came of it, and a run that keeps it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.attribution.cam import find_method
from mlflow_yolo.classification.categories import Categories, read_categories
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.explanation.artifacts import log_findings, note, summary, write_findings
from mlflow_yolo.explanation.classification_findings import CLOSED_FORM, explain_classifier
from mlflow_yolo.explanation.detection_findings import explain_detector
from mlflow_yolo.explanation.findings import Findings, Settings
from mlflow_yolo.explanation.network import ExplainedModel, check_not_exported, open_model
from mlflow_yolo.explanation.split import classify_split, detect_split
from mlflow_yolo.models.arguments import check_device, check_imgsz, check_positive
from mlflow_yolo.models.checkpoint import Model, read_model
from mlflow_yolo.models.data import choose_split, localise, new_directory
from mlflow_yolo.stages import Stages
from mlflow_yolo.tracking.events.command_run import command_run, log_dataset
from mlflow_yolo.tracking.stores.target import Target


def run_explain(
    *,
    data: str,
    model: str,
    split: str,
    imgsz: int | None,
    batch: int,
    device: str,
    categories: str | None,
    trust: bool,
    settings: Settings,
    tracking: Target,
    output: Path,
) -> str:
    """Explain a checkpoint on a split, keep everything in a run, and return the lines to print.

    Args:
        data: As for a training.
        model: A checkpoint.
        split: `val`, `test`, `train`, or `auto` for test where there is one.
        imgsz: Input size, None for the one the model was trained with.
        batch: Images a batch of the pass.
        device: A device, or `auto`.
        categories: A file with the categories of the classes, None for none.
        trust: Load a checkpoint that names foreign classes.
        settings: How much is looked at.
        tracking: Where the run goes.
        output: Folder below which files are written.

    Raises:
        InputError: Something in the input cannot work; nothing has been written.
    """
    check_positive(batch=batch)
    check_not_exported(model)
    found = read_model(model, trust=trust)
    _check_settings(settings, found.task)
    dataset = load_dataset(data, task=found.task)
    chosen = choose_split(dataset, split)
    opened = open_model(found.source, device=device, trust=trust)
    _check_classes(opened, dataset)
    if settings.block is not None:
        opened.layers.check_sees_all(settings.block)
    groups = read_categories(Path(categories), opened.names) if categories else None
    size = opened.imgsz if imgsz is None else check_imgsz(imgsz)
    subject = Subject(found, opened, dataset, chosen, size, batch, check_device(device), groups)
    directory = new_directory(output, "explain")
    with command_run(tracking, directory) as run:
        run.log_params({"model": subject.model_name, "data": dataset.name, "split": chosen, "imgsz": size})
        log_dataset(run, dataset, context="explanation")
        started = time.perf_counter()
        findings = explain_subject(subject, settings, directory)
        folder = write_findings(findings, directory)
        log_findings(run, findings, folder)
        run.log_metrics({"explain/seconds": time.perf_counter() - started})
        run.set_tags({keys.TAG_NOTE: note(findings)})
    return f"{summary(findings)}\nreport: {folder / 'report.html'}"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is explained, checked.

    Attributes:
        found: The located checkpoint.
        model: The same, opened.
        dataset: The data.
        split: One of its splits.
        imgsz: Input size, pixels.
        batch: Images a batch of the pass.
        device: A checked device.
        groups: Categories of the classes, None for none.
    """

    found: Model
    model: ExplainedModel
    dataset: Dataset
    split: str
    imgsz: int
    batch: int
    device: str
    groups: Categories | None

    @property
    def model_name(self) -> str:
        """The checkpoint's file and the beginning of its hash."""
        name, sha256 = Path(self.found.source).name, self.found.sha256
        return f"{name} ({sha256[:12]})" if sha256 else name

    @property
    def facts(self) -> dict[str, object]:
        """What stands at the top of the report."""
        data, n = f"{self.dataset.name} ({self.dataset.fingerprint})", self.dataset.splits[self.split].n_images
        return {"model": self.model_name, "data": f"{data}, {self.split}: {n} images", "input": f"{self.imgsz} px"}

    @property
    def peer_block(self) -> int:
        """The last block of the backbone, which the usual recipes of Grad-CAM take."""
        return max(block.index for block in self.found.blocks if block.part == "backbone")


def explain_subject(subject: Subject, settings: Settings, directory: Path) -> Findings:
    """Return everything that one pass over the split, and maps of what it found, have to say.

    Args:
        subject: What is explained.
        settings: How much is looked at.
        directory: Where a data.yaml is written, and Ultralytics may write.
    """
    data = localise(subject.dataset, directory)
    pass_ = {name: getattr(subject, name) for name in ("split", "imgsz", "batch", "device")}
    pass_["directory"] = directory / "measured"
    with Stages() as stages:
        about: dict[str, Any] = {
            "settings": settings,
            "groups": subject.groups,
            "facts": subject.facts,
            "stages": stages,
        }
        progress = stages.count("validation")
        if data.task == "classify":
            classified = classify_split(subject.found.source, data, progress=progress, **pass_)
            return explain_classifier(classified, subject.model, root=data.root, **about)
        detected = detect_split(subject.found.source, data, progress=progress, **pass_)
        return explain_detector(detected, subject.model, peer_block=subject.peer_block, **about)


def _check_settings(settings: Settings, task: str) -> None:
    for name in ("per_class", "pairs", "pair_examples", "instances", "perturbed"):
        if getattr(settings, name) < 0:
            raise ArgumentError(f"{name}={getattr(settings, name)} is negative. Use 0 for none.")
    if settings.conf is not None and not 0 <= settings.conf <= 1:
        raise ArgumentError(f"conf={settings.conf} is no confidence. Use a number from 0 to 1, or auto.")
    if settings.method is not None and (settings.method != CLOSED_FORM or task != "classify"):
        find_method(settings.method)


def _check_classes(model: ExplainedModel, dataset: Dataset) -> None:
    if len(model.names) != len(dataset.names):
        raise ArgumentError(
            f"the model has {len(model.names)} classes and {dataset.name} has {len(dataset.names)}: its errors would "
            "be those of the labels. Use the data the model was trained for."
        )
