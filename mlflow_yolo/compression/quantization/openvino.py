"""OpenVINO models of an fp32 ONNX variant: fp32, bf16, and int8 by NNCF, with accuracy control where asked.

    convert_openvino(Path("out/fp32-onnx"), folder, precision="bf16")
    quantize_nncf(Path("out/fp32-onnx"), folder, calibration=choose_calibration(dataset))

A bf16 variant holds fp16 weights (half the size, and fp16 has the longer mantissa) and computes in bf16 where the CPU
can. An int8 variant keeps the head in float, and computes what is float in bf16 too.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.compression.quantization.calibration import CalibrationSet, batches
from mlflow_yolo.compression.quantization.nncf_control import quantize_with_control
from mlflow_yolo.compression.quantization.quiet_nncf import quiet_nncf
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.openvino_session import import_openvino
from mlflow_yolo.runtime.pipeline import Pipeline, open_pipeline
from mlflow_yolo.variant import Variant, read_variant, write_variant

MODEL_FOLDER = "model_openvino"

PRECISION_HINT = "INFERENCE_PRECISION_HINT"

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
"""Our word for a precision -> OpenVINO's."""

_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
"""Operations that have weights."""

_DEQUANTIZATION = ("FakeQuantize", "Multiply", "Subtract", "Convert", "Reshape")
"""Operations between a constant and the layer whose weights it is."""


