"""Which predictions are compared with which: tasks, branches of end-to-end heads, heads with and without bins."""

import pytest
import torch
from torch import Tensor

from mlflow_yolo.compression.distillation import feature_losses, losses
from mlflow_yolo.compression.distillation.distances import feature_distances, output_distances
from mlflow_yolo.compression.distillation.settings import Distillation

OUTPUTS = Distillation("t.pt", {"response": 1.0, "localisation": 0.0}, {"response": 3.0, "localisation": 7.0})
SHARES = {"one2many": 0.8, "one2one": 0.2}


def dense(seed: int, *, bins: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "scores": torch.randn(2, 3, 5, generator=generator),
        "boxes": torch.randn(2, 4 * bins, 5, generator=generator),
    }


def expected(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = teacher["scores"].sigmoid().amax(dim=1)
    return {
        "response": losses.bernoulli_kl(student["scores"], teacher["scores"], temperature=3.0, weights=weights),
        "localisation": losses.distribution_kl(student["boxes"], teacher["boxes"], temperature=7.0, weights=weights),
    }


def test_heads_are_compared_by_scores_and_boxes_at_their_own_temperatures() -> None:
    found = output_distances(dense(0), dense(1), OUTPUTS, shares=SHARES)
    torch.testing.assert_close(found, expected(dense(0), dense(1)))


def test_only_the_losses_asked_for_are_computed() -> None:
    settings = Distillation("t.pt", {"localisation": 1.0, "rkd": 1.0})
    assert output_distances(dense(0), dense(1), settings, shares=SHARES).keys() == {"localisation"}
    assert output_distances(torch.ones(2, 3), torch.ones(2, 3), settings, shares=SHARES) == {}


def test_branches_of_an_end_to_end_head_are_compared_each_with_its_own_and_by_their_shares() -> None:
    student = {"one2many": dense(0), "one2one": dense(1)}
    teacher = {"one2many": dense(2), "one2one": dense(3)}
    found = output_distances(student, teacher, OUTPUTS, shares=SHARES)
    many, one = expected(dense(0), dense(2)), expected(dense(1), dense(3))
    torch.testing.assert_close(found, {name: 0.8 * many[name] + 0.2 * one[name] for name in many})


def test_the_branch_that_both_have_is_compared_when_only_one_head_is_end_to_end() -> None:
    branches = {"one2many": dense(0), "one2one": dense(1)}
    plain = dense(2)
    torch.testing.assert_close(
        output_distances(branches, plain, OUTPUTS, shares=SHARES), expected(branches["one2many"], plain)
    )
    torch.testing.assert_close(
        output_distances(plain, branches, OUTPUTS, shares=SHARES), expected(plain, branches["one2many"])
    )


@pytest.mark.parametrize(("student_bins", "teacher_bins"), [(1, 1), (1, 16), (16, 1), (8, 16)])
def test_boxes_without_common_bins_are_compared_as_boxes(student_bins: int, teacher_bins: int) -> None:
    student, teacher = dense(0, bins=student_bins), dense(1, bins=teacher_bins)
    found = output_distances(student, teacher, OUTPUTS, shares=SHARES)["localisation"]
    edges = losses.edge_distances(student["boxes"]), losses.edge_distances(teacher["boxes"])
    torch.testing.assert_close(found, losses.box_distance(*edges, weights=losses.anchor_weights(teacher["scores"])))


def test_classifiers_are_compared_by_softmax() -> None:
    student, teacher = dense(0)["scores"][..., 0], dense(1)["scores"][..., 0]
    found = output_distances(student, teacher, OUTPUTS, shares=SHARES)
    torch.testing.assert_close(found, {"response": losses.softmax_kl(student, teacher, temperature=3.0)})


def test_features_are_compared_level_by_level_and_averaged() -> None:
    settings = Distillation("t.pt", dict.fromkeys(("fitnets", "attention", "cwd", "rkd"), 1.0), {"cwd": 2.0})
    generator = torch.Generator().manual_seed(0)
    student, projected, teacher = (
        [torch.randn(4, width, side, side, generator=generator) for side in (4, 2)] for width in (3, 5, 5)
    )
    found = feature_distances(student, projected, teacher, settings)

    def mean(values: list[Tensor]) -> Tensor:
        return (values[0] + values[1]) / 2

    pairs, projected_pairs = list(zip(student, teacher, strict=True)), list(zip(projected, teacher, strict=True))
    torch.testing.assert_close(
        found,
        {
            "fitnets": mean([feature_losses.hint_distance(s, t) for s, t in projected_pairs]),
            "attention": mean([feature_losses.attention_distance(s, t) for s, t in pairs]),
            "cwd": mean([feature_losses.channel_wise_kl(s, t, temperature=2.0) for s, t in projected_pairs]),
            "rkd": mean([feature_losses.relational_distance(s, t) for s, t in pairs]),
        },
    )
