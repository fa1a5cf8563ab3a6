from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.pipeline import Pipeline, open_pipeline
from mlflow_yolo.variant import Variant
from tests.runtime.test_description import METADATA, write_onnx

VARIANT = Variant(kind="fp32-onnx", file="m.onnx", task="detect", names=("cat", "dog"), imgsz=(64, 64))


@dataclass
class Counting:
    """A session that finds one cat as far right as the image is bright, and remembers how many images it was given."""

    batch: int | None = None
    runs: list[int] = field(default_factory=list)

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        assert self.batch in (None, len(images))
        self.runs.append(len(images))
        output = np.zeros((len(images), 6, 3), dtype=np.float32)
        output[:, :, 0] = [10, 20, 8, 8, 0.9, 0]
        output[:, 0, 0] = 10 + images.mean(axis=(1, 2, 3)) * 40
        return (output,)


def grey(value: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.mark.parametrize(("batch", "runs"), [(None, [5]), (1, [1] * 5), (2, [2, 2, 2]), (8, [8])])
def test_any_number_of_images_goes_through_a_session_of_any_batch_size(batch: int | None, runs: list[int]) -> None:
    session = Counting(batch)
    found = Pipeline(VARIANT, session)([grey(value) for value in (0, 51, 102, 153, 255)])
    assert session.runs == runs
    # In the middle, 8 wide: 10 + share of white * 40 - 4.
    assert [one.boxes[0, 0] for one in found] == pytest.approx([6, 14, 22, 30, 46], abs=1e-4)


def test_boxes_are_pixels_of_the_original_image() -> None:
    # 128 x 256 fits in 64 x 64 at a quarter, with 16 rows of padding above: y 16..24 becomes 0..32, x 6..14 24..56.
    (found,) = Pipeline(replace(VARIANT, file="a"), Black())([grey(0, 128, 256)])
    assert found.boxes.tolist() == [[24, 0, 56, 32]]
    assert (found.scores.tolist(), found.classes.tolist()) == (pytest.approx([0.9]), [0])


class Black(Counting):
    """As `Counting`, at one place whatever the image."""

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        (output,) = super().run(images)
        output[:, 0, 0] = 10
        return (output,)


def test_boxes_may_reach_out_of_the_image_unless_clipped() -> None:
    pipeline = Pipeline(VARIANT, Black())
    outputs = (np.array([[[2], [2], [8], [8], [0.9], [0]]], dtype=np.float32),)
    _, frames = pipeline.preprocess([grey(0)])
    assert pipeline.postprocess(outputs, frames, clip=False)[0].boxes.tolist() == [[-2, -2, 6, 6]]
    assert pipeline.postprocess(outputs, frames)[0].boxes.tolist() == [[0, 0, 6, 6]]


def test_no_image_and_another_number_of_channels_are_errors() -> None:
    pipeline = Pipeline(VARIANT, Counting())
    with pytest.raises(ArgumentError, match="empty"):
        pipeline([])
    with pytest.raises(ArgumentError, match=r"\(64, 64, 1\).*3 channels"):
        pipeline([grey(0)[..., :1]])


@pytest.mark.parametrize("output", [np.zeros((1, 5, 3)), np.zeros((1, 7, 3)), np.zeros((1, 6))])
def test_an_output_of_another_model_is_an_error(output: np.ndarray) -> None:
    pipeline = Pipeline(VARIANT, Counting())
    _, frames = pipeline.preprocess([grey(0)])
    with pytest.raises(CheckpointError, match=r"m\.onnx"):
        pipeline.postprocess((output.astype(np.float32),), frames)


def test_warming_up_runs_the_model() -> None:
    session = Counting()
    Pipeline(VARIANT, session).warm_up(3)
    assert session.runs == [1, 1, 1]


def test_a_free_size_is_taken_in_multiples_of_the_stride(tmp_path: Path) -> None:
    file = write_onnx(tmp_path / "a.onnx", METADATA, ("n", 3, "h", "w"))
    assert open_pipeline(file).variant.imgsz == (96, 128)
    assert open_pipeline(file, imgsz=64).variant.imgsz == (64, 64)
    assert open_pipeline(file, imgsz=(64, 32)).variant.imgsz == (64, 32)
    for imgsz in (65, 0, -32):
        with pytest.raises(ArgumentError, match=f"imgsz={imgsz}x{imgsz}.*32"):
            open_pipeline(file, imgsz=imgsz)


def test_a_fixed_size_takes_no_other(tmp_path: Path) -> None:
    file = write_onnx(tmp_path / "a.onnx", METADATA)
    assert open_pipeline(file, imgsz=(96, 128), threads=1).variant.imgsz == (96, 128)
    with pytest.raises(ArgumentError, match=r"64x64.*96x128"):
        open_pipeline(file, imgsz=64)
