"""What a search says follows from its numbers: sentences, cells and files of outcomes made by hand."""

import io
import math
import re
import shlex
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from mlflow_yolo.detection.bootstrap import Difference
from mlflow_yolo.figures import html as page
from mlflow_yolo.statistics.comparison import compare, paired_t
from mlflow_yolo.studies.tuning import report
from mlflow_yolo.studies.tuning.confirmation import Confirmation
from mlflow_yolo.studies.tuning.objective import Constraint, Goal
from mlflow_yolo.studies.tuning.outcome import TrialRow, TuneOutcome, outcome_of
from mlflow_yolo.tracking.links import Links

SCORE, LATENCY = Goal("final/mAP50-95", "maximize"), Goal("latency_p95_ms", "minimize")
FAST = Constraint("latency_p95_ms", "<=", 20.0)
LINKS = Links("#/run", "#/compare", "#/charts")
COMMAND = "mlflow-yolo train --lr0 0.0042"


def row(number: int, score: float = math.nan, latency: float = 15.0, **changed: Any) -> TrialRow:
    """Return a trial with two dimensions and two values; number 0 is the default."""
    values = {SCORE.metric: score, LATENCY.metric: latency}
    given = {
        "number": number,
        "state": "finished",
        "params": {"freeze": number, "lr0": 0.001 * (number + 1)},
        "values": {name: value for name, value in values.items() if not math.isnan(value)},
        "default": number == 0,
        "epochs_done": 5,
    }
    return TrialRow(**{**given, **changed})


def confirmation(p: float) -> Confirmation:
    """Return two seeds and a bootstrap with the interval +0.01 to +0.05 and this p value."""
    seeds = paired_t([0.52, 0.54], [0.50, 0.50])
    images = Difference(0.03, 0.01, 0.05, p, 60, 1000)
    verdict = compare({"it": seeds}, {"it": images})["it"]
    return Confirmation("mAP50-95", "test", 60, (1, 2), (0.50, 0.50), (0.52, 0.54), seeds, images, verdict)


ROWS = [row(0, 0.48), row(1, 0.512), row(2, state="pruned", epochs_done=2), row(3, state="failed", reason="no memory.")]
OUTCOME = outcome_of(ROWS, [SCORE])


def cells(outcome: TuneOutcome, trial: str) -> dict[str, object]:
    """Return a row of the full table by heading."""
    table = report.table(outcome)
    return dict(zip(table.columns, next(line for line in table.rows if str(line[0]).startswith(trial)), strict=True))


def test_the_first_sentence_names_the_choice_its_values_and_the_default() -> None:
    assert report.answer(OUTCOME)[0] == (
        "Trial 1 has the highest final/mAP50-95 of 2 finished trials, 0.512, with freeze=1, lr0=0.002; the default has "
        "0.480."
    )


def test_a_goal_to_minimise_has_a_lowest_value() -> None:
    first = report.answer(outcome_of([row(0, latency=31.5), row(1, latency=22.25)], [LATENCY]))[0]

    assert first.startswith("Trial 1 has the lowest latency_p95_ms of 2 finished trials, 22.25, with")
    assert first.endswith("; the default has 31.5.")


def test_where_the_default_wins_nothing_is_said_to_surpass_it() -> None:
    first, second, _ = report.answer(outcome_of([row(0, 0.6), row(1, state="failed")], [SCORE]))

    assert first == (
        "None of 1 finished trials surpasses the default (trial 0): final/mAP50-95 0.600 with freeze=0, lr0=0.001."
    )
    assert second == "There is nothing to set against the default."


def test_an_operating_point_that_was_looked_up_is_said() -> None:
    found = {SCORE.metric: 0.5, "op/conf": 0.4125, "op/iou": 0.55, "op/f1": 0.61}
    default, other = row(0, 0.4), row(1, values=found)

    assert report.answer(outcome_of([default, other], [SCORE]))[0].endswith(
        "with freeze=1, lr0=0.002 (on val best at conf 0.412 and IoU 0.55: F1 0.610); the default has 0.400."
    )
    alone = report.answer(outcome_of([row(0, values=found)], [SCORE]))[0]
    assert alone.endswith("lr0=0.001 (on val best at conf 0.412 and IoU 0.55: F1 0.610).")


