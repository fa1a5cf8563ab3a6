"""The batch axis of an exported model: free after the fact, with everything else still constant.

An export traced with free axes computes its anchors and shapes on every run; one traced at batch 1 has them folded, and
the batch remains only in the targets of `Reshape`, as a leading 1. ONNX reads a 0 there as "as in the input".
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

BATCH = "batch"


def free_batch(file: Path) -> bool:
    """Make the first axis of all inputs and outputs free, where that gives the same outputs, and return whether it did.

    The file is left as it was where a batch of two does not give twice what a batch of one gives.
    """
    import onnx

    before = file.read_bytes()
    model = onnx.load_from_string(before)
    _free_reshapes(model.graph)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].Clear()
    del model.graph.value_info[:]
    file.write_bytes(model.SerializeToString())
    if _is_free(file):
        return True
    file.write_bytes(before)
    return False


def _free_reshapes(graph: "onnx.GraphProto") -> None:
    """Replace the leading 1 in the target of every reshape by a 0, in a constant of its own."""
    from onnx import numpy_helper

    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        target = numpy_helper.to_array(constants[node.input[1]]).copy()
        if len(target) > 1 and target[0] == 1:
            target[0] = 0
            name = f"{node.input[1]}_{BATCH}"
            if name not in constants:
                constants[name] = numpy_helper.from_array(target, name)
                graph.initializer.append(constants[name])
            node.input[1] = name
    used = {name for node in graph.node for name in node.input}
    for constant in [constant for constant in graph.initializer if constant.name not in used]:
        graph.initializer.remove(constant)


def _is_free(file: Path) -> bool:
    """Return whether two images in one run give the outputs that each gives alone."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()
        images = np.random.default_rng(0).random((2, *entry.shape[1:]), dtype=np.float32)
        together = session.run(None, {entry.name: images})
        alone = [session.run(None, {entry.name: images[index : index + 1]}) for index in range(2)]
    except Exception:  # whatever the runtime objects to, the batch cannot be free
        return False
    return all(
        both.shape == (2, *first.shape[1:]) and np.allclose(both, np.concatenate([first, second]), rtol=1e-3, atol=1e-4)
        for both, first, second in zip(together, *alone, strict=True)
    )
