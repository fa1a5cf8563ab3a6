import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.attribution.windows import Windowed, in_full, in_window, in_windows, is_zero

Corner = tuple[int, int]
Step = Callable[[Tensor], Tensor]


def spot(
    spots: Sequence[Corner | None], *, size: Corner = (2, 3), channels: int = 4, grid: Corner = (16, 18)
) -> Tensor:
    """Return a gradient that is 0 but for a patch in each image, cut off at the border."""
    generator = torch.Generator().manual_seed(3)
    made = torch.zeros(len(spots), channels, *grid, dtype=torch.float64)
    for image, corner in enumerate(spots):
        if corner is not None:
            patch = made[image, :, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
            patch.copy_(torch.randn(patch.shape, generator=generator, dtype=torch.float64))
    return made


def through(step: Step, image: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of a step's input."""
    image = image.clone().requires_grad_()
    found: Tensor = torch.autograd.grad(step(image), image, gradient)[0]
    return found


def windowed(gradient: Tensor) -> Windowed:
    made = in_window(gradient)
    assert isinstance(made, Windowed)
    return made


PLACES = {
    "middle": [(7, 8), (3, 2)],
    "corners": [(0, 0), (14, 15)],
    "edges": [(0, 9), (8, 16)],
    "one empty": [None, (5, 6)],
    "all empty": [None, None],
}
CHANNELS_LAST = nn.Conv2d(4, 4, 3, padding=1).double().to(memory_format=torch.channels_last)
NORM = nn.BatchNorm2d(4).double().eval()
NORM.running_mean = torch.tensor([0.5, -1, 2, 0], dtype=torch.float64)
NORM.running_var = torch.tensor([0.5, 1, 2, 4], dtype=torch.float64)
STEPS: dict[str, tuple[Step, Corner]] = {
    "1x1": (nn.Conv2d(4, 4, 1).double(), (16, 18)),
    "3x3": (nn.Conv2d(4, 4, 3, padding=1).double(), (16, 18)),
    "3x3, channels last": (CHANNELS_LAST, (16, 18)),
    "depthwise": (nn.Conv2d(4, 4, 5, padding=2, groups=4).double(), (16, 18)),
    "dilated": (nn.Conv2d(4, 4, 3, padding=2, dilation=2).double(), (16, 18)),
    "without padding": (nn.Conv2d(4, 4, (3, 1)).double(), (18, 18)),
    "stride 2": (nn.Conv2d(4, 4, 3, stride=2, padding=1).double(), (32, 36)),
    "stride 2, odd": (nn.Conv2d(4, 4, 3, stride=2, padding=1).double(), (31, 35)),
    "transposed": (nn.ConvTranspose2d(4, 4, 2, stride=2).double(), (8, 9)),
    "norm": (NORM, (16, 18)),
    "silu": (functional.silu, (16, 18)),
    "upsampled": (lambda image: functional.interpolate(image, scale_factor=2.0, mode="nearest"), (8, 9)),
    "upsampled, uneven": (lambda image: functional.interpolate(image, size=(16, 18), mode="nearest"), (7, 8)),
    "concatenated": (lambda image: torch.cat((image[:, 2:], image[:, :1].exp(), image[:, :1]), 1), (16, 18)),
    "split": (lambda image: torch.cat(image.chunk(2, 1)[::-1], 1), (16, 18)),
    "half of it": (lambda image: image.split((4, 3), 1)[0], (16, 18)),
    "around": (lambda image: image + functional.conv2d(image, CHANNELS_LAST.weight, padding=1), (16, 18)),
    "pooled": (lambda image: functional.max_pool2d(image, 5, 1, 2), (16, 18)),
    "stacked": (lambda image: torch.cat((image[:1].sin(), image[1:]), 0), (16, 18)),
}


@pytest.mark.parametrize("spots", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize(("step", "grid"), STEPS.values(), ids=STEPS.keys())
def test_a_window_goes_back_as_the_whole_does(step: Step, grid: Corner, spots: list[Corner | None]) -> None:
    channels = 7 if step is STEPS["half of it"][0] else 4
    image = torch.rand(2, channels, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradient = spot(spots)
    found = in_full(through(step, image, windowed(gradient)))
    torch.testing.assert_close(found, through(step, image, gradient), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["1x1", "3x3", "depthwise", "stride 2", "norm", "silu", "upsampled", "split", "around"]
)
def test_a_step_with_a_rule_keeps_the_window(name: str) -> None:
    step, grid = STEPS[name]
    found = through(step, torch.rand(2, 4, *grid, dtype=torch.float64), windowed(spot([(7, 8), (0, 0)])))
    assert isinstance(found, Windowed)


def test_sums_of_windows_in_different_places_are_those_of_the_whole() -> None:
    one, other = spot([(1, 2), None]), spot([(5, 4), (12, 3)], size=(3, 1))
    found = windowed(one) + windowed(other)
    assert isinstance(found, Windowed)
    assert found.window.size == (7, 3)  # rows 1 to 7 and columns 2 to 4 of the first image
    torch.testing.assert_close(in_full(found), one + other)
    torch.testing.assert_close(in_full(windowed(one) + other), one + other)
    torch.testing.assert_close(in_full(torch.sub(windowed(one), windowed(other), alpha=2)), one - 2 * other)
    far = spot([(14, 16), None])
    assert not isinstance(windowed(spot([(0, 0), None])) + windowed(far), Windowed)  # all of the grid lies between


def test_a_window_is_the_smallest_that_holds_what_is_not_zero() -> None:
    gradient = torch.zeros(2, 3, 10, 12)
    gradient[0, 0, 4, 5], gradient[0, 2, 5, 8], gradient[1, 1, 9, 11] = 1.0, -2.0, float("nan")
    found = windowed(gradient)
    assert found.window.size == (2, 4)
    assert found.window.corners == ((4, 5), (8, 8))  # moved inwards: all windows are of one size
    assert found.shape == gradient.shape
    torch.testing.assert_close(in_full(found), gradient, equal_nan=True)


def test_what_fills_most_of_the_grid_or_is_no_grid_stays_whole() -> None:
    for gradient in (torch.ones(1, 2, 8, 8), torch.ones(3, 4), torch.zeros(0, 2, 8, 8)):
        assert in_window(gradient) is gradient
        assert in_full(gradient) is gradient
    assert in_full(None) is None


def test_a_window_of_zeros_is_zero() -> None:
    assert is_zero(windowed(spot([None, None])))
    assert not is_zero(windowed(spot([(2, 2), None])))
    assert is_zero(torch.zeros(2))
    assert not is_zero(torch.ones(2))


def test_nothing_is_written_into_a_window() -> None:
    with pytest.raises(AssertionError, match="lost"):
        windowed(spot([(2, 2), None])).mul_(2)


class Sizes(TorchDispatchMode):
    """Notes how many cells of a gradient every convolution goes back from."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[int] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation is torch.ops.aten.convolution_backward.default:
            self.cells.append(math.prod(args[0].window.size if isinstance(args[0], Windowed) else args[0].shape[2:]))
        return operation(*args, **(kwargs or {}))


def back(
    network: nn.Module, images: Tensor, score: Callable[[Any], Tensor], blocks: Sequence[int]
) -> dict[int, Tensor]:
    with forward(network, images, blocks) as run:
        return run.gradients(score(run.outputs), blocks)


def whole(
    network: nn.Module, images: Tensor, score: Callable[[Any], Tensor], blocks: Sequence[int]
) -> dict[int, Tensor]:
    """Return the same by torch alone, the head and the rest in one go."""
    children: Any = network.model
    kept: dict[int, Tensor] = {}
    handles = [
        children[block].register_forward_hook(lambda module, inputs, output, block=block: kept.update({block: output}))
        for block in blocks
    ]
    from mlflow_yolo.attribution.outputs import read_outputs

    outputs = read_outputs(children[-1], network(images.clone().requires_grad_()))
    for handle in handles:
        handle.remove()
    found = torch.autograd.grad(score(outputs), [kept[block] for block in blocks], allow_unused=True)
    return {
        block: torch.zeros_like(kept[block]) if gradient is None else gradient
        for block, gradient in zip(blocks, found, strict=True)
    }


# Of a 256 pixel input: 32 x 32 cells of 8 pixels, 16 x 16 and 8 x 8.
SCORES: dict[str, Callable[[Any], Tensor]] = {
    "finest": lambda out: out.logits[0, 1, 32 * 5 + 7] - out.logits[1, 0, 32 * 31 + 31],
    "levels": lambda out: out.logits[0, 1, 0] + out.logits[1, 2, 1024 + 16 * 8 + 3],
    "coarsest": lambda out: out.logits[1, 2, 1024 + 256 + 20],
    "far apart": lambda out: out.logits[0, 1, 0] + out.logits[0, 1, 1023],
    "side": lambda out: out.distances[0, 2, 32 * 12 + 20],
    "everything": lambda out: out.logits.sum(),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_gradients_of_a_model_are_those_of_torch(
    name: str, score: Callable[[Any], Tensor], build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network = build(name, end_to_end=False if "26" in name else None).double()
    images, blocks = pictures(2, size=256).double(), [4, 6, 15, 16]
    expected = whole(network, images, score, blocks)
    for block, gradient in back(network, images, score, blocks).items():
        assert not isinstance(gradient, Windowed)
        torch.testing.assert_close(gradient, expected[block], atol=1e-9 * float(gradient.abs().max()), rtol=1e-9)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_the_head_and_the_neck_go_back_in_windows(
    name: str, fused: bool, build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network = build(name, fused=fused)
    with forward(network, pictures(2, size=256), [16 if "v8" not in name else 15]) as run, Sizes() as sizes:
        run.gradients(SCORES["finest"](run.outputs), list(run.activations))
    assert max(sizes.cells) <= 9  # a cell, and two convolutions of 3 x 3 behind it
    with forward(network, pictures(2, size=256), [4]) as run, Sizes() as sizes:
        run.gradients(SCORES["finest"](run.outputs), [4])
    assert max(sizes.cells) == 256  # block 6 in full, whose gradient comes through the middle of the model


def test_a_mask_goes_back_through_prototypes_in_full(
    build: Callable[..., nn.Module], pictures: Callable[..., Tensor]
) -> None:
    network, images = build("yolo11n-seg").double(), pictures(1, size=128).double()

    def score(outputs: Any) -> Tensor:
        return outputs.mask_logits(0, 3)[4:8, 4:8].sum()

    expected = whole(network, images, score, [4, 16])
    for block, gradient in back(network, images, score, [4, 16]).items():
        torch.testing.assert_close(gradient, expected[block], atol=1e-9 * float(gradient.abs().max()), rtol=1e-9)


def test_nothing_stays_in_the_graph_behind_it(build: Callable[..., nn.Module], pictures: Callable[..., Tensor]) -> None:
    with forward(build("yolo11n"), pictures(1, size=256), [16]) as run:
        score = SCORES["coarsest"](run.outputs) if len(run.outputs.logits) > 1 else run.outputs.logits[0, 0, 5]
        with in_windows(score):
            inside = torch.autograd.grad(score, [leaf for _, leaf in run.entrances], retain_graph=True)
        after = torch.autograd.grad(score, [leaf for _, leaf in run.entrances], retain_graph=True)
    assert isinstance(inside[0], Windowed)
    assert not any(isinstance(gradient, Windowed) for gradient in after)
    torch.testing.assert_close(in_full(inside[0]), after[0], atol=1e-6, rtol=1e-4)
