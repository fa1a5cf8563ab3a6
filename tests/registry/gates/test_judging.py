from pathlib import Path

import numpy as np
import pytest

from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.gates.gate import GATES, Verdict
from mlflow_yolo.registry.gates.judging import judge, report, tags
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.record import PARENT_PREDICTIONS, PREDICTIONS
from tests.registry.gates.made import a_version, evidence, images, measure

ORDER = (
    "integrity metadata parity accuracy_floor accuracy_drop class_drop champion_drop latency speedup size memory smoke"
)
OF_RECORD = {"parity", "accuracy_floor", "accuracy_drop", "class_drop", "latency", "speedup", "memory"}
OF_PREDICTIONS = {"parity", "accuracy_floor", "accuracy_drop", "class_drop"}


def failed(version: Fetched, champion: Fetched | None = None) -> dict[str, str]:
    """Return the gates that failed, with the reason."""
    return {one.gate: one.why for one in judge(evidence(version, champion), Limits()) if not one.passed}


def test_every_gate_is_asked_in_its_order(version: Fetched) -> None:
    measure(version, images(40), images(40))
    found = judge(evidence(version), Limits())
    assert [one.gate for one in found] == ORDER.split() == list(GATES)
    assert all(one.passed for one in found)


def test_gates_that_are_off_are_not_asked(tmp_path: Path) -> None:
    # Nothing of it lies on this disk: a gate that was asked would fail.
    version = Fetched("shapes", "7", None, "", tmp_path / "nowhere", {}, None)
    found = judge(evidence(version), Limits(off=frozenset(GATES)))
    assert [(one.gate, one.limit, one.passed) for one in found] == [(gate, "off", True) for gate in GATES]


def test_without_a_benchmark_every_gate_that_needs_one_fails_and_no_other(version: Fetched) -> None:
    found = failed(version)
    assert set(found) == OF_RECORD
    assert all("record.json" in why for why in found.values())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_damaged_record_fails_what_needs_it(version: Fetched, text: str) -> None:
    measure(version, images(40), images(40))
    (version.benchmark / "record.json").write_text(text)
    assert set(failed(version)) == OF_RECORD


def test_a_record_of_other_bytes_fails_what_needs_it(version: Fetched) -> None:
    measure(version, images(40), images(40))
    file = version.benchmark / "record.json"
    file.write_text(file.read_text().replace(version.sha256, "a" * 64))
    found = failed(version)
    assert set(found) == OF_RECORD
    assert all("a" * 12 in why and version.sha256[:12] in why for why in found.values())


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "nan", "pickle"])
@pytest.mark.parametrize(
    ("file", "needing"), [(PREDICTIONS, OF_PREDICTIONS), (PARENT_PREDICTIONS, OF_PREDICTIONS - {"accuracy_floor"})]
)
def test_damaged_predictions_fail_what_needs_them(version: Fetched, damage: str, file: str, needing: set[str]) -> None:
    measure(version, images(40), images(40))
    path = version.benchmark / file
    if damage == "missing":
        path.unlink()
    elif damage == "nan":
        with np.load(path) as arrays:
            changed = {name: arrays[name] for name in arrays.files}
        changed["scores"][3] = np.nan
        np.savez(path, **changed)
    elif damage == "pickle":
        np.savez(path, format=np.array([{}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 500])
    found = failed(version)
    assert set(found) == needing
    assert all(file in why for why in found.values())


def test_predictions_that_do_not_give_the_recorded_score_fail(version: Fetched) -> None:
    measure(version, images(40), images(40))
    better = a_version(version.folder.parent / "8")
    measure(better, images(40, lost=5), images(40))
    (version.benchmark / PREDICTIONS).write_bytes((better.benchmark / PREDICTIONS).read_bytes())
    found = failed(version)
    assert set(found) == OF_PREDICTIONS
    assert all("the record of int8-onnx says mAP50-95 1.0000 on 40" in why for why in found.values())


def test_a_version_that_was_not_scored_fails_with_the_reason(version: Fetched) -> None:
    measure(version, images(40), images(40))
    file = version.benchmark / "record.json"
    head, separator, tail = file.read_text().partition('"parent"')
    start = head.index('"scores": {')
    file.write_text(head[:start] + '"scores": null},' + separator + tail)
    found = failed(version)
    assert set(found) == OF_PREDICTIONS
    assert all("not scored" in why for why in found.values())


VERDICTS = [
    Verdict("integrity", "sha256 00", "== 00", True),
    Verdict("accuracy_floor", "mAP50-95 0.2000", ">= 0.3", False, "on test, 4 images. Train longer."),
    Verdict("class_drop", "dark -0.10", ">= -3 points", True, "interval over images [-0.30, +0.10]."),
    Verdict("smoke", "", "off", True),
]


def test_the_report_is_a_table_and_below_it_what_the_gates_have_to_say() -> None:
    lines = report(VERDICTS).splitlines()
    assert lines[0].split() == ["gate", "value", "limit", "verdict"]
    assert [line.split()[-1] for line in lines[2:6]] == ["pass", "fail", "pass", "off"]
    assert lines[6:] == [
        "",
        "accuracy_floor: on test, 4 images. Train longer.",
        "class_drop: interval over images [-0.30, +0.10].",
    ]


def test_a_report_without_notes_is_the_table_alone() -> None:
    assert len(report(VERDICTS[:1]).splitlines()) == 3


def test_a_tag_says_verdict_value_and_limit_and_the_reason_of_a_failure() -> None:
    assert tags(VERDICTS) == {
        "gate.integrity": "pass sha256 00 == 00",
        "gate.accuracy_floor": "fail mAP50-95 0.2000 >= 0.3 (on test, 4 images. Train longer.)",
        "gate.class_drop": "pass dark -0.10 >= -3 points",
        "gate.smoke": "off",
    }


def test_a_tag_is_no_longer_than_a_store_takes() -> None:
    assert len(tags([Verdict("smoke", "", "all", False, "x" * 9000)])["gate.smoke"]) == 4000
