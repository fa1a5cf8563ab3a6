"""What a YOLO head gives before thresholds: logits, box distances and masks of every anchor, in one form for all heads.

Logits and not probabilities: the derivative of a probability p is p (1 - p) times that of its logit, so a confident
detection would have no gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mlflow_yolo.exceptions import ArgumentError

BRANCHES = ("auto", "one2many", "one2one")
"""Heads of an end-to-end model; `auto` is the one that its predictions come from."""


@dataclass(frozen=True, eq=False)
class DetectionOutputs:
    """The raw predictions of a detection, segmentation, pose or rotated-box head.

    Attributes:
        logits: (B, C, A) class logits of every anchor, the levels one after another.
        sides: (B, 4 x bins, A) of left, top, right and bottom how far they lie from the anchor's centre, as the head
            gives it: in cells, or of several bins the logit of each number of cells.
        sizes: (height, width) of each level's grid, in cells.
        strides: Pixels of the input a cell, by level.
        coefficients: (B, M, A) mask coefficients, None without masks.
        prototypes: (B, M, H, W) mask prototypes, None without masks.
        is_end_to_end: Whether the anchors are those of the one-to-one head, which needs no suppression.
    """

    logits: Tensor
    sides: Tensor
    sizes: tuple[tuple[int, int], ...]
    strides: tuple[float, ...]
    coefficients: Tensor | None = None
    prototypes: Tensor | None = None
    is_end_to_end: bool = False

    @cached_property
    def levels(self) -> Tensor:
        """(A,) the detection level of every anchor, counted from the finest."""
        cells = torch.tensor([height * width for height, width in self.sizes], device=self.logits.device)
        return torch.arange(len(self.sizes), device=self.logits.device).repeat_interleave(cells)

    @cached_property
    def centres(self) -> Tensor:
        """(A, 2) centre x, y of every anchor's cell, pixels of the input."""
        parts = []
        for (height, width), stride in zip(self.sizes, self.strides, strict=True):
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            parts.append((torch.stack((x, y), dim=-1).reshape(-1, 2) + 0.5) * stride)
        return torch.cat(parts).to(self.logits.device)

    @cached_property
    def distances(self) -> Tensor:
        """(B, 4, A) from the anchor's centre outwards to left, top, right and bottom, pixels of the input.

        Of a rotated box in its own frame. Most targets need none, and a softmax over all bins takes a twentieth of a
        forward pass, so it is made when it is asked for, whoever asks first as a part of the graph.
        """
        with torch.enable_grad():
            return _distances(self.sides, self.sizes, self.strides)

    @cached_property
    def boxes(self) -> Tensor:
        """(B, 4, A) xyxy, pixels of the input; of rotated boxes before they are rotated."""
        centres = self.centres.T
        return torch.cat((centres - self.distances[:, :2], centres + self.distances[:, 2:]), dim=1)

    def mask_logits(self, image: int, anchor: int) -> Tensor:
        """Return the mask of one anchor: (H, W) logits on the prototypes' grid, not cut to its box.

        Raises:
            ArgumentError: The model predicts no masks.
        """
        if self.coefficients is None or self.prototypes is None:
            raise ArgumentError("the model predicts no masks: use a segmentation model, or another target.")
        return torch.einsum("m,mhw->hw", self.coefficients[image, :, anchor], self.prototypes[image])


@dataclass(frozen=True, eq=False)
class ClassificationOutputs:
    """The raw predictions of a classification head.

    Attributes:
        logits: (B, C).
    """

    logits: Tensor


Outputs = DetectionOutputs | ClassificationOutputs


def read_outputs(head: Any, raw: Any, *, branch: str = "auto") -> Outputs:
    """Return the raw predictions in one form.

    Args:
        head: The model's last block, in evaluation mode.
        raw: What the model returned for a batch.
        branch: `one2many` or `one2one` for an end-to-end model, `auto` for the one its predictions come from.

    Raises:
        ArgumentError: A model without class logits for anchors or images, or a branch that is not there.
    """
    if branch not in BRANCHES:
        raise ArgumentError(f"branch={branch} does not exist. Use one of {', '.join(BRANCHES)}.")
    if not isinstance(raw, tuple) or len(raw) != 2:
        raise ArgumentError(f"{type(head).__name__} gives no raw predictions. Use a YOLO model that is not exported.")
    decoded, predictions = raw
    if isinstance(predictions, Tensor) and predictions.ndim == 2:
        return ClassificationOutputs(predictions)
    if not isinstance(predictions, Mapping):
        raise ArgumentError(f"{type(head).__name__} predicts neither boxes nor classes. Use a YOLO model.")
    name = _branch_name(head, predictions, branch)
    chosen = predictions[name] if name else predictions
    if "scores" not in chosen:
        raise ArgumentError(
            f"{type(head).__name__} has no class logits for its anchors. Use a YOLO v8, 11 or 26 model."
        )
    strides = tuple(float(stride) for stride in head.stride)
    sizes = tuple((int(level.shape[-2]), int(level.shape[-1])) for level in chosen["feats"])
    return DetectionOutputs(
        logits=chosen["scores"],
        sides=chosen["boxes"],
        sizes=sizes,
        strides=strides,
        coefficients=chosen.get("mask_coefficient"),
        # In the dictionary of a one-to-one head they are detached.
        prototypes=decoded[1] if isinstance(decoded, tuple) else None,
        is_end_to_end=name == "one2one",
    )


def _branch_name(head: Any, predictions: Mapping[str, Any], branch: str) -> str | None:
    """Return the key of the branch in the predictions; None for a head that has, or kept, only the one-to-many one."""
    if "one2many" not in predictions:
        if branch == "one2one":
            raise ArgumentError("branch=one2one is not in this model, or was removed when it was fused. Use auto.")
        return None
    auto = "one2one" if getattr(head, "end2end", False) else "one2many"
    name = auto if branch == "auto" else branch
    # A removed branch is an empty dictionary, or one of prototypes alone.
    if "scores" not in predictions[name] and name != auto:
        raise ArgumentError(f"branch={name} was removed when the model was fused. Use branch=auto.")
    return name


def _distances(boxes: Tensor, sizes: tuple[tuple[int, int], ...], strides: tuple[float, ...]) -> Tensor:
    """Return (B, 4, A) pixels from the raw (B, 4 x bins, A): each a distribution over bins, or a number of its own."""
    batch, channels, n_anchors = boxes.shape
    if channels > 4:
        shares = boxes.view(batch, 4, channels // 4, n_anchors).softmax(2)
        boxes = torch.einsum("bdka,k->bda", shares, torch.arange(channels // 4).to(shares))
    cells = torch.cat([torch.full((h * w,), stride) for (h, w), stride in zip(sizes, strides, strict=True)])
    return boxes * cells.to(boxes)
