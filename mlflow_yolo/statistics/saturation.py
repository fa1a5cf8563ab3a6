"""Where an activation function is off, nonlinear or linear, and which modules hand it its argument.

With slope limit 0.05: a function is off where its slope has come within 0.05 of its flat limit 0 for good, and linear
where it has come within 0.05 of the limit 1. Zeros cannot be counted instead: SiLU and GELU have none. The limits are
on the pre-activation z and not on the slope, because SiLU's slope is also small around its minimum at z = -1.28, where
the unit is not off.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.05

ValueAndSlope = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Piece:
    """An interval of z on which the slope's magnitude is the straight line `constant + rate * z`."""

    low: float
    high: float
    constant: float
    rate: float = 0.0


@dataclass(frozen=True)
class Activation:
    """An activation function and its regions.

    Attributes:
        name: Class name, with the parameter where there is one: `SiLU`, `LeakyReLU(0.1)`.
        evaluate: Returns f(z) and f'(z), both of z's shape and type, for floating point z.
        off_below: The function is off at and below this z; -inf for never.
        off_above: And at and above this one; inf for never.
        linear_above: The function is linear above this z, as far as it is not off; inf for nowhere.
        pieces: Where |f'| jumps, its exact form; empty for a smooth function.
    """

    name: str
    evaluate: ValueAndSlope
    off_below: float = -math.inf
    off_above: float = math.inf
    linear_above: float = math.inf
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, eq=False)
class Layer:
    """A place in a block where a pre-activation can be seen.

    Attributes:
        name: Path inside the block of what holds the activation: `m.0.cv1`; empty for the block itself.
        module: Its output is the pre-activation z.
        activation: What is applied to it next.
    """

    name: str
    module: nn.Module
    activation: Activation


