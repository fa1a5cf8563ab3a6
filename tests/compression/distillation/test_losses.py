"""Distances of outputs, against numpy and scipy, hand arithmetic, closed forms of gradients and finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr, softmax
from torch import Tensor

from mlflow_yolo.compression.distillation.losses import (
    anchor_weights,
    bernoulli_kl,
    box_distance,
    distribution_kl,
    edge_distances,
    softmax_kl,
    weighted_mean,
)

TEMPERATURES = (0.5, 1.0, 4.0)


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=scale, size=shape))


def draw_weights(*shape: int, seed: int = 9) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(size=shape))


def gradient(distance: Tensor, student: Tensor) -> Tensor:
    return torch.autograd.grad(distance, student)[0]


def test_anchor_weight_is_the_probability_of_the_likeliest_class() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [-5.0, 0.0]]])  # (1 image, 2 classes, 2 anchors)
    torch.testing.assert_close(anchor_weights(logits), torch.tensor([[0.5, 0.75]]))


def test_weighted_mean_divides_by_the_weights_but_never_by_less_than_one() -> None:
    values = torch.tensor([[1.0, 3.0]])
    assert weighted_mean(values, torch.tensor([[1.0, 3.0]])).item() == 2.5
    assert weighted_mean(values, torch.tensor([[0.1, 0.1]])).item() == pytest.approx(0.4)
    assert weighted_mean(torch.zeros(1, 0), torch.zeros(1, 0)).item() == 0


# Bernoulli divergence of sigmoid heads


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_bernoulli_divergence_equals_scipy(temperature: float) -> None:
    student, teacher, weights = draw(2, 3, 5), draw(2, 3, 5, seed=1), draw_weights(2, 5)
    p_s, p_t = expit(student.numpy() / temperature), expit(teacher.numpy() / temperature)
    divergence = (rel_entr(p_t, p_s) + rel_entr(1 - p_t, 1 - p_s)).sum(axis=1)
    expected = temperature**2 * (weights.numpy() * divergence).sum() / weights.numpy().sum()
    actual = bernoulli_kl(student, teacher, temperature=temperature, weights=weights)
    assert actual.item() == pytest.approx(expected, rel=1e-12)


def test_bernoulli_divergence_of_one_class_by_hand() -> None:
    """Teacher 3/4, student 1/4: 3/4 ln 3 - 1/4 ln 3 = ln(3) / 2."""
    student, teacher = torch.tensor([[[-math.log(3)]]]), torch.tensor([[[math.log(3)]]])
    actual = bernoulli_kl(student, teacher, temperature=1.0, weights=torch.ones(1, 1))
    assert actual.item() == pytest.approx(math.log(3) / 2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_bernoulli_gradient_is_the_closed_form(temperature: float) -> None:
    student, teacher, weights = draw(2, 3, 5).requires_grad_(), draw(2, 3, 5, seed=1), draw_weights(2, 5)
    actual = gradient(bernoulli_kl(student, teacher, temperature=temperature, weights=weights), student)
    p_s, p_t = (torch.sigmoid(logits.detach() / temperature) for logits in (student, teacher))
    expected = temperature * (p_s - p_t) * weights[:, None] / weights.sum()
    torch.testing.assert_close(actual, expected)


def test_bernoulli_gradient_tends_to_a_quarter_of_the_difference_for_a_high_temperature() -> None:
    student, teacher = draw(1, 3, 1).requires_grad_(), draw(1, 3, 1, seed=1)
    actual = gradient(bernoulli_kl(student, teacher, temperature=1e4, weights=torch.ones(1, 1)), student)
    torch.testing.assert_close(actual, (student.detach() - teacher) / 4, rtol=1e-6, atol=1e-8)


def test_bernoulli_divergence_of_sure_and_wrong_is_finite_in_single_precision() -> None:
    """p_t = 1 and p_s = exp(-60): the divergence is 60, where a logarithm of p_s would be that of 0."""
    student, teacher = torch.tensor([[[-60.0, 300.0]]]), torch.tensor([[[60.0, -300.0]]])
    weights = torch.tensor([[1.0, 1.0]])
    assert bernoulli_kl(student, teacher, temperature=1.0, weights=weights).item() == pytest.approx((60 + 300) / 2)


# Softmax divergence of classifiers


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_softmax_divergence_equals_scipy(temperature: float) -> None:
    student, teacher = draw(4, 6), draw(4, 6, seed=1)
    p_s, p_t = softmax(student.numpy() / temperature, axis=1), softmax(teacher.numpy() / temperature, axis=1)
    expected = temperature**2 * rel_entr(p_t, p_s).sum(axis=1).mean()
    assert softmax_kl(student, teacher, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_softmax_gradient_is_the_closed_form(temperature: float) -> None:
    student, teacher = draw(4, 6).requires_grad_(), draw(4, 6, seed=1)
    actual = gradient(softmax_kl(student, teacher, temperature=temperature), student)
    p_s, p_t = (logits.detach().div(temperature).softmax(dim=1) for logits in (student, teacher))
    torch.testing.assert_close(actual, temperature * (p_s - p_t) / 4)


def test_softmax_divergence_ignores_what_is_added_to_all_logits_of_an_image() -> None:
    student, teacher, shift = draw(4, 6), draw(4, 6, seed=1), draw(4, 1, seed=2)
    torch.testing.assert_close(
        softmax_kl(student + shift, teacher - shift, temperature=2.0), softmax_kl(student, teacher, temperature=2.0)
    )


# Distributions of box edges


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_distribution_divergence_equals_scipy(temperature: float) -> None:
    student, teacher, weights = draw(2, 4 * 7, 3), draw(2, 4 * 7, 3, seed=1), draw_weights(2, 3)
    total = 0.0
    for image in range(2):
        for anchor in range(3):
            for edge in range(4):
                bins = slice(7 * edge, 7 * edge + 7)
                p_s, p_t = (softmax(raw[image, bins, anchor].numpy() / temperature) for raw in (student, teacher))
                total += weights[image, anchor].item() * rel_entr(p_t, p_s).sum()
    expected = temperature**2 * total / weights.sum().item()
    actual = distribution_kl(student, teacher, temperature=temperature, weights=weights)
    assert actual.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_distribution_gradient_is_the_closed_form(temperature: float) -> None:
    student, teacher, weights = draw(2, 28, 3).requires_grad_(), draw(2, 28, 3, seed=1), draw_weights(2, 3)
    actual = gradient(distribution_kl(student, teacher, temperature=temperature, weights=weights), student)
    p_s, p_t = (raw.detach().view(2, 4, 7, 3).div(temperature).softmax(dim=2) for raw in (student, teacher))
    expected = temperature * (p_s - p_t) * weights[:, None, None] / weights.sum()
    torch.testing.assert_close(actual, expected.view(2, 28, 3))


# Boxes


def test_edge_distances_are_those_of_ultralytics() -> None:
    from ultralytics.nn.modules.block import DFL

    raw = draw(2, 64, 5).float()
    torch.testing.assert_close(edge_distances(raw), DFL(16)(raw).detach())


def test_edge_distances_of_a_head_without_bins_are_its_values() -> None:
    raw = draw(2, 4, 5)
    assert edge_distances(raw) is raw


def test_box_distance_by_hand() -> None:
    """A box of 2x2 cells in one of 4x2: IoU 1/2; one edge is 2 cells off, of a teacher's box with 6 in all."""
    student, teacher = torch.tensor([[[1.0], [1.0], [1.0], [1.0]]]), torch.tensor([[[1.0], [1.0], [3.0], [1.0]]])
    assert box_distance(student, teacher, weights=torch.ones(1, 1)).item() == pytest.approx(1 / 2 + 2 / 6)