def test_a_default_without_a_result_is_said_so() -> None:
    first = report.answer(outcome_of([row(0, state="failed"), row(1, 0.5)], [SCORE]))[0]

    assert first.endswith("; the default has no result.")


def test_with_a_constraint_the_choice_is_among_those_that_keep_it() -> None:
    rows = [row(0, 0.6, 30.0, feasible=False), row(1, 0.5)]

    assert report.answer(outcome_of(rows, [SCORE], [FAST]))[0] == (
        "Trial 1 has the highest final/mAP50-95 of those that keep latency_p95_ms<=20, 0.500, with freeze=1, "
        "lr0=0.002; the default has 0.600, and does not keep the constraint."
    )


def test_constraints_that_nothing_keeps_are_named() -> None:
    outcome = outcome_of([row(0, 0.6, 30.0, feasible=False)], [SCORE], [FAST, Constraint("size_mb", "<=", 6.0)])

    assert report.answer(outcome)[:2] == [
        "None of 1 finished trials keeps latency_p95_ms<=20 and size_mb<=6.",
        "There is nothing to confirm.",
    ]


def test_where_nothing_finished_the_first_reason_is_given() -> None:
    failed = outcome_of([row(0, state="failed", reason="no memory."), row(1, state="failed", reason="disk")], [SCORE])

    assert report.answer(failed)[0] == "No trial finished; the first one: no memory."
    assert report.answer(outcome_of([], [SCORE]))[0] == "No trial finished."
    assert "nan" not in report.terminal_text(failed) + report.note(failed) + report.html(failed, facts={})


def test_several_goals_name_both_ends_of_the_front() -> None:
    rows = [row(0, 0.4, 10.0), row(1, 0.6, 30.0), row(2, 0.5, 20.0), row(3, 0.3, 40.0)]

    assert report.answer(outcome_of(rows, [SCORE, LATENCY]))[0] == (
        "Of 4 finished trials, 3 are surpassed by none in every goal: from trial 1 (final/mAP50-95 0.600, "
        "latency_p95_ms 30) to trial 0 (final/mAP50-95 0.400, latency_p95_ms 10)."
    )


def test_a_front_of_one_is_said_so() -> None:
    first = report.answer(outcome_of([row(0, 0.4, 10.0), row(1, 0.3, 30.0)], [SCORE, LATENCY]))[0]

    assert first.startswith("Of 2 finished trials one is surpassed by none in every goal: trial 0 (")


def test_better_is_said_only_where_it_is_shown() -> None:
    shown = report.answer(replace(OUTCOME, confirmation=confirmation(0.004)))
    not_shown = report.answer(replace(OUTCOME, confirmation=confirmation(0.2)))

    assert shown[1] == (
        "Trained again on seeds 1 and 2, trial 1 is better than the default, shown over images, on the test split "
        "(60 images): mAP50-95 0.530 against 0.500, +0.030 [+0.010, +0.050] (95 % over images)."
    )
    assert not_shown[1].startswith("Trained again on seeds 1 and 2, trial 1 shows no difference to the default (n=2)")
    for sentence in (*not_shown, *report.answer(OUTCOME)):
        assert " better than the default" not in sentence


def test_where_the_default_is_best_the_best_other_trial_is_named_beside_it() -> None:
    won = outcome_of([row(0, 0.6), row(1, 0.5)], [SCORE], confirmation=confirmation(0.2))

    assert report.answer(won)[1].startswith(
        "Trained again on seeds 1 and 2, trial 1, the best other one, shows no difference to the default (n=2)"
    )


def test_what_was_not_trained_again_is_not_called_proven() -> None:
    assert report.answer(OUTCOME)[1].startswith("Nothing was trained again on new seeds: ")


