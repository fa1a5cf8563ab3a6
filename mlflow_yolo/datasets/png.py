"""PNG files whose bytes depend on nothing but the pixels.

Pillow's PNG bytes change with the zlib it was built against, and with them every fingerprint. Stored (uncompressed)
deflate blocks leave no such choice; the files are as large as their pixels (48 KB at 128 x 128).
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from mlflow_yolo.exceptions import ShapeError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_STORED = 0xFFFF


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Return an RGB image of shape (H, W, 3), uint8, as the bytes of a PNG file.

    Raises:
        ShapeError: The image is not (H, W, 3) uint8 with at least one pixel.

    Source: PNG specification (RFC 2083), stored blocks of RFC 1951.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ShapeError(f"image is {image.shape} {image.dtype}, not (H, W, 3) uint8. Convert it first.")
    height, width = image.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a leading 0 per row: no filter
    rows[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", _store(rows.tobytes())) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _store(raw: bytes) -> bytes:
    """Return a zlib stream that holds `raw` as it is."""
    blocks = [raw[start : start + _MAX_STORED] for start in range(0, len(raw), _MAX_STORED)]
    body = b"".join(
        struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks, 1)
    )
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(raw))
