"""Distances of features, against numpy and scipy, closed forms of gradients and finite differences."""

import math
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.special import huber, rel_entr, softmax
from torch import Tensor

from mlflow_yolo.compression.distillation.feature_losses import (
    MAX_RELATED_IMAGES,
    attention_distance,
    channel_wise_kl,
    hint_distance,
    relational_distance,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def embed(points: list[list[float]]) -> Tensor:
    """Return features (n, d, 1, 1) whose averages are the points."""
    return torch.tensor(points, dtype=torch.float64)[:, :, None, None]


def gradient(distance: Tensor, student: Tensor) -> Tensor:
    return torch.autograd.grad(distance, student)[0]


# FitNets


def test_hint_distance_is_the_mean_squared_difference_and_its_gradient_the_closed_form() -> None:
    student, teacher = draw(2, 3, 4, 5).requires_grad_(), draw(2, 3, 4, 5, seed=1)
    difference = student.detach().numpy() - teacher.numpy()
    distance = hint_distance(student, teacher)
    assert distance.item() == pytest.approx((difference**2).sum() / 120, rel=1e-12)
    np.testing.assert_allclose(gradient(distance, student).numpy(), 2 * difference / 120)


# Attention transfer


def test_attention_distance_equals_numpy_for_different_widths() -> None:
    student, teacher = draw(3, 2, 4, 5), draw(3, 7, 4, 5, seed=1)
    total = 0.0
    for own, its in zip(student.numpy(), teacher.numpy(), strict=True):
        maps = [(features**2).sum(axis=0).ravel() for features in (own, its)]
        total += np.linalg.norm(maps[0] / np.linalg.norm(maps[0]) - maps[1] / np.linalg.norm(maps[1]))
    assert attention_distance(student, teacher).item() == pytest.approx(total / 3, rel=1e-12)


def test_attention_distance_of_looks_at_different_pixels_is_the_root_of_two() -> None:
    student, teacher = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    student[..., 0], teacher[..., 1] = 3.0, 0.5
    assert attention_distance(student, teacher).item() == pytest.approx(math.sqrt(2))


def test_attention_distance_ignores_the_scale() -> None:
    student, teacher = draw(3, 2, 4, 5), draw(3, 7, 4, 5, seed=1)
    torch.testing.assert_close(attention_distance(student * 8, teacher / 3), attention_distance(student, teacher))


def test_attention_distance_of_empty_features_has_a_finite_gradient() -> None:
    student = torch.zeros(2, 3, 4, 4).requires_grad_()
    assert torch.isfinite(gradient(attention_distance(student, torch.ones(2, 3, 4, 4)), student)).all()


# Channel-wise


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_channel_wise_divergence_equals_scipy_and_its_gradient_the_closed_form(temperature: float) -> None:
    student, teacher = draw(2, 3, 4, 5).requires_grad_(), draw(2, 3, 4, 5, seed=1)
    p_s, p_t = (softmax(f.detach().numpy().reshape(6, 20) / temperature, axis=1) for f in (student, teacher))
    distance = channel_wise_kl(student, teacher, temperature=temperature)
    assert distance.item() == pytest.approx(temperature**2 * rel_entr(p_t, p_s).sum() / 6, rel=1e-12)
    expected = (temperature * (p_s - p_t) / 6).reshape(2, 3, 4, 5)
    np.testing.assert_allclose(gradient(distance, student).numpy(), expected, atol=1e-15)


def test_channel_wise_divergence_ignores_what_is_added_to_a_channel() -> None:
    student, teacher, shift = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1), draw(2, 3, 1, 1, seed=2)
    torch.testing.assert_close(
        channel_wise_kl(student + shift, teacher - shift, temperature=4),
        channel_wise_kl(student, teacher, temperature=4),
    )


# Relations


def expected_relational_distance(student: npt.NDArray[np.float64], teacher: npt.NDArray[np.float64]) -> float:
    """Return RKD of embeddings (n, d), one triple at a time."""

    def cosine(x: npt.NDArray[np.float64], i: int, j: int, k: int) -> float:
        a, b = x[i] - x[j], x[k] - x[j]
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    d_s, d_t = pdist(student), pdist(teacher)
    distance = huber(1, d_s / d_s.mean() - d_t / d_t.mean()).mean()
    triples = list(permutations(range(len(student)), 3))
    angle = np.mean([huber(1, cosine(student, *triple) - cosine(teacher, *triple)) for triple in triples])
    return float(distance + 2 * angle)