def test_the_last_sentence_counts_and_names_what_mattered() -> None:
    assert report.answer(OUTCOME)[2] == "4 trials: 2 finished, 1 pruned, 1 failed; final/mAP50-95 from 0.480 to 0.512."
    assert report.answer(replace(OUTCOME, importance={"freeze": 0.2, "lr0": 0.8}))[2].endswith(
        "; lr0 seems to matter most (importance 0.80 of 1, from n=2 trials)."
    )


def test_the_table_has_the_choice_first_and_what_failed_last() -> None:
    rows = [*ROWS, row(4, 0.9, feasible=False), row(5, 0.49)]
    outcome = outcome_of(rows, [SCORE], [FAST])

    assert [one.number for one in report.ranked(outcome)] == [1, 5, 0, 4, 2, 3]
    assert report.table(outcome).columns == [
        "trial",
        "freeze",
        "lr0",
        "final/mAP50-95",
        "latency_p95_ms",
        "epochs",
        "how it ended",
    ]
    assert cells(outcome, "1 (best)") == {
        "trial": "1 (best)",
        "freeze": "1",
        "lr0": "0.002",
        "final/mAP50-95": "0.512",
        "latency_p95_ms": "15",
        "epochs": "5",
        "how it ended": "finished",
    }
    assert cells(outcome, "0")["trial"] == "0 (default)"
    assert cells(outcome, "4")["how it ended"] == "finished, breaks a constraint"
    assert (cells(outcome, "2")["how it ended"], cells(outcome, "2")["final/mAP50-95"]) == ("pruned", "")


def test_the_table_is_by_the_first_goal_whichever_way_it_goes() -> None:
    rows = [row(0, latency=3.0), row(1, latency=1.0), row(2, latency=2.0)]

    assert [one.number for one in report.ranked(outcome_of(rows, [LATENCY]))] == [1, 2, 0]


def test_attempts_and_the_front_are_in_the_cells() -> None:
    outcome = outcome_of([row(0, 0.4, 10.0), row(1, 0.6, 30.0, attempts=3)], [SCORE, LATENCY])

    assert cells(outcome, "0")["trial"] == "0 (default, front)"
    assert cells(outcome, "1")["how it ended"] == "finished (3 attempts)"


def test_a_dimension_that_only_some_trials_have_is_empty_for_the_others() -> None:
    outcome = outcome_of([row(0, 0.4), row(1, 0.5, params={"freeze": 1, "momentum": 0.9})], [SCORE])

    assert (cells(outcome, "0")["momentum"], cells(outcome, "1")["lr0"]) == ("", "")


def test_the_terminal_shows_few_columns_and_rows_and_says_what_it_leaves_out() -> None:
    many = [row(n, 0.9 - n / 100, params={f"d{i}": float(n) for i in range(8)}) for n in range(30)]
    rows = [replace(one, default=one.number == 29) for one in many]
    outcome = outcome_of(rows, [SCORE], importance={f"d{i}": i / 28 for i in range(8)})

    text = report.terminal_text(outcome, [COMMAND])
    lines = [line.strip() for line in text.splitlines()]
    head = next(line for line in lines if line.startswith("trial"))
    assert head.split()[1:6] == ["d3", "d4", "d5", "d6", "d7"]
    assert "Not shown: 10 trials and 3 dimensions; all are in table.csv." in lines
    assert any(line.startswith("29 (default)") for line in lines)
    assert any(line.startswith("18 ") for line in lines)
    assert not any(line.startswith("19 ") for line in lines)
    assert text.endswith(f"The same training again:\n  {COMMAND}")


def test_the_note_has_the_answer_the_links_the_table_and_the_command() -> None:
    note = report.note(OUTCOME, LINKS, [COMMAND])

    assert note.startswith("Trial 1 has the highest")
    assert "(#/compare)" in note
    assert re.search(r"^\| *trial *\|", note, re.MULTILINE)
    assert f"\n    {COMMAND}" in note
    assert "(#/compare)" not in report.note(OUTCOME)
    assert "The same training again" not in report.note(OUTCOME)