def test_a_box_smaller_than_a_cell_is_compared_with_a_cell() -> None:
    """A box of 0.4x0.4 cells about one of 0.2x0.2: IoU 1/4; the edges are 0.4 cells off in all."""
    student, teacher = torch.full((1, 4, 1), 0.2), torch.full((1, 4, 1), 0.1)
    assert box_distance(student, teacher, weights=torch.ones(1, 1)).item() == pytest.approx(3 / 4 + 0.4)


def test_box_distance_equals_torchvision() -> None:
    from torchvision.ops import box_iou

    student, teacher, weights = draw_weights(1, 4, 6, seed=1) * 5, draw_weights(1, 4, 6, seed=2) * 5, draw_weights(1, 6)
    signs = torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None]
    iou = box_iou((student[0] * signs).T, (teacher[0] * signs).T).diagonal()
    relative = (student - teacher)[0].abs().sum(dim=0) / teacher[0].sum(dim=0).clamp(min=1)
    expected = (weights[0] * (1 - iou + relative)).sum() / weights.sum()
    torch.testing.assert_close(box_distance(student, teacher, weights=weights), expected)


def test_boxes_apart_still_have_a_gradient_in_every_edge() -> None:
    """The student's box lies left of the anchor, the teacher's right of it."""
    student = torch.tensor([[[5.0], [1.0], [-3.0], [1.0]]]).requires_grad_()
    teacher = torch.tensor([[[-3.0], [2.0], [5.0], [2.0]]])
    distance = box_distance(student, teacher, weights=torch.ones(1, 1))
    assert distance.item() == pytest.approx(1 + (8 + 1 + 8 + 1) / 12)
    assert (gradient(distance, student) != 0).all()


