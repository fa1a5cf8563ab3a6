"""How far a student's feature maps are from its teacher's, of one level of the network.

Every distance is a scalar >= 0 (up to rounding), zero for equal features, and differentiable in the student. FitNets
and CWD compare channel with channel, so the student's are first projected to the teacher's number of them (r in the
formulas); attention and relations need no projection.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_RELATED_IMAGES = 64
"""Images of a batch whose angles are compared: there are n^3 of them."""


def hint_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the features.

        L = 1 / (B C H W) * ||r(F_s) - F_t||^2

    The gradient is dL/dr(F_s) = 2 (r(F_s) - F_t) / (B C H W).

    Args:
        student: (B, C, H, W) projected features.
        teacher: As `student`.

    Source: Romero et al. 2015 (FitNets), arXiv 1412.6550, equation 3; a mean in place of half the sum.
    """
    return F.mse_loss(student, teacher)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how differently the networks look at the image, whatever their width: the mean over images.

        L = 1 / B * sum_b || Q_s / ||Q_s|| - Q_t / ||Q_t|| ||,   Q = sum_c F_c^2 as a vector of H W

    Args:
        student: (B, C, H, W) features.
        teacher: (B, C', H, W) features.

    Source: Zagoruyko and Komodakis 2017, arXiv 1612.03928, equation 2 with p = 2.
    """
    maps = [F.normalize(features.pow(2).sum(dim=1).flatten(1), dim=1) for features in (student, teacher)]
    distances: Tensor = torch.linalg.vector_norm(maps[0] - maps[1], dim=1)
    return distances.mean()


def channel_wise_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return the divergence of where each channel is active, the mean over channels and images.

        L = T^2 / (B C) * sum_b sum_c KL(phi(F_t,c / T) || phi(r(F_s)_c / T)),   phi = softmax over H W

    The gradient is dL/dr(F_s) = T (phi_s - phi_t) / (B C).

    Args:
        student: (B, C, H, W) projected features.
        teacher: As `student`.
        temperature: T > 0; softens both.

    Source: Shu et al. 2021 (CWD), arXiv 2011.13256, section 3.2.
    """
    log_s = (student.flatten(2) / temperature).log_softmax(dim=2)
    log_t = (teacher.flatten(2) / temperature).log_softmax(dim=2)
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(dim=2).mean()


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how differently the images of a batch lie to one another: their distances and, twice, their angles.

    With x_i the features of image i averaged over its pixels, and h Huber's function with threshold 1:

        L = 1 / n_pairs * sum_{i<j} h(|x_i - x_j| / mu for student and teacher) + 2 / n_triples * sum_{ijk} h(cos ijk)
        mu = the mean of |x_i - x_j| over pairs,   cos ijk = <x_i - x_j, x_k - x_j> / (|x_i - x_j| |x_k - x_j|)

    Fewer than two images have no distances and fewer than three no angles: these parts are 0.

    Args:
        student: (B, C, H, W) features.
        teacher: (B, C', H, W) features.

    Source: Park et al. 2019 (RKD), arXiv 1904.05068, section 3.2; the weights 1 and 2 are the paper's ratio. At most
        `MAX_RELATED_IMAGES` images are compared (ours).
    """
    x_s, x_t = (features.mean(dim=(2, 3))[:MAX_RELATED_IMAGES] for features in (student, teacher))
    distance = F.huber_loss(_distances(x_s), _distances(x_t)) if len(x_s) > 1 else x_s.sum() * 0
    angle = F.huber_loss(_cosines(x_s), _cosines(x_t)) if len(x_s) > 2 else x_s.sum() * 0
    return distance + 2 * angle


def _distances(x: Tensor) -> Tensor:
    """Return the distances of all pairs i < j of (n, d) vectors, in units of their mean."""
    distances = F.pdist(x)
    return distances / distances.mean().clamp(min=1e-12)


def _cosines(x: Tensor) -> Tensor:
    """Return the cosines of the angles at j of all triples of different i, j, k, where i and k may change places."""
    between = x[:, None] - x[None]  # [i, j]: from j to i
    # Of two equal images the direction is 0; without the factor its gradient would be 1e12 times too large.
    directions = F.normalize(between, dim=2) * (between.detach().abs().amax(dim=2, keepdim=True) > 1e-6)
    cosines = torch.einsum("ijd,kjd->jik", directions, directions)
    same = torch.eye(len(x), dtype=torch.bool, device=x.device)
    return cosines[~(same[:, :, None] | same[:, None, :] | same[None, :, :])]
