"""A checkpoint written as an ONNX file by Ultralytics' own exporter, with what a runtime must know beside it."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_yolo.compression.batch_axis import free_batch
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.checkpoint import Model, load, read_model
from mlflow_yolo.variant import Variant, write_variant

MODEL_FILE = "model.onnx"
TASKS = ("detect", "segment", "classify")


def export_onnx(
    checkpoint: str | Path,
    directory: Path,
    *,
    imgsz: int | tuple[int, int],
    opset: int | None = None,
    dynamic: bool = False,
    simplify: bool = True,
    batch: int | None = None,
    end2end: bool = False,
    sources: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Variant:
    """Write the float32 ONNX file of a checkpoint.

    Nothing is installed, nothing is printed, and neither the checkpoint's folder nor Ultralytics' settings are touched.

    Args:
        checkpoint: A .pt file, `digits`, or a name that Ultralytics knows.
        directory: An existing empty folder; `model.onnx` and `variant.json` are written there.
        imgsz: Side, or (height, width), of the input, pixels; Ultralytics rounds it up to a multiple of the stride.
        opset: ONNX operator set; None for the newest that every runtime of this package takes.
        dynamic: Leave batch, height and width free.
        simplify: Fold constants and redundant nodes with onnxslim.
        batch: Images a run; None leaves the batch free, which costs nothing at batch 1 (`compression.batch_axis`).
        end2end: Take the head that needs no non-maximum suppression, where the model has one (YOLO26).
        sources: More of what it was made from: pruning, teacher.
        trust: Load a checkpoint that names foreign classes.

    Returns:
        The variant, of kind `fp32-onnx`.

    Raises:
        ArgumentError: `imgsz`, `opset`, `batch` or `end2end` cannot be had.
        CheckpointError: The checkpoint cannot be loaded, is not trained, or its task has no variants.
    """
    model = read_model(str(checkpoint), trust=trust)
    _check(model, imgsz=imgsz, batch=batch)
    network = load(model.source)
    network.model.pt_path = str(directory / "model.pt")  # the exporter writes beside it
    arguments = {
        "imgsz": imgsz if isinstance(imgsz, int) else list(imgsz),
        "batch": batch or 1,
        "opset": opset,
        "dynamic": dynamic,
        "simplify": simplify,
        "nms": False if end2end else None,
    }
    metadata = _export(network.model, arguments, model.source)
    if end2end and not metadata["end2end"]:
        raise ArgumentError(f"end2end=True, but model={model.source} has no head without suppression. Leave it out.")
    if batch is None and not dynamic:
        free_batch(directory / MODEL_FILE)
    height, width = metadata["imgsz"]
    return write_variant(
        directory,
        Variant(
            kind="fp32-onnx",
            file=MODEL_FILE,
            task=metadata["task"],
            names=tuple(metadata["names"][index] for index in sorted(metadata["names"])),
            imgsz=(height, width),
            stride=metadata["stride"],
            channels=metadata["channels"],
            end2end=bool(metadata["end2end"]),
            opset=_check_file(directory / MODEL_FILE, opset),
            dynamic=dynamic,
            sources={"checkpoint": Path(model.source).name, "checkpoint_sha256": model.sha256, **(sources or {})},
            transform=_transform(network.model, (height, width)) if metadata["task"] == "classify" else {},
        ),
    )


def _check(model: Model, *, imgsz: int | tuple[int, int], batch: int | None) -> None:
    if Path(model.source).suffix != ".pt":
        raise CheckpointError(
            f"model={model.source} is not trained, so there is nothing to deploy. Use a .pt checkpoint."
        )
    if model.task not in TASKS:
        raise CheckpointError(f"model={model.source} is for {model.task}. Variants are made for {', '.join(TASKS)}.")
    sides = (imgsz,) if isinstance(imgsz, int) else tuple(imgsz)
    if len(sides) > 2 or not sides or min(sides) < 1:
        raise ArgumentError(f"imgsz={imgsz} is no image size. Use a positive side, or height and width.")
    if batch is not None and batch < 1:
        raise ArgumentError(f"batch={batch} is no number of images. Use 1 or more, or none for a free batch.")


def _export(network: Any, arguments: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the exporter's metadata, after it has written `model.onnx` beside the network's `pt_path`."""
    from ultralytics.engine.exporter import Exporter

    overrides = {"format": "onnx", "mode": "export", "device": "cpu", "verbose": False, **arguments}
    try:
        with _quiet_guest():
            exporter = Exporter(overrides=overrides)
            exporter.callbacks = {event: [] for event in exporter.callbacks}
            exporter(model=network)
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if arguments["opset"] is not None:
            raise ArgumentError(
                f"opset={arguments['opset']} is not supported for {source}: {reason}. Leave it out, or use 9 to 22."
            ) from error
        raise CheckpointError(f"model={source} cannot be exported: {reason}. Try simplify=False.") from error
    return dict(exporter.metadata)


@contextlib.contextmanager
def _quiet_guest() -> Iterator[None]:
    """Keep Ultralytics and PyTorch from printing, from installing packages and from rewriting their settings."""
    from ultralytics.engine import exporter
    from ultralytics.utils import LOGGER, checks

    level, install, settings = LOGGER.level, checks.AUTOINSTALL, exporter.SETTINGS
    LOGGER.setLevel(logging.CRITICAL)
    checks.AUTOINSTALL = False
    exporter.SETTINGS = {}  # it would switch off a hint in the user's settings.json
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every shape that becomes a constant, as it should here
            yield
    finally:
        LOGGER.setLevel(level)
        checks.AUTOINSTALL = install
        exporter.SETTINGS = settings


def _check_file(file: Path, opset: int | None) -> int:
    """Return the operator set of the file, which ONNX Runtime must be able to open."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        named = f"opset={opset}" if opset is not None else "the export"
        raise ArgumentError(
            f"{named} gives a file that ONNX Runtime cannot open: {reason}. Choose another opset, 13 to 20."
        ) from error
    sets = {entry.domain: entry.version for entry in onnx.load(str(file), load_external_data=False).opset_import}
    return int(sets[""] if "" in sets else sets["ai.onnx"])


def _transform(network: Any, imgsz: tuple[int, int]) -> dict[str, Any]:
    """Return a classifier's preprocessing: Ultralytics' own for this size, normalised as the checkpoint says."""
    steps = {type(step).__name__: step for step in getattr(getattr(network, "transforms", None), "transforms", ())}
    resize, normalize = steps.get("Resize"), steps.get("Normalize")
    return {
        "size": list(imgsz),
        "crop": "center",
        "interpolation": str(resize.interpolation.value) if resize is not None else "bilinear",
        "mean": [float(value) for value in normalize.mean] if normalize is not None else [0.0, 0.0, 0.0],
        "std": [float(value) for value in normalize.std] if normalize is not None else [1.0, 1.0, 1.0],
    }
