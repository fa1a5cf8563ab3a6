"""Measures of the whole model at every optimizer step: gradient norm, loss scale and the first non-finite block.

No skipped or poisoned step goes unseen. Between sampled steps that costs two multi-tensor kernels and no wait for the
device, or nothing where the trainer tells the norm that it clips by; at a sampled step the norms are known already.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlflow_yolo.statistics.epoch import NO_BLOCK, Grid
from mlflow_yolo.statistics.gradients import clip_coefficient
from mlflow_yolo.statistics.vectors import Floats, Ints

FINITE = NO_BLOCK - 1
"""Stands for "no block" in the column of the first non-finite block."""


def gradient_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Return (P,) the L2 norm of each of at least one gradient, as it is; half precision is summed in single."""
    half = (torch.float16, torch.bfloat16)
    return torch.stack(torch._foreach_norm([g.float() if g.dtype in half else g for g in gradients], 2))


def global_sums(norms: Tensor, blocks: Tensor, scale: float | Tensor, *, n_images: int = 0) -> Tensor:
    """Return (4,) L2 norm over all of `norms`, first non-finite block or `FINITE`, `scale` and `n_images`.

    Args:
        norms: (P,) L2 norms of gradients before clipping, P > 0.
        blocks: (P,) their block indices, on the same device; `NO_BLOCK` for one outside all blocks.
        scale: The loss scale, a number or a scalar tensor (copied, so that the scaler may change it afterwards).
        n_images: Images that the gradients were added up over, 0 when unknown.
    """
    if not isinstance(scale, Tensor):
        scale = torch.full((), scale, device=norms.device)  # filled on the device: torch.tensor would copy and wait
    # The backward pass goes from the last block to the first: the deepest one is where it broke.
    first = torch.where(torch.isfinite(norms), FINITE, blocks).max()
    images = torch.full_like(norms[0], n_images)
    return torch.stack([torch.linalg.vector_norm(norms), first.to(norms.dtype), scale.to(norms).reshape(()), images])


def is_finite(sums: Tensor) -> bool | Tensor:
    """Return whether a step with these `global_sums` is finite: on a GPU as a scalar there, which nobody waits for."""
    finite = sums[1] == FINITE
    return finite if finite.is_cuda else bool(finite)


def global_grids(steps: Ints, sums: Floats, *, max_norm: float) -> tuple[Grid, ...]:
    """Return what is in the kind `global`: gradient_norm, clip_coefficient, loss_scale; where it was one and where
    images were counted, nonfinite_block and gradient_norm_per_image.

    Ultralytics multiplies the losses (not that of classification) by the batch size and adds the batches of a step up:
    only the norm per image compares runs of different batch sizes.

    Args:
        steps: (T,) optimizer steps.
        sums: (T, 4) of `global_sums`.
        max_norm: The trainer's clipping limit.
    """
    norm, first, scale, n_images = (sums[:, i : i + 1] for i in range(4))
    per_image = {"gradient_norm_per_image": norm / np.maximum(n_images, 1.0)}
    values = {"gradient_norm": norm, "clip_coefficient": clip_coefficient(norm, max_norm=max_norm), "loss_scale": scale}
    finite, blocks = first == FINITE, np.array([NO_BLOCK])
    return (
        Grid("global", steps, blocks, values, np.ones(norm.shape, dtype=bool), finite[:, 0]),
        Grid("global", steps, blocks, per_image, n_images > 0, finite[:, 0]),
        Grid("global", steps, blocks, {"nonfinite_block": first}, ~finite, finite[:, 0]),
    )


def nonfinite_steps(steps: Ints, sums: Floats) -> tuple[tuple[int, int], ...]:
    """Return (step, first non-finite block) of every step with a NaN or infinite gradient."""
    return tuple((int(step), int(row[1])) for step, row in zip(steps, sums, strict=True) if row[1] != FINITE)
