"""Statistics of optimizer steps, collected around `optimizer_step` without any effect on the training.

Between two flushes nothing waits for the device: sums stay there, one small tensor a sampled step, and `end_epoch`
brings them to the host at once. Nothing is written to parameters, gradients, optimizer, scaler or random generators.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics, Grid
from mlflow_yolo.statistics.global_norm import global_grids, global_sums, nonfinite_steps
from mlflow_yolo.statistics.gradients import Gradients
from mlflow_yolo.statistics.histogram import Histograms, exponent_codes, fold
from mlflow_yolo.statistics.measure import Measure, Source
from mlflow_yolo.statistics.vectors import Floats, Ints, flatten, to_host
from mlflow_yolo.statistics.weights import Weights

MEASURES: tuple[Callable[[], Measure], ...] = (Gradients, Weights)
"""What is measured by default; a new measure is a module and one entry here."""

SAMPLES_PER_EPOCH = 20
FIRST_STEPS = 3
"""The first steps of a training are always sampled: that is where it blows up."""


def sampling_interval(steps_per_epoch: int, *, samples: int = SAMPLES_PER_EPOCH) -> int:
    """Return every how many optimizer steps to sample, so that an epoch has about `samples` of them; at least 1."""
    return max(1, steps_per_epoch // samples)


@dataclass
class _Sample:
    """The sums of one sampled step, on the device."""

    step: int
    groups: Mapping[int, Sequence[nn.Parameter]]
    sums: dict[tuple[int, Source], list[Tensor]] = field(default_factory=dict)
    """By measure and source, one (K,) tensor per block, in the order of `groups`."""


class StepCollector:
    """Collects statistics per block and epoch; call it around every optimizer step.

        collector.start_epoch(epoch)
        collector.before_step(scale); optimizer_step(); collector.after_step()
        statistics = collector.end_epoch()

    A step is sampled every `every_n_steps`, and always if it is one of the first three after construction or the last
    of `steps_per_epoch`. Norm and finiteness of the whole gradient are read at every step.
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
        measures: Sequence[Measure] | None = None,
    ) -> None:
        """Keep references to the parameters; nothing is measured yet.

        Args:
            parameters: `model.named_parameters()`, frozen ones included: whether one trains is looked up at each step.
            block_of: The block index of a parameter's name, None outside all blocks (counted in the global norm only).
            names: Block names by index.
            steps_per_epoch: Optimizer steps in an epoch, None when unknown.
            every_n_steps: Sampling interval; None for about 20 samples an epoch, or every step if the length of an
                epoch is unknown.
            max_norm: The trainer's clipping limit.
            measures: What to measure; None for `MEASURES`.

        Raises:
            ArgumentError: `every_n_steps` is below 1.
        """
        if every_n_steps is not None and every_n_steps < 1:
            raise ArgumentError(f"every_n_steps={every_n_steps} is below 1. Use 1 to sample every optimizer step.")
        blocks = [block_of(name) for name, _ in parameters]
        self._parameters = list(parameters)
        self._blocks = [NO_BLOCK if block is None else block for block in blocks]
        self._names = dict(names)
        self._steps_per_epoch = steps_per_epoch
        self._interval = every_n_steps or sampling_interval(steps_per_epoch or 1)
        self._max_norm = max_norm
        self._measures = [make() for make in MEASURES] if measures is None else list(measures)
        self._first_steps_left = FIRST_STEPS
        self._live: tuple[list[int], Tensor] = ([], torch.empty(0))
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch; what an aborted attempt at one has collected since the last `end_epoch` is dropped."""
        self._epoch = epoch
        self._step = 0
        self._samples: list[_Sample] = []
        self._globals: dict[int, Tensor] = {}
        self._had_gradient: set[int] = set()
        self._gradient_codes: dict[int, Tensor] = {}
        self._pending: tuple[_Sample, list[Tensor]] | None = None

    @torch.no_grad()
    def before_step(self, scale: float | Tensor = 1.0) -> None:
        """Read the gradients, and the weights if the step is sampled.

        Args:
            scale: The loss scale that the gradients are still multiplied with: `scaler.get_scale()`, or the scaler's
                own tensor, which saves the wait for the device; 1 without AMP.
        """
        self._pending = None
        live = [i for i, (_, p) in enumerate(self._parameters) if p.grad is not None and p.requires_grad and p.numel()]
        if not live:
            return
        self._had_gradient.update(live)
        gradients = [g for i in live if (g := self._parameters[i][1].grad) is not None]
        self._globals[self._step] = global_sums(gradients, self._blocks_of(live, gradients[0].device), scale)
        if self._is_sampled():
            self._pending = self._sample(self._grouped(live), scale)
        self._first_steps_left -= 1

    @torch.no_grad()
    def after_step(self) -> None:
        """Measure the update if the step is sampled, and let go of the copy of the weights."""
        if self._pending is not None:
            sample, befores = self._pending
            self._pending = None
            for (block, parameters), before in zip(sample.groups.items(), befores, strict=True):
                self._reduce(sample, "updates", block, flatten(parameters).sub_(before))
            self._samples.append(sample)
        self._step += 1

    @torch.no_grad()
    def end_epoch(self) -> EpochStatistics:
        """Return the epoch's statistics, with one copy from the device for the sums and one a kind for histograms."""
        tensors = list(self._globals.values())
        tensors += [row for sample in self._samples for rows in sample.sums.values() for row in rows]
        host = to_host(tensors)
        steps = np.array(list(self._globals), dtype=np.int64)
        whole = np.array(host[: len(steps)]).reshape(-1, 3)
        bad = nonfinite_steps(steps, whole)
        trainable = {block for block, (_, p) in zip(self._blocks, self._parameters, strict=True) if p.requires_grad}
        frozen = sorted(set(self._blocks) - trainable - {NO_BLOCK})
        statistics = EpochStatistics(
            epoch=self._epoch,
            names=self._names,
            grids=(*self._grids(host[len(steps) :], dict(bad)), *self._global_grids(steps, whole, bad)),
            histograms=self._histograms(),
            n_steps=self._step,
            nonfinite_steps=bad,
            frozen=tuple(self._names.get(block, str(block)) for block in frozen),
            without_gradient=self._without_gradient(),
        )
        self.start_epoch(self._epoch + 1)
        return statistics

    def _is_sampled(self) -> bool:
        last = self._steps_per_epoch is not None and self._step == self._steps_per_epoch - 1
        return last or self._step % self._interval == 0 or self._first_steps_left > 0

    def _blocks_of(self, live: list[int], device: torch.device) -> Tensor:
        """Return the block index of each live parameter on the device; copied there only when the live ones change."""
        if self._live[0] != live or self._live[1].device != device:
            self._live = (live, torch.tensor([self._blocks[i] for i in live], device=device))
        return self._live[1]

    def _grouped(self, positions: Sequence[int]) -> dict[int, list[nn.Parameter]]:
        """Return the parameters at these positions by block, ascending; those outside all blocks left out."""
        groups: dict[int, list[nn.Parameter]] = {block: [] for block in sorted({self._blocks[i] for i in positions})}
        for i in positions:
            groups[self._blocks[i]].append(self._parameters[i][1])
        groups.pop(NO_BLOCK, None)
        return groups

    def _sample(
        self, groups: Mapping[int, Sequence[nn.Parameter]], scale: float | Tensor
    ) -> tuple[_Sample, list[Tensor]]:
        """Reduce gradients and weights block by block; return the sums and the copies of the weights."""
        sample = _Sample(self._step, groups)
        befores = []
        first = not self._samples
        for block, parameters in groups.items():
            gradient = flatten([p.grad for p in parameters if p.grad is not None])
            if isinstance(scale, Tensor) or scale != 1.0:
                gradient.div_(scale)  # a copy: the trainer's own gradients stay scaled for its scaler
            self._reduce(sample, "gradients", block, gradient)
            if first:
                self._gradient_codes[block] = exponent_codes(gradient)
            befores.append(flatten(parameters))
            self._reduce(sample, "weights", block, befores[-1])
        return sample, befores

    def _reduce(self, sample: _Sample, source: Source, block: int, vector: Tensor) -> None:
        for i, measure in enumerate(self._measures):
            if source in measure.sources:
                sample.sums.setdefault((i, source), []).append(measure.reduce(source, block, vector).float())

    def _grids(self, host: list[Floats], bad: Mapping[int, int]) -> list[Grid]:
        """Return one grid per measure from the sums on the host, in the order in which `end_epoch` listed them."""
        if not self._samples:
            return []
        steps = np.array([sample.step for sample in self._samples])
        blocks = np.array(sorted({block for sample in self._samples for block in sample.groups}), dtype=np.int64)
        column = {int(block): b for b, block in enumerate(blocks)}
        n_elements = np.ones((len(steps), len(blocks)))
        measured = np.zeros(n_elements.shape, dtype=bool)
        sums: dict[tuple[int, Source], Floats] = {}
        values = iter(host)
        for t, sample in enumerate(self._samples):
            columns = [column[block] for block in sample.groups]
            n_elements[t, columns] = [sum(p.numel() for p in group) for group in sample.groups.values()]
            measured[t, columns] = True
            for key, tensors in sample.sums.items():
                rows = np.array([next(values) for _ in tensors]).reshape(len(columns), -1)
                sums.setdefault(key, np.zeros((*measured.shape, rows.shape[1])))[t, columns] = rows
        counted = np.array([sample.step not in bad for sample in self._samples])
        return [
            Grid(measure.kind, steps, blocks, measure.statistics(own, n_elements), measured, counted)
            for i, measure in enumerate(self._measures)
            if (own := {source: values for (owner, source), values in sums.items() if owner == i})
        ]

    def _global_grids(self, steps: Ints, whole: Floats, bad: Sequence[tuple[int, int]]) -> tuple[Grid, ...]:
        """Return the global rows of the sampled steps and of the first non-finite step."""
        kept = {sample.step for sample in self._samples} | {step for step, _ in bad[:1]}
        rows = np.isin(steps, sorted(kept))
        return global_grids(steps[rows], whole[rows], max_norm=self._max_norm)

    def _histograms(self) -> dict[str, Histograms]:
        """Return the histograms of the weights as they are now and of the gradients at the first sampled step."""
        if not self._samples:
            return {}
        live = [i for i, (_, p) in enumerate(self._parameters) if p.requires_grad]
        weights = {block: exponent_codes(flatten(group)) for block, group in self._grouped(live).items()}
        return {"weights": self._fold(weights), "gradients": self._fold(self._gradient_codes)}

    def _fold(self, codes: Mapping[int, Tensor]) -> Histograms:
        blocks = sorted(set(self._blocks) - {NO_BLOCK})
        host = np.zeros((len(blocks), exponent_codes(torch.empty(0)).numel()), dtype=np.int64)
        if codes:
            rows = [blocks.index(block) for block in codes]
            host[rows] = torch.stack(list(codes.values())).cpu().numpy()
        return Histograms(np.array(blocks, dtype=np.int64), *fold(host))

    def _without_gradient(self) -> tuple[str, ...]:
        if not self._globals:
            return ()
        named = enumerate(self._parameters)
        return tuple(name for i, (name, p) in named if p.requires_grad and i not in self._had_gradient)
