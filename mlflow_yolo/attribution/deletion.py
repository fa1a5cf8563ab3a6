"""Does the model rest on what a map marks? Take it away, or give only it, and watch the score.

Deletion replaces the pixels with the largest map values first and should make the score fall at once: a small area
under the curve is good. Insertion puts them first into an image without content: a large area is good. A map is judged
against `random_map`, at the same image, score and number of steps.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mlflow_yolo.exceptions import ArgumentError, ShapeError

_BLUR = 0.1
"""Standard deviation of the blur, as a fraction of the longer side: 64 pixels at 640.

Wide enough to take the score away: on 25 validation images of BCCD at 320 pixels the mean score of 195 red cells falls
from .579 to .047 at 0.05 and .005 at 0.1, that of 25 white cells from .765 to .125 and .041; wider gains nothing.
"""


class DeletionInsertion(NamedTuple):
    """Areas under the two curves, in units of the score.

    Attributes:
        deletion: Small is good.
        insertion: Large is good.
    """

    deletion: float
    insertion: float


def deletion_insertion(
    images: Tensor,
    map: Tensor | npt.NDArray[Any],
    predict: Callable[[Tensor], Tensor],
    *,
    steps: int = 12,
    fill: Literal["blur", "mean"] = "blur",
    batch: int = 8,
    seed: int = 0,
) -> DeletionInsertion:
    """Return the areas under the deletion and the insertion curve of one map.

    Both curves have `steps` + 1 points; the two images at their ends are shared, so it costs 2 `steps` images.

    Args:
        images: (1, C, H, W), values in [0, 1], the network's input; its device is used. Not changed.
        map: (h, w), signed or not, any scale and device; brought to (H, W) bilinearly.
        predict: Maps (B, C, H, W) to (B,) scores: the probability of the same anchor and class throughout. Called
            without gradients, but not in inference mode, which would leave a detection head that cannot be
            differentiated again.
        steps: Number of equal portions of pixels.
        fill: What replaces a pixel: the image blurred (10 % of its longer side), or its mean colour.
        batch: Largest number of images a call of `predict`.
        seed: Of the order of pixels with equal values, which raster order would bias to the top.

    Returns:
        By the trapezoidal rule over the fraction of pixels from 0 to 1; nan for a map that is zero everywhere or not
        finite.

    Raises:
        ShapeError: `images` is not (1, C, H, W), the map not (h, w), or `predict` does not give one score an image.
        ArgumentError: Less than one step or image a batch, or an unknown fill.

    Source: Petsiuk et al., "RISE", BMVC 2018, section 4.2.
    """
    if images.ndim != 4 or len(images) != 1:
        raise ShapeError(f"images have shape {tuple(images.shape)}, expected (1, C, H, W): pass one image.")
    if steps < 1 or batch < 1:
        raise ArgumentError(f"steps={steps}, batch={batch}: both must be at least 1.")
    # An array is copied: torch warns of one that is read-only and refuses one that is flipped.
    values = (map.detach() if isinstance(map, Tensor) else torch.from_numpy(np.array(map))).to("cpu", torch.float64)
    if values.ndim != 2 or not values.numel():
        raise ShapeError(f"the map has shape {tuple(values.shape)}, expected (h, w): pass one map.")
    if not (values.isfinite().all() and values.any()):
        return DeletionInsertion(float("nan"), float("nan"))
    with torch.no_grad():
        rank = _rank(values, images.shape[2:], images.device, seed)
        scores = _scores(images, _filled(images, fill), rank, predict, steps, batch)
    deleted, inserted = scores[: steps + 1], torch.cat([scores[steps:], scores[:1]])
    return DeletionInsertion(*(float(torch.trapezoid(curve)) / steps for curve in (deleted, inserted)))


def random_map(shape: tuple[int, int], seed: int) -> Tensor:
    """Return a map that knows nothing, (h, w) uniform in [0, 1), float32 on the CPU: the baseline to beat."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _rank(values: Tensor, size: torch.Size, device: torch.device, seed: int) -> Tensor:
    """Return (H, W) the place of each pixel in the order of falling map values, from 0."""
    # By the largest value before the change to float32, in which a very small map would be all zeros.
    scaled = (values / values.abs().max()).to(device, torch.float32)
    whole = functional.interpolate(scaled[None, None], size=size, mode="bilinear")[0, 0].flatten()
    shuffled = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed)).to(device)
    order = shuffled[torch.argsort(whole[shuffled], descending=True, stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=device)
    return rank.reshape(size)


def _scores(
    image: Tensor, filled: Tensor, rank: Tensor, predict: Callable[[Tensor], Tensor], steps: int, batch: int
) -> Tensor:
    """Return (2 steps,) scores: the image, ever less of it, nothing of it, ever more of it, but for the whole again."""
    pixels = torch.arange(steps + 1, device=rank.device) * rank.numel() // steps
    scores = []
    for some in torch.arange(2 * steps, device=rank.device).split(batch):
        step = some[:, None, None, None]
        is_first = rank < pixels[step % steps + steps * (step == steps)]
        kept = torch.where(step <= steps, ~is_first, is_first)
        found = predict(torch.where(kept, image, filled))
        if found.shape != some.shape:
            raise ShapeError(
                f"predict gave shape {tuple(found.shape)} for {len(some)} images, expected one score each."
            )
        scores.append(found.detach().to("cpu", torch.float64))
    return torch.cat(scores)


def _filled(image: Tensor, fill: str) -> Tensor:
    if fill == "mean":
        return image.mean((2, 3), keepdim=True).expand_as(image)
    if fill == "blur":
        return _blurred(image, max(_BLUR * max(image.shape[2:]), 1.0))
    raise ArgumentError(f"fill={fill!r} is not known: use blur or mean.")


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Return the image under a Gaussian, its border repeated."""
    radius = int(3 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    channels = image.transpose(0, 1)  # (C, 1, H, W): the same kernel for every channel
    down = functional.conv2d(
        functional.pad(channels, (0, 0, radius, radius), mode="replicate"), weights[None, None, :, None]
    )
    across = functional.conv2d(
        functional.pad(down, (radius, radius, 0, 0), mode="replicate"), weights[None, None, None]
    )
    return across.transpose(0, 1)
