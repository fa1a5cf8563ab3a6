"""Activation statistics of blocks, taken by forward hooks while a `with` is open.

Everything is read inside the hook, and what is kept is a copy: models loaded from a checkpoint have
`SiLU(inplace=True)`, which overwrites a pre-activation as soon as the hook has returned.

Measuring every pass of YOLO11n (160 pixels, batch 16, one CPU thread, busy machine) takes 14.6 ms of a forward pass of
204: 77 samples of pre-activations 5.3, sums of 17 outputs 2.5, their samples 1.2, second moments 1.1, fractions 0.4,
slopes and spreads 1.3. Nearly all of the samples' cost is that of calling torch three times between two cold layers:
256 elements a layer cost as much as 4096.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mlflow_yolo.blocks import COPIES
from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics.channels import LEAST_IMAGES, ChannelHealth, channel_table
from mlflow_yolo.statistics.confidence import HeadConfidences
from mlflow_yolo.statistics.density import Density
from mlflow_yolo.statistics.epoch import Grid
from mlflow_yolo.statistics.layers import FRACTIONS, LayerPreActivations, block_fractions, fractions
from mlflow_yolo.statistics.outputs import STATISTICS, BlockOutputs, output_statistics
from mlflow_yolo.statistics.saturation import Activation, pre_activations
from mlflow_yolo.statistics.vectors import Floats, Ints, to_host

KIND = "activations"
STEP_STATISTICS = (*STATISTICS, *FRACTIONS)
"""What the row of a step holds; the rest is of all passes."""

_N_OUTPUT, _N_FRACTION = 4, 3
"""How many sums `BlockOutputs` and `LayerPreActivations` make of a step."""

_ELEMENTS, _ELEMENTS_EACH_PASS = 8192, 2048
"""Elements of a layer's pre-activation that are looked at in one pass: when few passes are measured, and when all."""
_POSITIONS, _POSITIONS_EACH_PASS = 512, 64
"""Positions of a block's output that enter the second moments of its channels, likewise."""


@dataclass(frozen=True, eq=False)
class ActivationResult:
    """What an `ActivationProbe` has seen.

    Attributes:
        blocks: By block index, the statistics by name. Of the output: `mean`, `std`, `channel_variance`,
            `intra_channel_variance`, `redundancy`, `effective_rank` and, when few passes are measured, the variances
            along each axis; heads, whose output is no tensor, have `confident_fraction` instead. Of the
            pre-activations: `off_fraction`, `nonlinear_fraction`, `linear_fraction`, `dead_fraction`,
            `near_dead_fraction`; blocks without a known activation lack them.
        channels: Every channel of every layer with a known activation.
        densities: By block index, the distribution of its layers' pre-activations, when few passes are measured.
        functions: The activation functions behind them, by name.
        n_batches: Number of forward passes measured.
        n_images: Number of images in them.
    """

    blocks: Mapping[int, Mapping[str, float]]
    channels: ChannelHealth
    densities: Mapping[int, Density] = field(default_factory=dict)
    functions: Mapping[str, Activation] = field(default_factory=dict)
    n_batches: int = 0
    n_images: int = 0

    @property
    def enough_images(self) -> bool:
        """Whether dead and near-dead channels may be relied on: at least 256 images were seen."""
        return self.n_images >= LEAST_IMAGES


