"""How each kind of variant is made from the one before it, and what is chosen on the validation split while it is."""

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlflow_yolo.compression.export import export_onnx
from mlflow_yolo.compression.quantization.calibration import CalibrationSet
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.accuracy import measure_accuracy
from mlflow_yolo.variant import KINDS, Variant, making, read_variant, write_variant
from mlflow_yolo.variants.checkpoints import open_pipeline
from mlflow_yolo.variants.exactness import check_parity
from mlflow_yolo.variants.subject import Subject

FLOAT_KINDS = ("fp32-onnx", "fp16-onnx", "fp32-openvino", "bf16-openvino")
INT8_KINDS = ("int8-onnx", "dynamic-int8-onnx", "int8-openvino")
BASE = "fp32-onnx"
"""The kind every other one is made from."""

METHODS = ("auto", "minmax", "percentile", "entropy", "mse")


@dataclass(frozen=True, eq=False)
class Orders:
    """How variants are to be made.

    Attributes:
        subject: The checkpoint and its data.
        calibration: Images from the train split, None where nothing is calibrated.
        method: How the range of an activation is found; `auto` tries them until the loss is small enough.
        max_drop: Largest loss of the headline value on the validation split that int8 may cost, in [0, 1].
        symmetric: Whether the zero of activations is the middle of their range.
        opset: ONNX operator set, None for the newest that every runtime takes.
        dynamic: Leave height and width of the ONNX input free.
        simplify: Fold constants of the exported graph.
        sources: More of what the checkpoint was made from: pruning, teacher.
    """

    subject: Subject
    calibration: CalibrationSet | None = None
    method: str = "auto"
    max_drop: float = 0.005
    symmetric: bool = False
    opset: int | None = None
    dynamic: bool = False
    simplify: bool = True
    sources: Mapping[str, Any] | None = None

    def score(self, folder: Path) -> float:
        """Return the headline value of a variant's folder on the split that choices are made on."""
        opened = partial(open_pipeline, folder)
        return measure_accuracy(opened, self.subject.dataset, self.subject.choosing_split).headline[1]


def make_variant(kind: str, directory: Path, orders: Orders, *, base: Path | None = None) -> Path:
    """Make one variant in `directory`, whole or not at all, with its operating point; return the folder.

    A folder that already holds this variant of the same checkpoint is left as it is.

    Args:
        kind: One of `KINDS`.
        directory: The variant's folder.
        orders: How it is made.
        base: The folder of the `fp32-onnx` variant; None for that one itself.

    Raises:
        ArgumentError: The kind needs a package that is not installed, the folder holds something else, or the export
            does not compute what the checkpoint computes.
    """
    if _is_made(kind, directory, orders):
        return directory
    for remains in directory.parent.glob(f".{directory.name}.*"):  # of a process that was killed
        shutil.rmtree(remains)
    with making(directory) as folder:
        variant = _MAKERS[kind](folder, orders, base)
        if kind == BASE:
            check_parity(orders.subject, folder)
        write_variant(folder, replace(variant, operating_point=_operating_point(folder, orders)))
    return directory


def parse_kinds(text: str, known: tuple[str, ...] = KINDS, *, argument: str = "format") -> tuple[str, ...]:
    """Return the kinds that the comma-separated list of an argument names, in order, without repetitions.

    Raises:
        ArgumentError: One does not exist, or needs a package that is not installed (the extra is named).
    """
    kinds = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for kind in kinds:
        if kind not in known:
            raise ArgumentError(f"{argument}={kind} does not exist. Use one or more of {', '.join(known)}.")
        if missing := missing_extra(kind):
            raise ArgumentError(f"{argument}={kind} needs {missing}")
    if not kinds:
        raise ArgumentError(f"{argument}={text!r} names no kind. Use one or more of {', '.join(known)}.")
    return kinds


def missing_extra(kind: str) -> str:
    """Return what has to be installed for a kind, as the end of a sentence; empty where it is there."""
    needed = {"fp32-openvino": ["openvino"], "bf16-openvino": ["openvino"], "int8-openvino": ["openvino", "nncf"]}
    absent = [name for name in needed.get(kind, []) if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)}: pip install 'mlflow-yolo[openvino]'." if absent else ""


