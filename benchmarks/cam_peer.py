"""grad-cam, the peer of `cam_throughput`, made to work on a YOLO model, and what its maps are compared by.

It is installed by `make bench-install`, without its dependencies: its opencv-python-headless would overwrite the
opencv-python of Ultralytics.
"""

import importlib.util
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

METHODS = {
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "eigencam": "EigenCAM",
}
"""Our names of the methods that are compared, and grad-cam's."""


class Logits(nn.Module):
    """A detector that returns one tensor, as grad-cam demands: the class logits (B, C, A), before thresholds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the head that can be differentiated."""
        predictions = self.network(images)[1]
        return predictions.get("one2many", predictions)["scores"]


class Peer:
    """grad-cam on a copy of a detector, so that its hooks and gradients do not touch the one it is compared with.

    Each call makes a new object of grad-cam's and lets go of it: that costs microseconds, while the graph that an
    object keeps between its calls makes whatever runs next slower, ours included.
    """

    def __init__(self, network: nn.Module, *, thrifty: bool = False) -> None:
        """Copy `network`; `thrifty` asks for no gradients of parameters, only of the input, which its users can do."""
        self._logits = Logits(deepcopy(network)).eval().requires_grad_(not thrifty)
        self._thrifty = thrifty

    def maps(self, method: str, block: int, images: Tensor, anchors: Sequence[tuple[int, int]]) -> Tensor:
        """Return grad-cam's maps (B, height, width), of the input's size, scaled to [0, 1].

        Args:
            method: One of METHODS.
            block: The block's index.
            images: (B, channels, height, width).
            anchors: Anchor and class of each image's target.
        """
        targets = [lambda output, a=anchor, c=class_id: output[c, a] for anchor, class_id in anchors]
        with _make(method, self._logits, block) as cam:
            cam.compute_input_gradient = self._thrifty and cam.uses_gradients
            return torch.from_numpy(cam(images, targets))

    def components(self, block: int, images: Tensor) -> Tensor:
        """Return its EigenCAM (B, h, w) before what is negative is cut off; its sign is arbitrary."""
        with _make("eigencam", self._logits, block) as cam:
            make, kept = cam.get_cam_image, []
            cam.get_cam_image = lambda *arguments: kept.append(make(*arguments)) or kept[-1]
            cam(images, [])
            return torch.from_numpy(kept[0])


def is_installed() -> bool:
    """Return whether grad-cam can be imported."""
    return importlib.util.find_spec("pytorch_grad_cam") is not None


def normalised(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (B, h, w) as grad-cam gives them: without what is negative, (B, *size), each from 0 to 1.

    They are scaled, enlarged bilinearly and scaled again; a map of one value only becomes 0.
    """
    enlarged = functional.interpolate(_scaled(maps.float().relu())[:, None], size, mode="bilinear", align_corners=False)
    return _scaled(enlarged[:, 0])


def positive_side(components: Tensor) -> Tensor:
    """Return components (B, h, w) with their signs chosen so that the largest magnitude is positive, then cut at 0."""
    flipped = -components.amin((1, 2), keepdim=True) > components.amax((1, 2), keepdim=True)
    return torch.where(flipped, -components, components).relu()


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference between two stacks of normalised maps; infinite if a map of theirs is empty.

    Two blank maps are equal and prove nothing.
    """
    if bool((theirs.amax((1, 2)) == 0).any()):
        return float("inf")
    return float((ours - theirs).abs().max())


def _make(method: str, logits: Logits, block: int) -> Any:
    import pytorch_grad_cam

    blocks: Any = logits.network.model
    return getattr(pytorch_grad_cam, METHODS[method])(logits, [blocks[block]])


def _scaled(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny), 0.0)
