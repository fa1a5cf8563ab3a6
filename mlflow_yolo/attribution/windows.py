"""Gradients that are 0 outside a window, so that the way back costs what is in the window.

An anchor sees a few cells of the head and the neck, so nearly all of its gradient there is 0. Inside `in_windows` such
a gradient goes back as a window of each image, and the convolutions, norms, activations and joins on its way work on
that. The first step without a rule here (attention, pooling) gets it in full, and so does everything behind it: what
comes out is the same, up to rounding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Corner = tuple[int, int]

LARGEST_SHARE = 0.5
"""Of the grid. At 20 x 20 cells a step costs as much in half of them as in all; on finer grids it is cheaper."""

_OPERATIONS: Any = torch.ops.aten


@dataclass(frozen=True)
class Window:
    """A part of the grid of each image of a batch.

    Attributes:
        grid: (height, width) of the whole, cells.
        size: (height, width) of the part, the same for all images.
        corners: Its upper left cell (row, column) in each image; None where nothing is in an image.
    """

    grid: Corner
    size: Corner
    corners: tuple[Corner | None, ...]

    @property
    def is_small(self) -> bool:
        """Whether it is worth the trouble."""
        return self.size[0] * self.size[1] <= LARGEST_SHARE * self.grid[0] * self.grid[1]

    def cut(self, whole: Tensor) -> Tensor:
        """Return the part (B, C, h, w) of a tensor (B, C, H, W)."""
        height, width = self.size
        corners = [corner or (0, 0) for corner in self.corners]
        return torch.stack([whole[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(corners)])

    @staticmethod
    def around(grid: Corner, spans: Sequence[tuple[Corner, Corner] | None]) -> "Window":
        """Return the smallest window that holds what lies between first and past the last cell in each image."""
        there = [span for span in spans if span is not None]
        height = max((last[0] - first[0] for first, last in there), default=1)
        width = max((last[1] - first[1] for first, last in there), default=1)
        corners = [span and (min(span[0][0], grid[0] - height), min(span[0][1], grid[1] - width)) for span in spans]
        return Window(grid, (height, width), tuple(corners))

    def spans(self) -> list[tuple[Corner, Corner] | None]:
        """Return first and past the last cell in each image."""
        return [c and (c, (c[0] + self.size[0], c[1] + self.size[1])) for c in self.corners]


class Windowed(Tensor):
    """A gradient (B, C, H, W) of which a window is stored: outside it is 0.

    Attributes:
        cells: (B, C, h, w) in the window.
        window: Where they lie.
    """

    cells: Tensor
    window: Window
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, cells: Tensor, window: Window) -> "Windowed":
        """Return a tensor that looks like the whole gradient and stores nothing else."""
        shape = (*cells.shape[:2], *window.grid)
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=cells.dtype, device=cells.device)
        made.cells, made.window = cells, window
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Work on the windows where there is a rule for it, else on the whole."""
        rule = _RULES.get(operation)
        made = rule(*args, **(kwargs or {})) if rule else NotImplemented
        if made is not NotImplemented:
            return made
        assert not operation._schema.is_mutable, f"{operation} would be lost on a window"
        return operation(*tree_map(in_full, args), **tree_map(in_full, kwargs or {}))


def in_full(gradient: Any) -> Any:
    """Return a gradient with all its zeros; anything else as it is."""
    if not isinstance(gradient, Windowed):
        return gradient
    cells, window = gradient.cells, gradient.window
    whole = Window(window.grid, window.grid, tuple((0, 0) for _ in window.corners))
    return _moved(cells, window.corners, whole)


def in_window(gradient: Tensor) -> Tensor:
    """Return a gradient (B, C, H, W) as a window where most of it is 0, else as it is."""
    if gradient.ndim != 4 or isinstance(gradient, Windowed) or gradient.numel() == 0:
        return gradient
    live = (gradient != 0).any(1).numpy()
    grid = (live.shape[1], live.shape[2])
    window = Window.around(grid, [_span(of_image) for of_image in live])
    return Windowed(window.cut(gradient), window) if window.is_small else gradient


