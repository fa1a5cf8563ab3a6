import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics.data.augment import LetterBox, classify_transforms

from mlflow_yolo.runtime.preprocess import Frame, letterbox, normalise, place, resize_and_crop, to_batch

SIZES = [(480, 640), (640, 480), (37, 411), (1080, 1920), (3, 200), (320, 320), (64, 64), (333, 500), (1, 1)]


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_an_image_twice_as_wide_as_high_lies_in_the_middle() -> None:
    # 320 / 200 = 1.6: 100 x 200 become 160 x 320, and 160 rows of padding are halved.
    assert place(100, 200, (320, 320)) == Frame(100, 200, (160, 320), 80, 0)


def test_half_a_pixel_of_padding_goes_below() -> None:
    # 97 x 100 in 100 x 100: 3 rows over, 1.5 above, which rounds down after 0.1 is taken off.
    assert place(97, 100, (100, 100)).top == 1


def test_a_very_flat_image_keeps_one_row() -> None:
    assert place(1, 3000, (320, 320)).inner == (1, 320)


@pytest.mark.parametrize("imgsz", [(320, 320), (96, 128)])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_letterbox_is_that_of_ultralytics(height: int, width: int, channels: int, imgsz: tuple[int, int]) -> None:
    image = noise(height, width, channels)
    made, _ = letterbox(image, imgsz)
    assert np.array_equal(made, LetterBox(imgsz, auto=False)(image=image))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (97, 97)])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_classifier_sees_what_torchvision_makes(height: int, width: int, size: tuple[int, int]) -> None:
    image = noise(height, width)
    transform = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    made = normalise(to_batch([resize_and_crop(image, size)]), transform)
    expected = classify_transforms(size, **transform)(Image.fromarray(image[..., ::-1]))  # type: ignore[arg-type]
    assert np.allclose(made[0], expected.numpy(), atol=1e-6)


def test_another_interpolation_is_another_picture() -> None:
    image = noise(50, 50)
    expected = classify_transforms(64, interpolation="BICUBIC")(Image.fromarray(image[..., ::-1]))
    made = to_batch([resize_and_crop(image, (64, 64), interpolation="bicubic")])[0]
    assert np.allclose(made, expected.numpy(), atol=1e-6)


def test_a_batch_is_rgb_between_zero_and_one() -> None:
    blue = np.zeros((2, 5, 3), dtype=np.uint8)
    blue[..., 0] = 255
    batch = to_batch([blue, 255 - blue])
    assert batch.shape == (2, 3, 2, 5)
    assert batch.dtype == np.float32
    assert batch.mean(axis=(2, 3)).tolist() == [[0, 0, 1], [1, 1, 0]]


def test_a_batch_is_bit_for_bit_that_of_ultralytics() -> None:
    image = noise(20, 30)
    expected = torch.from_numpy(image).permute(2, 0, 1).contiguous().flip(0).float().div_(255)
    assert np.array_equal(to_batch([image])[0], expected.numpy())


@pytest.mark.parametrize("channels", [1, 5])
def test_other_numbers_of_channels_keep_their_order(channels: int) -> None:
    image = noise(4, 6, channels)
    assert np.array_equal(to_batch([image])[0], (image.transpose(2, 0, 1) / np.float32(255)).astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 65535, 3), (65535, 1, 3), (3, 20000, 3)])
def test_a_thread_of_pixels_is_not_scaled_up_whole(shape: tuple[int, int, int]) -> None:
    """Scaled as a whole, the first one takes 10 GB."""
    image = np.zeros(shape, np.uint8)
    height, width = shape[:2]
    image[height // 2 - min(height // 2, 200) : height // 2 + 200, max(width // 2 - 200, 0) : width // 2 + 200] = 255
    assert (resize_and_crop(image, (224, 224)) == 255).all()
