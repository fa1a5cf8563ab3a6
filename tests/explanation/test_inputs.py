"""Pictures become what Ultralytics' predict makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics import YOLO

from mlflow_yolo import checkpoints
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.explanation.inputs import list_images, network_input, read_images
from mlflow_yolo.explanation.network import open_model

COLOR = np.random.default_rng(0).integers(0, 255, (50, 90, 3), dtype=np.uint8)
GREY = COLOR[..., 0]


@pytest.fixture(scope="module")
def detector() -> YOLO:
    return YOLO(str(checkpoints.path()))


def given_to_network(model: YOLO, source: Any, **arguments: Any) -> torch.Tensor:
    """Return the tensor that Ultralytics' predict feeds to the network."""
    seen: list[torch.Tensor] = []

    def watch(predictor: Any) -> None:
        inner = predictor.preprocess
        predictor.preprocess = lambda images: seen.append(inner(images)) or seen[-1]

    model.predictor = None
    model.callbacks["on_predict_start"] = [watch]
    model.predict(source, verbose=False, save=False, device="cpu", **arguments)
    return seen[0][0]


@pytest.mark.parametrize("shape", [(50, 90), (90, 50), (128, 128), (33, 301), (257, 31)])
@pytest.mark.parametrize("square", [True, False])
def test_a_detector_sees_what_predict_shows_it(detector: YOLO, shape: tuple[int, int], square: bool) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)
    expected = given_to_network(detector, picture[..., ::-1], rect=not square)
    found, frame = network_input(picture, open_model(detector), square=square)

    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert (frame.original, frame.input) == (shape, tuple(expected.shape[1:]))
    corners = np.array([[0.0, 0.0, shape[1], shape[0]]])
    inside = frame.to_input(corners)[0]
    assert (inside >= 0).all()
    assert max(inside[2] - inside[0], inside[3] - inside[1]) == pytest.approx(128)


@pytest.mark.parametrize("shape", [(50, 90), (90, 51), (64, 64)])
@pytest.mark.parametrize("imgsz", [64, 96])
def test_a_classifier_sees_what_predict_shows_it(shape: tuple[int, int], imgsz: int) -> None:
    model = YOLO("yolo11n-cls.yaml")
    picture = np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)
    expected = given_to_network(model, picture[..., ::-1], imgsz=imgsz)
    found, frame = network_input(picture, open_model(model), imgsz)

    assert torch.allclose(found, expected, atol=1e-6)
    assert frame.input == (imgsz, imgsz)


def test_the_frame_of_a_classifier_points_at_the_same_pixel() -> None:
    picture = np.zeros((60, 120, 3), dtype=np.uint8)
    picture[30:36, 54:60] = 255
    found, frame = network_input(picture, open_model(YOLO("yolo11n-cls.yaml")), 64)
    rows, columns = torch.nonzero(found[0] > 0.5, as_tuple=True)
    x1, y1, x2, y2 = frame.to_input(np.array([[54.0, 30, 60, 36]]))[0]

    assert (float(columns.min()), float(rows.min())) == pytest.approx((x1, y1), abs=1)
    assert (float(columns.max()) + 1, float(rows.max()) + 1) == pytest.approx((x2, y2), abs=1)


def test_the_size_is_rounded_up_to_the_stride_and_has_a_least(detector: YOLO) -> None:
    model = open_model(detector)
    assert network_input(COLOR, model, 100)[0].shape == (3, 128, 128)
    with pytest.raises(ArgumentError, match="imgsz=16"):
        network_input(COLOR, model, 16)


