"""Maps of an exported model: it has no gradients, but its blocks can be looked at, which is all that EigenCAM needs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from mlflow_yolo.attribution.cam import METHODS, eigen_cam, find_method
from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.layers import Layers, stage_of
from mlflow_yolo.attribution.maps import combine
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.explanation.answers import fine_enough
from mlflow_yolo.explanation.inputs import Pixels, read_images
from mlflow_yolo.explanation.map import Map
from mlflow_yolo.explanation.network import check_not_exported
from mlflow_yolo.registry.fetching import fetch
from mlflow_yolo.runtime.activations import Activations
from mlflow_yolo.runtime.description import describe
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.variant import Variant, is_variant

METHOD = METHODS["eigencam"]
TARGET = "whatever is in the image"


def exported_file(model: Any) -> Path | None:
    """Return the .onnx file, or the folder of a variant with one, that a model is; None for anything else.

    Args:
        model: What `explain` was given; of a `YOLO` object its file counts.
    """
    given = getattr(model, "model", model)
    if not isinstance(given, str | Path):
        return None
    path = Path(given).expanduser()
    folder = path if path.is_dir() else path.parent
    is_onnx = path.suffix.lower() == ".onnx" or (is_variant(path) and any(folder.glob("*.onnx")))
    return path if is_onnx else None


def fetch_export(address: str, method: str | None) -> Path:
    """Return the folder of a registered version, downloaded where it is not here yet.

    Raises:
        CheckpointError: Another method than EigenCAM, or its bytes have changed.
        InputError: There is no such version, or the registry does not let this user read.
    """
    if method is None or find_method(method) is not METHOD:
        check_not_exported(address, method=method or "layercam")
    return fetch(address).folder


def explain_export(
    path: Path,
    pictures: Sequence[Path | npt.NDArray[Any] | Image.Image],
    *,
    method: str | None,
    asked: Mapping[str, Any],
    block: int | Sequence[int] | None,
    imgsz: int | None,
    batch: int,
) -> list[Map]:
    """Return one EigenCAM of every picture: it would be the same for every target.

    Args:
        path: What `exported_file` returned.
        pictures: The pictures.
        method: Only `eigencam` is possible.
        asked: What else the user asked, by name; only None is possible, as nothing is explained but the block.
        block: The block or blocks; None for the backbone's stages of all detection levels together, or of a classifier
            its last block, or where that has fewer than 16 cells, a finer one.
        imgsz: Side of the input, where the file leaves it free; None for its own.
        batch: Pictures at once.

    Raises:
        CheckpointError: Another method, or a file that cannot be read or does not name its blocks.
        ArgumentError: Something in `asked`, or a block or size that the file does not have.
    """
    if method is None or find_method(method) is not METHOD:
        check_not_exported(str(path), method=method or "layercam")
    for name, value in asked.items():
        if value is not None:
            raise ArgumentError(f"{name} makes no difference to the EigenCAM of an export. Leave it out.")
    file, _ = describe(path)
    pipeline = open_pipeline(path, imgsz=imgsz)
    layers = fine_enough(_layers(file, pipeline.variant), pipeline.variant.imgsz)
    wanted = () if block is None else (block,) if isinstance(block, int) else tuple(block)
    blocks = tuple(dict.fromkeys(layers.check(one) for one in wanted or layers.by_level))
    looked_into = Activations(file, blocks)
    maps: list[Map] = []
    for chunk in _chunks(read_images(pictures, channels=pipeline.variant.channels), max(1, batch)):
        inputs, _ = pipeline.preprocess([_as_opencv(picture) for _, picture in chunk])
        grids = looked_into.run(inputs)
        components = [eigen_cam(torch.from_numpy(grids[block])) for block in blocks]
        for row, (name, picture) in enumerate(chunk):
            values = combine([of_block[row] for of_block in components], is_signed=METHOD.is_signed)
            frame = _frame(pipeline.variant, (picture.shape[0], picture.shape[1]))
            maps.append(_map(name, frame.cut(values.numpy()), blocks))
    return maps


def _layers(file: Path, variant: Variant) -> Layers:
    """Return the blocks of a file that a map can be made at; a black picture goes through it once."""
    every = Activations(file)
    grids = every.run(np.zeros((1, variant.channels, *variant.imgsz), dtype=np.float32))
    found = {block: variant.imgsz[0] // grid.shape[2] for block, grid in grids.items()}
    strides = tuple(found.get(block, 0) for block in range(max(*every.blocks, *every.sources) + 2))
    if variant.task == "classify":
        return Layers(strides, every.sources)
    return Layers(strides, tuple(stage_of(strides, found[source]) for source in every.sources))


def _chunks(pictures: Iterator[tuple[str, Pixels]], size: int) -> Iterator[list[tuple[str, Pixels]]]:
    while chunk := list(islice(pictures, size)):
        yield chunk


def _as_opencv(picture: Pixels) -> Pixels:
    """Return a picture with the channels of colour in the order that the runtime takes."""
    return np.ascontiguousarray(picture[..., ::-1]) if picture.shape[2] == 3 else picture


def _frame(variant: Variant, original: tuple[int, int]) -> Frame:
    place = Frame.centre_crop if variant.task == "classify" else Frame.letterbox
    return place(original, variant.imgsz)


def _map(name: str, values: npt.NDArray[np.float32], blocks: tuple[int, ...]) -> Map:
    return Map(
        image=name,
        values=values,
        target=TARGET,
        class_id=None,
        class_name="",
        score=float("nan"),
        conf=None,
        box=None,
        method=METHOD.name,
        blocks=blocks,
        unit="relative",
        signed=METHOD.is_signed,
        is_detected=True,
        localisation=None,
    )
