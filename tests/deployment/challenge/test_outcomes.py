import numpy as np
import pytest

from mlflow_yolo.deployment.challenge.outcomes import Call, Outcome, Tally, agree
from mlflow_yolo.detection.agreement import Agreement
from mlflow_yolo.runtime.detections import Detections
from tests.deployment.stand_ins import answer, found, loaded


def classified(*probabilities: float, names: tuple[str, ...] = ("a", "b", "c")) -> Detections:
    nothing = np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64)
    return Detections(*nothing, names, probabilities=np.array(probabilities))


def test_two_models_that_find_nothing_agree() -> None:
    assert agree(answer(), answer()) == Agreement(1.0, 0, 0, 0)


def test_a_box_of_another_class_is_no_agreement() -> None:
    box = (0, 0, 10, 10)
    assert agree(answer(detections=found((*box, 0))), answer(detections=found((*box, 1)))).f1 == 0


def test_agreement_is_the_same_when_the_models_change_places() -> None:
    one = answer(detections=found((0, 0, 10, 10, 0), (20, 20, 40, 40, 1), (60, 60, 70, 70, 2)))
    other = answer(detections=found((1, 0, 11, 10, 0), (20, 20, 40, 40, 2)))
    assert agree(one, other).f1 == agree(other, one).f1 == pytest.approx(2 * 1 / 5)


def test_classes_are_compared_by_name() -> None:
    turned = ("blue", "red", "green", "black")
    one = answer(detections=found((0, 0, 10, 10, 0), (50, 50, 60, 60, 2)))
    other = answer(
        loaded("8", names=turned), found((0, 0, 10, 10, 1), (50, 50, 60, 60, 0), (80, 80, 90, 90, 3), names=turned)
    )
    assert agree(one, other) == Agreement(pytest.approx(4 / 5), 2, 3, 2)


@pytest.mark.parametrize(("other", "f1"), [((0.2, 0.7, 0.1), 1.0), ((0.5, 0.3, 0.2), 0.0)])
def test_classifiers_agree_where_the_surest_class_is_the_same(other: tuple[float, ...], f1: float) -> None:
    model = loaded(names=("a", "b", "c"), task="classify")
    one = answer(model, classified(0.1, 0.8, 0.1))
    assert agree(one, answer(model, classified(*other))) == Agreement(f1, 1, 1, int(f1))


def test_classifiers_with_other_class_lists_are_compared_by_name() -> None:
    one = answer(loaded(names=("a", "b")), classified(0.1, 0.9, names=("a", "b")))
    other = answer(loaded(names=("b", "z")), classified(0.9, 0.1, names=("b", "z")))
    assert agree(one, other).f1 == 1.0


def test_an_empty_tally_says_nothing_of_what_it_does_not_know() -> None:
    assert Tally().metrics() == {
        "champion/requests": 0,
        "champion/failed": 0,
        "challenger/requests": 0,
        "challenger/failed": 0,
        "dropped": 0,
    }
    assert Tally().agreement is None


def test_a_tally_adds_images_before_it_divides() -> None:
    tally, call = Tally(), Call(loaded(), 1.0)
    # 1 of 1 and 2 of 8: F1 of all detections is 2·(1 + 1) / (2 + 8), not the mean of 1 and 2/8
    tally.add(Outcome(call, call, Agreement(1.0, 1, 1, 1)))
    tally.add(Outcome(call, call, Agreement(0.25, 4, 4, 1)))
    assert tally.agreement == pytest.approx(4 / 10)
    assert (len(tally), tally.metrics()["pairs"]) == (2, 2)


def test_images_on_which_nobody_finds_anything_agree() -> None:
    tally = Tally()
    tally.add(Outcome(Call(loaded(), 1.0), Call(loaded("8"), 1.0), Agreement(1.0, 0, 0, 0)))
    assert tally.agreement == 1.0


def test_latencies_and_failures_are_counted_by_side() -> None:
    tally = Tally()
    for latency in [*range(1, 101), None]:
        tally.add(Outcome(champion=Call(loaded(), latency)))
    tally.add(Outcome(challenger=Call(loaded("8"), None)))
    values = tally.metrics()
    assert (values["champion/requests"], values["champion/failed"]) == (101, 1)
    # between the 95th and the 96th of 1…100, at .95 · 99 = 94.05 steps from the first
    assert (values["champion/latency_ms_p50"], values["champion/latency_ms_p95"]) == pytest.approx((50.5, 95.05))
    assert (values["challenger/requests"], values["challenger/failed"]) == (1, 1)
    assert "challenger/latency_ms_p95" not in values


def test_an_answers_latency_is_its_share_of_the_batch() -> None:
    assert Call.of(answer(ms=12.0, batch=4)).latency_ms == 3.0