def test_the_note_of_a_long_search_fits_into_a_tag() -> None:
    params = {f"dimension_{i}": 0.123456 for i in range(20)}
    rows = [row(n, 0.5, params=params, reason="x" * 500) for n in range(400)]

    assert len(report.note(outcome_of(rows, [SCORE, LATENCY], [FAST]), LINKS, [COMMAND])) < 8000


def test_a_goal_on_test_is_said_to_leave_no_split_unseen() -> None:
    on_test = outcome_of([row(0, 0.4, values={"test/mAP50": 0.4})], [Goal("test/mAP50", "maximize")])

    assert "no split is left that the search has not seen" in report.note(on_test)
    assert "no split is left" not in report.note(OUTCOME)


def test_the_csv_has_every_trial_to_the_last_digit() -> None:
    table = pd.read_csv(io.StringIO(report.csv(OUTCOME))).set_index("trial")

    assert list(table.index) == [0, 1, 2, 3]
    assert table.loc[1, "final/mAP50-95"] == 0.512
    assert table.loc[1, "param/lr0"] == 0.002
    assert math.isnan(table.loc[2, "final/mAP50-95"])
    assert (table.loc[3, "state"], table.loc[3, "reason"]) == ("failed", "no memory.")


def test_the_parents_metrics_are_counts_ends_and_what_was_confirmed() -> None:
    assert report.metrics(replace(OUTCOME, confirmation=confirmation(0.2))) == pytest.approx(
        {
            "trials/finished": 2,
            "trials/pruned": 1,
            "trials/failed": 1,
            "best/trial": 1,
            "default/trial": 0,
            "default/final/mAP50-95": 0.48,
            "confirmed/test/mAP50-95/best": 0.53,
            "confirmed/test/mAP50-95/default": 0.5,
            "confirmed/difference": 0.03,
            "confirmed/difference_low": 0.01,
            "confirmed/difference_high": 0.05,
        }
    )


def test_the_best_of_every_further_goal_is_a_metric_of_its_own() -> None:
    found = report.metrics(outcome_of([row(0, 0.4, 10.0), row(1, 0.6, 30.0)], [SCORE, LATENCY]))

    assert found["best/latency_p95_ms"] == 30.0
    assert found["default/latency_p95_ms"] == 10.0
    assert "best/final/mAP50-95" not in found  # its steps are the search's progress


def test_metrics_never_hold_what_was_not_measured() -> None:
    assert report.metrics(outcome_of([row(0, state="failed")], [SCORE])) == {
        "trials/finished": 0.0,
        "trials/pruned": 0.0,
        "trials/failed": 1.0,
    }
    without = report.metrics(outcome_of([row(0, values={}), row(1, 0.5)], [SCORE]))
    assert set(without) == {"trials/finished", "trials/pruned", "trials/failed", "best/trial", "default/trial"}


def test_the_report_is_one_file_that_loads_nothing() -> None:
    outcome = replace(OUTCOME, confirmation=confirmation(0.004))
    html = report.html(
        outcome, facts={"data": "<cells> & more"}, sections=[page.Section("How it went", "By trial.")], repeat=[COMMAND]
    )

    assert "Trial 1 is better than" not in html  # only the sentence with its evidence says so
    assert "trial 1 is better than the default, shown over images" in html
    assert "&lt;cells&gt; &amp; more" in html
    for text in ("+0.0200", "+0.0400", COMMAND, "How it went"):
        assert text in html
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", html) == []
    assert "https://" not in html


def test_a_long_command_is_folded_and_stays_the_same_for_a_shell() -> None:
    command = "OMP_NUM_THREADS=1 mlflow-yolo train " + " ".join(f"--option{n} 'value {n}'" for n in range(12))

    lines = report.folded(command).splitlines()

    assert len(lines) > 1
    assert max(map(len, lines)) < 90
    assert shlex.split(" ".join(line.removesuffix("\\") for line in lines)) == shlex.split(command)
    assert report.folded("mlflow-yolo train --seed 1") == "mlflow-yolo train --seed 1"
