"""Static int8: weights and activations in 8 bits with ranges from calibration images, in ONNX Runtime's QDQ format."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo.compression.quantization.calibration import CalibrationSet, batches
from mlflow_yolo.compression.quantization.graph import head_nodes, output_nodes
from mlflow_yolo.compression.quantization.observers import Ranges, observe
from mlflow_yolo.compression.quantization.quiet import quiet
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.hardware import read_hardware
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.variant import Variant, read_variant, write_variant

if TYPE_CHECKING:
    import onnx

MODEL_FILE = "model.onnx"
MIN_OPSET, MAX_OPSET = 13, 20
"""Operator sets that ONNX Runtime's static quantization takes: older ones have one scale for all channels."""


@dataclass(frozen=True)
class Observed:
    """What the calibration images said.

    Attributes:
        ranges: (lowest, highest) by tensor.
        method: How they were chosen.
        symmetric: Whether they lie around 0.
        calibration: The images.
    """

    ranges: Ranges
    method: str
    symmetric: bool
    calibration: CalibrationSet


def quantize_static(
    source: Path,
    directory: Path,
    *,
    calibration: CalibrationSet,
    method: str = "minmax",
    symmetric: bool = False,
    exclude: Iterable[str] = (),
    activation: str | None = None,
    keep_head: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Variant:
    """Write the int8 version of a float32 ONNX variant.

    The layers before the outputs, and everything from there that decodes boxes and scores, always stay in float.

    Args:
        source: Folder of the `fp32-onnx` variant.
        directory: An existing empty folder; `model.onnx` and `variant.json` are written there.
        calibration: Images that the ranges come from.
        method: `minmax`, `percentile`, `entropy` or `mse`.
        symmetric: Choose ranges of activations around 0.
        exclude: Names of nodes that stay in float.
        activation: `uint8` or `int8`; None for what this processor multiplies fastest.
        keep_head: Keep the whole last block in float. On BCCD (yolo11n, 320 px, AVX-512 VNNI, one thread) that takes
            16.1 ms instead of 12.2 (float32: 20.5), for 0.2 points of mAP on one split and -0.1 on the other.
        progress: Told after every image how many were done.

    Returns:
        The variant, of kind `int8-onnx`; `sources` says how it was quantized and on which images.

    Raises:
        ArgumentError: A value is unknown, the source is no float32 ONNX variant, its operator set is too new, a node
            does not exist, or there are no images.
        CheckpointError: The source cannot be read.
    """
    observed = observe_calibration(source, calibration, method=method, symmetric=symmetric, progress=progress)
    return write_int8(source, directory, observed, exclude=exclude, activation=activation, keep_head=keep_head)


def observe_calibration(
    source: Path,
    calibration: CalibrationSet,
    *,
    method: str = "minmax",
    symmetric: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Observed:
    """Return the ranges of a float32 variant's tensors on the calibration images; see `quantize_static`."""
    variant = float_variant(source)
    pipeline = open_pipeline(source, threads=1)
    with prepared(source, variant) as model:
        ranges = observe(
            model,
            lambda: batches(pipeline, calibration.files),
            method=method,
            symmetric=symmetric,
            progress=progress,
        )
    return Observed(ranges, method, symmetric, calibration)


def write_int8(
    source: Path,
    directory: Path,
    observed: Observed,
    *,
    exclude: Iterable[str] = (),
    activation: str | None = None,
    keep_head: bool = False,
    sources: Mapping[str, Any] | None = None,
) -> Variant:
    """Write the int8 version of a float32 variant with ranges that were observed before; see `quantize_static`."""
    import onnx

    variant = float_variant(source)
    isa = read_hardware(threads=1).isa
    types = number_formats(isa, activation)
    excluded = tuple(exclude)
    with prepared(source, variant) as file:
        model = onnx.load(str(file))
    _check_nodes(model, excluded)
    kept = {*output_nodes(model.graph), *(head_nodes(model.graph) if keep_head else ())}
    _quantize(model, directory / MODEL_FILE, observed, sorted(kept | set(excluded)), types)
    details = {
        "method": observed.method,
        "symmetric": observed.symmetric,
        "activation": types.activation,
        "weight": "int8",
        "reduce_range": types.reduce_range,
        "keep_head": keep_head,
        "excluded": list(excluded),
        "isa": isa,
    }
    made = {
        **variant.sources,
        "fp32_sha256": variant.sha256,
        "quantization": details,
        "calibration": observed.calibration.record(),
        **(sources or {}),
    }
    return write_variant(directory, replace(variant, kind="int8-onnx", file=MODEL_FILE, sources=made))


@dataclass(frozen=True)
class NumberFormats:
    """How numbers are written.

    Attributes:
        activation: `uint8` or `int8`.
        reduce_range: Whether weights have 7 bits, so that sums of two products do not overflow 16.
    """

    activation: str
    reduce_range: bool


def number_formats(isa: str, activation: str | None = None) -> NumberFormats:
    """Return what a processor multiplies fastest without overflow.

    x86 multiplies unsigned activations by signed weights, and without VNNI adds the products in 16 bits; ARM multiplies
    signed numbers. Measured on x86: signed activations are 2.5 times slower.

    Args:
        isa: Instruction set as `mlflow_yolo.runtime.hardware` names it.
        activation: `uint8` or `int8`; None to choose.

    Raises:
        ArgumentError: `activation` is neither.

    Source: ONNX Runtime, `quantize_static`, "Choosing parameters for CPU inference".
    """
    if activation not in (None, "uint8", "int8"):
        raise ArgumentError(f"activation={activation} is no 8-bit format. Use uint8 (x86) or int8 (ARM).")
    is_arm = isa.startswith(("neon", "arm", "aarch64"))
    return NumberFormats(
        activation=activation or ("int8" if is_arm else "uint8"),
        reduce_range=not is_arm and isa != "amx" and "vnni" not in isa,
    )


@contextmanager
def prepared(source: Path, variant: Variant) -> Iterator[Path]:
    """Yield the model with folded constants, fused batch normalisation and known shapes, as quantization needs it."""
    from onnxruntime.quantization import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MODEL_FILE
        with quiet():
            quant_pre_process(str(source / variant.file), str(file), skip_symbolic_shape=True)
        yield file


def float_variant(source: Path) -> Variant:
    variant = read_variant(source)
    if variant.kind != "fp32-onnx":
        raise ArgumentError(f"{source} is of kind {variant.kind}; quantization starts from fp32-onnx. Export it first.")
    if variant.opset is not None and not MIN_OPSET <= variant.opset <= MAX_OPSET:
        raise ArgumentError(
            f"opset={variant.opset} has no int8 per channel in ONNX Runtime, which takes {MIN_OPSET} to {MAX_OPSET}. "
            "Export without opset."
        )
    return variant


def _check_nodes(model: "onnx.ModelProto", names: Iterable[str]) -> None:
    known = {node.name for node in model.graph.node}
    missing = [name for name in names if name not in known]
    if missing:
        raise ArgumentError(
            f"exclude={missing[0]} is no node of the model. Take names from the table of tensor errors."
        )


def _quantize(
    model: "onnx.ModelProto", file: Path, observed: Observed, excluded: list[str], types: NumberFormats
) -> None:
    """Write the quantized model with ONNX Runtime's quantizer."""
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    ranges = TensorsData(CalibrationMethod.MinMax, _as_arrays(observed.ranges))
    quantizer = QDQQuantizer(
        model,
        True,  # weights per channel
        types.reduce_range,
        QuantType.QInt8,
        QuantType.QUInt8 if types.activation == "uint8" else QuantType.QInt8,
        ranges,
        [],
        excluded,
        sorted({*QDQRegistry, *QLinearOpsRegistry}),
        {"ActivationSymmetric": observed.symmetric},
    )
    with quiet():
        quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(file), False)


def _as_arrays(ranges: Ranges) -> dict[str, Any]:
    import numpy as np

    return {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
