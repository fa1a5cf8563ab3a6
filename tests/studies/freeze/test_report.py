"""Words follow from numbers: every sentence, cell and file from analyses whose numbers are chosen by hand."""

import io
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mlflow_yolo.figures.style import Figure
from mlflow_yolo.studies.freeze import report
from mlflow_yolo.studies.freeze.analysis import Child, FreezeAnalysis, analyse
from mlflow_yolo.studies.freeze.figures import Picture
from mlflow_yolo.tracking.links import Links

MakeChild = Callable[..., Child]
BASE, BETTER, WORSE, SAME = [0.50, 0.52, 0.51], [0.60, 0.63, 0.61], [0.30, 0.33, 0.31], [0.51, 0.51, 0.52]


def compared(make_child: MakeChild, groups: dict[str, list[float]], **costs: float) -> FreezeAnalysis:
    """Return the comparison of hand-made children; `s_<word>` sets a configuration's seconds per epoch."""
    children = [
        make_child(word, seed, value, seconds_per_epoch_mean=costs.get(f"s_{word}", 2.0))
        for word, values in groups.items()
        for seed, value in enumerate(values)
    ]
    analysis = analyse(children)
    assert analysis is not None
    return analysis


def test_a_better_configuration_is_named_with_its_evidence(make_child: MakeChild) -> None:
    first = report.answer(compared(make_child, {"0": BASE, "10": BETTER}))[0]

    assert first == (
        "Freezing 10 is better than freezing nothing, shown over seeds: test mAP50-95 0.613 against 0.510."
    )


def test_the_best_of_several_better_ones_is_named(make_child: MakeChild) -> None:
    more = [value + 0.1 for value in BETTER]

    assert report.answer(compared(make_child, {"0": BASE, "3": more, "10": BETTER}))[0].startswith("Freezing 3 ")


def test_a_worse_configuration_is_listed_after_a_better_one(make_child: MakeChild) -> None:
    first = report.answer(compared(make_child, {"0": BASE, "3": BETTER, "backbone": WORSE}))[0]

    assert first.startswith("Freezing 3 is better than freezing nothing")
    assert first.endswith("; worse: backbone (11) (0.313).")


def test_only_worse_ones_mean_freeze_nothing(make_child: MakeChild) -> None:
    first = report.answer(compared(make_child, {"0": BASE, "10": WORSE}))[0]

    assert first == "Freeze nothing: test mAP50-95 0.510; worse: 10 (0.313)."


def test_no_difference_names_the_deepest_freeze_without_a_shown_loss(make_child: MakeChild) -> None:
    analysis = compared(make_child, {"0": BASE, "3": SAME, "10": SAME, "backbone": WORSE})

    first = report.answer(analysis)[0]
    assert "better" not in first.replace("No configuration is shown to be better", "")
    assert "the deepest freeze without a shown loss is 10 (0.513)" in first
    assert first.endswith("worse: backbone (11) (0.313).")
    assert [row.verdict.text for row in analysis.rows[1:3] if row.verdict] == ["no difference shown (n=3)"] * 2


def test_one_seed_claims_nothing(make_child: MakeChild) -> None:
    sentences = report.answer(compared(make_child, {"0": [0.5], "10": [0.9]}))

    assert sentences[0].startswith("No configuration is shown to be better than freezing nothing (test mAP50-95 0.500)")
    assert sentences[1] == (
        "The evidence: 1 seed, no test over seeds (that needs three) and no bootstrap over images "
        "(no predictions to resample)."
    )


def test_seeds_that_all_differ_by_the_same_are_no_test(make_child: MakeChild) -> None:
    second = report.answer(compared(make_child, {"0": BASE, "10": BASE}))[1]

    assert second.startswith("The evidence: 3 seeds, no test over seeds (every seed differs by the same) and")


def test_three_seeds_and_images_name_both_tests(make_child: MakeChild) -> None:
    groups = (("0", BASE, 8), ("10", BETTER, 18))
    analysis = analyse(
        [make_child(w, s, v, n_right=n) for w, vs, n in groups for s, v in enumerate(vs)], n_resamples=200
    )

    assert analysis is not None
    assert report.answer(analysis)[1] == (
        "The evidence: 3 seeds, a paired t test over seeds and a paired bootstrap over 20 test images "
        "(200 resamples), each corrected by Holm over the configurations."
    )
    assert "shown over seeds and images:" in report.answer(analysis)[0]


def test_only_a_baseline_recommends_nothing_and_claims_no_test(make_child: MakeChild) -> None:
    first, second, third = report.answer(compared(make_child, {"0": BASE}))

    assert first == "Nothing was compared: only freezing nothing has results (test mAP50-95 0.510)."
    assert second == "The evidence: 3 seeds, without anything to test against."
    assert third == "An epoch took 2.0 s (2.0 to 2.0)."


def test_time_saved_is_a_share_of_the_unfrozen_epoch(make_child: MakeChild) -> None:
    analysis = compared(make_child, {"0": BASE, "3": SAME, "10": SAME}, s_0=4.0, s_3=3.5, s_10=3.0)

    assert report.answer(analysis)[2] == (
        "An epoch took 4.0 s (4.0 to 4.0) unfrozen, 3.0 s (3.0 to 3.0) with 10 frozen "
        "(trainings that shared this machine): 25% less."
    )