def convert_openvino(source: Path, directory: Path, *, precision: str) -> Variant:
    """Write an fp32 ONNX variant as OpenVINO model.

    Args:
        source: Folder of an `fp32-onnx` variant.
        directory: An existing empty folder; `model_openvino/` and `variant.json` are written there.
        precision: `fp32` or `bf16`; what the session computes in.

    Raises:
        ArgumentError: `precision` is unknown, `source` is of another kind, or OpenVINO is not installed.
        CheckpointError: `source` is no variant, has changed, or OpenVINO cannot read it.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision={precision} is unknown. Use one of {', '.join(PRECISIONS)}.")
    variant, model = _read(source)
    made = _described(variant, f"{precision}-openvino", PRECISIONS[precision], {})
    return _write(model, directory, made, halve=precision == "bf16")


def quantize_nncf(
    source: Path,
    directory: Path,
    *,
    calibration: CalibrationSet,
    evaluate: Callable[[Path], float] | None = None,
    max_drop: float | None = None,
) -> Variant:
    """Write an fp32 ONNX variant as int8 OpenVINO model: 8-bit weights and activations, the head in float.

    The ranges of activations are the least and the largest value seen. With NNCF's default, their mean over images,
    BCCD loses more: YOLO11n at 320 pixels, 100 images, mAP50-95 on test and val: fp32 .4198 .4301, mean .4153 .4206,
    least and largest .4196 .4267.

    Args:
        source: Folder of an `fp32-onnx` variant.
        directory: An existing empty folder; `model_openvino/` and `variant.json` are written there.
        calibration: Images that the ranges are from.
        evaluate: Accuracy of the variant in a folder, the higher the better. Layers then go back to float, those that
            change the outputs most first, until `max_drop` holds; whether it does stands in the sources' quantization,
            `accuracy_control`.
        max_drop: Accuracy that may be lost against the fp32 model, in the unit of `evaluate`.

    Raises:
        ArgumentError: OpenVINO or NNCF is not installed, `source` is of another kind, only one of `evaluate` and
            `max_drop` is given, `max_drop` is negative, or the accuracy of the fp32 model is not a number.
        CheckpointError: `source` is no variant, has changed, or OpenVINO cannot read it.
    """
    if (evaluate is None) != (max_drop is None):
        raise ArgumentError(
            "evaluate and max_drop go together: the measure, and how much of it may be lost. Pass both."
        )
    if max_drop is not None and not max_drop >= 0:
        raise ArgumentError(f"max_drop={max_drop} is no accuracy that may be lost. Use 0 or more.")
    variant, model = _read(source)
    head = _head(model, source)
    images = _Images(open_pipeline(source), calibration.files)
    made = _described(variant, "int8-openvino", PRECISIONS["bf16"], {"calibration": calibration.record()})
    record: dict[str, Any] = {"method": "nncf", "preset": "mixed", "ranges": "minmax", "head": head}
    with quiet_nncf() as guest:
        settings = {
            "preset": guest.nncf.QuantizationPreset.MIXED,
            "ignored_scope": guest.nncf.IgnoredScope(patterns=[f"{re.escape(head)}.*"]),
            "subset_size": len(images),
        }
        if evaluate is None or max_drop is None:
            quantized = guest.nncf.quantize(
                model, guest.nncf.Dataset(images), advanced_parameters=_ranges(guest.nncf), **settings
            )
        else:
            quantized, record["accuracy_control"] = quantize_with_control(
                guest,
                model,
                images,
                evaluate=_on_disk(evaluate, variant, made),
                max_drop=max_drop,
                parameters=_ranges(guest.nncf),
                settings=settings,
            )
    record["float_layers"] = _float_layers(quantized, head)
    return _write(quantized, directory, replace(made, sources={**made.sources, "quantization": record}), halve=False)


class _Images:
    """Calibration images as the model gets them, read anew on every pass."""

    def __init__(self, pipeline: Pipeline, files: Sequence[Path]) -> None:
        self._pipeline = pipeline
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        return batches(self._pipeline, self._files)


def _read(source: Path) -> tuple[Variant, Any]:
    """Return the variant and its graph as `openvino.Model`, node names as in the ONNX file."""
    openvino = import_openvino()
    variant = read_variant(source)
    if variant.kind != "fp32-onnx":
        raise ArgumentError(f"source={source} is {variant.kind}. Name an fp32-onnx variant.")
    file = (source.parent if source.is_file() else source) / variant.file
    try:
        model = openvino.Core().read_model(str(file))
    except RuntimeError as error:
        cause = " ".join(str(error).split())[:300]
        raise CheckpointError(f"OpenVINO cannot read {file}: {cause}. Export it again.") from error
    from openvino._offline_transformations import apply_moc_transformations

    # What `openvino.convert_model` does besides reporting to Intel. Without, a bias is a chain of shape operations, in
    # which NNCF does not see one to correct: .4173 instead of .4196 on BCCD, and 12 instead of 10 ms.
    apply_moc_transformations(model, cf=True)
    return variant, model


def _write(model: Any, directory: Path, variant: Variant, *, halve: bool) -> Variant:
    folder = directory / MODEL_FOLDER
    folder.mkdir()
    import_openvino().save_model(model, str(folder / "model.xml"), compress_to_fp16=halve)
    return write_variant(directory, variant)


def _on_disk(evaluate: Callable[[Path], float], variant: Variant, quantized: Variant) -> Callable[[Any], float]:
    """Return the accuracy of a graph, by `evaluate` on a variant written for the purpose.

    Args:
        evaluate: Accuracy of the variant in a folder.
        variant: Describes the ONNX file.
        quantized: Describes a graph with layers in int8; one without is fp32.
    """
    in_float = _described(variant, "fp32-openvino", PRECISIONS["fp32"], {})

    def accuracy(graph: Any) -> float:
        is_quantized = any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())
        with tempfile.TemporaryDirectory() as folder:
            _write(graph, Path(folder), quantized if is_quantized else in_float, halve=False)
            return evaluate(Path(folder))

    return accuracy


def _described(variant: Variant, kind: str, precision: str, sources: Mapping[str, Any]) -> Variant:
    """Return the description of what was made from the ONNX file that `variant` describes."""
    return replace(
        variant,
        kind=kind,
        file=MODEL_FOLDER,
        opset=None,
        sources={**variant.sources, "onnx_sha256": variant.sha256, **sources},
        runtime={PRECISION_HINT: precision},
    )


def _head(model: Any, source: Path) -> str:
    """Return the prefix of the head's nodes, "/model.23/": that of the last block in the graph."""
    blocks = [re.match(r"/model\.(\d+)/", node.get_friendly_name()) for node in model.get_ops()]
    indices = [int(block[1]) for block in blocks if block]
    if not indices:
        raise CheckpointError(f"{source} has no nodes named /model.N/, so its head cannot be found. Export it again.")
    return f"/model.{max(indices)}/"


def _ranges(nncf: ModuleType) -> Any:
    """Return NNCF's parameters: ranges of activations from the least to the largest value seen."""
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return nncf.AdvancedQuantizationParameters(activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)


def _float_layers(model: Any, head: str) -> list[str]:
    """Return the layers outside the head whose weights are no 8-bit integers."""
    layers = [node for node in model.get_ordered_ops() if node.get_type_name() in _LAYERS]
    names = {node.get_friendly_name(): _weights(node) for node in layers}
    return [name for name, kind in names.items() if kind not in (None, "i8", "u8") and not name.startswith(head)]


def _weights(layer: Any) -> str | None:
    """Return the type of the constant that a layer's weights come from; None where they are computed."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() in _DEQUANTIZATION:
        node = node.input_value(0).get_node()
    return str(node.get_element_type().get_type_name()) if node.get_type_name() == "Constant" else None
