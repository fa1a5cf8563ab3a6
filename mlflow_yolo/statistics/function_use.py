"""Which part of its activation function every layer uses: the graph, the regions, and the density of the argument."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mlflow_yolo.statistics.activations import ActivationResult
from mlflow_yolo.statistics.density import EDGES, LIMIT
from mlflow_yolo.statistics.saturation import Activation
from mlflow_yolo.statistics.vectors import Floats

N_POINTS = 481


@dataclass(frozen=True, eq=False)
class FunctionUse:
    """One activation function and the layers behind which it stands.

    Attributes:
        name: Of the function: `SiLU`.
        z: (481,) from -6 to 6.
        value: (481,) f(z).
        off_below: The function is off at and below this z; -inf for never.
        off_above: And at and above this one; inf for never.
        linear_above: It is linear above this z, as far as it is not off; inf for nowhere.
        blocks: (L,) name of each layer's block, in the model's order.
        edges: (97,) edges of the bins of z.
        densities: (L, 96) density of each layer's pre-activations, per unit of z.
        off_fraction: Share that is off, mean over the layers.
        linear_fraction: Share that is linear, likewise.
    """

    name: str
    z: Floats
    value: Floats
    off_below: float
    off_above: float
    linear_above: float
    blocks: tuple[str, ...]
    edges: Floats
    densities: Floats
    off_fraction: float
    linear_fraction: float


def function_uses(result: ActivationResult, names: Mapping[int, str]) -> tuple[FunctionUse, ...]:
    """Return one entry for every distinct activation function, the one with most layers first.

    Args:
        result: What an `ActivationProbe` has seen.
        names: Names of the blocks by index.
    """
    uses = [_use(activation, result, names) for activation in result.functions.values()]
    return tuple(sorted(uses, key=lambda use: -len(use.blocks)))


def _use(activation: Activation, result: ActivationResult, names: Mapping[int, str]) -> FunctionUse:
    blocks: list[str] = []
    densities, off, linear = [], [], []
    for block, density in sorted(result.densities.items()):
        chosen = np.array([name == activation.name for name in density.activations])
        blocks += [names[block]] * int(chosen.sum())
        densities.append(density.per_unit()[chosen])
        above = 1.0 - density.share_below(activation.off_above)[chosen]
        off.append(density.share_below(activation.off_below)[chosen] + above)
        linear.append(np.maximum(1.0 - density.share_below(activation.linear_above)[chosen] - above, 0.0))
    z = np.linspace(-LIMIT, LIMIT, N_POINTS)
    value, _ = activation.evaluate(torch.from_numpy(z))
    return FunctionUse(
        activation.name,
        z,
        value.numpy(),
        activation.off_below,
        activation.off_above,
        activation.linear_above,
        tuple(blocks),
        EDGES,
        np.concatenate(densities),
        float(np.concatenate(off).mean()),
        float(np.concatenate(linear).mean()),
    )
