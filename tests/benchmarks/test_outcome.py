import json

import pytest

from benchmarks.outcome import Outcome, Target, finish, read_arguments

KEPT, MISSED = Target("a", 1.0, 1.0), Target("b", 1.2, 1.1)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(("value", "ok"), [(1.0, True), (1.01, False), (None, False), (NAN, False), (INFINITE, False)])
def test_target_holds_up_to_its_limit_and_never_unmeasured(value: float | None, ok: bool) -> None:
    assert Target("a", value, 1.0).ok is ok


@pytest.mark.parametrize(("value", "ok"), [(1.0, True), (0.99, False), (None, False), (NAN, False)])
def test_target_that_is_a_least_value_holds_down_to_it(value: float | None, ok: bool) -> None:
    assert Target("a", value, 1.0, at_least=True).ok is ok


def test_outcome_is_ok_only_if_every_target_holds() -> None:
    assert Outcome("x", 1.0, 1.0, [KEPT]).ok is True
    assert Outcome("x", 1.0, 1.0, [KEPT, MISSED]).ok is False


def test_outcome_without_targets_judges_nothing() -> None:
    assert Outcome("x", None, None).ok is None


def test_last_line_is_one_json_object_with_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    code = finish(Outcome("x", 1.2, 1.1, [MISSED, KEPT], {"ms": {"a": 1 / 3}, "empty": float("nan"), "quick": False}))

    *table, last = capsys.readouterr().out.splitlines()
    content = json.loads(last)
    assert code == 1
    assert [line.split()[0] for line in table] == ["MISSED", "ok"]
    assert list(content) == ["name", "ratio", "target", "ok", "targets", "figures"]
    assert (content["name"], content["ratio"], content["target"], content["ok"]) == ("x", 1.2, 1.1, False)
    assert content["targets"][0] == {"name": "b", "value": 1.2, "limit": 1.1, "ok": False}
    assert content["figures"]["ms"] == {"a": 0.333333}
    assert content["figures"]["empty"] is None
    assert content["figures"]["quick"] is False
    assert content["figures"]["machine"]["cores"] >= 1
    assert content["figures"]["machine"]["torch"]


@pytest.mark.parametrize("targets", [[], [KEPT]])
def test_exit_code_is_zero_unless_a_target_is_missed(targets: list[Target]) -> None:
    assert finish(Outcome("x", 1.0, 1.0, targets)) == 0


def test_quick_is_the_only_argument() -> None:
    assert read_arguments("Line.\n\nMore.", []).quick is False
    assert read_arguments(None, ["--quick"]).quick is True
    with pytest.raises(SystemExit):
        read_arguments(None, ["--slow"])