# All


def outputs() -> dict[str, tuple[Tensor, Tensor, object]]:
    """Return student, teacher and distance of each kind; no two edges agree, where the boxes' distance has kinks."""
    weights = draw_weights(2, 3)
    return {
        "bernoulli": (
            draw(2, 4, 3),
            draw(2, 4, 3, seed=1),
            lambda s, t: bernoulli_kl(s, t, temperature=2, weights=weights),
        ),
        "softmax": (draw(3, 5), draw(3, 5, seed=1), lambda s, t: softmax_kl(s, t, temperature=2)),
        "distribution": (
            draw(2, 20, 3),
            draw(2, 20, 3, seed=1),
            lambda s, t: distribution_kl(s, t, temperature=2, weights=weights),
        ),
        "boxes": (
            draw_weights(2, 4, 3, seed=1) * 4,
            draw_weights(2, 4, 3, seed=2) * 4,
            lambda s, t: box_distance(s, t, weights=weights),
        ),
        "expected boxes": (
            draw(2, 20, 3),
            draw(2, 20, 3, seed=1),
            lambda s, t: box_distance(edge_distances(s), edge_distances(t), weights=weights),
        ),
    }


@pytest.mark.parametrize("kind", outputs())
def test_gradient_equals_finite_differences(kind: str) -> None:
    student, teacher, distance = outputs()[kind]
    assert torch.autograd.gradcheck(lambda s: distance(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("kind", outputs())
def test_distance_is_zero_with_zero_gradient_for_equal_outputs_and_positive_otherwise(kind: str) -> None:
    student, teacher, distance = outputs()[kind]
    assert distance(student, teacher).item() > 0.01
    same = teacher.clone().requires_grad_()
    assert distance(same, teacher).item() == pytest.approx(0, abs=1e-12)
    if "boxes" not in kind:  # these have a kink there
        torch.testing.assert_close(gradient(distance(same, teacher), same), torch.zeros_like(same))


@pytest.mark.parametrize("kind", outputs())
def test_no_gradient_is_wanted_of_the_teacher(kind: str) -> None:
    student, teacher, distance = outputs()[kind]
    with torch.no_grad():
        expected = distance(student, teacher)
    assert distance(student.requires_grad_(), teacher).item() == expected.item()
