"""Images from anywhere as Ultralytics' own loader gives them: 8 bits, BGR, upright."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mlflow_yolo.exceptions import ArgumentError

Pixels = npt.NDArray[np.uint8]
Source = str | Path | bytes | npt.NDArray[Any] | Image.Image

_TIFF = (b"II*\x00", b"MM\x00*")
_BRANDS_END = 64


def read_image(image: Source, *, channels: int = 3) -> Pixels:
    """Return one image as Ultralytics' predictor sees it.

    Args:
        image: A path, an image file's bytes, a PIL image (turned upright by its EXIF tag), or an array (H, W),
            (H, W, 1), (H, W, 2: grey and alpha), (H, W, 3: BGR as OpenCV has it) or (H, W, 4: BGRA), 8 or 16 bits.
            A URL is not followed.
        channels: Channels of the model's input: 3, or 1 for grey; another number takes arrays of as many channels.

    Returns:
        (H, W, channels); of 16 bits the higher 8.

    Raises:
        ArgumentError: The file does not exist or cannot be decoded, or an array is no single image of 8 or 16 bits.
    """
    if isinstance(image, str | Path):
        return _decode(_read(Path(image)), channels, name=str(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return _decode(bytes(image), channels, name=f"<{len(image)} bytes>")
    if isinstance(image, Image.Image):
        return _from_pil(image, channels)
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    raise ArgumentError(f"image={type(image).__name__} is no image. Pass a path, bytes, a NumPy array or a PIL image.")


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise ArgumentError(f"image={path} cannot be read: {error.strerror or error}. Check the path.") from error


def _decode(data: bytes, channels: int, *, name: str) -> Pixels:
    """Return a file's pixels; the kind of file is told by its first bytes.

    Source: the order in which `ultralytics.utils.patches.imread` (8.4) asks its decoders.
    """
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    pixels = None
    try:
        if data[4:8] == b"ftyp":
            return _from_pil(_open_container(data), channels)
        if data[:4] in _TIFF and channels != 1:
            pixels = _decode_tiff(data, channels)
        if pixels is None and data:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, ImportError, OSError, ValueError, SyntaxError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(f"image={name} cannot be decoded: {reason}. Pass an intact image file.") from error
    if pixels is None:
        raise ArgumentError(f"image={name} cannot be decoded: {len(data)} bytes that are no image. Pass an image file.")
    return _from_array(pixels, channels)


def _decode_tiff(data: bytes, channels: int) -> npt.NDArray[Any] | None:
    """Return the first colour page without alpha, or for other than three channels all bands; None for a grey one."""
    read, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if not read:
        return None
    if pages[0].ndim == 3:
        return np.asarray(pages[0] if channels != 3 else pages[0][..., :3])
    if channels != 3 and len(pages) > 1 and len({page.shape for page in pages}) == 1:
        return np.stack(pages, axis=2)
    return None


def _open_container(data: bytes) -> Image.Image:
    """Return an AVIF image.

    Pillow's AVIF reader is asked by name: where Ultralytics is imported, `Image.open` answers a damaged file by
    installing a HEIC plugin.
    """
    if b"avif" in data[8:_BRANDS_END]:
        from PIL.AvifImagePlugin import AvifImageFile

        return AvifImageFile(io.BytesIO(data))
    raise ArgumentError("it is a HEIC image, which is not read here. Convert it to JPEG, PNG or AVIF.")


def _from_pil(image: Image.Image, channels: int) -> Pixels:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert() clips at 255; OpenCV keeps the higher byte
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if channels == 1:
        return np.asarray(image.convert("L"))[..., None]
    return _from_array(cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR), channels)


def _from_array(array: npt.NDArray[Any], channels: int) -> Pixels:
    """Return an array with as many channels as the model takes."""
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or not all(pixels.shape) or pixels.dtype != np.uint8:
        raise ArgumentError(
            f"image has shape {array.shape} and type {array.dtype}. Pass one image (height, width, 3) of uint8, BGR."
        )
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if channels not in (1, 3) or found not in (1, 2, 3, 4):
        raise ArgumentError(f"image has {found} channels, but the model takes {channels}. Pass as many.")
    if found < 3:
        return np.repeat(pixels[..., :1], channels, axis=2)
    if channels == 3:
        return np.ascontiguousarray(pixels[..., :3])
    code = cv2.COLOR_BGR2GRAY if found == 3 else cv2.COLOR_BGRA2GRAY
    return np.asarray(cv2.cvtColor(pixels, code), dtype=np.uint8)[..., None]
