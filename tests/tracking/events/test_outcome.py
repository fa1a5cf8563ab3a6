"""How a run ends follows from the exception that ends its training, and from no other."""

import pytest

from mlflow_yolo.tracking.events.outcome import Outcome, outcome_of, propagating


class TrialPruned(Exception):
    """As Optuna's: it is known by its name."""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome("FINISHED")),
        (ValueError("x"), Outcome("FAILED")),
        (KeyboardInterrupt(), Outcome("KILLED", "interrupted")),
        (SystemExit(1), Outcome("KILLED", "interrupted")),
        (TrialPruned(), Outcome("KILLED", "pruned")),
    ],
)
def test_status_and_state_say_why_a_training_ended(error: BaseException | None, outcome: Outcome) -> None:
    assert outcome_of(error) == outcome


def test_the_exception_of_a_first_try_is_not_that_of_the_second() -> None:
    def train(error: Exception | None) -> BaseException | None:
        import sys

        ambient, seen = sys.exc_info()[1], []
        try:
            try:
                if error:
                    raise error
            finally:
                seen.append(propagating(ambient))
        except ValueError:
            pass
        return seen[0]

    own = ValueError("second")
    try:
        raise MemoryError("first")
    except MemoryError:
        assert train(None) is None
        assert train(own) is own
