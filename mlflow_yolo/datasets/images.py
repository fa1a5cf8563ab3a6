"""Image files: finding them by Ultralytics' rules, and telling the readable from the broken without decoding pixels."""

import glob
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

SUFFIXES = frozenset({"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"})
"""What Ultralytics 8.4 reads (`ultralytics.data.utils.IMG_FORMATS`)."""

MIN_SIDE = 10
"""Ultralytics silently drops images with a side below this many pixels."""

_NOT_IN_PIL = frozenset({"dng", "heic", "heif"})
_JPEG_END = b"\xff\xd9"
_SIGNATURES = (
    (0, b"\xff\xd8\xff"),  # JPEG, MPO
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"BM"),
    (0, b"II"),  # TIFF
    (0, b"MM"),
    (0, b"RIFF"),  # WebP
    (0, b"\x00\x00\x00\x0cjP  "),  # JPEG 2000
    (0, b"\xff\x4f\xff\x51"),
    (4, b"ftyp"),  # AVIF
)


@dataclass(frozen=True)
class ImageCheck:
    """What one look at an image file found.

    Attributes:
        sha256: Digest of the file's bytes; empty when the file could not be read.
        problem: Why the image cannot be used, in a few words; empty when it can.
    """

    sha256: str
    problem: str


def is_image(path: str | Path) -> bool:
    """Return whether Ultralytics takes the file for an image; only the suffix counts."""
    return os.fspath(path).rpartition(".")[-1].lower() in SUFFIXES


def find_images(source: Path) -> list[Path]:
    """Return the images of one split entry in Ultralytics' order: a folder (searched to the bottom) or a .txt list.

    Lines of a list that start with `./` are relative to the list; other relative lines are relative to the working
    directory, as in Ultralytics. Hidden files and folders are skipped. An empty source gives an empty list.

    Raises:
        OSError: The source is neither a folder nor a readable file.
    """
    if source.is_dir():
        found = glob.glob(os.path.join(glob.escape(str(source)), "**", "*.*"), recursive=True)
    else:
        lines = source.read_text(encoding="utf-8-sig").strip().splitlines()
        found = [str(source.parent / line[2:]) if line.startswith("./") else line for line in lines]
    return [Path(path) for path in sorted(found) if is_image(path)]


def check_image(path: Path) -> ImageCheck:
    """Return the digest of an image file and what is wrong with it, from its header and its end.

    PNG chunks are verified by their checksums. A JPEG without an end marker is decoded to tell a truncated file (a
    problem) from one with bytes behind its end (usable). HEIC and DNG, which need optional plugins, are only read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        return ImageCheck(sha256="", problem=(error.strerror or str(error)).lower())
    if not data:
        return ImageCheck(sha256="", problem="the file is empty, 0 bytes")
    problem = "" if path.suffix[1:].lower() in _NOT_IN_PIL else _find_problem(data)
    return ImageCheck(sha256=hashlib.sha256(data).hexdigest(), problem=problem)


def _find_problem(data: bytes) -> str:
    if not any(data[start:].startswith(mark) for start, mark in _SIGNATURES):
        # Not left to Pillow: where Ultralytics is imported, Image.open would first try to install a HEIF plugin.
        return "not an image"
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height, kind = *image.size, image.format
            image.verify()
        if kind in {"JPEG", "MPO"} and not data.endswith(_JPEG_END):
            with Image.open(io.BytesIO(data)) as image:
                image.load()
    except (UnidentifiedImageError, ImportError):
        return "not an image"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return " ".join(str(error).split()).lower()
    if min(width, height) < MIN_SIDE:
        return f"{width}x{height} pixels, below Ultralytics' minimum of {MIN_SIDE}"
    return ""
