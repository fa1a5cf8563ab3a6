"""Statistics of optimizer steps, collected around `optimizer_step` without any effect on the training.

Between two flushes nothing waits for the device: a sampled step leaves a small tensor of sums there, and `drain` or
`end_epoch` brings all of them to the host in one copy. Nothing is written to parameters, gradients, optimizer, scaler
or random generators.

What it costs, YOLO11n (2.6 M parameters in 255 tensors) on one thread with cold caches: a sampled step 9.3 ms for
reading (gradients, weights, update, sum for the noise), 1.1 for the gradients' statistics and 1.0 for the updates';
1.7 for drift and 3.7 for gradient histograms where all is measured; a step that is not sampled 0.2 ms, or 2.1 where the
trainer does not tell the norm it clips by. `python -m benchmarks.step_overhead` measures it again.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.statistics.drift import DRIFT
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics, Grid
from mlflow_yolo.statistics.global_norm import global_sums, gradient_norms, is_finite
from mlflow_yolo.statistics.gradient_noise import GRADIENT_NOISE
from mlflow_yolo.statistics.gradients import GRADIENTS
from mlflow_yolo.statistics.histogram import Histograms, HistogramSums
from mlflow_yolo.statistics.measure import Measure
from mlflow_yolo.statistics.record import EpochRecord
from mlflow_yolo.statistics.sampling import BUDGET, Sampling
from mlflow_yolo.statistics.stretch import Layout, Stretch
from mlflow_yolo.statistics.table import grids
from mlflow_yolo.statistics.vectors import Ints, to_host
from mlflow_yolo.statistics.weights import WEIGHTS

EVERY_STEP: tuple[Measure, ...] = (GRADIENTS, WEIGHTS)
"""Measured at every sampled step."""

EVERY_STEP_IF_COMPLETE: tuple[Measure, ...] = (DRIFT,)
"""Measured once an epoch, at every step of a complete collection."""

ONCE_AN_EPOCH: tuple[Measure, ...] = (GRADIENT_NOISE,)
"""Measured over the sampled steps of an epoch."""


@dataclass(frozen=True, eq=False)
class _Sample:
    """A sampled step between its two halves."""

    layout: Layout
    gradient_elements: Ints
    whole: Tensor
    is_finite: bool | Tensor
    before: list[tuple[Tensor, Tensor]]
    """Sum and norm of the weights before the step, for each stretch."""


class StepCollector:
    """Collects statistics per block and epoch; call it around every optimizer step.

        collector.start_epoch(epoch)
        collector.before_step(scale); optimizer_step(); collector.after_step()
        statistics = collector.end_epoch()

    A trainer that clips may hand over the norm it clips by, within its step: `see_norm`.

    Whether the gradient is finite is seen at every step, the rest is measured at the sampled ones.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, nn.Parameter]],
        *,
        block_of: Callable[[str], int | None],
        names: Mapping[int, str],
        steps_per_epoch: int | None = None,
        every_n_steps: int | None = None,
        max_norm: float = 10.0,
        complete: bool = False,
        budget: float = BUDGET,
        clock: Callable[[], float] = time.perf_counter,
        reference: Mapping[str, Tensor] | None = None,
        measures: Sequence[Measure] = EVERY_STEP,
    ) -> None:
        """Keep references to the parameters and a copy of their values; nothing is measured yet.

        Args:
            parameters: `model.named_parameters()`, frozen ones included: whether one trains is looked up at each step.
            block_of: The block index of a parameter's name, None outside all blocks (counted in the global norm only).
            names: Block names by index.
            steps_per_epoch: Optimizer steps in an epoch, None when unknown.
            every_n_steps: Sample just every so many steps of an epoch, from its first. None: about 20 samples an epoch
                (every step if its length is unknown) as far as the budget goes, but always the first three steps and
                the last one of every epoch.
            max_norm: The trainer's clipping limit.
            complete: Everything at every step: no budget, drift at every step, histograms of the gradients of all.
            budget: The share of the training's time that collecting may take if neither of the two says otherwise.
            clock: Seconds, to tell how much has been spent.
            reference: By name, the weights that drift is measured from, as a resumed training has them from its
                beginning; None, or where a name is missing: the weights as they are now.
            measures: What to measure at every sampled step.

        Raises:
            ArgumentError: `every_n_steps` is below 1.
        """
        if every_n_steps is not None and every_n_steps < 1:
            raise ArgumentError(f"every_n_steps={every_n_steps} is below 1. Use 1 to sample every optimizer step.")
        usable = [(n, p) for n, p in parameters if p.numel() and p.is_floating_point()]
        blocks = [block_of(name) for name, _ in usable]
        order = sorted((NO_BLOCK if block is None else block, i) for i, block in enumerate(blocks))
        self._parameters = [usable[i][1] for _, i in order]
        self._parameter_names = [usable[i][0] for _, i in order]
        self._blocks = [block for block, _ in order]
        named = zip(self._parameter_names, self._parameters, strict=True)
        self._reference = [(reference or {}).get(name, p).detach().clone() for name, p in named]
        self._names = dict(names)
        self._max_norm = max_norm
        self._complete = complete
        self._measures = (*measures, *(EVERY_STEP_IF_COMPLETE if complete else ()))
        self._once = (*ONCE_AN_EPOCH, *(() if complete else EVERY_STEP_IF_COMPLETE))
        every = every_n_steps or (1 if complete else None)
        self._sampling = Sampling(steps_per_epoch, every_n_steps=every, budget=budget, clock=clock)
        self._layout: Layout | None = None
        self._trainable: list[bool] = []
        self._trusts_norm = False
        self.start_epoch(0)

    @property
    def initial_weights(self) -> dict[str, Tensor]:
        """The weights that drift is measured from, by parameter name: the `reference` of a collector that goes on."""
        return dict(zip(self._parameter_names, self._reference, strict=True))

    def start_epoch(self, epoch: int, *, steps_per_epoch: int | None = None) -> None:
        """Begin an epoch; what an aborted attempt at one has collected since the last `end_epoch` is dropped.

        Args:
            epoch: The epoch, as the trainer counts.
            steps_per_epoch: Optimizer steps in an epoch from now on, if that has changed.
        """
        self._sampling.start_epoch(steps_per_epoch)
        self._epoch = epoch
        self._step = 0
        self._drained = 0
        self._open: _Sample | None = None
        self._awaits_norm = False
        self._record = EpochRecord(self._measures)
        self._had_gradient: set[int] = set()
        self._all_had_gradient: Layout | None = None
        self._gradient_histograms = HistogramSums()
        self._wants_gradient_histogram = True
        self._first_summed = 0
        for stretch in self._layout.stretches if self._layout else ():
            stretch.gradient_sum.zero_()

    def before_step(self, scale: float | Tensor = 1.0, n_images: int = 0) -> None:
        """Read the gradients, and the weights if the step is sampled.

        Args:
            scale: The loss scale that the gradients are still multiplied with: `scaler.get_scale()`, or the scaler's
                own tensor, which saves the wait for the device; 1 without AMP.
            n_images: Images that the gradients were added up over, 0 when unknown.
        """
        with self._sampling.spending(), torch.no_grad():
            self._open = None
            is_due = self._sampling.is_due(self._step)
            if self._trusts_norm and not is_due:
                self._awaits_norm = True
                return
            layout = self._current_layout()
            gradients = [p.grad for p in layout.parameters] if layout else []
            if layout is None or not any(g is not None for g in gradients):
                return
            self._note_gradients(layout, gradients)
            if is_due:
                self._open = self._read(layout, gradients, scale, n_images)
            else:
                self._record.add_whole(self._step, _whole(layout, gradients, scale, n_images))

    def see_norm(self, norm: Tensor) -> None:
        """Take the total norm that the trainer is about to clip by: steps between the sampled ones then cost nothing.

        It is relied on where it has agreed with our own at a sampled step, there is no loss scale, and to look at it
        does not mean to wait: on a CPU. Where it is not finite the gradients themselves say which block it was.

        Args:
            norm: A scalar, of the gradients before clipping, which are still as they were.
        """
        with self._sampling.spending(), torch.no_grad():
            if (sample := self._open) is not None:
                self._trusts_norm = norm.device.type == "cpu" and _agrees(norm, sample.whole)
            elif self._awaits_norm:
                self._awaits_norm = False
                if not torch.isfinite(norm) and (layout := self._current_layout()):
                    whole = _whole(layout, [p.grad for p in layout.parameters], 1.0, 0)
                    self._record.add_whole(self._step, whole)

    def after_step(self) -> None:
        """Measure the update if the step is sampled."""
        with self._sampling.spending(), torch.no_grad():
            if self._awaits_norm:  # the trainer has ceased to clip, or the step had no gradients
                self._awaits_norm = self._trusts_norm = False
            if (sample := self._open) is not None:
                self._open = None
                self._record.add_sample(self._step, sample.layout, sample.gradient_elements, self._measure(sample))
        self._step += 1

    def drain(self) -> EpochStatistics | None:
        """Return the rows of the steps finished since the last call, with one copy from the device; None without any.

        They stay a part of what `end_epoch` returns.
        """
        with self._sampling.spending(is_step=False):
            start, self._drained = self._drained, self._step
            found, bad = self._record.grids(start, self._step, max_norm=self._max_norm)
        if not found:
            return None
        late = tuple((step, block) for step, block in bad if step >= start)
        return EpochStatistics(self._epoch, self._names, found, n_steps=self._step, nonfinite_steps=late)

    def end_epoch(self) -> EpochStatistics:
        """Return the statistics of the whole epoch, those of its steps and those measured once (`epoch_only`)."""
        with self._sampling.spending(is_step=False), torch.no_grad():
            found, bad = self._record.grids(0, self._step, max_norm=self._max_norm)
            trainable = {b for b, p in zip(self._blocks, self._parameters, strict=True) if p.requires_grad}
            frozen = sorted(set(self._blocks) - trainable - {NO_BLOCK})
            statistics = EpochStatistics(
                epoch=self._epoch,
                names=self._names,
                grids=(*found, *self._once_grids(dict(bad))),
                histograms=self._take_histograms(),
                n_steps=self._step,
                nonfinite_steps=bad,
                frozen=tuple(self._names.get(block, str(block)) for block in frozen),
                without_gradient=self._without_gradient(),
            )
        self.start_epoch(self._epoch + 1)
        return statistics

    def _current_layout(self) -> Layout | None:
        """Return the layout of what trains now: a new one if that or its device has changed; None if nothing does."""
        trainable = [p.requires_grad for p in self._parameters]
        if self._layout is None or trainable != self._trainable or not self._layout.is_in_place():
            self._record.flush()  # what is still on the device that the parameters have left
            self._trainable, self._layout = trainable, None
            positions = [i for i, trains in enumerate(trainable) if trains]
            if positions:
                owned = [(self._blocks[i], self._parameters[i], self._reference[i]) for i in positions]
                self._layout = Layout(owned)
                for i, reference in zip(positions, self._layout.references(), strict=True):
                    self._reference[i] = reference  # the layout's own: one copy is enough
            self._first_summed = self._record.n_samples
        return self._layout

    def _note_gradients(self, layout: Layout, gradients: Sequence[Tensor | None]) -> None:
        if self._all_had_gradient is not layout:
            pairs = zip(layout.parameters, gradients, strict=True)
            self._had_gradient.update(id(p) for p, g in pairs if g is not None)
            self._all_had_gradient = layout if all(g is not None for g in gradients) else None

    def _read(
        self, layout: Layout, gradients: Sequence[Tensor | None], scale: float | Tensor, n_images: int
    ) -> _Sample:
        """Read the gradients, and the weights before the step where they are not those after the last one."""
        layout.read_weights()
        norms = layout.read_gradients(gradients, scale)
        whole = global_sums(norms, layout.blocks_there, scale, n_images=n_images)
        self._record.add_whole(self._step, whole)
        before = [(stretch.weight_total, stretch.weight_l2) for stretch in layout.stretches]
        return _Sample(layout, layout.elements_with(gradients), whole, is_finite(whole), before)

    def _measure(self, sample: _Sample) -> Tensor:
        """Return the sums of the step (B, K), one stretch after the other: its vectors are then still in the cache."""
        values: list[Tensor] = []
        sample.layout.expect_step()
        for stretch, before in zip(sample.layout.stretches, sample.before, strict=True):
            stretch.read_step()
            stretch.add_gradient(sample.is_finite)
            values += [stretch.gradient_l2, *before, stretch.weight_total, stretch.weight_l2]
            for measure in self._measures:
                values += measure.reduce(stretch)
            self._count(stretch, sample.is_finite)
        self._wants_gradient_histogram &= self._complete or sample.is_finite is False
        return sample.layout.by_block(values)

    def _count(self, stretch: Stretch, is_finite: bool | Tensor) -> None:
        """Add to the histogram: every gradient if complete, else the first one that is not known to be bad."""
        if self._complete:
            self._gradient_histograms.add(stretch.split(stretch.gradient), counts=is_finite)
        elif self._wants_gradient_histogram and is_finite is not False:
            self._gradient_histograms.add(stretch.split(stretch.gradient))

    def _once_grids(self, nonfinite: Mapping[int, int]) -> list[Grid]:
        """Return what is measured over the whole epoch; nothing if no step was sampled."""
        layout = self._current_layout()
        if layout is None or not self._record.n_samples:
            return []
        layout.read_weights()
        values: list[Tensor] = []
        for stretch in layout.stretches:
            values += [stretch.weight_total, stretch.weight_l2]
            for measure in self._once:
                values += measure.reduce(stretch)
        (host,) = to_host([layout.by_block(values)])
        names = ("after_total", "after_l2", *(name for measure in self._once for name in measure.sums))
        inside = layout.blocks != NO_BLOCK
        blocks = layout.blocks[inside]
        sums = dict(zip(names, host[inside].T[:, None], strict=True))
        sums |= self._record.epoch_sums(self._first_summed, blocks, nonfinite)
        sums["weight_elements"] = layout.sizes[inside][None].astype(np.float64)
        place = np.array([self._step - 1]), blocks, np.ones((1, len(blocks)), dtype=bool), np.ones(1, dtype=bool)
        return [
            grid for measure in self._once for grid in grids(measure.kind, measure.statistics(sums), *place, once=True)
        ]

    def _take_histograms(self) -> dict[str, Histograms]:
        """Return the histograms of the weights as they are and of the gradients: at the first sampled step, or of all.

        Empty if no step was sampled.
        """
        if not self._record.n_samples or self._layout is None:
            return {}
        weights = HistogramSums()
        for stretch in self._layout.stretches:
            weights.add(stretch.split(stretch.weights))
        blocks = np.array(sorted(set(self._blocks) - {NO_BLOCK}), dtype=np.int64)
        return {
            "weights": weights.result(blocks),
            "gradients": self._gradient_histograms.result(blocks),
        }

    def _without_gradient(self) -> tuple[str, ...]:
        if not self._record.n_steps:
            return ()
        named = zip(self._parameter_names, self._parameters, strict=True)
        return tuple(name for name, p in named if p.requires_grad and id(p) not in self._had_gradient)


def _whole(layout: Layout, gradients: Sequence[Tensor | None], scale: float | Tensor, n_images: int) -> Tensor:
    """Return the `global_sums` of the gradients that are there, which go with the parameters of the layout.

    The norm is still multiplied with the scale: of a step that is not sampled, only one that is not finite is reported.
    """
    there = [g for g in gradients if g is not None]
    owners = layout.owners_there
    if len(there) < len(gradients):
        owners = owners[[i for i, g in enumerate(gradients) if g is not None]]
    return global_sums(gradient_norms(there), owners, scale, n_images=n_images)


def _agrees(norm: Tensor, whole: Tensor) -> bool:
    """Return whether a norm is that of these `global_sums`, which are of gradients without a loss scale."""
    own, _, scale, _ = whole.tolist()
    return scale == 1.0 and math.isclose(float(norm), own, rel_tol=1e-3)
