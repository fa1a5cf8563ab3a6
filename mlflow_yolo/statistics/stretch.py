"""The trainable parameters as flat vectors: gradients, weights, updates, in memory that is reused at every step.

Fresh memory for the 10 MB of YOLO11n's parameters costs more in page faults than filling it. Four vectors of the
parameters' size are kept: gradient, weights, the sum of the gradients, and the weights that drift starts from.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from mlflow_yolo.statistics.epoch import NO_BLOCK
from mlflow_yolo.statistics.vectors import Ints, ManyBlocks, OneBlock, Reductions


class Stretch:
    """Whole blocks whose vectors are filled and reduced together.

    Attributes:
        reduce: The reductions to one number a block.
        parameters: What the vectors hold, in order.
        sizes: By block index, its number of elements.
        gradient: (N,) before clipping, divided by the loss scale; 0 for a parameter without one.
        gradient_l2: The norm of `gradient`.
        weights: (N,) as of the last reading: after the step, once it has been taken.
        weight_total: The sum of `weights`.
        weight_l2: The norm of `weights`.
        update: (N,) weights after the step minus weights before it; on a CPU only until the next stretch is read.
        gradient_sum: (N,) sum of the gradients given to `add_gradient`.
        reference: (N,) the weights that drift is measured from.
        reference_l2: The norm of `reference`.
    """

    gradient_l2: Tensor
    weight_total: Tensor
    weight_l2: Tensor

    def __init__(
        self, groups: Mapping[int, Sequence[nn.Parameter]], reference: Tensor, update: Tensor, reduce: Reductions
    ) -> None:
        """Allocate the vectors for the parameters of each block.

        Args:
            groups: The parameters by block.
            reference: (N,) gives device and type of the vectors.
            update: (N,) memory for the update, which stretches that are read one after the other may share.
            reduce: The reductions of these blocks.
        """
        self.reduce = reduce
        self.sizes = {block: sum(p.numel() for p in group) for block, group in groups.items()}
        self.reference = reference
        self.reference_l2 = reduce.l2(reference)
        self.update = update
        self.gradient, self.weights = torch.empty_like(reference), torch.empty_like(reference)
        self.gradient_sum = torch.zeros_like(reference)
        self.parameters = [p for group in groups.values() for p in group]
        self._flat: list[Tensor | None] = []

    def locate(self) -> None:
        """Take note of where the parameters are in memory; to be repeated when one has moved."""
        # Making 255 views takes a tenth of a step's reading, so they are kept where a view is possible.
        self._flat = [p.detach().view(-1) if p.is_contiguous() else None for p in self.parameters]

    def read_gradient(self, gradients: Sequence[Tensor | None], scale: float | Tensor) -> None:
        """Copy the gradients and divide the copy by the loss scale; the trainer's own stay scaled for its scaler.

        Args:
            gradients: Those of `parameters`; zeros stand for one that is not there, they add nothing to any sum.
            scale: A number or a scalar tensor.
        """
        parts = [
            p.new_zeros(p.numel()) if g is None else g.reshape(-1)
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        torch.cat(parts, out=self.gradient)
        if isinstance(scale, Tensor) or scale != 1.0:
            self.gradient.div_(scale)
        self.gradient_l2 = self.reduce.l2(self.gradient)

    def read_weights(self) -> None:
        """Copy the weights."""
        pairs = zip(self._flat, self.parameters, strict=True)
        torch.cat([p.detach().reshape(-1) if flat is None else flat for flat, p in pairs], out=self.weights)
        self.weight_total, self.weight_l2 = self.reduce.total(self.weights), self.reduce.l2(self.weights)

    def read_step(self) -> None:
        """Copy the weights after a step and subtract those before it."""
        torch.neg(self.weights, out=self.update)
        self.read_weights()
        self.update.add_(self.weights)

    def split(self, vector: Tensor) -> dict[int, Tensor]:
        """Return the parts of one of the vectors by block, those of no block left out."""
        parts = zip(self.sizes, vector.split(list(self.sizes.values())), strict=True)
        return {block: part for block, part in parts if block != NO_BLOCK}

    def add_gradient(self, finite: bool | Tensor) -> None:
        """Add the gradient to the sum of a finite step; whether it is may still be on the device, as a scalar."""
        if isinstance(finite, Tensor):
            self.gradient_sum.add_(torch.where(finite, self.gradient, 0.0))
        elif finite:
            self.gradient_sum.add_(self.gradient)


class Layout:
    """All trainable parameters, block by block, for as long as just these train and stay on their device.

    Attributes:
        parameters: The trainable parameters, block by block.
        owners: (P,) the block index of each parameter; `owners_there`: the same on the device.
        blocks: (B,) block indices, ascending; `blocks_there`: the same on the device.
        sizes: (B,) number of elements of each block.
        stretches: One for each block on a CPU, one for all of them on a GPU.
    """

    def __init__(self, owned: Sequence[tuple[int, nn.Parameter, Tensor]], *, together: bool | None = None) -> None:
        """Allocate everything and read nothing.

        Args:
            owned: By block, ascending, the parameters on one device, at least one and none without elements, each with
                the block that owns it and the tensor, anywhere, that its drift is measured from.
            together: Whether all blocks make one stretch; None: on a GPU.
        """
        groups: dict[int, list[nn.Parameter]] = {block: [] for block, _, _ in owned}
        for block, parameter, _ in owned:
            groups[block].append(parameter)
        self.parameters = [parameter for _, parameter, _ in owned]
        self.owners: Ints = np.array([block for block, _, _ in owned], dtype=np.int64)
        self.blocks: Ints = np.array(list(groups), dtype=np.int64)
        self.sizes: Ints = np.array([sum(p.numel() for p in group) for group in groups.values()], dtype=np.int64)
        self._place = self._find_place()
        self._versions: list[int] = []
        self._addresses: list[int] = []
        device, _ = self._place
        self.owners_there, self.blocks_there = (torch.from_numpy(x).to(device) for x in (self.owners, self.blocks))
        exact = any(p.dtype == torch.float64 for p in self.parameters)
        dtype = torch.float64 if exact else torch.float32
        reference = torch.cat([tensor.reshape(-1).to(device, dtype) for _, _, tensor in owned])
        if device.type == "cuda" if together is None else together:
            reduce = ManyBlocks(self.sizes.tolist(), device)
            self.stretches = [Stretch(groups, reference, torch.empty_like(reference), reduce)]
        else:
            update, scratch = torch.empty(2, int(self.sizes.max()), device=device, dtype=dtype)
            parts = zip(groups.items(), reference.split(self.sizes.tolist()), strict=True)
            self.stretches = [
                Stretch({block: group}, part, update[: len(part)], OneBlock(scratch[: len(part)]))
                for (block, group), part in parts
            ]

    def references(self) -> list[Tensor]:
        """Return the weights that drift is measured from, as views in the shapes of `parameters`."""
        flat = (stretch.reference.split([p.numel() for p in stretch.parameters]) for stretch in self.stretches)
        parts = (part for stretch_parts in flat for part in stretch_parts)
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def is_in_place(self) -> bool:
        """Return whether the parameters are on the device and of the type that they had at first."""
        return self._find_place() == self._place

    def elements_with(self, gradients: Sequence[Tensor | None]) -> Ints:
        """Return (B,) the number of elements that have a gradient; `gradients` goes with `parameters`."""
        if all(g is not None for g in gradients):
            return self.sizes
        there = [0 if g is None else g.numel() for g in gradients]
        return np.array(
            [sum(n for n, b in zip(there, self.owners, strict=True) if b == block) for block in self.blocks]
        )

    def read_gradients(self, gradients: Sequence[Tensor | None], scale: float | Tensor) -> Tensor:
        """Read the gradients, which go with `parameters`, and return (B,) their norms by block."""
        rest = iter(gradients)
        for stretch in self.stretches:
            stretch.read_gradient(list(islice(rest, len(stretch.parameters))), scale)
        return torch.stack([stretch.gradient_l2 for stretch in self.stretches]).reshape(-1)

    def read_weights(self) -> None:
        """Read the weights, unless they are those of the last reading.

        That somebody else (recovery from NaN, a resumed training, a callback) has changed a parameter since then shows
        in its version counter, which every in-place operation raises, or in its address. A change through `.data`
        shows in neither: it is then taken for a part of the next update.
        """
        if self._has_changed():
            for stretch in self.stretches:
                stretch.read_weights()

    def expect_step(self) -> None:
        """Prepare for `Stretch.read_step` of every stretch, which has to follow at once."""
        self._has_changed()

    def by_block(self, sums: Sequence[Tensor]) -> Tensor:
        """Return (B, K) from K sums of each stretch, in order, each as a method of its `reduce` returns it."""
        table = torch.stack(list(sums))
        return table.reshape(len(self.stretches), len(sums) // len(self.stretches), -1).movedim(1, 2).flatten(0, 1)

    def _find_place(self) -> tuple[torch.device, torch.dtype]:
        return self.parameters[0].device, self.parameters[0].dtype

    def _has_changed(self) -> bool:
        """Return whether any parameter has changed since the last call."""
        versions, addresses = [p._version for p in self.parameters], [p.data_ptr() for p in self.parameters]
        if addresses != self._addresses:
            for stretch in self.stretches:
                stretch.locate()
        elif versions == self._versions:
            return False
        self._versions, self._addresses = versions, addresses
        return True
