"""PNG files that other readers read back exactly."""

import io

import numpy as np
import pytest
from PIL import Image

from mlflow_yolo.datasets.png import encode_png
from mlflow_yolo.exceptions import ShapeError


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (128, 128, 3), (200, 130, 3)])
def test_pillow_reads_the_same_pixels(shape: tuple[int, int, int]) -> None:
    """200 x 130 needs two stored blocks."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = encode_png(pixels)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_pixels_are_stored_not_compressed() -> None:
    """Signature 8, IHDR 25, IDAT 12 around zlib 2 + block 5 + rows 3 x (1 + 9) + checksum 4, IEND 12."""
    assert len(encode_png(np.zeros((3, 3, 3), np.uint8))) == 8 + 25 + 12 + 2 + 5 + 30 + 4 + 12


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused_by_name(image: np.ndarray) -> None:
    with pytest.raises(ShapeError) as caught:
        encode_png(image)
    assert str(image.shape) in str(caught.value)
