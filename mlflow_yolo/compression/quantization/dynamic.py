"""Dynamic int8: weights in 8 bits, the range of every activation taken anew on every run. For comparison.

It needs no calibration. On convolutions it is slower than float32: each one reads its input twice.
"""

from dataclasses import replace
from pathlib import Path

from mlflow_yolo.compression.quantization.graph import output_nodes
from mlflow_yolo.compression.quantization.quiet import quiet
from mlflow_yolo.compression.quantization.static import MODEL_FILE, float_variant, prepared
from mlflow_yolo.variant import Variant, write_variant


def quantize_dynamic(source: Path, directory: Path) -> Variant:
    """Write the dynamically quantized version of a float32 ONNX variant; the outputs' layers stay in float.

    Args:
        source: Folder of the `fp32-onnx` variant.
        directory: An existing empty folder; `model.onnx` and `variant.json` are written there.

    Returns:
        The variant, of kind `dynamic-int8-onnx`.

    Raises:
        ArgumentError: The source is no float32 ONNX variant.
        CheckpointError: It cannot be read.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    variant = float_variant(source)
    with prepared(source, variant) as file, quiet():
        quantize(
            str(file),
            str(directory / MODEL_FILE),
            weight_type=QuantType.QUInt8,  # ONNX Runtime has no convolution of unsigned by signed numbers here
            nodes_to_exclude=list(output_nodes(onnx.load(str(file)).graph)),
        )
    sources = {**variant.sources, "fp32_sha256": variant.sha256, "quantization": {"method": "dynamic"}}
    return write_variant(directory, replace(variant, kind="dynamic-int8-onnx", file=MODEL_FILE, sources=sources))
