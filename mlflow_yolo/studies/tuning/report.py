"""What a search says: the answer in three sentences, the table of its trials, and files; all from one outcome."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from mlflow_yolo.figures import html as page
from mlflow_yolo.figures.table import Table, markdown_table, text_table
from mlflow_yolo.studies.tuning.outcome import TrialRow, TuneOutcome
from mlflow_yolo.tracking.links import Links

Cells = list[str]

MAX_PARAMS = 5
"""Dimensions in the table that fits a terminal; the full one is in `table.csv` and the report."""

MAX_ROWS = 20
"""Trials in the table of the terminal and of MLflow's note, the chosen ones first."""


def answer(outcome: TuneOutcome) -> list[str]:
    """Return the answer in three sentences, each derived from the numbers of the table."""
    return [_choice_sentence(outcome), _confirmation_sentence(outcome), _evidence_sentence(outcome)]


def _choice_sentence(outcome: TuneOutcome) -> str:
    if outcome.best is None:
        return _nothing_sentence(outcome)
    if len(outcome.goals) > 1:
        return _front_sentence(outcome)
    best, goal = outcome.best, outcome.goals[0]
    kept = f" of those that keep {_constraints(outcome)}" if outcome.constraints else ""
    finished = outcome.in_state("finished")
    if best.default:
        return (
            f"None of {len(finished)} finished trials surpasses the default ({best.name}){kept}: "
            f"{_value(best, goal.metric)} with {_params(best)}{_point(best)}."
        )
    extreme = "highest" if goal.direction == "maximize" else "lowest"
    return (
        f"{best.name.capitalize()} has the {extreme} {goal.metric}{kept or f' of {len(finished)} finished trials'}, "
        f"{_number(best.value(goal.metric))}, with {_params(best)}{_point(best)}{_beside_default(outcome)}."
    )


def _beside_default(outcome: TuneOutcome) -> str:
    default, goal = outcome.default, outcome.goals[0]
    if default is None:
        return "; the default has no result"
    broken = "" if default.feasible else ", and does not keep the constraint"
    return f"; the default has {_number(default.value(goal.metric))}{broken}"


def _front_sentence(outcome: TuneOutcome) -> str:
    """Return the two ends of the front; the rest is in the table."""
    first, last = outcome.front[0], outcome.front[-1]
    kept = f" that keep {_constraints(outcome)}" if outcome.constraints else ""
    n = len(outcome.in_state("finished"))

    def at(row: TrialRow) -> str:
        return f"{row.name} ({', '.join(_value(row, goal.metric) for goal in outcome.goals)})"

    if first is last:
        return f"Of {n} finished trials{kept} one is surpassed by none in every goal: {at(first)}."
    return (
        f"Of {n} finished trials{kept}, {len(outcome.front)} are surpassed by none in every goal: "
        f"from {at(first)} to {at(last)}."
    )


def _nothing_sentence(outcome: TuneOutcome) -> str:
    finished = outcome.in_state("finished")
    if not finished:
        reasons = [row.reason.rstrip(".") for row in outcome.rows if row.reason]
        return f"No trial finished; the first one: {reasons[0]}." if reasons else "No trial finished."
    return f"None of {len(finished)} finished trials keeps {_constraints(outcome)}."


def _confirmation_sentence(outcome: TuneOutcome) -> str:
    if outcome.best is None:
        return "There is nothing to confirm."
    if outcome.confirmation:
        return outcome.confirmation.sentence(_challenger(outcome))
    if outcome.challenger is None:
        return "There is nothing to set against the default."
    return (
        "Nothing was trained again on new seeds: a value that was chosen for being the best of its search is too good "
        "on average."
    )


def _challenger(outcome: TuneOutcome) -> str:
    """Return what the trial is called that the default is compared with."""
    assert outcome.best is not None
    assert outcome.challenger is not None
    return f"{outcome.challenger.name}, the best other one," if outcome.best.default else outcome.challenger.name


def _evidence_sentence(outcome: TuneOutcome) -> str:
    counts = ", ".join(f"{len(outcome.in_state(state))} {state}" for state in ("finished", "pruned", "failed"))
    parts = [f"{len(outcome.rows)} trials: {counts}"]
    goal = outcome.goals[0]
    values = [value for row in outcome.in_state("finished") if not math.isnan(value := row.value(goal.metric))]
    if len(values) > 1:
        parts.append(f"{goal.metric} from {_number(min(values))} to {_number(max(values))}")
    if outcome.importance:
        name = max(outcome.importance, key=lambda key: outcome.importance[key])
        parts.append(
            f"{name} seems to matter most (importance {outcome.importance[name]:.2f} of 1, from n={len(values)} trials)"
        )
    return f"{'; '.join(parts)}."


def _constraints(outcome: TuneOutcome) -> str:
    return " and ".join(constraint.text for constraint in outcome.constraints)


def _params(row: TrialRow) -> str:
    return ", ".join(f"{name}={_cell(value)}" for name, value in row.params.items()) or "nothing changed"


