"""What an image file says of itself in its first bytes: its kind and its size, before anything is decoded."""

import re
import struct
from dataclasses import dataclass

from mlflow_yolo.deployment.http.limits import Limits, Refused

_REFUSED_KINDS = {
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"%PDF": "PDF",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "PSD",
}
_MARKER = re.compile(rb"\xff([^\xff\x00])")  # one 0xff: a run of them would be tried from each on
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 … SOF15
_LONE = frozenset((0x01, *range(0xD0, 0xD8)))  # TEM, RST0 … RST7: no length follows
_ENDS = frozenset((0xD8, 0xD9, 0xDA))  # SOI, EOI, SOS: no size can follow
_MOST_SEGMENTS = 5000
"""A JPEG has some tens; what is longer costs time to look through and is none."""


@dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    Attributes:
        kind: `jpeg`, `png`, `webp` or `bmp`.
        width: Pixels, as stored: before it is turned upright.
        height: Pixels, likewise.
    """

    kind: str
    width: int
    height: int


def read_header(image: bytes) -> Header:
    """Return kind and size of an image file.

    Raises:
        Refused: 415 for another kind of file, 400 for bytes that are no image or end within the header.
    """
    for signature, kind, measure in _KINDS:
        if signature.match(image):
            try:
                width, height = measure(image)
            except (struct.error, IndexError):
                raise Refused(400, f"the {kind.upper()} image ends within its header: {len(image)} bytes.") from None
            if width < 1 or height < 1:
                raise Refused(400, f"the {kind.upper()} image says that it is {width}x{height} pixels.")
            return Header(kind, width, height)
    for start, name in _REFUSED_KINDS.items():
        if image.startswith(start):
            raise Refused(415, f"a {name} file is not read here. Send JPEG, PNG, WebP or BMP.")
    if image[4:8] == b"ftyp":
        raise Refused(415, "an AVIF, HEIC or video file is not read here. Send JPEG, PNG, WebP or BMP.")
    raise Refused(400, f"{len(image)} bytes that are no image. Send JPEG, PNG, WebP or BMP.")


def check_image(image: bytes, limits: Limits) -> Header:
    """Return what an image says of itself; it may be decoded.

    Raises:
        Refused: As `read_header`, and 413 for more pixels than are decoded.
    """
    header = read_header(image)
    if header.width * header.height > limits.max_pixels:
        raise Refused(
            413,
            f"the image is {header.width}x{header.height} pixels; at most {limits.max_pixels:.0f} are decoded. "
            "Scale it down.",
        )
    return header


def _jpeg(image: bytes) -> tuple[int, int]:
    """Return the size of the first frame header, as libjpeg finds it: bytes between segments are passed over."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(image, at)
        if found is None or found[1][0] in _ENDS:
            break
        at = found.end()
        if found[1][0] in _SIZES:
            height, width = struct.unpack_from(">HH", image, at + 3)
            return width, height
        if found[1][0] not in _LONE:
            at += max(struct.unpack_from(">H", image, at)[0], 2)
    raise Refused(400, "the JPEG image has no frame header. Send an intact file.")


def _png(image: bytes) -> tuple[int, int]:
    if image[12:16] != b"IHDR":
        raise Refused(400, "the PNG image does not begin with its header (IHDR). Send an intact file.")
    width, height = struct.unpack_from(">II", image, 16)
    return width, height


def _webp(image: bytes) -> tuple[int, int]:
    """Return the size of the canvas: of a lossy, a lossless or an extended file."""
    chunk = image[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", image, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", image, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", image, 24)
        return low_width + (high_width << 16) + 1, low_height + (high_height << 16) + 1
    raise Refused(400, "the WebP image has no VP8, VP8L or VP8X chunk first. Send an intact file.")


def _bmp(image: bytes) -> tuple[int, int]:
    (length,) = struct.unpack_from("<I", image, 14)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", image, 18)
    return width, abs(height)  # below 0: the top row comes first


_KINDS = (
    (re.compile(rb"\xff\xd8"), "jpeg", _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png", _png),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "webp", _webp),
    (re.compile(rb"BM"), "bmp", _bmp),
)
