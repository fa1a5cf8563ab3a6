from typing import Any

import pytest
import torch

from benchmarks.classification_cams import case, differences, gradient_maps, relative_difference, targets


def test_gradient_maps_of_a_mean_and_a_linear_layer_are_its_weights_times_the_features() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]], requires_grad=True)  # one image, two channels, two places
    weight = torch.tensor([[1.0, 0.0], [0.0, 10.0], [1.0, -1.0]])
    logits = features.mean((2, 3)) @ weight.T

    maps = gradient_maps(features, logits)

    assert maps[0, :, 0].tolist() == [[0.5, 1.0], [15.0, 20.0], [-1.0, -1.0]]


def test_both_ways_give_the_same_maps_and_their_sums_are_the_logits() -> None:
    made = case(7, 2, 64)

    assert max(differences(made).values()) < 1e-5
    assert made.closed_form().shape == (2, 7, 2, 2)


def test_a_classifier_is_left_without_hooks_and_gradients() -> None:
    made = case(3, 1, 64)

    made.backward_each()

    assert not any(module._forward_hooks for module in made.network.modules())
    assert not any(p.requires_grad or p.grad is not None for p in made.network.parameters())


def test_a_wrong_map_is_seen() -> None:
    expected = torch.tensor([2.0, -4.0])

    assert relative_difference(torch.tensor([2.0, -3.0]), expected) == 0.25
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == float("inf")


@pytest.mark.parametrize(
    ("forwards", "speed_up", "difference", "kept"),
    [
        (1.05, 10.0, 1e-5, [True, True, True]),
        (1.06, 9.0, 2e-5, [False, False, False]),
    ],
)
def test_targets_are_judged_in_the_right_direction(
    forwards: float, speed_up: float, difference: float, kept: list[bool]
) -> None:
    ratios: dict[str, Any] = {
        "closed form / forward": {"value": forwards},
        "backward each / closed form, alone": {"value": speed_up},
    }

    found = targets({"ratios": ratios}, {"closed form, logits": difference})

    assert [target.ok for target in found] == kept
