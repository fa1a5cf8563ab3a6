"""Every method against its equation written out in numpy, and against grad-cam 1.5.7.

grad_cam_maps.json holds what grad-cam 1.5.7 makes of `SmallNetwork` and `small_images`, blocks 0 and 1, class 1 of the
first image and class 0 of the second: GradCAM and its kin called as its README shows, on a wrapper that returns the
logits, written out with six decimals.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.attribution.cam import METHODS, eigen_cam, eigen_grad_cam, find_method
from mlflow_yolo.attribution.layers import Layers
from mlflow_yolo.attribution.maps import map_targets
from mlflow_yolo.attribution.targets import ImageLogit
from mlflow_yolo.exceptions import ArgumentError

Floats = npt.NDArray[np.float64]
EXPECTED_FILE = Path(__file__).parent / "grad_cam_maps.json"


def numbers(*shape: int, step: float) -> Tensor:
    """Return numbers in [-1, 1] that no random generator of any version can change."""
    return torch.cos(step * torch.arange(float(np.prod(shape))) ** 1.5).reshape(shape)


class SmallHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.linear.load_state_dict({"weight": numbers(3, 5, step=0.9), "bias": numbers(3, step=0.7)})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.linear(x.mean((2, 3)))
        return logits.softmax(1), logits


class SmallNetwork(nn.Module):
    """Two convolutions on the grid of the input and a head like that of a YOLO classifier."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Conv2d(n, m, 3, padding=1), nn.SiLU()) for n, m in ((2, 4), (4, 5))]
        for k, (convolution, _) in enumerate(blocks):
            shape = tuple(convolution.weight.shape)
            state = {"weight": numbers(*shape, step=0.31 + k), "bias": numbers(shape[0], step=0.53 + k)}
            convolution.load_state_dict(state)
        self.model = nn.Sequential(*blocks, SmallHead())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(x)


def small_images() -> Tensor:
    return numbers(2, 2, 6, 6, step=0.11) * 2


def grad_cam(a: Floats, g: Floats) -> Floats:
    weights = [g[k].sum() / g[k].size for k in range(len(a))]
    return np.maximum(sum(w * a[k] for k, w in enumerate(weights)), 0)


def grad_cam_plus_plus(a: Floats, g: Floats) -> Floats:
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        alpha = g[k] ** 2 / (2 * g[k] ** 2 + a[k].sum() * g[k] ** 3)
        total += (alpha * np.maximum(g[k], 0)).sum() * a[k]
    return np.maximum(total, 0)


def x_grad_cam(a: Floats, g: Floats) -> Floats:
    weights = [(a[k] / a[k].sum() * g[k]).sum() for k in range(len(a))]
    return np.maximum(sum(w * a[k] for k, w in enumerate(weights)), 0)


def hires_cam(a: Floats, g: Floats) -> Floats:
    return np.sum([g[k] * a[k] for k in range(len(a))], axis=0)


def layer_cam(a: Floats, g: Floats) -> Floats:
    return np.maximum(np.sum([np.maximum(g[k], 0) * a[k] for k in range(len(a))], axis=0), 0)


def eigen(values: Floats) -> Floats:
    table = values.reshape(len(values), -1).T
    table = table - table.mean(0)
    projected = (table @ np.linalg.svd(table, full_matrices=False)[2][0]).reshape(values.shape[1:])
    return np.maximum(projected * (1 if projected.max() >= -projected.min() else -1), 0)


REFERENCES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "gradcam": grad_cam,
    "gradcam++": grad_cam_plus_plus,
    "xgradcam": x_grad_cam,
    "hirescam": hires_cam,
    "layercam": layer_cam,
    "eigencam": lambda a, g: eigen(a),
    "eigengradcam": lambda a, g: eigen(a * g),
}


def measured(batch: int = 2, channels: int = 7, height: int = 5, width: int = 6) -> tuple[Tensor, Tensor]:
    """Return activations mostly above 0, as after a SiLU, and gradients of either sign."""
    generator = torch.Generator().manual_seed(1)
    shape = (batch, channels, height, width)
    return torch.rand(shape, generator=generator) * 3 - 0.27, torch.randn(shape, generator=generator)