def _silu(z: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(z)
    value = z * gate
    return value, gate + value - value * gate


def _gelu(z: Tensor) -> tuple[Tensor, Tensor]:
    below = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    return z * below, below + z * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _gelu_tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    t = torch.tanh(scale * (z + cubic * z**3))
    return 0.5 * z * (1 + t), 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * scale * (1 + 3 * cubic * z * z)


def _mish(z: Tensor) -> tuple[Tensor, Tensor]:
    t = torch.tanh(functional.softplus(z))
    return z * t, t + z * torch.sigmoid(z) * (1 - t * t)


def _relu(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.clamp(min=0), (z > 0).to(z.dtype)


def _relu6(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.clamp(0, 6), ((z > 0) & (z < 6)).to(z.dtype)


def _hardswish(z: Tensor) -> tuple[Tensor, Tensor]:
    slope = torch.where(z >= 3, torch.ones_like(z), torch.where(z <= -3, torch.zeros_like(z), (2 * z + 3) / 6))
    return functional.hardswish(z), slope


def _sigmoid(z: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.sigmoid(z)
    return value, value * (1 - value)


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(z)
    return value, 1 - value * value


def _identity(z: Tensor) -> tuple[Tensor, Tensor]:
    return z, torch.ones_like(z)


_GELU_TANH = Activation("GELU(tanh)", _gelu_tanh, off_below=-2.3551644, linear_above=2.3551644)
_KNOWN: dict[type[nn.Module], Activation] = {
    nn.SiLU: Activation("SiLU", _silu, off_below=-4.0825594, linear_above=4.0825594),
    nn.GELU: Activation("GELU", _gelu, off_below=-2.3486063, linear_above=2.3486063),
    nn.Mish: Activation("Mish", _mish, off_below=-4.1117182, linear_above=2.3324881),
    nn.ReLU: Activation("ReLU", _relu, off_below=0.0, linear_above=0.0, pieces=(Piece(0, math.inf, 1.0),)),
    nn.ReLU6: Activation("ReLU6", _relu6, 0.0, 6.0, 0.0, (Piece(0, 6, 1.0),)),
    nn.Hardswish: Activation(
        "Hardswish",
        _hardswish,
        off_below=-3.0,
        linear_above=3.0,
        pieces=(Piece(-3, -1.5, -0.5, -1 / 3), Piece(-1.5, 3, 0.5, 1 / 3), Piece(3, math.inf, 1.0)),
    ),
    nn.Sigmoid: Activation("Sigmoid", _sigmoid, off_below=-2.8872710, off_above=2.8872710),
    nn.Tanh: Activation("Tanh", _tanh, off_below=-2.1782722, off_above=2.1782722),
    nn.Identity: Activation("Identity", _identity, linear_above=-math.inf, pieces=(Piece(-math.inf, math.inf, 1.0),)),
}
"""Outer roots of |f'(z)| = 0.05 and of |f'(z) - 1| = 0.05, and the kinks of the functions that are exactly straight."""


def activation_of(module: nn.Module) -> Activation | None:
    """Return the function and regions of an activation module, or None for an unknown class.

    LeakyReLU is never off, whatever its slope: left of 0 it counts as nonlinear, right of 0 as linear.
    """
    if isinstance(module, nn.LeakyReLU):
        return _leaky_relu(float(module.negative_slope))
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        return _GELU_TANH
    return _KNOWN.get(type(module))


@lru_cache(maxsize=64)
def _leaky_relu(slope: float) -> Activation:
    def evaluate(z: Tensor) -> tuple[Tensor, Tensor]:
        slopes = torch.where(z > 0, torch.ones_like(z), torch.full_like(z, slope))
        return z * slopes, slopes

    pieces = (Piece(-math.inf, 0, abs(slope)), Piece(0, math.inf, 1.0))
    return Activation(f"LeakyReLU({slope:g})", evaluate, linear_above=0.0, pieces=pieces)


def region_fractions(z: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """Return the shares of the last axis that are off and that are linear; the rest is nonlinear.

    Args:
        z: (..., P) float32 pre-activations, P > 0.
        activation: What is applied to them.
    """
    # Compared into floats: the mean of booleans takes a CPU three to five times as long (torch 2.15).
    flag = torch.empty_like(z)
    off = torch.le(z, activation.off_below, out=flag).mean(-1)
    linear = torch.gt(z, activation.linear_above, out=flag).mean(-1)
    if activation.off_above < math.inf:
        above = torch.ge(z, activation.off_above, out=flag).mean(-1)
        off = off + above
        linear = linear - above if activation.linear_above < activation.off_above else linear
    return off, linear


def pre_activations(module: nn.Module) -> Iterator[Layer]:
    """Yield the places inside `module` where the argument of a known activation can be seen.

    The activation modules themselves are no place to measure: all `Conv` blocks of an Ultralytics model share one.
    Found are the `bn` (fused: the `conv`) of any module with `conv` and `act`, such as Ultralytics' `Conv`, and a batch
    norm directly before an activation in an `nn.Sequential`. An identity has nothing that could be off: left out.
    """
    for path, child in module.named_modules():
        for name, before, after in _neighbours(child):
            activation = activation_of(after)
            if activation is not None and not isinstance(after, nn.Identity):
                yield Layer(f"{path}.{name}".strip("."), before, activation)


def _neighbours(module: nn.Module) -> list[tuple[str, nn.Module, nn.Module]]:
    """Return (name, module, the activation that follows it directly) for the children of `module`."""
    if isinstance(module, nn.Sequential):
        pairs = pairwise(module.named_children())
        return [(name, before, after) for (name, before), (_, after) in pairs if isinstance(before, nn.BatchNorm2d)]
    children_by_name = dict(module.named_children())
    conv, activation = children_by_name.get("conv"), children_by_name.get("act")
    # RepConv has `bn` and `act` but sums three branches between them; it lacks `conv` until it is fused.
    if conv is None or activation is None:
        return []
    return [("", children_by_name.get("bn", conv), activation)]