def _is_made(kind: str, directory: Path, orders: Orders) -> bool:
    """Return whether the folder holds this kind of the same checkpoint already."""
    if not directory.exists():
        return False
    try:
        variant = read_variant(directory)
    except CheckpointError:
        return False
    return variant.kind == kind and variant.sources.get("checkpoint_sha256") == orders.subject.model.sha256


def _operating_point(folder: Path, orders: Orders) -> dict[str, Any]:
    opened = partial(open_pipeline, folder)
    return measure_accuracy(opened, orders.subject.dataset, orders.subject.choosing_split).operating_point


def _fp32_onnx(folder: Path, orders: Orders, _: Path | None) -> Variant:
    return export_onnx(
        orders.subject.checkpoint,
        folder,
        imgsz=orders.subject.imgsz,
        opset=orders.opset,
        dynamic=orders.dynamic,
        simplify=orders.simplify,
        sources={**(orders.sources or {}), "data": orders.subject.dataset.fingerprint},
        trust=True,  # it was scanned, or trusted, when it was read
    )


def _fp16_onnx(folder: Path, _: Orders, base: Path | None) -> Variant:
    from mlflow_yolo.compression.quantization.half import convert_half

    return convert_half(_base(base), folder)


def _int8_onnx(folder: Path, orders: Orders, base: Path | None) -> Variant:
    if orders.method == "auto":
        from mlflow_yolo.compression.quantization.accuracy_control import quantize_to_target

        variant, tried = quantize_to_target(
            _base(base),
            folder,
            evaluate=orders.score,
            max_drop=orders.max_drop,
            calibration=_calibration(orders),
            symmetric=orders.symmetric,
        )
        tried.to_csv(folder / "tried.csv", index=False)
        return variant
    from mlflow_yolo.compression.quantization.static import quantize_static

    return quantize_static(
        _base(base), folder, calibration=_calibration(orders), method=orders.method, symmetric=orders.symmetric
    )


def _dynamic_int8_onnx(folder: Path, _: Orders, base: Path | None) -> Variant:
    from mlflow_yolo.compression.quantization.dynamic import quantize_dynamic

    return quantize_dynamic(_base(base), folder)


def _openvino(precision: str) -> Callable[[Path, Orders, Path | None], Variant]:
    def make(folder: Path, _: Orders, base: Path | None) -> Variant:
        from mlflow_yolo.compression.quantization.openvino import convert_openvino

        return convert_openvino(_base(base), folder, precision=precision)

    return make


def _int8_openvino(folder: Path, orders: Orders, base: Path | None) -> Variant:
    """Quantize at once; only where that loses too much, look for the layers to keep in float: many passes."""
    from mlflow_yolo.compression.quantization.openvino import quantize_nncf

    calibration = _calibration(orders)
    variant = quantize_nncf(_base(base), folder, calibration=calibration)
    if orders.method != "auto" or orders.score(_base(base)) - orders.score(folder) <= orders.max_drop:
        return variant
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return quantize_nncf(_base(base), folder, calibration=calibration, evaluate=orders.score, max_drop=orders.max_drop)


_MAKERS: Mapping[str, Callable[[Path, Orders, Path | None], Variant]] = {
    "fp32-onnx": _fp32_onnx,
    "fp16-onnx": _fp16_onnx,
    "int8-onnx": _int8_onnx,
    "dynamic-int8-onnx": _dynamic_int8_onnx,
    "fp32-openvino": _openvino("fp32"),
    "bf16-openvino": _openvino("bf16"),
    "int8-openvino": _int8_openvino,
}


def _base(base: Path | None) -> Path:
    assert base is not None, "every kind but fp32-onnx is made from fp32-onnx"
    return base


def _calibration(orders: Orders) -> CalibrationSet:
    assert orders.calibration is not None, "int8 kinds are calibrated"
    return orders.calibration
