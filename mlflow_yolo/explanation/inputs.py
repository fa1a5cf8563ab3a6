"""Pictures as the user has them, and as the network takes them: exactly what Ultralytics' `predict` makes of them."""

import glob
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor
from ultralytics.data.augment import LetterBox, classify_transforms
from ultralytics.utils.patches import imread

from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.datasets.images import find_images
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.models.arguments import check_imgsz

Pixels = npt.NDArray[np.uint8]
Picture = str | Path | npt.NDArray[Any] | Image.Image
"""One image, or as a path: one image, a folder, a pattern such as `cells/*.png`, or a .txt list of images."""

_AS_IT_IS, _GREY, _COLOR = -1, 0, 1
"""OpenCV's flags for reading, which Ultralytics' `imread` takes."""


def read_images(images: Picture | Sequence[Picture], *, channels: int = 3) -> Iterator[tuple[str, Pixels]]:
    """Yield name and pixels of every image, one at a time.

    Args:
        images: A picture or a list of pictures. Arrays are RGB, not BGR as Ultralytics takes them: (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4), uint8; of uint16 the high byte is taken, as Ultralytics does.
        channels: Channels of the model's input. Grey becomes colour, colour grey, and transparency is dropped; other
            numbers of channels have to be there.

    Yields:
        The path as text, or `image0`, `image1`, … for what has none; (H, W, channels) uint8, RGB for three channels,
        turned upright where the file says how.

    Raises:
        ArgumentError: Nothing is there, or it is no picture of 8 or 16 bits with fitting channels.
    """
    for i, picture in enumerate(list_images(images)):
        if isinstance(picture, Path):
            yield str(picture), _read(picture, channels)
        else:
            name = str(getattr(picture, "filename", "") or f"image{i}")
            yield name, _with_channels(name, _pixels(name, picture), channels)


def list_images(images: Picture | Sequence[Picture]) -> list[Path | npt.NDArray[Any] | Image.Image]:
    """Return every image that is meant, folders and patterns as their files; nothing is read yet.

    Raises:
        ArgumentError: Nothing is there.
    """
    found: list[Path | npt.NDArray[Any] | Image.Image] = []
    for picture in images if isinstance(images, list | tuple) else [images]:
        found += _files(picture) if isinstance(picture, str | Path) else [picture]  # type: ignore[list-item]
    if not found:
        raise ArgumentError("images is empty: there is nothing to explain. Pass a picture, a folder or a list.")
    return found


def network_input(
    picture: Pixels, model: ExplainedModel, imgsz: int | None = None, *, square: bool = True
) -> tuple[Tensor, Frame]:
    """Return a picture as the network takes it, and where it lies in there.

    Args:
        picture: (H, W, channels) uint8 from `read_images`.
        model: The model.
        imgsz: Longer side of a detector's input, side of a classifier's, pixels; rounded up to the model's stride as
            Ultralytics does. None for the size it was trained with.
        square: Pad to a square, so that inputs can be stacked. Otherwise only to the next multiple of the stride, as
            `predict` does with one picture; a classifier's input is square in any case.

    Returns:
        (channels, h, w) float32 on the CPU, 0 to 1 (of a classifier as its own transforms make it), and the frame.

    Raises:
        ArgumentError: imgsz is below 32, or a classifier that takes no colour pictures.
    """
    side = math.ceil(check_imgsz(model.imgsz if imgsz is None else imgsz) / model.stride) * model.stride
    if model.task == "classify":
        return _cropped(picture, model, side)
    padded = LetterBox((side, side), auto=not square, stride=model.stride)(image=picture)
    tensor = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1))).float() / 255
    return tensor, Frame.letterbox(_size(picture), _size(padded))


def _cropped(picture: Pixels, model: ExplainedModel, side: int) -> tuple[Tensor, Frame]:
    """Return what a classifier sees: the middle of the picture, its shorter side scaled to the input."""
    if picture.shape[2] != 3:
        raise ArgumentError(f"a classifier of {picture.shape[2]} channels cannot be explained. Use one for RGB images.")
    own: Any = getattr(model.network, "transforms", None)
    size: Any = getattr(own.transforms[0], "size", None) if own is not None else None
    fits = size == side or (isinstance(size, list | tuple) and tuple(size) == (side, side))
    tensor: Tensor = (own if fits else classify_transforms(side))(Image.fromarray(picture))
    return tensor.float(), Frame.centre_crop(_size(picture), (side, side))


def _size(picture: npt.NDArray[Any]) -> tuple[int, int]:
    return int(picture.shape[0]), int(picture.shape[1])


def _files(source: str | Path) -> list[Path]:
    """Return the image files that a path means.

    Raises:
        ArgumentError: There are none.
    """
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".txt"):
        found = find_images(path)
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not found:
        what = "holds no image" if path.exists() else "does not exist"
        raise ArgumentError(f"images={source} {what}. Pass a picture, a folder of pictures or a pattern such as *.png.")
    return found


def _read(path: Path, channels: int) -> Pixels:
    picture: Any = imread(str(path), flags={1: _GREY, 3: _COLOR}.get(channels, _AS_IT_IS))
    if picture is None:
        raise ArgumentError(f"{path} is not a readable picture. Use a JPEG, PNG or another image file.")
    if channels == 3:
        return np.ascontiguousarray(picture[..., ::-1])
    return _with_channels(str(path), np.asarray(picture), channels)


def _pixels(name: str, picture: Any) -> Pixels:
    """Return an array or a PIL image as (H, W, 1 or more) uint8.

    Raises:
        ArgumentError: It is neither, or of another kind of numbers.
    """
    if isinstance(picture, Image.Image):
        upright = ImageOps.exif_transpose(picture)
        is_plain = upright.mode in ("L", "RGB") or upright.mode.startswith("I;16")
        picture = np.asarray(upright if is_plain else upright.convert("RGB"))
    if not isinstance(picture, np.ndarray):
        raise ArgumentError(f"{name} is a {type(picture).__name__}. Pass a path, a NumPy array or a PIL image.")
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise ArgumentError(f"{name} is {picture.dtype}. Pass uint8, 0 to 255: np.uint8(255 * picture) for 0 to 1.")
    picture = np.atleast_3d(picture)
    if picture.ndim != 3 or not all(picture.shape):
        raise ArgumentError(f"{name} has shape {picture.shape}. Pass (H, W) or (H, W, channels), RGB; many as a list.")
    return np.asarray(picture)


def _with_channels(name: str, picture: Pixels, channels: int) -> Pixels:
    """Return the picture with as many channels as the model takes.

    Raises:
        ArgumentError: They cannot be made from what there is.
    """
    has = picture.shape[2]
    if has == channels:
        return np.ascontiguousarray(picture)
    if channels == 1 and has in (3, 4):
        return np.asarray(Image.fromarray(np.ascontiguousarray(picture[..., :3])).convert("L"))[..., None]
    if channels in (1, 3) and has in (1, 2):  # grey, with or without transparency
        return np.repeat(picture[..., :1], channels, axis=2)
    if channels == 3 and has == 4:
        return np.ascontiguousarray(picture[..., :3])
    raise ArgumentError(f"{name} has {has} channels and the model takes {channels}. Pass pictures with {channels}.")
