"""Class activation maps: from a block's output and its gradient to a map of where the target comes from.

Every method takes activations and gradients of the same shape (B, C, h, w), float32, and returns (B, h, w). Images of
a batch do not influence one another. Maps are not normalised: their unit is that of the target (logits for a class,
pixels for a box side) where the method says so, else arbitrary.

Element-wise methods (`layer_cam`, `hires_cam`) keep the place of an object; those that average the gradient over the
image first (`grad_cam` and its kin) lose it where there are several.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from mlflow_yolo.exceptions import ArgumentError


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the channels weighted by their mean gradient, negative sums cut off.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.
    """
    return _weighted(activations, gradients.mean((2, 3)))


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the channels weighted by their positive gradients, each place by its share in the class score.

    The 1e-6 that keeps the share finite is that of grad-cam 1.5.7, so that maps compare; where gradients are far below
    1e-3 it outweighs the rest of the denominator and favours places of large gradients.

    Source: Chattopadhay et al., Grad-CAM++, WACV 2018, equations 10 and 19.
    """
    squared, total = gradients**2, activations.sum((2, 3), keepdim=True)
    share = squared / (2 * squared + total * squared * gradients + 1e-6)
    return _weighted(activations, (gradients.relu() * share).sum((2, 3)))


def x_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the channels weighted by their gradient where they are active.

    Source: Fu et al., Axiom-based Grad-CAM, BMVC 2020, equation 8.
    """
    total = activations.sum((2, 3))
    return _weighted(activations, (gradients * activations).sum((2, 3)) / (total + 1e-7))


def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return gradient times activation, summed over channels: signed contributions in the target's unit.

    From the last block before a linear head the map sums to the target, up to its bias.

    Source: Draelos and Carin, HiResCAM, 2020, equation 8.
    """
    return (gradients * activations).sum(1)


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the activations weighted place by place with their positive gradients, negative sums cut off.

    Source: Jiang et al., LayerCAM, TIP 2021, equations 5 and 6.
    """
    return (gradients.relu() * activations).sum(1).relu()


def eigen_cam(activations: Tensor, gradients: Tensor | None = None) -> Tensor:
    """Return the first principal component of the activations, whatever the target; the gradient is not used.

    Source: Muhammad and Yeasin, Eigen-CAM, IJCNN 2020. The sign, which is arbitrary, is chosen so that the largest
    magnitude is positive; the other side is cut off.
    """
    return _first_component(activations)


def eigen_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the first principal component of gradient times activation, its sign chosen as in `eigen_cam`."""
    return _first_component(gradients * activations)


@dataclass(frozen=True)
class Method:
    """One way to make a map.

    Attributes:
        name: Its name in options, tables and titles.
        make: From activations and gradients to maps.
        needs_gradient: Whether the target, and so a gradient, has any influence.
        is_signed: Whether negative values mean something: evidence against the target.
        is_sensitive: Whether rounding shows: a difference of 1e-7 in the gradients is one of 1e-4 in the map.
    """

    name: str
    make: Callable[[Tensor, Tensor], Tensor]
    needs_gradient: bool = True
    is_signed: bool = False
    is_sensitive: bool = False


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("layercam", layer_cam),
            Method("hirescam", hires_cam, is_signed=True),
            Method("gradcam", grad_cam),
            Method("gradcam++", grad_cam_plus_plus, is_sensitive=True),
            Method("xgradcam", x_grad_cam),
            Method("eigencam", eigen_cam, needs_gradient=False),
            Method("eigengradcam", eigen_grad_cam),
        )
    }
)


def find_method(name: str) -> Method:
    """Return the method of a name; capitals, `-` and `_` do not matter.

    Raises:
        ArgumentError: There is none.
    """
    method = METHODS.get(name.lower().replace("-", "").replace("_", "").replace("plusplus", "++"))
    if method is None:
        raise ArgumentError(f"method={name} does not exist. Use one of {', '.join(METHODS)}.")
    return method


def _weighted(activations: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the channels (B, C, h, w), each with its weight (B, C), cut off at 0."""
    return torch.einsum("bchw,bc->bhw", activations, weights).relu()


def _first_component(values: Tensor) -> Tensor:
    """Return the projection on the first principal axis, from the smaller of the two covariances."""
    batch, channels, height, width = values.shape
    rows = values.flatten(2).double()
    rows = rows - rows.mean(2, keepdim=True)
    if channels <= height * width:
        axis = torch.linalg.eigh(rows @ rows.mT).eigenvectors[:, :, -1]
        projected = torch.einsum("bcp,bc->bp", rows, axis)
    else:
        variances, places = torch.linalg.eigh(rows.mT @ rows)
        projected = places[:, :, -1] * variances[:, -1:].clamp(min=0).sqrt()
    sign = torch.where(projected.amax(1) >= -projected.amin(1), 1.0, -1.0)
    return (projected * sign[:, None]).relu().reshape(batch, height, width).to(values.dtype)