def test_time_that_was_not_saved_is_not_claimed(make_child: MakeChild) -> None:
    analysis = compared(make_child, {"0": BASE, "10": SAME}, s_0=2.0, s_10=2.5)

    assert report.answer(analysis)[2] == (
        "An epoch took 2.0 s (2.0 to 2.0) unfrozen, 2.5 s (2.5 to 2.5) with 10 frozen "
        "(trainings that shared this machine): no saving shown."
    )


def test_cells_are_the_numbers_of_the_analysis(make_child: MakeChild) -> None:
    analysis = compared(make_child, {"0": BASE, "10": BETTER})
    cells = [dict(zip(report.columns(analysis), row, strict=True)) for row in report.rows(analysis)]

    assert cells[0]["difference"] == "baseline"
    assert cells[0]["against 0"] == cells[0]["p seeds"] == cells[0]["95 % over images"] == ""
    row = analysis.rows[1]
    assert row.verdict is not None
    assert row.verdict.p_seeds is not None
    assert cells[1] == {
        "freeze": "10",
        "seeds": "3",
        "test mAP50-95": "0.613",
        "95 % over seeds": f"{row.low:.3f} to {row.high:.3f}",
        "difference": "+0.103",
        "against 0": "better (seeds)",
        "95 % over images": "",
        "p seeds": f"{row.verdict.p_seeds:.3f}",
        "p images": "",
        "trainable": "1,000",
        "s/epoch": "2.0",
        "gap train-val": "+0.125",
    }


def test_one_seed_has_empty_cells_instead_of_intervals(make_child: MakeChild) -> None:
    analysis = compared(make_child, {"0": [0.5], "10": [0.4]})
    cells = dict(zip(report.columns(analysis), report.rows(analysis)[1], strict=True))

    assert (cells["95 % over seeds"], cells["p seeds"], cells["difference"]) == ("", "", "-0.100")
    assert "nan" not in report.terminal_text(analysis) + report.note(analysis)


def test_the_csv_has_the_numbers_of_the_analysis_to_the_last_digit(make_child: MakeChild) -> None:
    groups = (("0", BASE, 8), ("10", BETTER, 18))
    analysis = analyse(
        [make_child(w, s, v, n_right=n) for w, vs, n in groups for s, v in enumerate(vs)], n_resamples=50
    )

    assert analysis is not None
    table = pd.read_csv(io.StringIO(report.csv(analysis)), dtype={"freeze": str})
    table = table.set_index("freeze")
    for row in analysis.rows:
        found = table.loc[row.freeze.label]
        assert (found["test/mAP50-95"], found["low_seeds"], found["high_seeds"]) == (row.mean, row.low, row.high)
        assert found["n_seeds"] == 3
    row = analysis.rows[1]
    assert row.seeds is not None
    assert row.images is not None
    assert row.verdict is not None
    found = table.loc["10"]
    assert (found["difference"], found["low_images"], found["high_images"]) == (
        row.seeds.difference,
        row.images.low,
        row.images.high,
    )
    assert (found["p_seeds_holm"], found["p_images_holm"]) == (row.verdict.p_seeds, row.verdict.p_images)
    assert math.isnan(table.loc["0"]["difference"])


def test_the_parents_metrics_are_means_and_differences(make_child: MakeChild) -> None:
    analysis = compared(make_child, {"0": BASE, "6-": BETTER})

    assert report.metrics(analysis) == pytest.approx(
        {
            "test/mAP50-95/freeze-0": 0.51,
            "test/mAP50-95/freeze-6-": 0.6133333333,
            "difference/freeze-6-": 0.1033333333,
        }
    )


def test_the_terminal_shows_the_table_and_the_answer(make_child: MakeChild) -> None:
    analysis = compared(make_child, {"0": BASE, "10": BETTER})

    text = report.terminal_text(analysis)
    for sentence in report.answer(analysis):
        assert sentence in text
    line = next(line for line in text.splitlines() if line.split()[:1] == ["10"])
    assert "0.613" in line
    assert "better (seeds)" in line
    assert max(len(line) for line in text.split("\n\n")[0].splitlines()) <= 120


def test_the_note_is_markdown_with_the_answer_the_table_and_the_links(make_child: MakeChild) -> None:
    analysis = compared(make_child, {"0": BASE, "10": BETTER})

    note = report.note(analysis, Links("#/run", "#/compare", "#/charts"))
    assert note.startswith("Freezing 10 is better")
    assert "(#/compare)" in note
    assert re.search(r"^\| *freeze *\|", note, re.MULTILINE)
    assert "20 images" in note
    assert "(#/compare)" not in report.note(analysis)


def test_the_report_is_one_file_that_loads_nothing(make_child: MakeChild, tmp_path: Path) -> None:
    analysis = compared(make_child, {"0": BASE, "10": BETTER})
    picture = tmp_path / "depth.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")

    page = report.html(
        analysis, [Picture("depth", "How deep?", "Dots are seeds.", Figure(), picture)], {"data": "<cells> & more"}
    )
    assert "Freezing 10 is better" in page
    assert "data:image/png;base64,iVBORw0KGgo=" in page
    assert "&lt;cells&gt; &amp; more" in page
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", page) == []
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_a_classifier_is_not_said_to_have_boxes(make_child: MakeChild) -> None:
    children = [make_child(w, 0, v, n_right=n, task="classify") for w, v, n in (("0", 0.4, 8), ("10", 0.9, 18))]
    analysis = analyse(children, n_resamples=100)

    assert analysis is not None
    note = report.note(analysis)
    assert "test top1" in note
    assert "COCO" not in note