def _point(row: TrialRow) -> str:
    """Return the operating point that was looked up for a trial, nothing where none was asked for."""
    conf, iou, f1 = (row.value(f"op/{name}") for name in ("conf", "iou", "f1"))
    return "" if math.isnan(conf) else f" (on val best at conf {conf:.3f} and IoU {iou:.2f}: F1 {f1:.3f})"


def _value(row: TrialRow, metric: str) -> str:
    return f"{metric} {_number(row.value(metric))}"


def _number(value: float) -> str:
    """Return a measured value: three decimals below 10, four digits above; empty for NaN."""
    return "" if math.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ranked(outcome: TuneOutcome) -> list[TrialRow]:
    """Return the trials as people read them: chosen ones, then by the first goal, infeasible, pruned and failed."""
    goal = outcome.goals[0]
    chosen = {row.number: rank for rank, row in enumerate(outcome.front)}
    states = {"finished": 0, "pruned": 2, "failed": 3}

    def key(row: TrialRow) -> tuple[int, int, float, int]:
        value = row.value(goal.metric) * (-1 if goal.direction == "maximize" else 1)
        place = states[row.state] + (row.state == "finished" and not row.feasible)
        return chosen.get(row.number, len(chosen)), place, math.inf if math.isnan(value) else value, row.number

    return sorted(outcome.rows, key=key)


@dataclass(frozen=True)
class _Columns:
    """Which columns a table has.

    Attributes:
        params: Dimensions.
        metrics: Metric keys: goals, then what the constraints are about.
    """

    params: Sequence[str]
    metrics: Sequence[str]

    @property
    def headings(self) -> list[str]:
        return ["trial", *self.params, *self.metrics, "epochs", "how it ended"]

    def cells(self, row: TrialRow, outcome: TuneOutcome) -> Cells:
        """Return a trial's cells as text."""
        return [
            _label(row, outcome),
            *(_cell(row.params[name]) if name in row.params else "" for name in self.params),
            *(_number(row.value(name)) for name in self.metrics),
            str(row.epochs_done) if row.epochs_done else "",
            _ending(row),
        ]


def _columns(outcome: TuneOutcome, *, most: int | None = None) -> _Columns:
    """Return the columns; with `most`, the dimensions that matter most, in the order in which they were given."""
    names = list(dict.fromkeys(name for row in outcome.rows for name in row.params))
    by_importance = sorted(names, key=lambda name: -outcome.importance.get(name, 0.0))
    kept = set(by_importance[:most])
    metrics = [goal.metric for goal in outcome.goals] + [constraint.metric for constraint in outcome.constraints]
    return _Columns([name for name in names if name in kept], list(dict.fromkeys(metrics)))


def _label(row: TrialRow, outcome: TuneOutcome) -> str:
    words = ["default"] if row.default else []
    if outcome.best is not None and row.number in [one.number for one in outcome.front]:
        words.append("best" if len(outcome.goals) == 1 else "front")
    return f"{row.number} ({', '.join(words)})" if words else str(row.number)


def _ending(row: TrialRow) -> str:
    tries = f" ({row.attempts} attempts)" if row.attempts > 1 else ""
    kept = "" if row.feasible or row.state != "finished" else ", breaks a constraint"
    return f"{row.state}{kept}{tries}"


def table(outcome: TuneOutcome) -> Table:
    """Return the table with every dimension and every trial."""
    columns = _columns(outcome)
    return Table(columns.headings, [columns.cells(row, outcome) for row in ranked(outcome)])


def _narrow(outcome: TuneOutcome) -> tuple[list[str], list[Cells], str]:
    """Return headings, rows and what is left out of the table that fits a terminal and MLflow's note."""
    columns, rows = _columns(outcome, most=MAX_PARAMS), ranked(outcome)
    n_params = len(_columns(outcome).params) - len(columns.params)
    shown = rows[:MAX_ROWS]
    if (default := outcome.default) and default not in shown:
        shown = [*shown[:-1], default]
    n_rows = len(rows) - len(shown)
    left_out = [f"{n} {what}" for n, what in ((n_rows, "trials"), (n_params, "dimensions")) if n]
    more = f"Not shown: {' and '.join(left_out)}; all are in table.csv." if left_out else ""
    return columns.headings, [columns.cells(row, outcome) for row in shown], more


def csv(outcome: TuneOutcome) -> str:
    """Return every trial with full precision, one line each, in the order in which they were asked for."""
    records = [
        {
            "trial": row.number,
            "state": row.state,
            "default": row.default,
            "feasible": row.feasible,
            "attempts": row.attempts,
            "epochs_done": row.epochs_done,
            "seconds": row.seconds,
            "run_id": row.run_id or "",
            "reason": row.reason,
            **{f"param/{name}": value for name, value in row.params.items()},
            **dict(row.values),
        }
        for row in outcome.rows
    ]
    return str(pd.DataFrame(records).to_csv(index=False))


