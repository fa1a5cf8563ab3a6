import pytest
import torch
from torch import Tensor

from mlflow_yolo.statistics.confidence import HeadConfidences, best_confidences

LIMIT = 2.944438979166440  # sigmoid of it is 0.95


def logits(*best: float, n_classes: int = 3) -> Tensor:
    """Return (1, C, A) class logits of which the second class is the best of each prediction."""
    scores = torch.full((1, n_classes, len(best)), -9.0)
    scores[:, 1] = torch.tensor(best)
    return scores


def share(*outputs: object) -> dict[int, dict[str, float]]:
    heads = HeadConfidences()
    for output in outputs:
        heads.see(22, output)
    return heads.result()


def test_the_share_of_predictions_over_95_percent_by_hand() -> None:
    output = {"scores": logits(LIMIT - 1e-3, LIMIT + 1e-3, 9.0, -9.0, 0.0)}
    assert share(output) == {22: {"confident_fraction": pytest.approx(2 / 5)}}


def test_passes_weigh_by_their_predictions_and_classes_do_not_dilute() -> None:
    assert share({"scores": logits(9.0)}, {"scores": logits(0.0, 0.0, 0.0)})[22]["confident_fraction"] == 1 / 4
    many = share({"scores": logits(9.0, 0.0, n_classes=80)})
    assert many == share({"scores": logits(9.0, 0.0)})


def test_the_confidence_is_that_of_the_best_class_in_whatever_an_output_is_wrapped() -> None:
    scores = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = scores.sigmoid().amax(1)
    inner, y = {"boxes": scores, "scores": scores}, scores
    for output in (inner, (y, inner), ((y, y), inner), {"one2many": inner, "one2one": {}}, {"one2one": inner}):
        found = best_confidences(output)
        assert found is not None
        torch.testing.assert_close(found, expected)


def test_of_a_classifier_the_probability_counts() -> None:
    values = torch.tensor([[9.0, 0.0], [2.0, 0.0], [0.0, 0.1], [0.1, 0.2]])  # the second is sure by 88 %
    assert share((values.softmax(1), values)) == {22: {"confident_fraction": 0.25}}


def test_half_precision_does_not_round_the_limit() -> None:
    assert share({"scores": logits(2.9375).bfloat16()})[22]["confident_fraction"] == 0.0
    assert share({"scores": logits(2.953125).bfloat16()})[22]["confident_fraction"] == 1.0


@pytest.mark.parametrize("output", [None, {}, (), {"scores": torch.empty(1, 3, 0)}, {"one2many": {}}, [torch.ones(3)]])
def test_what_is_no_heads_output_is_left_out(output: object) -> None:
    assert best_confidences(output) is None
    assert share(output) == {}