def test_relational_distance_equals_scipy_for_different_widths() -> None:
    student, teacher = draw(5, 2, 3, 4), draw(5, 7, 3, 4, seed=1)
    expected = expected_relational_distance(student.numpy().mean((2, 3)), teacher.numpy().mean((2, 3)))
    assert relational_distance(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_relational_distance_of_two_triangles_by_hand() -> None:
    """Equilateral against points on a line at 0, 1, 2.

    Distances over their mean: 1, 1, 1 against 3/4, 3/4, 3/2, so (1/16 + 1/16 + 1/4) / 2 / 3 = 1/16.
    Cosines: 1/2 everywhere against 1, -1, 1, so (1/4 + 1/4) / 2 and, beyond Huber's threshold, 3/2 - 1/2; the mean is
    (1/8 + 1/8 + 1) / 3 = 5/12.
    """
    student = embed([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    teacher = embed([[0.0], [1.0], [2.0]])
    assert relational_distance(student, teacher).item() == pytest.approx(1 / 16 + 2 * 5 / 12)


def test_relational_distance_ignores_rotation_scale_and_place() -> None:
    student, teacher = draw(5, 4, 3, 3), draw(5, 4, 3, 3, seed=1)
    rotation = torch.linalg.qr(draw(4, 4, seed=2))[0]
    moved = 7 * torch.einsum("cd,bdhw->bchw", rotation, student) + 3
    torch.testing.assert_close(relational_distance(moved, teacher), relational_distance(student, teacher))


def test_one_image_has_no_relations_and_two_have_only_a_distance_which_is_its_own_unit() -> None:
    for n in (1, 2):
        student = draw(n, 3, 2, 2).requires_grad_()
        distance = relational_distance(student, draw(n, 3, 2, 2, seed=1))
        assert distance.item() == pytest.approx(0)
        torch.testing.assert_close(gradient(distance, student), torch.zeros_like(student))


def test_equal_images_have_a_bounded_gradient() -> None:
    """Two of the student's embeddings agree, so that the direction between them has no derivative."""
    student = embed([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 1.0]]).requires_grad_()
    assert gradient(relational_distance(student, draw(4, 2, 1, 1)), student).abs().max() < 10
    same = embed([[1.0, 0.0]] * 4).requires_grad_()
    assert torch.isfinite(gradient(relational_distance(same, draw(4, 2, 1, 1)), same)).all()


def test_relations_are_those_of_the_first_images_of_a_large_batch() -> None:
    student, teacher = draw(MAX_RELATED_IMAGES + 3, 3, 1, 1), draw(MAX_RELATED_IMAGES + 3, 3, 1, 1, seed=1)
    first = relational_distance(student[:MAX_RELATED_IMAGES], teacher[:MAX_RELATED_IMAGES])
    torch.testing.assert_close(relational_distance(student, teacher), first)


# All

DISTANCES = {
    "hint": hint_distance,
    "attention": attention_distance,
    "channel-wise": lambda s, t: channel_wise_kl(s, t, temperature=4.0),
    "relational": relational_distance,
}


@pytest.mark.parametrize("kind", DISTANCES)
def test_gradient_equals_finite_differences(kind: str) -> None:
    student, teacher = draw(4, 3, 2, 3).requires_grad_(), draw(4, 3, 2, 3, seed=1)
    assert torch.autograd.gradcheck(lambda s: DISTANCES[kind](s, teacher), student)


@pytest.mark.parametrize("kind", DISTANCES)
def test_distance_is_zero_for_equal_features_with_a_finite_gradient_and_positive_otherwise(kind: str) -> None:
    student, teacher = draw(4, 3, 2, 3), draw(4, 3, 2, 3, seed=1)
    assert DISTANCES[kind](student, teacher).item() > 0.01
    same = teacher.clone().requires_grad_()
    distance = DISTANCES[kind](same, teacher)
    assert distance.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient(distance, same), torch.zeros_like(same))


@pytest.mark.parametrize("kind", DISTANCES)
def test_order_of_images_does_not_matter(kind: str) -> None:
    student, teacher, order = draw(4, 3, 2, 3), draw(4, 3, 2, 3, seed=1), [2, 0, 3, 1]
    torch.testing.assert_close(DISTANCES[kind](student[order], teacher[order]), DISTANCES[kind](student, teacher))