def metrics(outcome: TuneOutcome) -> dict[str, float]:
    """Return the parent's metrics: counts, what the best trial and the default reached, and what was confirmed.

    The best value of the first goal is missing: `live` has logged it trial by trial.
    """
    values = {f"trials/{state}": float(len(outcome.in_state(state))) for state in ("finished", "pruned", "failed")}
    for name, row in (("best", outcome.best), ("default", outcome.default)):
        if row is not None:
            values[f"{name}/trial"] = float(row.number)
            goals = outcome.goals[1:] if name == "best" else outcome.goals
            values |= {f"{name}/{goal.metric}": row.value(goal.metric) for goal in goals}
    if (confirmed := outcome.confirmation) is not None:
        low, high, _ = confirmed.interval
        values |= {
            f"confirmed/{confirmed.split}/{confirmed.metric}/best": sum(confirmed.best) / len(confirmed.best),
            f"confirmed/{confirmed.split}/{confirmed.metric}/default": sum(confirmed.default) / len(confirmed.default),
            "confirmed/difference": confirmed.difference,
            "confirmed/difference_low": low,
            "confirmed/difference_high": high,
        }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def terminal_text(outcome: TuneOutcome, repeat: Sequence[str] = ()) -> str:
    """Return what the terminal shows: the table, the answer, and how the best trial is repeated.

    Args:
        outcome: The outcome.
        repeat: Command lines (see `repeat.repeat_commands`).
    """
    headings, rows, more = _narrow(outcome)
    lines = ["", text_table(headings, rows), *([more] if more else []), "", *answer(outcome)]
    if repeat:
        lines += ["", "The same training again:", *(f"  {line}" for line in repeat)]
    return "\n".join(lines)


def note(outcome: TuneOutcome, links: Links | None = None, repeat: Sequence[str] = ()) -> str:
    """Return the markdown note of the parent run."""
    headings, rows, more = _narrow(outcome)
    parts = [" ".join(answer(outcome))]
    if links:
        parts.append(f"[Compare the trials]({links.compare}) · [All charts]({links.charts}) · artifact `report.html`")
    parts += [markdown_table(headings, rows), *([more] if more else []), caveat(outcome)]
    if repeat:
        lines = "\n".join(folded(line) for line in repeat).splitlines()
        parts.append("The same training again:\n\n" + "\n".join(f"    {line}" for line in lines))
    return "\n\n".join(parts)


def folded(command: str, *, width: int = 80) -> str:
    """Return a command line over several lines for a POSIX shell: MLflow's page grows as wide as its longest line."""
    lines = [""]
    for word in command.split(" --"):
        option = word if not lines[-1] else f" --{word}"
        if lines[-1] and len(lines[-1]) + len(option) > width:
            lines.append(f" {option}")
        else:
            lines[-1] += option
    return " \\\n".join(lines)


def caveat(outcome: TuneOutcome) -> str:
    """Return what must be known to read the table."""
    texts = [
        "Every trial is measured with its best weights, and as the mean over its seeds where it has several. `final/…` "
        "and `op/…` are values on val, which the search chooses on, so that the best of many looks better than it is."
    ]
    if on_test := [goal.metric for goal in outcome.goals if goal.metric.startswith("test/")]:
        texts.append(f"The goal {on_test[0]} is measured on test: no split is left that the search has not seen.")
    confirmed = outcome.confirmation
    if confirmed and confirmed.over_images and confirmed.metric != "top1":
        texts.append(
            "The interval over images comes from COCO's formula on the same boxes, which differs from Ultralytics' own "
            "by up to 0.0012 by formula and 1-2 points by clipping."
        )
    return " ".join(texts)


def html(
    outcome: TuneOutcome,
    *,
    facts: Mapping[str, object],
    sections: Sequence[page.Section] = (),
    repeat: Sequence[str] = (),
) -> str:
    """Return the self-contained report.

    Args:
        outcome: The outcome.
        facts: Names and values above the answer: the data, the model, the space, the sampler.
        sections: Further sections, as figures of how the search went.
        repeat: Command lines that train the best trial again.
    """
    own = [page.Section("Every trial", caveat(outcome), table(outcome))]
    if outcome.confirmation:
        own.insert(0, _confirmation_section(outcome))
    if repeat:
        own.append(page.Section("The same training again", details=page.Details("Commands", "\n".join(repeat))))
    return page.report("Search", answer=answer(outcome), sections=[*own, *sections], facts=facts)


def _confirmation_section(outcome: TuneOutcome) -> page.Section:
    """Return the trainings on new seeds, seed by seed."""
    confirmed = outcome.confirmation
    assert confirmed is not None
    assert outcome.challenger is not None
    heading = f"{confirmed.split} {confirmed.metric}"
    rows = [
        [str(seed), f"{best:.4f}", f"{default:.4f}", f"{best - default:+.4f}"]
        for seed, best, default in zip(confirmed.seeds, confirmed.best, confirmed.default, strict=True)
    ]
    return page.Section(
        f"{outcome.challenger.name.capitalize()} against the default, on seeds the search has not seen",
        confirmed.sentence(_challenger(outcome)),
        Table(["seed", f"{heading} of {outcome.challenger.name}", f"{heading} of the default", "difference"], rows),
    )
