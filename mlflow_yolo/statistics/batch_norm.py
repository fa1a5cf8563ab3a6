"""Closed forms from batch norm: what its weights alone say about the activation behind it, without any image.

A batch norm hands on, per channel, values of mean beta and standard deviation |gamma|. Taken as normal, P(off) is a
normal probability, and the expected slope and the spread are one-dimensional integrals. The distance to the measured
values shows how far the data are from the statistics the model was trained with.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import nn

from mlflow_yolo.blocks import COPIES
from mlflow_yolo.statistics.channel_status import channel_status, status_fractions
from mlflow_yolo.statistics.saturation import Activation, Layer, Piece, pre_activations
from mlflow_yolo.statistics.vectors import Floats, to_host

N_NODES = 64
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(N_NODES)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True, eq=False)
class NormalForms:
    """What a normal pre-activation gives, per channel.

    Attributes:
        off_fraction: (C,) probability that the activation is off.
        openness: (C,) expected |slope| of the activation.
        spread: (C,) standard deviation of the activation's output.
    """

    off_fraction: Floats
    openness: Floats
    spread: Floats


def normal_forms(mean: Floats, std: Floats, activation: Activation) -> NormalForms:
    """Return the closed forms for z ~ N(mean, std^2).

    Args:
        mean: (C,) beta of the batch norm.
        std: (C,) gamma; its sign does not matter, 0 is a constant channel.
        activation: What is applied to z.

    Returns:
        `off_fraction` is exact. `openness` is exact for functions of straight pieces, else, as `spread`, by
        Gauss-Hermite quadrature with 64 points.
    """
    std = np.abs(std)
    z = torch.from_numpy(mean[:, None] + std[:, None] * _NODES)
    value, slope = (part.numpy() for part in activation.evaluate(z))
    centred = value - (value @ _WEIGHTS)[:, None]
    off = _below(activation.off_below, mean, std) + (1.0 - _below(activation.off_above, mean, std))
    if activation.pieces:
        openness = np.sum([_over(piece, mean, std) for piece in activation.pieces], axis=0)
    else:
        openness = np.abs(slope) @ _WEIGHTS
    return NormalForms(off, openness, np.sqrt(centred**2 @ _WEIGHTS))


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """A batch norm with weights, as they were when it was read, and the activation behind it.

    Attributes:
        gamma: (C,) its weight.
        beta: (C,) its bias.
        activation: What follows.
    """

    gamma: Floats
    beta: Floats
    activation: Activation

    def forms(self) -> NormalForms:
        """Return the closed forms of its channels."""
        return normal_forms(self.beta, self.gamma, self.activation)


def read_batch_norms(layers: Sequence[Layer]) -> list[BatchNorm | None]:
    """Return the batch norm of every layer, with one copy from the device; None where it is no affine one.

    A fused model has no batch norms left.
    """
    norms = [layer.module for layer in layers]
    affine = [norm for norm in norms if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.affine]
    values = iter(to_host([part.detach().float() for norm in affine for part in (norm.weight, norm.bias)]))
    known = {id(norm): (next(values), next(values)) for norm in affine}
    return [known.get(id(layer.module)) and BatchNorm(*known[id(layer.module)], layer.activation) for layer in layers]


def block_batch_norms(
    blocks: Sequence[tuple[int, nn.Module]], *, skip: Collection[str] = COPIES
) -> dict[int, list[BatchNorm]]:
    """Return the batch norms before a known activation by block index; blocks without any are absent.

    Args:
        blocks: Index and module of every block.
        skip: Class names of blocks to leave out.
    """
    chosen = [(index, module) for index, module in blocks if type(module).__name__ not in skip]
    layers = [(index, layer) for index, module in chosen for layer in pre_activations(module)]
    by_block: dict[int, list[BatchNorm]] = {}
    for (index, _), norm in zip(layers, read_batch_norms([layer for _, layer in layers]), strict=True):
        if norm:
            by_block.setdefault(index, []).append(norm)
    return by_block


def batch_norm_statistics(norms: Mapping[int, Sequence[BatchNorm]]) -> dict[int, dict[str, float]]:
    """Return statistics by block index, after the weights of its batch norms alone; any thread may do it.

    They are `off_fraction`, `openness`, `dead_fraction` and `near_dead_fraction`; every channel counts alike.

    Args:
        norms: Those of each block, at least one.
    """
    return {index: _block_statistics([norm.forms() for norm in of_block]) for index, of_block in norms.items()}


def _block_statistics(forms: Sequence[NormalForms]) -> dict[str, float]:
    status = [channel_status(form.openness, form.spread, form.off_fraction) for form in forms]
    return {
        "off_fraction": float(np.concatenate([form.off_fraction for form in forms]).mean()),
        "openness": float(np.concatenate([form.openness for form in forms]).mean()),
        **status_fractions(np.concatenate(status)),
    }


def _standard(limit: float, mean: Floats, std: Floats) -> Floats:
    """Return (limit - mean) / std; for a constant channel the sign's infinity, with 0 as at or below the limit."""
    distance = limit - mean
    constant = np.where(distance >= 0, math.inf, -math.inf)
    return np.asarray(np.divide(distance, std, out=constant, where=std > 0), dtype=np.float64)


def _below(limit: float, mean: Floats, std: Floats) -> Floats:
    """Return (C,) P(z <= limit)."""
    return np.asarray(ndtr(_standard(limit, mean, std)), dtype=np.float64)


def _over(piece: Piece, mean: Floats, std: Floats) -> Floats:
    """Return (C,) the integral of constant + rate * z over the piece, under the normal density."""
    low, high = _standard(piece.low, mean, std), _standard(piece.high, mean, std)
    mass = ndtr(high) - ndtr(low)
    bump = (np.exp(-0.5 * low**2) - np.exp(-0.5 * high**2)) / math.sqrt(2 * math.pi)
    return np.asarray((piece.constant + piece.rate * mean) * mass + piece.rate * std * bump, dtype=np.float64)
