"""Image files as the grid of MLflow's UI wants them: a PNG and a small WebP twin under names that it parses."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery.journal import Record

if TYPE_CHECKING:
    from PIL import Image

PREVIEW_PIXELS = 256
"""Longest side of the twin, as in MLflow's `log_image`."""

TAG_HAS_IMAGES = "mlflow.loggedImages"
_MAX_KEY = 120  # step, time, uuid and suffix take about 100 of the 255 bytes a file name may have


def grid_key(key: str) -> str:
    """Return `key` as MLflow's grid accepts it: ASCII letters, digits and `_ - . space /`, short enough for a name."""
    return keys.sanitise(key.encode("ascii", "replace").decode())[:_MAX_KEY].rstrip("/. ")


def grid_files(folder: Path, key: str, *, step: int, timestamp_ms: int, uid: str) -> tuple[Path, Path]:
    """Return where the PNG of an image and its WebP twin go below `folder`; their names are the artifacts' names."""
    png = folder / keys.image_file(grid_key(key), step=step, timestamp_ms=timestamp_ms, uid=uid)
    return png, png.with_name(f"{png.stem}+compressed.webp")


def write_grid_files(image: Any, png: Path, webp: Path) -> None:
    """Write `image` and its preview.

    Args:
        image: (H, W, 3) or (H, W) uint8 RGB array, or the path of an image file.
        png: Where the full image goes.
        webp: Where the preview goes.

    Raises:
        OSError: The image cannot be read or written.
        ValueError: The array is no image.
    """
    from PIL import Image

    png.parent.mkdir(parents=True, exist_ok=True)
    with _open(image) if isinstance(image, Path) else Image.fromarray(image) as picture:
        if isinstance(image, Path) and picture.format == "PNG":
            if image != png:
                shutil.copyfile(image, png)
        else:
            picture.save(png, compress_level=1)  # a third of the time beside the training
        scale = PREVIEW_PIXELS / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        preview = picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGB")
        preview.resize(size).save(webp)


def _open(file: Path) -> "Image.Image":
    """Return an opened image file.

    Ultralytics replaces `PIL.Image.open` by one that may raise anything, so the file is named whatever it is.
    """
    from PIL import Image

    try:
        return Image.open(file)
    except Exception as error:
        raise OSError(f"{file.name} is not an image that can be read") from error


def grid_records(directory: Path, png: Path, webp: Path) -> list[Record]:
    """Return the journal records that upload both files and tell the UI that the run has images."""
    files: list[Record] = [
        {"type": "file", "path": path.relative_to(directory).as_posix(), "artifact_path": "images"}
        for path in (png, webp)
    ]
    return [*files, {"type": "tags", "values": {TAG_HAS_IMAGES: "true"}}]
