"""How far a student's outputs are from its teacher's: classes and boxes.

Every distance is a scalar >= 0 (up to rounding), zero for equal outputs, and differentiable in the student. Of
temperature T, a distance carries the factor T^2, so that its gradient keeps its size when T changes.

Anchors without an object outnumber the others by far, so a dense distance is a mean over anchors weighted by what the
teacher sees there (`anchor_weights`). A batch in which it sees less than one object in all is not blown up to a full
loss: the divisor is at least 1, as it is in Ultralytics' own losses.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def anchor_weights(teacher: Tensor) -> Tensor:
    """Return how sure the teacher is of an object at every anchor, w_a = max_c sigmoid(z_ac).

    Args:
        teacher: (B, C, A) class logits.

    Returns:
        (B, A), in [0, 1].
    """
    return teacher.sigmoid().amax(dim=1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return sum(w v) / max(sum(w), 1) of (B, A) values and weights; 0 for none."""
    return (values * weights).sum() / weights.sum().clamp(min=1)


def bernoulli_kl(student: Tensor, teacher: Tensor, *, temperature: float, weights: Tensor) -> Tensor:
    """Return the divergence of two sigmoid heads: every class is a yes-or-no question of its own.

    With p = sigmoid(z / T) and the index t of the teacher, s of the student:

        L = T^2 / max(sum_a w_a, 1) * sum_a w_a sum_c KL(p_t || p_s)
        KL(p_t || p_s) = p_t log(p_t / p_s) + (1 - p_t) log((1 - p_t) / (1 - p_s))
                       = p_t (z_t - z_s) / T + softplus(z_s / T) - softplus(z_t / T)

    Of one class at one anchor the gradient is dL/dz_s = T (p_s - p_t) w_a / max(sum w, 1); for large T it tends to
    (z_s - z_t) / 4, so T^2 is the right factor. The second form has no logarithm of a rounded 0.

    Args:
        student: (B, C, A) class logits.
        teacher: As `student`.
        temperature: T > 0; softens both.
        weights: (B, A), see `anchor_weights`.

    Source: Hinton et al. 2015 (arXiv 1503.02531) for T; Yang et al. 2023 (BCKD, arXiv 2308.14286) for binary
        classification in place of the softmax, which sigmoid heads do not have.
    """
    z_s, z_t = student / temperature, teacher / temperature
    divergence = z_t.sigmoid() * (z_t - z_s) + F.softplus(z_s) - F.softplus(z_t)
    return temperature**2 * weighted_mean(divergence.sum(dim=1), weights)


def softmax_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return the divergence of two classifiers, the mean over images.

        L = T^2 / B * sum_b KL(softmax(z_t / T) || softmax(z_s / T))

    The gradient is dL/dz_s = T (p_s - p_t) / B. Hinton's (1 - a) CE + a L is, up to the learning rate, CE + w L with
    w = a / (1 - a).

    Args:
        student: (B, C) logits.
        teacher: As `student`.
        temperature: T > 0; softens both.

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    return temperature**2 * _kl(student / temperature, teacher / temperature, dim=1).mean()


def distribution_kl(student: Tensor, teacher: Tensor, *, temperature: float, weights: Tensor) -> Tensor:
    """Return the divergence of two box heads that predict, for each edge, a distribution over distances.

        L = T^2 / max(sum_a w_a, 1) * sum_a w_a sum_e KL(softmax(d_t,e / T) || softmax(d_s,e / T)),  e = l, t, r, b

    Args:
        student: (B, 4 * bins, A) logits, the bins of the left edge first.
        teacher: As `student`.
        temperature: T > 0; softens both.
        weights: (B, A), see `anchor_weights`; the paper distils where labels are instead.

    Source: Zheng et al. 2022 (LD), arXiv 2102.12252, section 3.
    """
    shape = (len(student), 4, -1, student.shape[-1])
    divergence = _kl(student.view(shape) / temperature, teacher.view(shape) / temperature, dim=2)
    return temperature**2 * weighted_mean(divergence.sum(dim=1), weights)


def edge_distances(boxes: Tensor) -> Tensor:
    """Return the distances (B, 4, A) of the edges l, t, r, b from the anchor, in cells, of a head's raw boxes.

    Args:
        boxes: (B, 4 * bins, A); with several bins the expected distance sum_i i softmax(d)_i, with one the value.
    """
    if boxes.shape[1] == 4:
        return boxes
    bins = boxes.view(len(boxes), 4, -1, boxes.shape[-1])
    return torch.einsum("beia,i->bea", bins.softmax(dim=2), torch.arange(bins.shape[2]).to(bins))


def box_distance(student: Tensor, teacher: Tensor, *, weights: Tensor) -> Tensor:
    """Return how far boxes are apart, for heads that have no distribution to compare (YOLO26).

        L = 1 / max(sum_a w_a, 1) * sum_a w_a [1 - IoU(b_s, b_t) + sum_e |d_s,e - d_t,e| / max(sum_e |d_t,e|, 1)]

    The second term, relative to the size of the teacher's box, still has a gradient where the boxes do not overlap.

    Args:
        student: (B, 4, A) distances of the edges from the anchor, in cells, see `edge_distances`.
        teacher: As `student`.
        weights: (B, A), see `anchor_weights`.

    Source: the IoU term: Yang et al. 2023 (BCKD), arXiv 2308.14286; the relative L1 term: ours.
    """
    relative = (student - teacher).abs().sum(dim=1) / teacher.abs().sum(dim=1).clamp(min=1)
    return weighted_mean(1 - _iou(student, teacher) + relative, weights)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU (B, A) of boxes given as distances (B, 4, A) from the same anchors; inside out they are empty."""
    overlap = _area(torch.minimum(a, b))
    return overlap / (_area(a) + _area(b) - overlap).clamp(min=1e-9)


def _area(distances: Tensor) -> Tensor:
    left, top, right, bottom = distances.unbind(dim=1)
    return (left + right).clamp(min=0) * (top + bottom).clamp(min=0)


def _kl(student: Tensor, teacher: Tensor, *, dim: int) -> Tensor:
    """Return KL(softmax(teacher) || softmax(student)) along `dim`."""
    log_s, log_t = student.log_softmax(dim), teacher.log_softmax(dim)
    return (log_t.exp() * (log_t - log_s)).sum(dim)
