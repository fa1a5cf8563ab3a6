"""What the blocks of an exported model give: an ONNX graph with some of its inner tensors as outputs.

Ultralytics' exporter names every node after the block it belongs to, `/model.4/cv1/conv/Conv`, and a file lists its
nodes in the order of calculation. All that a block calculates ends in what it hands on, so that is its last node.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.session import Images

Grids = Mapping[int, npt.NDArray[np.float32]]

_BLOCK = re.compile(r"^/?model\.(\d+)/")
_CODES = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Of an int8 model: a tensor on its way into another number format, and back."""
_ERRORS_ONLY = 3


class Activations:
    """An ONNX file, opened to look into its blocks, on the CPU.

    Attributes:
        blocks: The blocks that are looked at.
        sources: The blocks whose outputs the last one, the head, works on, in the order in which they are calculated.
        batch: Number of images that one run takes; None for any number.
    """

    def __init__(self, path: Path, blocks: Sequence[int] = (), *, threads: int | None = None) -> None:
        """Open the file.

        Args:
            path: The .onnx file, exported by Ultralytics.
            blocks: Blocks to look at; none for all but the head.
            threads: Threads that compute one image; None for one a physical core.

        Raises:
            CheckpointError: The file cannot be read or run, or its nodes do not name their blocks.
            ArgumentError: A block that the file does not have.
        """
        model = _read(path)
        tensors = block_tensors(model)
        if not tensors:
            raise CheckpointError(f"model={path} does not name the blocks of its nodes. Export it with Ultralytics.")
        *known, self._head = sorted(tensors)
        self.blocks = tuple(blocks or known)
        missing = [block for block in self.blocks if block not in tensors]
        if missing:
            raise ArgumentError(f"block={missing[0]} is not in {path}. Use one of {', '.join(map(str, known))}.")
        self.sources = _sources(model, {name: block for block, name in tensors.items()}, self._head)
        self._names = [tensors[block] for block in self.blocks]
        self._session = _open(path, _with_outputs(model, self._names), threads)
        entry = self._session.get_inputs()[0]
        self._input = entry.name
        self._type = np.float16 if entry.type == "tensor(float16)" else np.float32
        self.batch = entry.shape[0] if isinstance(entry.shape[0], int) else None

    def run(self, images: Images) -> Grids:
        """Return what the blocks give for images.

        Args:
            images: (N, C, H, W) as the model takes them.

        Returns:
            By block (N, channels, h, w) float32; a block without a grid is left out.
        """
        size = self.batch or len(images)
        runs = [self._once(images[start : start + size], size) for start in range(0, len(images), size)]
        found = {block: np.concatenate(parts) for block, *parts in zip(self.blocks, *runs, strict=True)}
        return MappingProxyType({block: grid for block, grid in found.items() if grid.ndim == 4})

    def _once(self, images: Images, size: int) -> list[npt.NDArray[np.float32]]:
        """Return the blocks' outputs for at most as many images as one run takes; it is filled up with zeros."""
        filled = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), images.dtype)])
        found = self._session.run(self._names, {self._input: filled.astype(self._type, copy=False)})
        return [np.asarray(one, dtype=np.float32)[: len(images)] for one in found]


def block_tensors(model: ModelProto) -> dict[int, str]:
    """Return the tensor that every block of a graph hands on, by the block's index."""
    tensors: dict[int, str] = {}
    for node in model.graph.node:
        block = _block_of(node)
        if block is not None and node.op_type not in _CODES:
            tensors[block] = node.output[0]
    return tensors


def _sources(model: ModelProto, blocks: Mapping[str, int], head: int) -> tuple[int, ...]:
    """Return the blocks whose tensors the head's nodes take, of an int8 model through a change of format."""
    handed = dict(blocks)
    for node in model.graph.node:
        if node.op_type in _CODES and node.input[0] in handed:
            handed[node.output[0]] = handed[node.input[0]]
    taken = {
        handed[name] for node in model.graph.node if _block_of(node) == head for name in node.input if name in handed
    }
    return tuple(sorted(taken - {head}))


def _block_of(node: NodeProto) -> int | None:
    found = _BLOCK.match(node.name)
    return int(found.group(1)) if found else None


def _with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return the model with tensors among its outputs."""
    there = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in there)
    return model


def _read(path: Path) -> ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's, the file's and ONNX' own share no class
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"model={path} is not an ONNX file: {reason}. Export it again.") from error


def _open(path: Path, model: ModelProto, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"model={path} cannot be run: {reason} Export it again.") from error
