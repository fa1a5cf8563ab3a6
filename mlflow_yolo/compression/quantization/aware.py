"""The int8 ONNX file of a checkpoint that was trained with Ultralytics' `quantize=8`.

Such a checkpoint carries its quantizers beside the weights, as data of NVIDIA ModelOpt, and needs it to be loaded. The
ranges are symmetric and 8-bit signed on both sides, which is made for TensorRT: on x86, ONNX Runtime runs it slower
than fp32. Weights are stored as float and quantized when the file is opened, so it is not smaller either.
"""

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow_yolo.compression.export import export_onnx
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.variant import Variant, write_variant

PACKAGES = {"modelopt": "nvidia-modelopt", "huggingface_hub": "huggingface_hub"}
"""Module -> distribution. ModelOpt imports the second one without requiring it."""


def export_aware(
    checkpoint: str | Path,
    directory: Path,
    *,
    imgsz: int | tuple[int, int],
    opset: int | None = None,
    sources: Mapping[str, Any] | None = None,
) -> Variant:
    """Write the ONNX file, with its QuantizeLinear and DequantizeLinear nodes, of a quantization-aware checkpoint.

    Args:
        checkpoint: A .pt file from a training with `quantize=8`.
        directory: An existing empty folder; `model.onnx` and `variant.json` are written there.
        imgsz: As for `export_onnx`.
        opset: As for `export_onnx`.
        sources: As for `export_onnx`.

    Raises:
        ArgumentError: ModelOpt is not installed, or `imgsz` or `opset` cannot be had.
        CheckpointError: The checkpoint cannot be loaded, or was not trained with `quantize=8`.
    """
    require_modelopt()
    with _quiet_modelopt():
        variant = export_onnx(checkpoint, directory, imgsz=imgsz, opset=opset, sources=sources)
    n_quantized = _count(directory / variant.file, "QuantizeLinear")
    if not n_quantized:
        raise CheckpointError(f"model={checkpoint} holds no quantizers. Train it with quantize=8, or use `quantize`.")
    quantization = {"method": "qat", "n_quantize_linear": n_quantized}
    made = replace(variant, kind="int8-qat-onnx", sources={**variant.sources, "quantization": quantization})
    return write_variant(directory, made)


def require_modelopt() -> None:
    """Raise an ArgumentError that names the extra where ModelOpt is missing; Ultralytics would install it unasked."""
    missing = [distribution for module, distribution in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ArgumentError(f"{' and '.join(missing)} is not installed. Run: pip install 'mlflow-yolo[qat]'.")


@contextmanager
def _quiet_modelopt() -> Iterator[None]:
    """Keep ModelOpt from counting its quantizers aloud, and from warning of what it does not find and does not need."""
    logger = logging.getLogger("torch.utils.cpp_extension")  # it looks for CUDA
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _count(file: Path, operation: str) -> int:
    import onnx

    return sum(node.op_type == operation for node in onnx.load(str(file)).graph.node)
