"""Does log-chromaticity help in shadow? Trains one model on the same scenes as sRGB and as log-chromaticity.

    python compare.py --srgb /photos/data.yaml --logchroma /photos-logchroma/data.yaml --seeds 0,1,2

One parent run, one child run per domain and seed. Like every study it can be interrupted and started again: finished
trainings are kept.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from analysis import LOGCHROMA, SRGB, Analysis, analyse
from figure import recall_figure
from report import csv, metrics, note, terminal_text

from mlflow_yolo import keys
from mlflow_yolo.cli import cli, main
from mlflow_yolo.cli.options import INT, TEXT, common_options, option
from mlflow_yolo.datasets.dataset import DOMAIN_KEY, Dataset
from mlflow_yolo.exceptions import ArgumentError, DatasetError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.models.arguments import check_positive, parse_arguments
from mlflow_yolo.models.data import default_imgsz
from mlflow_yolo.studies.driver import settle, train_pending
from mlflow_yolo.studies.freeze.analysis import Child
from mlflow_yolo.studies.freeze.question import CheckedQuestion, FreezeQuestion, check_question
from mlflow_yolo.studies.parent import open_parent
from mlflow_yolo.studies.study import Study, Trial, default_name, open_study
from mlflow_yolo.tracking.delivery.journal import journal_path
from mlflow_yolo.tracking.delivery.replay import closing_status
from mlflow_yolo.tracking.events.command_run import log_dataset
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.addresses import without_password
from mlflow_yolo.tracking.stores.store import prepare_store
from mlflow_yolo.tracking.stores.target import Target, resolve_target

_DOMAIN = "log-chromaticity"
_TASKS = ("detect", "segment", "pose")


@dataclass(frozen=True)
class Domain:
    """One of the two domains, ready to be trained: the same question, nothing frozen, on its own data."""

    name: str
    question: CheckedQuestion

    @property
    def trials(self) -> tuple[Trial, ...]:
        """One training per seed."""
        return tuple(
            replace(
                trial,
                key=f"{self.name}_seed-{trial.params['seed']}",
                name=f"{self.name} seed={trial.params['seed']}",
                params={"domain": self.name, "seed": trial.params["seed"], "lr0": trial.params["lr0"]},
            )
            for trial in self.question.trials
        )

    def part(self, study: Study) -> Study:
        """Return this domain's part of the study; what its trainings share depends on the data."""
        return replace(study, directory=study.directory / self.name, trials=self.trials)

    def children(self, study: Study) -> list[Child]:
        """Return the finished trainings."""
        found = [
            (seed, self.part(study).result(trial)) for seed, trial in zip(self.question.seeds, self.trials, strict=True)
        ]
        return [Child(self.question.freezes[0], seed, *result) for seed, result in found if result is not None]


def check(srgb: str, logchroma: str, given: Mapping[str, Any]) -> tuple[Domain, Domain]:
    """Return both domains, checked before anything is trained.

    Args:
        srgb: The scenes as photographs.
        logchroma: The same scenes as log-chromaticity.
        given: The arguments of `FreezeQuestion` that a person chooses.

    Raises:
        InputError: Something cannot work, or the two data sets do not show the same scenes.
    """
    imgsz = default_imgsz(srgb) if given["imgsz"] is None else given["imgsz"]
    question = FreezeQuestion(
        **{**given, "imgsz": imgsz}, data=srgb, freeze="0", strategy="single", epochs1=None, epochs2=None, lr02=None,
        warmup_epochs2=0.0, statistics="off",
    )  # fmt: skip
    first, second = (check_question(replace(question, data=data)) for data in (srgb, logchroma))
    if first.dataset.task not in _TASKS:
        raise ArgumentError(
            f"the data is for {first.dataset.task}; recall needs boxes. Use data for detect or segment."
        )
    check_same_scenes(first.dataset, second.dataset)
    return Domain(SRGB, first), Domain(LOGCHROMA, second)


def check_same_scenes(srgb: Dataset, logchroma: Dataset) -> None:
    """Raise DatasetError unless both hold, split by split, images of the same names with the same labels.

    Their domains are checked too: the tables call the second one log-chromaticity.
    """
    for dataset, expected in ((srgb, False), (logchroma, True)):
        if (dataset.domain == _DOMAIN) is not expected:
            raise DatasetError(
                f"{dataset.yaml} {'lacks' if expected else 'has'} '{DOMAIN_KEY}: {_DOMAIN}'. Give the photographs as "
                "srgb and what convert.py made of them as logchroma."
            )
    if (srgb.names, list(srgb.splits)) != (logchroma.names, list(logchroma.splits)):
        raise DatasetError(f"{srgb.yaml} and {logchroma.yaml} differ in classes or splits. Convert one from the other.")
    for split in srgb.splits:
        first, second = _labels(srgb, split), _labels(logchroma, split)
        odd = sorted(stem for stem in first.keys() | second.keys() if first.get(stem) != second.get(stem))
        if odd:
            raise DatasetError(
                f"{srgb.yaml} and {logchroma.yaml} do not show the same scenes: {split} image {odd[0]} is missing or "
                "labelled differently in one. Convert one from the other."
            )


def _labels(dataset: Dataset, split: str) -> dict[str, bytes]:
    """Return what the label file of each image holds, by the image's name without suffix."""
    found: dict[str, bytes] = {}
    for image, label in zip(dataset.splits[split].images, dataset.splits[split].labels, strict=True):
        if image.stem in found:
            raise DatasetError(f"{dataset.yaml}: two {split} images are called {image.stem}. Rename one and its label.")
        found[image.stem] = label.read_bytes() if label else b""
    return found


