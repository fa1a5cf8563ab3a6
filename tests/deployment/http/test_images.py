import io
import random
import struct

import numpy as np
import pytest
from PIL import Image

from mlflow_yolo.deployment.http.images import Header, check_image, read_header
from mlflow_yolo.deployment.http.limits import Limits, Refused
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.images import read_image
from tests.deployment.malformed import damaged, jpeg_of, picture, png_of

FORMATS = {
    "jpeg": [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": b"Exif\0\0" + b"\xff\xc0" * 200})],
    "png": [("PNG", {}), ("PNG", {"bits": 1})],
    "webp": [("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0x"})],
    "bmp": [("BMP", {})],
}


def encoded(width: int, height: int, form: str, **how: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **how)
    return file.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (257, 16)])
@pytest.mark.parametrize(("kind", "form", "how"), [(k, *one) for k, several in FORMATS.items() for one in several])
def test_the_size_is_read_as_the_decoder_finds_it(
    kind: str, form: str, how: dict[str, object], size: tuple[int, int]
) -> None:
    image = encoded(*size, form, **how)
    assert read_header(image) == Header(kind, *size)
    assert read_image(image).shape[:2] == size[::-1]


def test_a_bmp_whose_top_row_comes_first_has_its_height() -> None:
    image = bytearray(encoded(5, 3, "BMP"))
    image[22:26] = struct.pack("<i", -3)
    assert read_header(bytes(image)) == Header("bmp", 5, 3)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    bomb = png_of(100_000, 100_000, bytes(1000))
    assert len(bomb) < 200
    with pytest.raises(Refused, match="100000x100000") as refusal:
        check_image(bomb, Limits())
    assert refusal.value.status == 413
    with pytest.raises(Refused) as refusal:
        check_image(jpeg_of(65500, 65500), Limits())
    assert refusal.value.status == 413


def test_as_many_pixels_as_allowed_pass_and_one_more_does_not() -> None:
    assert check_image(png_of(10, 20), Limits(max_pixels=200)).width == 10
    with pytest.raises(Refused):
        check_image(png_of(10, 20), Limits(max_pixels=199))


def test_the_first_frame_header_of_a_jpeg_counts_as_it_does_for_libjpeg() -> None:
    image = bytearray(picture(random.Random(3)))
    size = read_header(bytes(image))
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 19) + b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff" + bytes(10)
    garbage = b"\x00\x11\x22\xff\xff"
    assert read_header(bytes(image[:2]) + thumbnail + garbage + bytes(image[2:])) == size


@pytest.mark.parametrize("length", [0, 1, 3, 10, 20, 23])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_file_that_ends_within_its_header_is_400_in_one_line(form: str, length: int) -> None:
    with pytest.raises(Refused) as refusal:
        read_header(encoded(9, 9, form)[:length])
    assert refusal.value.status == 400
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "AVIF"])
def test_another_kind_of_image_is_415(form: str) -> None:
    with pytest.raises(Refused) as refusal:
        read_header(encoded(9, 9, form))
    assert refusal.value.status == 415


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_400(size: tuple[int, int]) -> None:
    with pytest.raises(Refused) as refusal:
        read_header(png_of(*size))
    assert refusal.value.status == 400


def test_a_long_file_of_markers_is_given_up_soon() -> None:
    for content in (b"\xff\x01" * 4_000_000, b"\xff" * 8_000_000, b"\xff\xe0\x00\x02" * 2_000_000, bytes(8_000_000)):
        with pytest.raises(Refused):
            read_header(b"\xff\xd8" + content)


def test_damaged_files_are_refused_or_decode_to_no_more_than_they_say() -> None:
    chance, decoded = random.Random(5), 0
    for _ in range(600):
        image = damaged(chance, picture(chance, chance.choice(("JPEG", "PNG", "BMP"))))
        try:
            header = check_image(image, Limits(max_pixels=1e6))
            pixels = read_image(image)
        except (Refused, ArgumentError):
            continue
        decoded += 1
        assert pixels.shape[0] * pixels.shape[1] <= header.width * header.height
    assert decoded > 50
