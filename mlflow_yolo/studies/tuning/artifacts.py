"""What a search leaves in its parent run: table, report, plots, the chosen checkpoint and how it is made again."""

import json
from pathlib import Path
from statistics import fmean

import optuna

from mlflow_yolo import keys
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.html import Picture, Section
from mlflow_yolo.figures.interactive_page import interactive_page
from mlflow_yolo.figures.style import Figure
from mlflow_yolo.figures.trial_history import TrialPoint, trial_history
from mlflow_yolo.studies.freeze.advice import correlation, read_advice
from mlflow_yolo.studies.freeze.hint import Hint
from mlflow_yolo.studies.study import Study
from mlflow_yolo.studies.tuning import report
from mlflow_yolo.studies.tuning.outcome import TuneOutcome
from mlflow_yolo.studies.tuning.plots import study_figures
from mlflow_yolo.studies.tuning.question import CheckedTune
from mlflow_yolo.studies.tuning.repeat import repeat_commands
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.links import Links, study_links, ui_address
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.target import Target

BEST = Path("train") / "weights" / "best.pt"
"""Where a trial's checkpoint lies in its folder."""


def log_outcome(
    parent: TrackedRun, study: Study, search: optuna.Study, checked: CheckedTune, found: TuneOutcome, target: Target
) -> None:
    """Log what a search has found into its parent run.

    Args:
        parent: The open parent run.
        study: The study's folder.
        search: The Optuna study, for its plots.
        checked: The question.
        found: The outcome.
        target: Where the runs are.
    """
    repeat = _repeat(study, checked, found)
    parent.log_text(report.csv(found), "table.csv")
    sections = []
    if figures := study_figures(search, checked.goals):
        parent.log_text(interactive_page(f"How the search {study.name} went", figures), "search.html")
    if found.in_state("finished"):
        history = _history(found)
        file = study.directory / "figures" / "trial_history.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(png_bytes(history))
        parent.log_file(file, "figures")
        sections.append(Section("How the search went", pictures=[Picture(history, "")]))
    facts = {
        "data": f"{checked.dataset.name}, fingerprint {checked.dataset.fingerprint}",
        "images": ", ".join(f"{name} {split.n_images}" for name, split in checked.dataset.splits.items()),
        "model": checked.given.model,
        "space": checked.space.text,
        "objective": ", ".join(f"{goal.metric} ({goal.direction})" for goal in checked.goals),
        "sampler": checked.given.sampler,
        "pruner": checked.pruner,
    }
    parent.log_text(report.html(found, facts=facts, sections=sections, repeat=repeat), "report.html")
    parent.log_metrics(report.metrics(found))
    note = report.note(found, _links(study, checked, found, target), repeat)
    if hint := advice_against(study, found):
        parent.log_metrics(hint.correlation.metrics)
        note = f"{note}\n\n{' '.join(hint.sentences)}"
    parent.set_tags({keys.TAG_NOTE: note})
    if found.best is not None and found.best.directory is not None:
        parent.log_text(json.dumps({**found.best.params, **_measured(found)}, indent=1), "best.json")
        if (found.best.directory / BEST).is_file():
            parent.log_file(found.best.directory / BEST, "best")


def text_of(found: TuneOutcome, study: Study, checked: CheckedTune, target: Target, *, n_pending: int) -> str:
    """Return what the terminal shows at the end."""
    lines = [report.terminal_text(found, _repeat(study, checked, found))]
    if hint := advice_against(study, found):
        lines += ["", hint.sentences[0], hint.sentences[-1]]
    if links := _links(study, checked, found, target):
        address, command = ui_address(target.tracking_uri)
        lines += ["", f"See it: {command}" if command else "See it:"]
        lines += [
            f"  {name:8} {address}/{link}"
            for name, link in (("report", links.run), ("compare", links.compare), ("charts", links.charts))
        ]
    if n_pending:
        lines.append(f"{n_pending} records wait for the tracking server: mlflow-yolo replay {study.directory}")
    return "\n".join(lines)


def advice_against(study: Study, found: TuneOutcome) -> Hint | None:
    """Return the freeze advice of a search against its trials, None where there was none.

    A depth counts with the mean of its finished trials, whatever else they differ in.
    """
    advice, goal = read_advice(study.directory), found.goals[0]
    by_depth: dict[int, list[float]] = {}
    for row in found.in_state("finished"):
        if "freeze" in row.params:
            value = row.value(goal.metric) * (1 if goal.direction == "maximize" else -1)
            by_depth.setdefault(int(row.params["freeze"]), []).append(value)
    if advice is None:
        return None
    measured = {depth: fmean(values) for depth, values in by_depth.items()}
    return Hint(advice, correlation(advice, measured, metric=f"mean {goal.metric}"))


def _repeat(study: Study, checked: CheckedTune, found: TuneOutcome) -> list[str]:
    if found.best is None:
        return []
    plan = checked.plan(found.best.params)
    trust = checked.given.trust
    return repeat_commands(plan, directory=found.best.directory, threads=study.threads, trust=trust)


def _measured(found: TuneOutcome) -> dict[str, float]:
    assert found.best is not None
    metrics = [goal.metric for goal in found.goals] + [one.metric for one in found.constraints]
    return {name: found.best.value(name) for name in metrics}


def _history(found: TuneOutcome) -> Figure:
    """Return the figure of every trial's value and the best so far."""
    goal = found.goals[0]
    points = [
        TrialPoint(
            row.number,
            row.value(goal.metric),
            row.state if row.feasible or row.state != "finished" else "infeasible",
            default=row.default,
        )
        for row in found.rows
    ]
    return trial_history(points, metric=goal.metric, maximize=goal.direction == "maximize")


def _links(study: Study, checked: CheckedTune, found: TuneOutcome, target: Target) -> Links | None:
    """Return where MLflow's UI compares the trials, if the server knows them."""
    parent = read_run_file(study.directory)
    return study_links(
        target.tracking_uri,
        parent_run_id=parent.run_id if parent else None,
        child_run_ids=[row.run_id for row in found.in_state("finished") if row.run_id],
        study=study.name,
        metric=checked.goals[0].metric,
    )
