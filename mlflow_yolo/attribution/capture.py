"""One forward pass that keeps the outputs of chosen blocks and can be differentiated for any number of targets.

The graph begins at the first of those blocks: what comes before costs no more than a plain forward pass. Gradients are
asked for directly and never written into parameters, so a model in the middle of its training is left as it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlflow_yolo.attribution.outputs import Outputs, read_outputs
from mlflow_yolo.attribution.windows import in_full, in_windows, is_zero


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass of a batch.

    Attributes:
        outputs: The raw predictions, part of the graph.
        decoded: The predictions as Ultralytics gives them to its suppression.
        activations: By block, its output: (B, C, h, w).
        entrances: What each input of the head is and what the head worked on instead, a leaf with the same values: a
            prediction of one level leaves the others without a gradient, so nothing is spent on going back there.
        is_plain: Whether gradients go back as autograd takes them, not in windows.
    """

    outputs: Outputs
    decoded: Any
    activations: Mapping[int, Tensor]
    entrances: Sequence[tuple[Tensor, Tensor]] = ()
    is_plain: bool = False

    def gradients(self, score: Tensor, blocks: Sequence[int], *, is_last: bool = False) -> dict[int, Tensor]:
        """Return the derivative of a scalar by the outputs of some of the blocks; can be called again and again.

        Args:
            score: A scalar made from `outputs`; summed over a batch it gives every image's gradient at once, since
                images do not influence one another in evaluation mode.
            blocks: Blocks of this pass.
            is_last: Whether nothing else will be asked for: the graph is then given up on the way, a tenth of the time.

        Returns:
            By block, the shape of its output; 0 where the score does not depend on it.
        """
        inputs = [self.activations[block] for block in blocks]
        keep, leaves = not is_last, [leaf for _, leaf in self.entrances]
        with nullcontext() if self.is_plain else in_windows(score):
            entered = torch.autograd.grad(score, leaves, retain_graph=keep, allow_unused=True)
        crossed = [
            (produced, gradient)
            for (produced, _), gradient in zip(self.entrances, entered, strict=True)
            if gradient is not None and produced.requires_grad and not is_zero(gradient)
        ]
        produced, gradients = zip(*crossed, strict=True) if crossed else ((), ())
        found = torch.autograd.grad(produced, inputs, gradients, retain_graph=keep, allow_unused=True)
        return {
            block: torch.zeros_like(output) if gradient is None else in_full(gradient)
            for block, output, gradient in zip(blocks, inputs, found, strict=True)
        }


@contextmanager
def forward(
    network: nn.Module,
    images: Tensor,
    blocks: Sequence[int],
    *,
    branch: str = "auto",
    needs_gradient: bool = True,
    is_plain: bool = False,
) -> Iterator[Pass]:
    """Run a batch through a model and keep what is needed to explain it, for as long as the `with` block lasts.

    The model is put into evaluation mode and its parameters out of the graph meanwhile, then back; no parameter, no
    gradient and no buffer changes. Works inside `torch.inference_mode` and after a validation in it. It calculates in
    single precision, a half-precision model included: many gradients are too small for half precision.

    Args:
        network: An Ultralytics model (`network.model` holds its blocks), fused or not.
        images: (B, channels, height, width), values as the model was trained on.
        blocks: Indices of the blocks to keep, at least one.
        branch: Of an end-to-end model, see `read_outputs`.
        needs_gradient: Whether gradients will be asked for.
        is_plain: Calculate in the order of any other pass, without the layout and the windows that save time: sums
            then round as elsewhere.
    """
    children: Any = network.model
    kept: dict[int, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(needs_gradient))
        stack.enter_context(torch.autocast(images.device.type, enabled=False))
        stack.enter_context(at_rest(network))
        for index in sorted(set(blocks)):
            handle = children[index].register_forward_hook(_keep(kept, index, needs_gradient=needs_gradient))
            stack.callback(handle.remove)
        entrances: list[tuple[Tensor, Tensor]] = []
        if needs_gradient:
            stack.callback(children[-1].register_forward_pre_hook(_cut(entrances)).remove)
        raw = run_single(network, images, is_plain=is_plain)
        yield Pass(read_outputs(children[-1], raw, branch=branch), raw[0], kept, entrances, is_plain)


def run_single(network: nn.Module, images: Tensor, *, is_plain: bool = False) -> Any:
    """Return what a model at rest gives for a batch in single precision, whatever its own; outside inference mode.

    On a CPU the channels of a cell lie side by side, in which convolutions take a tenth less time; a block that cannot
    view its input so gets it the usual way, and so does everything with `is_plain`.
    """
    tensors = chain(network.named_parameters(), network.named_buffers())
    copies = {name: _usable(tensor) for name, tensor in tensors if _is_unusable(tensor)}
    batch = _usable(images) if _is_unusable(images) else images
    if batch.device.type == "cpu" and batch.ndim == 4 and not is_plain:
        try:
            return _called(network, copies, batch.contiguous(memory_format=torch.channels_last))
        except RuntimeError:
            batch = batch.contiguous()
    return _called(network, copies, batch)


def _called(network: nn.Module, copies: dict[str, Tensor], batch: Tensor) -> Any:
    return functional_call(network, copies, (batch,)) if copies else network(batch)


def _is_unusable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and (tensor.is_inference() or tensor.dtype.itemsize < 4)


def _usable(tensor: Tensor) -> Tensor:
    """Return a copy of at least 32 bits that a graph can hold as a constant."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)


def _keep(kept: dict[int, Tensor], index: int, *, needs_gradient: bool) -> Any:
    """Return a hook that keeps a block's output; the first one becomes the root of the graph."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if needs_gradient and not output.requires_grad:
            output = output.detach().requires_grad_()
        kept[index] = output
        return output

    return hook


def _cut(entrances: list[tuple[Tensor, Tensor]]) -> Any:
    """Return a hook that lets the head work on leaves in place of its inputs, and keeps both."""

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        entrances.clear()  # of an attempt that failed
        given = inputs[0]
        tensors = [given] if isinstance(given, Tensor) else list(given)
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        entrances.extend(zip(tensors, leaves, strict=True))
        return (leaves[0] if isinstance(given, Tensor) else leaves, *inputs[1:])

    return hook


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Keep a model in evaluation mode and its parameters out of any graph, then give it back as it was.

    A head keeps its anchors between calls; made in inference mode they can take no part in a graph, so they are set
    aside. Parameters made in inference mode stay as they are: outside it torch lets nobody change them back.
    """
    parameters = [one for one in network.parameters() if one.requires_grad and not one.is_inference()]
    training = [module for module in network.modules() if module.training]
    head: Any = network.model[-1]  # type: ignore[index]
    anchors = {name: vars(head)[name] for name in ("shape", "anchors", "strides") if name in vars(head)}
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for module in training:
            module.training = False
        if hasattr(head, "shape"):
            head.shape = None
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True
        for name in ("shape", "anchors", "strides"):
            vars(head).pop(name, None)
        vars(head).update(anchors)