def run(
    domains: tuple[Domain, Domain], *, target: Target, workers: int, study: str | None, output: Path
) -> tuple[str, int]:
    """Run or resume the comparison; return what the terminal shows and how many trainings failed."""
    config = {
        "tracking_uri": without_password(target.tracking_uri),
        "experiment": target.place_name,
        **{domain.name: domain.question.config for domain in domains},
    }
    trials = [trial for domain in domains for trial in domain.trials]
    name = study or default_name("shadow", config)
    with open_study(output, name, config=config, trials=trials, workers=workers) as opened:
        if notice := prepare_store(target.tracking_uri, directory=opened.directory):
            click.echo(f"note: {notice}", err=True)
        for part in (domain.part(opened) for domain in domains):
            part.directory.mkdir(exist_ok=True)
            settle(part, target)
        settle(replace(opened, trials=()), target)
        finished = closing_status(journal_path(opened.directory)) == "FINISHED"
        parent = open_parent(opened, target)
        try:
            _describe(parent, domains)
            n_failed = sum(_train(domain, opened, parent, target, workers) for domain in domains)
            root = domains[0].question.dataset.root
            analysis = analyse({domain.name: domain.children(opened) for domain in domains}, root=root)
            if analysis and not finished:  # a finished study is shown again, not logged twice
                _log(parent, analysis, opened.directory)
        except KeyboardInterrupt:
            parent.close("KILLED", state="interrupted", timeout_s=5.0, close_adopted=True)
            raise
        except BaseException:
            parent.close("FAILED", close_adopted=True)
            raise
        parent.close("FAILED" if n_failed else "FINISHED", close_adopted=True)
    text = terminal_text(analysis) if analysis else "No seed is finished in both domains."
    failed = f"\n{n_failed} trainings failed; start the same command again to try them again." if n_failed else ""
    return f"{text}{failed}\nfiles: {opened.directory}", n_failed


def _describe(parent: TrackedRun, domains: tuple[Domain, Domain]) -> None:
    """Log what is compared into the parent run; what it holds already is not logged twice."""
    given = domains[0].question.given
    names = ("model", "seeds", "epochs", "batch", "optimizer", "lr0")
    data = dict(zip(("srgb", "logchroma"), (domain.question.given.data for domain in domains), strict=True))
    parent.log_params(data | {name: getattr(given, name) for name in names})
    for domain in domains:
        log_dataset(parent, domain.question.dataset, context="training")


def _train(domain: Domain, study: Study, parent: TrackedRun, target: Target, workers: int) -> int:
    """Train what a domain lacks and return how many trainings failed."""
    return train_pending(
        domain.part(study),
        domain.question.dataset,
        n_epochs=domain.question.given.epochs,
        parent=parent,
        target=target,
        workers=workers,
    )


def _log(parent: TrackedRun, analysis: Analysis, directory: Path) -> None:
    """Log table, picture, note and values into the parent run."""
    picture = directory / "recall.png"
    picture.write_bytes(png_bytes(recall_figure(analysis)))
    parent.log_file(picture, "figures")
    parent.log_text(csv(analysis), "table.csv")
    parent.set_tags({keys.TAG_NOTE: note(analysis)})
    parent.log_metrics(metrics(analysis))


@click.command("compare", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@option("srgb", default="digits-shadow", help="The photographs: a data.yaml or an embedded data set.")
@option("logchroma", default="digits-logchroma", help="The same scenes as log-chromaticity (see convert.py).")
@option("model", default="digits", help="Checkpoint .pt, model .yaml, a name, or digits (shipped).")
@option("seeds", default="0,1,2", help="Seeds; a test over seeds needs three.")
@option("epochs", type=int, default=8, help="Epochs of each training.")
@option("imgsz", type=INT, default="auto", help="Input size in pixels [128 for digits*, else 640].")
@option("batch", type=int, default=16, help="Images a batch.")
@option("device", default="auto", help="auto, cpu, 0, 0,1 or mps.")
@option("optimizer", default="AdamW", help="AdamW, SGD, …; auto is refused, since it ignores lr0.")
@option("lr0", type=float, default=0.002, help="Initial learning rate.")
@option("warmup_epochs", type=float, default=0.5, help="Epochs until the learning rate reaches lr0.")
@option("trust", is_flag=True, help="Load a checkpoint that names foreign classes.")
@option("workers", type=int, default=1, help="Trainings at once, each in a process of its own.")
@option("study", type=TEXT, default="auto", help="Name of the study; the same name resumes it [from the question].")
@option("output", default="runs", type=click.Path(path_type=Path), help="Folder of all studies.")
@common_options
@click.pass_context
def command(context: click.Context, /, srgb: str, logchroma: str, **given: Any) -> None:
    """Does log-chromaticity help in shadow? Trains both, measures recall in shadow and in light."""
    given.pop("debug")
    target = resolve_target(**{name: given.pop(name) for name in ("tracking_uri", "experiment", "run_name")})
    place = {name: given.pop(name) for name in ("workers", "study", "output")}
    check_positive(workers=place["workers"])
    domains = check(srgb, logchroma, {**given, "arguments": parse_arguments(context.args)})
    text, n_failed = run(domains, target=target, **place)
    click.echo(text)
    if n_failed:
        context.exit(1)


if __name__ == "__main__":
    cli.add_command(command)
    main(["compare", *sys.argv[1:]])
