"""Where an activation function is off: the pre-activation below which its slope stays under 0.05.

Zeros cannot be counted instead: SiLU and GELU have none. The threshold is on the pre-activation z and not on the
slope, because SiLU's slope is also small around its minimum at z = -1.28, where the unit is not off.
"""

from collections.abc import Iterator
from itertools import pairwise

from torch import nn

SLOPE = 0.05

_OFF_BELOW: dict[type[nn.Module], float] = {
    nn.SiLU: -4.082559,
    nn.GELU: -2.348606,
    nn.Mish: -4.111718,
    nn.ReLU: 0.0,
    nn.ReLU6: 0.0,
    nn.Hardswish: -3.0,
}
"""Outer root of |f'(z)| = 0.05, and the kink of the functions that are exactly flat below it."""


def off_threshold(activation: nn.Module) -> float | None:
    """Return the pre-activation z at and below which the activation is off, or None for one that never is.

    LeakyReLU, identity and unknown functions give None.
    """
    return _OFF_BELOW.get(type(activation))


def pre_activations(module: nn.Module) -> Iterator[tuple[nn.Module, float]]:
    """Yield the modules inside `module` whose output is a pre-activation, with the threshold at which it is off.

    The activation modules themselves are no place to measure: all `Conv` blocks of an Ultralytics model share one.
    Found are the `bn` (fused: the `conv`) of any module with `conv` and `act`, such as Ultralytics' `Conv`, and a batch
    norm directly before an activation in an `nn.Sequential`.
    """
    for child in module.modules():
        for before, activation in _neighbours(child):
            threshold = off_threshold(activation)
            if threshold is not None:
                yield before, threshold


def _neighbours(module: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Return the pairs (module, the activation that follows it directly) among the children of `module`."""
    if isinstance(module, nn.Sequential):
        return [(before, after) for before, after in pairwise(module) if isinstance(before, nn.BatchNorm2d)]
    children_by_name = dict(module.named_children())
    conv, activation = children_by_name.get("conv"), children_by_name.get("act")
    # RepConv has `bn` and `act` but sums three branches between them; it lacks `conv` until it is fused.
    if conv is None or activation is None:
        return []
    return [(children_by_name.get("bn", conv), activation)]