@pytest.mark.parametrize(
    ("picture", "channels", "expected"),
    [
        (COLOR, 3, COLOR),
        (GREY, 3, np.stack([GREY] * 3, 2)),
        (GREY[..., None], 3, np.stack([GREY] * 3, 2)),
        (np.dstack([COLOR, GREY]), 3, COLOR),
        (np.dstack([GREY, GREY]), 3, np.stack([GREY] * 3, 2)),
        (GREY.astype(np.uint16) * 256 + 7, 3, np.stack([GREY] * 3, 2)),
        (GREY, 1, GREY[..., None]),
        (np.dstack([COLOR, GREY]), 4, np.dstack([COLOR, GREY])),
        (Image.fromarray(COLOR), 3, COLOR),
        (Image.fromarray(GREY), 3, np.stack([GREY] * 3, 2)),
        (Image.fromarray(np.dstack([COLOR, GREY])), 3, COLOR),
    ],
)
def test_channels_become_those_of_the_model(picture: Any, channels: int, expected: np.ndarray[Any, Any]) -> None:
    ((name, pixels),) = read_images(picture, channels=channels)
    assert name == "image0"
    np.testing.assert_array_equal(pixels, expected)


def test_colour_becomes_grey_by_its_brightness() -> None:
    ((_, pixels),) = read_images(np.full((4, 4, 3), (200, 100, 50), dtype=np.uint8), channels=1)
    assert pixels.shape == (4, 4, 1)
    assert int(pixels[0, 0, 0]) == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_files_are_read_as_predict_reads_them(detector: YOLO, tmp_path: Path, mode: str) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(COLOR).convert(mode).save(file)
    ((name, pixels),) = read_images(file)

    assert (name, pixels.shape) == (str(file), (50, 90, 3))
    expected = given_to_network(detector, str(file))
    assert torch.equal(network_input(pixels, open_model(detector), square=False)[0], expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_files_are_read_in_grey_for_a_model_of_one_channel(tmp_path: Path, mode: str) -> None:
    source = Image.fromarray(COLOR).convert(mode)
    source.save(tmp_path / "a.png")
    ((_, pixels),) = read_images(tmp_path / "a.png", channels=1)
    assert pixels.shape == (50, 90, 1)
    # Both take ITU-R 601's weights; OpenCV and Pillow round differently.
    assert np.abs(pixels[..., 0].astype(int) - np.asarray(source.convert("L"))).max() <= 1


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOR).save(tmp_path / "a.jpg", exif=exif)
    assert next(read_images(tmp_path / "a.jpg"))[1].shape == (90, 50, 3)
    assert next(read_images(Image.open(tmp_path / "a.jpg")))[1].shape == (90, 50, 3)


def test_folders_patterns_and_lists_are_their_files_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.jpg"):
        Image.fromarray(COLOR).save(tmp_path / name)
    (tmp_path / "notes.md").write_text("no picture")

    assert [Path(name).name for name, _ in read_images(tmp_path)] == ["a.png", "b.png", "c.jpg"]
    assert [Path(name).name for name, _ in read_images(str(tmp_path / "*.png"))] == ["a.png", "b.png"]
    mixed = [GREY, tmp_path / "c.jpg", COLOR]
    assert [Path(name).name for name, _ in read_images(mixed)] == ["image0", "c.jpg", "image2"]
    assert len(list_images([tmp_path, COLOR])) == 4


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ([], "images is empty"),
        ("missing.png", r"missing\.png does not exist"),
        (COLOR / 255.0, "image0 is float64.*uint8"),
        (COLOR[None], r"image0 has shape \(1, 50, 90, 3\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 5), dtype=np.uint8), "5 channels and the model takes 3"),
        (torch.zeros(3, 4, 4), "image0 is a Tensor"),
        ([None], "image0 is a NoneType"),
    ],
)
def test_what_is_no_picture_is_named(picture: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        list(read_images(picture))


def test_a_broken_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ArgumentError, match=r"broken\.png is not a readable picture"):
        list(read_images(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match="empty holds no image"):
        list(read_images(tmp_path / "empty"))


def test_a_model_of_four_channels_takes_no_colour_picture() -> None:
    with pytest.raises(ArgumentError, match="3 channels and the model takes 4"):
        list(read_images(COLOR, channels=4))
