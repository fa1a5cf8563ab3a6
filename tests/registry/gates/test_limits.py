from pathlib import Path

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.registry.gates.gate import GATES
from mlflow_yolo.registry.gates.limits import Limits, parse_limits, read_limits


def a_file(tmp_path: Path, text: str) -> Path:
    (tmp_path / "gates.yaml").write_text(text)
    return tmp_path / "gates.yaml"


def test_no_file_and_an_empty_one_mean_the_defaults(tmp_path: Path) -> None:
    assert read_limits(None) == read_limits(a_file(tmp_path, "")) == Limits()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    found = read_limits(a_file(tmp_path, "accuracy_floor: 0.3\np95_ms: 20\nmax_drop: 0.005\n"))
    assert found == Limits(accuracy_floor=0.3, p95_ms=20.0, max_drop=0.005)


@pytest.mark.parametrize("text", ["speedup: off", "min_speedup: off", "speedup: 'Off'", "min_speedup: 'off'"])
def test_off_switches_the_gate_off_by_its_name_or_its_limit(tmp_path: Path, text: str) -> None:
    assert read_limits(a_file(tmp_path, text)) == Limits(off=frozenset({"speedup"}))


def test_every_gate_can_be_switched_off_by_its_name() -> None:
    assert parse_limits(dict.fromkeys(GATES, False)).off == set(GATES)


@pytest.mark.parametrize("value", [True, "on"])
def test_on_is_what_a_gate_is_anyway(value: object) -> None:
    assert parse_limits({"smoke": value}) == Limits()


def test_only_some_gates_switches_the_others_off_and_keeps_what_was_off() -> None:
    found = Limits(p95_ms=5.0, off=frozenset({"smoke"})).only(("integrity", "smoke"))
    assert found.off == set(GATES) - {"integrity"}
    assert found.p95_ms == 5.0


def test_the_ends_of_a_range_can_be_used() -> None:
    found = parse_limits({"accuracy_floor": 0, "min_agreement": 1, "max_drop": 0})
    assert (found.accuracy_floor, found.min_agreement, found.max_drop) == (0, 1, 0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("p95: 20", "p95"),
        ("max_drops: 0.01", "max_drop?"),
        ("1: 2", "1 is unknown"),
        ("p95_ms: fast", "p95_ms=fast"),
        ("p95_ms: true", "p95_ms=True"),
        ("p95_ms: 0", "p95_ms=0"),
        ("p95_ms: -1", "p95_ms=-1"),
        ("p95_ms: .nan", "p95_ms=nan"),
        ("p95_ms: .inf", "p95_ms=inf"),
        ("p95_ms:", "p95_ms=None"),
        ("p95_ms: [1]", r"p95_ms=\[1\]"),
        ("accuracy_floor: 30", "accuracy_floor=30"),
        ("accuracy_floor: -0.1", "accuracy_floor=-0.1"),
        ("min_agreement: 1.01", "min_agreement=1.01"),
        ("max_drop: 1", "one point is 0.01"),
        ("max_drop: -0.01", "max_drop=-0.01"),
        ("max_drop: 1%", "max_drop=1%"),
        ("latency: 20", "set p95_ms"),
        ("smoke: 3", "on or off"),
        ("hardware: 123456789012", "hardware=123456789012"),
        ("hardware: this one", "hardware=this one"),
        ("hardware: off", "hardware=False"),
        ("- p95_ms", "gates.yaml"),
        ("p95_ms", "gates.yaml"),
        ("a: [", "gates.yaml"),
    ],
)
def test_what_cannot_be_a_limit_is_refused_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^[^\n]*{named}[^\n]*$"):
        read_limits(a_file(tmp_path, text))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "gates.yaml").write_bytes(content)
    with pytest.raises(ArgumentError, match=r"^gates=[^\n]*gates\.yaml cannot be read[^\n]*$"):
        read_limits(tmp_path / "gates.yaml")


def test_a_machine_is_named_by_its_fingerprint() -> None:
    assert parse_limits({"hardware": "0123456789ab"}).hardware == "0123456789ab"
