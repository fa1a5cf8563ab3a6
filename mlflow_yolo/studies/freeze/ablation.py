"""How deep to freeze? One parent run, one child per configuration and seed, one table.

Whatever interrupts it, starting it again goes on: finished children are kept, interrupted ones are closed as KILLED and
done anew (a training begun again from its seed gives the same weights, one continued from `last.pt` would not).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow_yolo import keys
from mlflow_yolo.studies.driver import settle, train_pending
from mlflow_yolo.studies.freeze import report
from mlflow_yolo.studies.freeze.advice import check_source, log_advice
from mlflow_yolo.studies.freeze.analysis import Child, FreezeAnalysis, analyse
from mlflow_yolo.studies.freeze.figures import draw
from mlflow_yolo.studies.freeze.hint import read_hint
from mlflow_yolo.studies.freeze.question import CheckedQuestion, FreezeQuestion, check_question
from mlflow_yolo.studies.parent import open_parent, point_to_parent
from mlflow_yolo.studies.study import Study, default_name, open_study
from mlflow_yolo.tracking.delivery.journal import journal_path
from mlflow_yolo.tracking.delivery.replay import closing_status, replay
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.events.command_run import log_dataset
from mlflow_yolo.tracking.links import Links, study_links, ui_address
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.addresses import without_password
from mlflow_yolo.tracking.stores.store import prepare_store
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.training.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """What a freeze ablation ends with.

    Attributes:
        analysis: The comparison; None where no configuration has a result.
        text: What the terminal shows.
        n_failed: Children that failed.
    """

    analysis: FreezeAnalysis | None
    text: str
    n_failed: int


def run_freeze_ablation(
    question: FreezeQuestion,
    *,
    tracking: Target,
    workers: int,
    study: str | None,
    output: Path,
    advice: bool = True,
    source: str | None = None,
) -> Outcome:
    """Run or resume a freeze ablation and return its outcome.

    Args:
        question: What to compare.
        tracking: Where the runs go.
        workers: Trainings at once.
        study: Its name; None derives one from the question, so that the same command resumes.
        output: The folder of all studies.
        advice: Ask the freeze advisor before the trainings, and hold it against them afterwards.
        source: What the model was trained on, which makes the advice better; see `advice.check_source`.

    Raises:
        InputError: Something in the question, the store or the folder cannot work; nothing has been trained.
    """
    checked = check_question(question)
    if source:
        check_source(source, checked.model)
    config = {
        "tracking_uri": without_password(tracking.tracking_uri),
        "experiment": tracking.place_name,
        **checked.config,
    }
    name = study or default_name("freeze", config)
    with open_study(output, name, config=config, trials=checked.trials, workers=workers) as opened:
        if notice := prepare_store(tracking.tracking_uri, directory=opened.directory):
            print(f"note: {notice}", file=sys.stderr)
        settle(opened, tracking)
        if closing_status(journal_path(opened.directory)) == "FINISHED" and not opened.pending():
            return _show_again(opened, checked, tracking)

        def ask(parent: TrackedRun) -> None:
            plan = Plan.from_json(checked.trials[0].plan)
            log_advice(parent, opened.directory, plan, source=source, threads=opened.threads)

        return _run(opened, checked, tracking, workers, before=ask if advice else lambda _parent: None)


def _run(
    study: Study, question: CheckedQuestion, target: Target, workers: int, *, before: Callable[[TrackedRun], None]
) -> Outcome:
    """Run what is missing under the parent run, and put together what all children show.

    `before` is called with the open parent run before anything is trained.
    """
    parent = open_parent(study, target)
    n_failed, links = 0, None
    try:
        parent.log_params(_params(question))
        log_dataset(parent, question.dataset, context="training")
        before(parent)
        n_epochs = Plan.from_json(question.trials[0].plan).epochs
        n_failed = train_pending(
            study, question.dataset, n_epochs=n_epochs, parent=parent, target=target, workers=workers
        )
        analysis = analyse(_children(study, question))
        if analysis:
            parent.flush(timeout_s=10.0)
            links = _links(study, analysis, target)
            _log_analysis(parent, analysis, study, question, links)
    except KeyboardInterrupt:
        parent.close("KILLED", state="interrupted", timeout_s=5.0, close_adopted=True)
        raise
    except BaseException:
        parent.close("FAILED", close_adopted=True)
        raise
    parent.close("FAILED" if n_failed else "FINISHED", close_adopted=True)
    n_pending = replay(study.directory).n_pending
    text = _text(study, analysis, n_failed=n_failed, n_pending=n_pending, links=links, uri=target.tracking_uri)
    return Outcome(analysis, text, n_failed)


def _show_again(study: Study, question: CheckedQuestion, target: Target) -> Outcome:
    """Return the outcome of a study that is finished and logged; nothing of it is logged twice."""
    point_to_parent(study, target)
    analysis = analyse(_children(study, question))
    links = _links(study, analysis, target) if analysis else None
    n_pending = replay(study.directory).n_pending
    text = _text(study, analysis, n_failed=0, n_pending=n_pending, links=links, uri=target.tracking_uri)
    return Outcome(analysis, text, 0)


def _params(question: CheckedQuestion) -> dict[str, object]:
    """Return the params of the parent run, as they were given: under `mlflow run` it holds the same already."""
    names = (
        *("data", "model", "freeze", "seeds", "strategy", "epochs", "imgsz", "batch", "optimizer", "lr0"),
        *("unfreeze_every", "lr_decay"),
    )
    values = {name: getattr(question.given, name) for name in names}
    return {name: "auto" if value is None else value for name, value in values.items()}


def _children(study: Study, question: CheckedQuestion) -> list[Child]:
    """Return the finished trainings."""
    pairs = [(seed, freeze) for seed in question.seeds for freeze in question.freezes]
    found = [(pair, study.result(trial)) for pair, trial in zip(pairs, study.trials, strict=True)]
    return [Child(freeze, seed, *result) for (seed, freeze), result in found if result is not None]


def _log_analysis(
    parent: TrackedRun, analysis: FreezeAnalysis, study: Study, question: CheckedQuestion, links: Links | None
) -> None:
    """Log the table, the figures, the report and the note into the parent run."""
    pictures = draw(analysis, study.directory, question.dataset.root)
    hint = read_hint(study.directory, analysis)
    for picture in pictures:
        parent.log_file(picture.file, "figures")
    parent.log_text(report.csv(analysis), "table.csv")
    parent.log_text(report.html(analysis, pictures, _facts(question), hint), "report.html")
    parent.set_tags({keys.TAG_NOTE: report.note(analysis, links, hint)})
    parent.log_metrics(report.metrics(analysis) | (hint.correlation.metrics if hint else {}))


def _facts(question: CheckedQuestion) -> dict[str, object]:
    """Return what the report says of the question above its answer."""
    dataset = question.dataset
    return {
        "data": f"{dataset.name}, fingerprint {dataset.fingerprint}",
        "images": ", ".join(f"{name} {split.n_images}" for name, split in dataset.splits.items()),
        **{name: value for name, value in _params(question).items() if name != "data"},
        "imgsz": question.trials[0].plan["imgsz"],
    }


def _links(study: Study, analysis: FreezeAnalysis, target: Target) -> Links | None:
    """Return where MLflow's UI compares the children, if the server knows them."""
    parent = read_run_file(study.directory)
    files = [read_run_file(child.directory) for row in analysis.rows for child in row.children]
    return study_links(
        target.tracking_uri,
        parent_run_id=parent.run_id if parent else None,
        child_run_ids=[file.run_id for file in files if file and file.run_id],
        study=study.name,
        metric=f"{analysis.split if analysis.split == 'test' else 'final'}/{analysis.metric}",
    )


def _text(
    study: Study, analysis: FreezeAnalysis | None, *, n_failed: int, n_pending: int, links: Links | None, uri: str
) -> str:
    """Return what the terminal shows at the end."""
    hint = read_hint(study.directory, analysis) if analysis else None
    lines = [report.terminal_text(analysis, hint) if analysis else "No configuration has a result for every seed."]
    if links:
        address, command = ui_address(uri)
        lines += ["", f"See it: {command}" if command else "See it:"]
        lines += [
            f"  {name:8} {address}/{link}"
            for name, link in (("report", links.run), ("compare", links.compare), ("charts", links.charts))
        ]
    if n_failed:
        lines.append(f"{n_failed} trainings failed; start the same command again to try them again.")
    if n_pending:
        lines.append(f"{n_pending} records wait for the tracking server: mlflow-yolo replay {study.directory}")
    return "\n".join(lines)
