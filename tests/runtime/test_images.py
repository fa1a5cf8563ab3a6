import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics.data.loaders import LoadImagesAndVideos, LoadPilAndNumpy
from ultralytics.utils.patches import imread

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.images import read_image


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    channels = {"RGB": 3, "L": None, "RGBA": 4}[mode]
    pixels = cv2.resize(noise(5, 7, 3), (70, 50))  # smooth: compressed formats keep it
    image = Image.fromarray(pixels).convert(mode) if channels != 3 else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    return encoded("JPEG", exif=exif)


FILES = {
    "a.jpg": encoded("JPEG"),
    "turned.jpg": turned(),
    "grey.jpg": encoded("JPEG", "L"),
    "a.png": encoded("PNG"),
    "alpha.png": encoded("PNG", "RGBA"),
    "a.bmp": encoded("BMP"),
    "a.webp": encoded("WEBP"),
    "a.tif": encoded("TIFF"),
    "alpha.tif": encoded("TIFF", "RGBA"),
    "grey.tif": encoded("TIFF", "L"),
    "a.avif": encoded("AVIF"),
}


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", FILES)
def test_a_file_and_its_bytes_are_read_as_by_ultralytics(tmp_path: Path, name: str, channels: int) -> None:
    file = tmp_path / name
    file.write_bytes(FILES[name])
    _, (expected,), _ = next(iter(LoadImagesAndVideos(str(file), channels=channels)))
    for source in (file, str(file), FILES[name], memoryview(FILES[name])):
        assert np.array_equal(read_image(source, channels=channels), expected)


def test_a_file_of_sixteen_bits_keeps_the_higher_eight(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.uint16).reshape(5, 6) * 2000
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    expected = imread(tmp_path / "deep.png", cv2.IMREAD_COLOR)
    assert np.array_equal(read_image(tmp_path / "deep.png"), expected)


@pytest.mark.parametrize(
    "array",
    [
        noise(4, 6),
        noise(4, 6, 1),
        noise(4, 6, 2),
        noise(4, 6, 3),
        noise(4, 6, 4),
        noise(4, 6, 3).astype(np.uint16) * 257,
    ],
    ids=["grey", "grey 3d", "grey alpha", "bgr", "bgra", "16 bit"],
)
@pytest.mark.parametrize("channels", [3, 1])
def test_an_array_is_taken_as_by_ultralytics(array: np.ndarray, channels: int) -> None:
    expected = LoadPilAndNumpy(array, channels=channels).im0[0]
    assert np.array_equal(read_image(array, channels=channels), expected)


def test_an_array_of_the_right_kind_is_not_copied() -> None:
    array = noise(4, 6, 3)
    assert np.shares_memory(read_image(array), array)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "1"])
def test_a_pil_image_is_taken_as_by_ultralytics(mode: str, channels: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6) * 2500)
    else:
        image = Image.fromarray(noise(4, 6, 3)).convert(mode)
    assert np.array_equal(read_image(image, channels=channels), LoadPilAndNumpy(image, channels=channels).im0[0])


def test_a_pil_image_is_turned_upright() -> None:
    image = Image.open(io.BytesIO(turned()))
    assert image.size == (70, 50)
    assert read_image(image).shape == (70, 50, 3)


def test_many_bands_are_taken_whole_or_refused() -> None:
    assert read_image(noise(4, 6, 5), channels=5).shape == (4, 6, 5)
    with pytest.raises(ArgumentError, match=r"5 channels.*takes 3"):
        read_image(noise(4, 6, 5))
    with pytest.raises(ArgumentError, match=r"3 channels.*takes 5"):
        read_image(noise(4, 6, 3), channels=5)


@pytest.mark.parametrize(
    "bad",
    [
        noise(2, 4, 6, 3),
        noise(4),
        noise(0, 6, 3),
        noise(4, 6, 3).astype(np.float32),
        noise(4, 6, 3) > 5,
        b"",
        b"no image at all",
        encoded("PNG")[:60],
        b"\x00\x00\x00\x1cftypavif" + bytes(40),
        b"\x00\x00\x00\x1cftypheic" + bytes(40),
        b"II*\x00" + bytes(40),
        "missing.png",
        Path("missing.png"),
        "http://localhost/a.png",
        5,
    ],
    ids=lambda bad: f"{type(bad).__name__}-{getattr(bad, 'shape', '')}",
)
def test_what_is_no_image_is_one_line(bad: object) -> None:
    with pytest.raises(ArgumentError, match=r"^[^\n]+$"):
        read_image(bad)  # type: ignore[arg-type]


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_image(tmp_path)
