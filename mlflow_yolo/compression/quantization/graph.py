"""Which nodes of an exported model are the head, the outputs and the layers, read from the graph and its names.

Ultralytics' exports name a node after the module it comes from: `/model.23/cv2.0/cv2.0.2/Conv` is in block 23.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_BLOCK = re.compile(r"^/model\.(\d+)/")
_LEARNED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_DISTRIBUTION = "/dfl/"
_PROTOTYPES = "/proto/"


def block_of(name: str) -> int | None:
    """Return the block that a node is in, None where its name does not say."""
    found = _BLOCK.match(name)
    return int(found.group(1)) if found else None


def layer_of(name: str) -> str:
    """Return the module that a node belongs to: a convolution and its activation are one layer.

    `/model.2/cv1/conv/Conv` and `/model.2/cv1/act/Mul` are both of `/model.2/cv1`.
    """
    parts = name.split("/")[:-1]
    return "/".join(parts[:-1] if len(parts) > 2 and parts[-1] in ("conv", "act", "bn") else parts)


def output_nodes(graph: "GraphProto") -> tuple[str, ...]:
    """Return the nodes between the last learned layers and the outputs, those layers included.

    They decode boxes in pixels and scores in [0, 1]: one scale for both would leave no resolution for the scores.
    The convolution of the distribution focal loss has fixed weights, so what comes before it counts too.
    """
    makers = {output: node for node in graph.node for output in node.output}
    constants = {constant.name for constant in graph.initializer}
    found: dict[str, None] = {}
    waiting = [output.name for output in graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in found:
            continue
        found[node.name] = None
        if not _is_learned(node, constants):
            waiting.extend(node.input)
    return tuple(name for name in (node.name for node in graph.node) if name in found)


def head_nodes(graph: "GraphProto") -> tuple[str, ...]:
    """Return the nodes of the last block, the mask prototypes of a segmenter excepted; () where names do not say."""
    names = [node.name for node in graph.node]
    blocks = [block for block in map(block_of, names) if block is not None]
    if not blocks:
        return ()
    prefix = f"/model.{max(blocks)}/"
    return tuple(name for name in names if name.startswith(prefix) and _PROTOTYPES not in name)


def layers(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the nodes of every layer, in the order of the graph."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(layer_of(name), []).append(name)
    return {layer: tuple(nodes) for layer, nodes in found.items()}


def _is_learned(node: "NodeProto", constants: set[str]) -> bool:
    """Return whether the node has weights that were trained."""
    has_weights = any(name in constants for name in node.input[1:])
    return node.op_type in _LEARNED and has_weights and _DISTRIBUTION not in node.name