class ActivationProbe:
    """Measures the outputs and pre-activations of blocks in the forward passes inside a `with`.

    The model's mode, gradients and outputs and the random numbers are left alone; it works on a model in training and
    in inference mode, under autocast and in half precision, and several passes may belong to one optimizer step. While
    a model is compiled, traced or exported nothing is measured, and a copy of the model is not measured either. A
    failure while measuring does not reach the model: it ends the measuring and is raised by `result`.

    A block or layer that runs more than once in a pass, or stands in the list under several indices, is measured over
    all its runs.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[int, nn.Module]],
        *,
        max_batches: int | None = 4,
        skip: Collection[str] = COPIES,
    ) -> None:
        """Attach nothing yet.

        Args:
            blocks: Index and module of every block, in the order in which they run.
            max_batches: Forward passes to measure; later ones pass through. None measures every pass, each on fewer
                positions, without the variances along axes and the densities.
            skip: Class names of blocks to leave out.
        """
        self._blocks = [(index, module) for index, module in blocks if type(module).__name__ not in skip]
        modules = [module for _, module in self._blocks]
        self._layers = [(i, layer) for i, module in enumerate(modules) for layer in pre_activations(module)]
        self._max_batches = max_batches
        each = max_batches is None
        self._outputs = BlockOutputs(
            len(modules), n_positions=_POSITIONS_EACH_PASS if each else _POSITIONS, along_axes=not each
        )
        self._confidences = HeadConfidences()
        self._pre_activations = LayerPreActivations(
            self._layers,
            len(modules),
            n_elements=_ELEMENTS_EACH_PASS if each else _ELEMENTS,
            with_densities=not each,
        )
        # The first module may stand under several indices, and then runs as often in one pass.
        self._calls_a_pass = max(sum(module is modules[0] for module in modules), 1) if modules else 1
        self._n_calls = self._n_passes = self._n_images = 0
        self._is_on = True
        self._handles: list[RemovableHandle] = []
        self._ended: list[tuple[int, Tensor]] = []
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        """Attach the hooks: all, or none if that fails."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._detach)
            if self._blocks:
                self._handles.append(self._blocks[0][1].register_forward_pre_hook(_Hook(self._begin_pass)))
            for number, (_, module) in enumerate(self._blocks):
                self._attach(module, partial(self._outputs.see, number))
                self._handles.append(module.register_forward_hook(_Hook(self._look_at_head, number)))
            for number, (_, layer) in enumerate(self._layers):
                self._attach(layer.module, partial(self._pre_activations.see, number))
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the hooks."""
        self._detach()

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def n_batches(self) -> int:
        """Number of forward passes measured so far."""
        return self._n_passes if self._max_batches is None else min(self._n_passes, self._max_batches)

    def end_step(self, step: int) -> None:
        """Make what was seen since the last call the row of an optimizer step; nothing is copied to the host.

        A step without a forward pass has no row. The row holds what one step can say: mean, std, variances and the
        three fractions. Redundancy, rank and dead channels need an epoch's positions and images, and an
        eigendecomposition a block at every step would cost more than all else together: `result` has them.

        Args:
            step: Number of the step within the epoch, from 0.
        """
        with self._measuring():
            parts = (self._outputs.end_step(), _N_OUTPUT), (self._pre_activations.end_step(), _N_FRACTION)
            found = next((part for part, _ in parts if part is not None), None)
            if found is not None:
                shape = found.shape[1:]
                row = [found.new_zeros(n, *shape) if part is None else part for part, n in parts]
                self._ended.append((step, torch.cat(row)))

    def drain(self) -> tuple[Grid, ...]:
        """Return the rows of the steps ended since the last call, with one copy from the device; empty without any.

        Two grids: heads have no output statistics, and blocks without a known activation no fractions.
        """
        ended, self._ended = self._ended, []
        if not ended:
            return ()
        steps, blocks = np.array([step for step, _ in ended]), np.array([index for index, _ in self._blocks])
        table = np.stack(to_host([row for _, row in ended]), axis=1)  # (7, steps, blocks)
        outputs = _grid(steps, blocks, table[:_N_OUTPUT], output_statistics, STATISTICS)
        return (*outputs, *_grid(steps, blocks, table[_N_OUTPUT:], fractions, FRACTIONS))

    def result(self) -> ActivationResult:
        """Return the statistics over all passes measured so far, whichever steps they belong to.

        It may be called from another thread once the `with` is closed: the eigenvalues of YOLO11n's blocks take a CPU
        some 20 ms.

        Raises:
            WorkError: Measuring failed in a forward pass.
        """
        indices = [index for index, _ in self._blocks]
        layers = [(indices[number], layer) for number, layer in self._layers]
        names = [f"model.{index}.{layer.name}".rstrip(".") for index, layer in layers]
        with self._measuring():
            found = {**self._outputs.result(), **self._confidences.result()}
            blocks = {indices[number]: values for number, values in found.items()}
            channels = self._pre_activations.channels()
            densities = {indices[i]: density for i, density in self._pre_activations.densities(names).items()}
            health = channel_table(layers, names, channels, n_images=self._n_images)
        if self._failure is not None:
            raise WorkError(
                f"activation statistics failed: {self._failure!r}. Turn them off or report the model's type."
            ) from self._failure
        for block, values in block_fractions(layers, channels).items():
            blocks.setdefault(block, {}).update(values | health.fractions(block))
        functions = {layer.activation.name: layer.activation for i, (_, layer) in enumerate(layers) if i in channels}
        return ActivationResult(
            dict(sorted(blocks.items())), health, densities, functions, self.n_batches, self._n_images
        )

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        """Record no gradient, multiply in full precision, and keep an exception for `result`.

        Here it would end the caller's training.
        """
        try:
            with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                yield
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._is_on = False

    def _begin_pass(self, inputs: Any) -> None:
        if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            self._is_on = False  # until the next pass: what is done here would become part of the traced model
            return
        self._n_calls += 1
        if (self._n_calls - 1) % self._calls_a_pass:
            return
        self._n_passes += 1
        within = self._max_batches is None or self._n_passes <= self._max_batches
        self._is_on = within and self._failure is None
        if not self._is_on:
            return
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim:
            self._n_images += inputs[0].shape[0]
        with self._measuring():
            self._outputs.reduce()
            self._pre_activations.reduce()

    def _attach(self, module: nn.Module, see: Callable[..., None]) -> None:
        self._handles.append(module.register_forward_hook(_Hook(self._look, see)))

    def _look(self, see: Callable[..., None], output: Any) -> None:
        if self._is_on and isinstance(output, Tensor) and output.ndim >= 2 and output.is_floating_point():
            try:
                if output.numel():
                    see(output, turn=self._n_passes)  # detaches: nothing here records a gradient
            except Exception as error:  # kept for `result`; here it would end the caller's training
                self._fail(error)

    def _look_at_head(self, number: int, output: Any) -> None:
        if self._is_on and not isinstance(output, Tensor):
            with self._measuring():
                self._confidences.see(number, output)


class _Hook:
    """A forward hook or pre-hook that is silent while a model is compiled or traced, and in a copy of the model."""

    def __init__(self, look: Callable[..., None], *first: Any) -> None:
        self._look, self._first = look, first

    def __call__(self, module: nn.Module, inputs: Any, *output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._look(*self._first, *(output or (inputs,)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled as a callable of the standard library that does nothing.

        The trainer copies and saves models in the middle of an epoch; a saved one must load without this package.
        """
        return getattr, (contextlib.nullcontext(), "__exit__")


def _grid(
    steps: Ints, blocks: Ints, sums: Floats, statistics: Callable[[Floats], Floats], names: Sequence[str]
) -> tuple[Grid, ...]:
    """Return one grid from (K, T, B) sums, the last of which is 0 where nothing was seen; none where nothing ever was.

    Args:
        steps: (T,) numbers of the steps.
        blocks: (B,) block indices.
        sums: What was added up.
        statistics: Makes (S, T, B) statistics of them.
        names: (S,) their names.
    """
    seen = sums[-1] > 0
    rows, columns = seen.any(axis=1), seen.any(axis=0)
    if not rows.any():
        return ()
    order = np.flatnonzero(columns)[np.argsort(blocks[columns], kind="stable")]
    chosen, measured = sums[:, rows][:, :, order], seen[rows][:, order]
    values = statistics(np.where(measured, chosen, 1.0))
    by_name = {name: np.where(measured, part, np.nan) for name, part in zip(names, values, strict=True)}
    return (Grid(KIND, steps[rows], blocks[order], by_name, measured, np.ones(int(rows.sum()), dtype=bool)),)