@pytest.mark.parametrize("channels", [7, 40], ids=["few-channels", "more-channels-than-cells"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_its_equation(name: str, channels: int) -> None:
    activations, gradients = measured(channels=channels)
    made = METHODS[name].make(activations, gradients)
    assert made.shape == (2, 5, 6)
    assert made.dtype == torch.float32
    for i in range(2):
        a, g = activations[i].double().numpy(), gradients[i].double().numpy()
        expected = REFERENCES[name](a, g)
        # The guard of Grad-CAM++ changes what gradients near 0 add, by less than this.
        tolerance = 1e-3 if name == "gradcam++" else 1e-5
        np.testing.assert_allclose(made[i], expected, atol=tolerance * np.abs(expected).max())
        assert expected.max() > 0


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "xgradcam", "hirescam", "layercam"])
def test_a_map_is_that_of_grad_cam_itself(name: str, block: int) -> None:
    images, chosen = small_images(), [[ImageLogit(1)], [ImageLogit(0)]]
    made = map_targets(
        SmallNetwork().eval(),
        images,
        lambda outputs, decoded: chosen,
        method=METHODS[name],
        layers=Layers((1, 1, 0), (1,)),
        blocks=[block],
    )
    theirs = json.loads(EXPECTED_FILE.read_text())["maps"][f"{name} {block}"]
    for (one,), expected in zip(made, theirs, strict=True):
        values = one.values.numpy().clip(min=0)
        values = (values - values.min()) / (values.max() - values.min())
        np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_images_of_a_batch_do_not_influence_one_another_and_channels_have_no_order(name: str) -> None:
    activations, gradients = measured(3)
    make = METHODS[name].make
    together = make(activations, gradients)
    alone = torch.cat([make(activations[i : i + 1], gradients[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(make(activations.flip(1), gradients.flip(1)), together)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "gradcam++"])
def test_a_map_scales_with_its_target(name: str) -> None:
    activations, gradients = measured()
    made, scaled = (METHODS[name].make(activations, factor * gradients) for factor in (1.0, 1e-4))
    torch.testing.assert_close(scaled, made if name == "eigencam" else made * 1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_activations_of_zero_give_a_map_of_zeros(name: str) -> None:
    zeros, (_, gradients) = torch.zeros(2, 7, 5, 6), measured()
    np.testing.assert_array_equal(METHODS[name].make(zeros, gradients), np.zeros((2, 5, 6)))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.needs_gradient])
def test_gradients_of_zero_give_a_map_of_zeros(name: str) -> None:
    (activations, _), zeros = measured(), torch.zeros(2, 7, 5, 6)
    np.testing.assert_array_equal(METHODS[name].make(activations, zeros), np.zeros((2, 5, 6)))


@pytest.mark.parametrize("name", METHODS)
def test_a_map_of_one_cell_is_made(name: str) -> None:
    made = METHODS[name].make(*measured(2, 7, 1, 1))
    assert made.shape == (2, 1, 1)
    assert bool(made.isfinite().all())


def test_only_signed_methods_have_negative_values() -> None:
    activations, gradients = measured(8)
    lowest = {name: float(method.make(activations, gradients).min()) for name, method in METHODS.items()}
    assert {name for name, value in lowest.items() if value < 0} == {
        name for name, method in METHODS.items() if method.is_signed
    }


def test_element_wise_methods_by_hand() -> None:
    activations = torch.tensor([[[[2.0, 1.0]], [[1.0, 3.0]]]])
    gradients = torch.tensor([[[[1.0, -2.0]], [[-1.0, 1.0]]]])
    hires, layer, grad = (METHODS[n].make(activations, gradients) for n in ("hirescam", "layercam", "gradcam"))
    assert hires.tolist() == [[[1.0, 1.0]]]  # 2 - 1, -2 + 3
    assert layer.tolist() == [[[2.0, 3.0]]]
    assert grad.tolist() == [[[0.0, 0.0]]]  # mean gradients -0.5 and 0: the negative sum is cut off
    assert METHODS["gradcam"].make(activations, -gradients).tolist() == [[[1.0, 0.5]]]


def test_the_sign_of_a_principal_component_is_that_of_its_largest_magnitude() -> None:
    blob = torch.zeros(1, 2, 4, 4)
    blob[0, :, 1, 2] = torch.tensor([-5.0, 1.0])  # one place unlike all others, mostly negative
    for made in (eigen_cam(blob), eigen_cam(-blob), eigen_grad_cam(blob, torch.full_like(blob, -2.0))):
        assert made[0].argmax() == 6
        assert int((made > 1e-6).sum()) == 1


@pytest.mark.parametrize("name", ["LayerCAM", "grad-cam++", "GradCAMPlusPlus", "grad_cam_plus_plus", "HiResCAM"])
def test_a_method_is_found_however_it_is_spelt(name: str) -> None:
    assert find_method(name).name in ("layercam", "gradcam++", "hirescam")


def test_an_unknown_method_is_an_error_that_names_the_others() -> None:
    with pytest.raises(ArgumentError, match=r"method=scorecam .*layercam, hirescam"):
        find_method("scorecam")
