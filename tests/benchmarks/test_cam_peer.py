import re
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.cam_peer import Logits, Peer, is_installed, largest_difference, normalised, positive_side

ROOT = Path(__file__).resolve().parents[2]


def test_a_normalised_map_reaches_from_zero_to_one_without_what_is_negative() -> None:
    maps = torch.tensor([[[-5.0, 1.0], [2.0, 4.0]]])

    assert normalised(maps, (2, 2)).tolist() == [[[0.0, 0.25], [0.5, 1.0]]]


def test_normalised_maps_do_not_depend_on_their_scale() -> None:
    maps = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(normalised(maps * 1e-6, (20, 16)), normalised(maps, (20, 16)))


def test_normalised_maps_are_enlarged_as_opencv_does() -> None:
    generator = np.random.default_rng(0)
    picture = generator.random((8, 6), dtype=np.float32)
    scaled = (picture - picture.min()) / (picture.max() - picture.min())
    enlarged = cv2.resize(scaled, (24, 32), interpolation=cv2.INTER_LINEAR)
    expected = (enlarged - enlarged.min()) / (enlarged.max() - enlarged.min())

    found = normalised(torch.from_numpy(picture)[None], (32, 24))

    np.testing.assert_allclose(found[0].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("value", [0.0, -1.0, 3.0])
def test_a_map_of_one_value_becomes_zero(value: float) -> None:
    assert not normalised(torch.full((1, 3, 3), value), (6, 6)).any()


def test_the_positive_side_is_that_of_the_largest_magnitude_whatever_the_sign() -> None:
    components = torch.tensor([[[3.0, -1.0]], [[1.0, -2.0]]])

    assert positive_side(components).tolist() == [[[3.0, 0.0]], [[0.0, 2.0]]]
    assert torch.equal(positive_side(components), positive_side(-components))


def test_largest_difference_is_over_all_places_of_all_images() -> None:
    theirs = torch.ones(2, 2, 2)
    ours = theirs.clone()
    ours[1, 0, 1] = 0.75

    assert largest_difference(ours, theirs) == 0.25


def test_blank_maps_prove_no_equality() -> None:
    blank = torch.zeros(2, 2, 2)

    assert largest_difference(blank, blank) == float("inf")


def test_logits_are_those_of_the_head_that_can_be_differentiated() -> None:
    scores = torch.rand(1, 2, 3)

    class Network(torch.nn.Module):
        def __init__(self, predictions: object) -> None:
            super().__init__()
            self.predictions = predictions

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, object]:
            return images, self.predictions

    assert Logits(Network({"scores": scores}))(torch.zeros(1)) is scores
    end_to_end = {"one2many": {"scores": scores}, "one2one": {"scores": -scores}}
    assert Logits(Network(end_to_end))(torch.zeros(1)) is scores


def test_grad_cam_is_pinned_and_installed_without_its_opencv() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    makefile = (ROOT / "Makefile").read_text()

    assert "grad-cam==1.5.7" in pins
    assert [line for line in extra if line.startswith(("grad-cam", "opencv"))] == []
    assert re.search(r"^\t\$\(PIP_INSTALL\) --no-deps grad-cam$", makefile, re.MULTILINE)


@pytest.mark.skipif(not is_installed(), reason="grad-cam comes with make bench-install")
@pytest.mark.parametrize("thrifty", [False, True])
def test_the_peer_leaves_the_network_it_copied_alone(thrifty: bool) -> None:
    from ultralytics.nn.tasks import DetectionModel

    network = DetectionModel("yolo11n.yaml", verbose=False).requires_grad_(False).train()

    maps = Peer(network, thrifty=thrifty).maps("layercam", 16, torch.rand(2, 3, 64, 64), [(5, 1), (20, 2)])

    assert maps.shape == (2, 64, 64)
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())