def is_zero(gradient: Tensor) -> bool:
    """Return whether a gradient is 0 everywhere."""
    return not bool((gradient.cells if isinstance(gradient, Windowed) else gradient).any())


@contextmanager
def in_windows(score: Tensor) -> Iterator[None]:
    """Let the gradients of a score go back in windows, as long as the `with` block lasts.

    They begin at the convolutions nearest to the score, the head's last ones. Only on the CPU: elsewhere the many small
    steps take longer than the zeros.
    """
    with ExitStack() as stack:
        for node in _nearest_convolutions(score) if score.device.type == "cpu" else ():
            stack.callback(node.register_prehook(_windows).remove)
        yield


def _windows(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(None if gradient is None else in_window(gradient) for gradient in gradients)


def _nearest_convolutions(score: Tensor) -> list[Any]:
    """Return the convolutions of the graph that lead to a score through no other."""
    seen, found, waiting = set[Any](), list[Any](), [score.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "ConvolutionBackward0":
            found.append(node)
        else:
            waiting += [before for before, _ in node.next_functions]
    return found


def _span(live: npt.NDArray[np.bool_]) -> tuple[Corner, Corner] | None:
    """Return the first cell of an image (H, W) that is True and the one past the last; None without any."""
    rows, columns = np.flatnonzero(live.any(1)), np.flatnonzero(live.any(0))
    return ((int(rows[0]), int(columns[0])), (int(rows[-1]) + 1, int(columns[-1]) + 1)) if len(rows) else None


def _moved(cells: Tensor, corners: Sequence[Corner | None], window: Window) -> Tensor:
    """Return cells (B, C, h, w) that begin at `corners` as they lie in a window, without those outside of it."""
    if tuple(cells.shape[2:]) == window.size and tuple(corners) == window.corners:
        return cells
    # With the channels of a cell side by side, as convolutions on a CPU like it best.
    made = cells.new_zeros((len(cells), *window.size, cells.shape[1])).permute(0, 3, 1, 2)
    for image, (old, new) in enumerate(zip(corners, window.corners, strict=True)):
        if old is not None and new is not None:
            (from_y, to_y), (from_x, to_x) = (
                _overlap(old[axis] - new[axis], cells.shape[2 + axis], window.size[axis]) for axis in (0, 1)
            )
            made[image, :, to_y, to_x] = cells[image, :, from_y, from_x]
    return made


def _overlap(shift: int, length: int, room: int) -> tuple[slice, slice]:
    """Return which of `length` cells, `shift` behind the start of `room` cells, lie in it, and where."""
    first, last = max(shift, 0), min(shift + length, room)
    return slice(first - shift, last - shift), slice(first, last)


def _result(cells: Tensor, window: Window) -> Tensor:
    """Return cells as a window, or in full where that has grown large."""
    made = Windowed(cells, window)
    return made if window.is_small else cast(Tensor, in_full(made))


def _join(gradients: Sequence[Windowed]) -> Window:
    """Return the smallest window that holds those of several gradients of one grid."""
    spans: list[tuple[Corner, Corner] | None] = []
    for of_image in zip(*(gradient.window.spans() for gradient in gradients), strict=True):
        corners = np.array([span for span in of_image if span is not None]).reshape(-1, 2, 2)
        edges = [*corners[:, 0].min(0), *corners[:, 1].max(0)] if len(corners) else []
        spans.append(((int(edges[0]), int(edges[1])), (int(edges[2]), int(edges[3]))) if edges else None)
    return Window.around(gradients[0].window.grid, spans)


def _silu(gradient: Any, output: Any) -> Any:
    window = gradient.window
    return Windowed(_OPERATIONS.silu_backward(gradient.cells, window.cut(output)), window)


def _convolution(
    gradient: Any,
    image: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    wanted: Any,
) -> Any:
    """Return the gradient of the input: of an unpadded input just as large as the window reaches, then put in place."""
    if not isinstance(gradient, Windowed) or transposed or list(wanted) != [True, False, False]:
        return NotImplemented
    window, grid = gradient.window, (image.shape[2], image.shape[3])
    reach = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(window.size, stride, weight.shape[2:], dilation, strict=True)
    ]
    like = gradient.cells.new_empty((*image.shape[:2], *reach))
    arguments = (like, weight, None, stride, [0, 0], dilation, False, output_padding, groups, wanted)
    made = _OPERATIONS.convolution_backward(gradient.cells, *arguments)[0]
    corners = [c and (c[0] * stride[0] - padding[0], c[1] * stride[1] - padding[1]) for c in window.corners]
    inside = [
        c and ((max(c[0], 0), max(c[1], 0)), (min(c[0] + reach[0], grid[0]), min(c[1] + reach[1], grid[1])))
        for c in corners
    ]
    seen = Window.around(grid, inside)
    return _result(_moved(made, corners, seen), seen), None, None


def _norm(gradient: Any, image: Any, *arguments: Any) -> Any:
    *_, is_training, _, wanted = arguments
    if not isinstance(gradient, Windowed) or is_training or list(wanted) != [True, False, False]:
        return NotImplemented
    # Its input, whose place the gradient takes, has no influence on the input's gradient outside training.
    made = _OPERATIONS.native_batch_norm_backward(gradient.cells, gradient.cells, *arguments)[0]
    return Windowed(made, gradient.window), None, None


def _slice(gradient: Any, dim: int = 0, *arguments: Any) -> Any:
    if dim != 1:
        return NotImplemented
    return Windowed(_OPERATIONS.slice.Tensor(gradient.cells, dim, *arguments), gradient.window)


def _add(first: Any, second: Any, *, alpha: float = 1) -> Any:
    if not isinstance(first, Windowed) or not isinstance(second, Windowed) or first.shape != second.shape:
        return NotImplemented
    window = _join([first, second])
    one, other = (_moved(gradient.cells, gradient.window.corners, window) for gradient in (first, second))
    return _result(torch.add(one, other, alpha=alpha), window)


def _concatenate(gradients: Any, dim: int = 0) -> Any:
    """Return the gradient of what was split into channels; of parts without one torch makes zeros."""
    if dim != 1 or not all(isinstance(gradient, Windowed) or is_zero(gradient) for gradient in gradients):
        return NotImplemented
    window = _join([gradient for gradient in gradients if isinstance(gradient, Windowed)])
    parts = [
        _moved(gradient.cells, gradient.window.corners, window)
        if isinstance(gradient, Windowed)
        else gradient[:, :, : window.size[0], : window.size[1]]
        for gradient in gradients
    ]
    return _result(torch.cat(parts, dim), window)


def _upsample(gradient: Any, output_size: Any, input_size: Any, *scales: Any) -> Any:
    """Return the sums over the cells that were one before."""
    grid, window = (int(input_size[2]), int(input_size[3])), gradient.window
    (ratio_y, rest_y), (ratio_x, rest_x) = (divmod(window.grid[axis], grid[axis]) for axis in (0, 1))
    if rest_y or rest_x:
        return NotImplemented
    before = Window.around(
        grid,
        [
            span
            and ((span[0][0] // ratio_y, span[0][1] // ratio_x), (-(-span[1][0] // ratio_y), -(-span[1][1] // ratio_x)))
            for span in window.spans()
        ],
    )
    height, width = before.size
    after = Window(
        window.grid,
        (height * ratio_y, width * ratio_x),
        tuple(c and (c[0] * ratio_y, c[1] * ratio_x) for c in before.corners),
    )
    cells = _moved(gradient.cells, window.corners, after)
    made = cells.reshape(*cells.shape[:2], height, ratio_y, width, ratio_x).sum((3, 5))
    return _result(made, before)


def _same(gradient: Any) -> Any:
    return Windowed(gradient.cells, gradient.window)


_RULES: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        _OPERATIONS.silu_backward.default: _silu,
        _OPERATIONS.convolution_backward.default: _convolution,
        _OPERATIONS.native_batch_norm_backward.default: _norm,
        _OPERATIONS.slice.Tensor: _slice,
        _OPERATIONS.add.Tensor: _add,
        _OPERATIONS.cat.default: _concatenate,
        _OPERATIONS.upsample_nearest2d_backward.default: _upsample,
        _OPERATIONS.detach.default: _same,
    }
)
