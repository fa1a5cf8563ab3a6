"""Exported models: EigenCAM, and one line for everything else."""

from collections.abc import Callable
from pathlib import Path
from shutil import copyfile

import numpy as np
import numpy.typing as npt
import pytest
from ultralytics import YOLO

from mlflow_yolo import explain
from mlflow_yolo.attribution.targets import ClassLogit, ImageLogit
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.explanation.exported import exported_file
from tests.runtime.small_models import SmallModel, make_model

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], SmallModel]:
    made: dict[tuple[str, str], SmallModel] = {}

    def get(version: str, task: str) -> SmallModel:
        if (version, task) not in made:
            made[version, task] = make_model(version, task, tmp_path_factory.mktemp(f"{version}-{task}"))
        return made[version, task]

    return get


def scene(height: int, width: int) -> Pixels:
    """Return a picture of coarse colour noise, so that different places look different."""
    noise = np.random.default_rng(height).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return noise.repeat(8, 0).repeat(8, 1)[:height, :width]


def close(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    assert found.shape == expected.shape
    assert float(expected.max()) > 0
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(expected.max()), rtol=0)


@pytest.mark.parametrize("block", [4, 9, (4, 6, 8)])
@pytest.mark.parametrize(("version", "task"), [("yolo11n", "detect"), ("yolo26n", "segment")])
def test_maps_of_an_export_are_those_of_its_checkpoint(
    version: str, task: str, block: int | tuple[int, ...], models: Callable[[str, str], SmallModel]
) -> None:
    model = models(version, task)
    pictures = [scene(96, 128), scene(72, 96), scene(192, 256)]  # of the input's proportions: no padding for either
    found = explain(model.onnx, pictures, method="eigencam", block=block, batch=2)
    own = [[ClassLogit(0, 0)]] * 3
    expected = explain(model.checkpoint, pictures, target=own, method="eigencam", block=block, imgsz=128)
    assert [one.image for one in found] == ["image0", "image1", "image2"]
    for one, other in zip(found, expected, strict=True):
        close(one.values, other.values)
        assert (one.blocks, one.method, one.unit) == (other.blocks, "eigencam", "relative")
        assert np.isnan(one.score)


def test_padding_is_cut_off_a_map(models: Callable[[str, str], SmallModel]) -> None:
    (tall,) = explain(models("yolo11n", "detect").onnx, scene(96, 48), method="eigencam", block=4)
    assert tall.values.shape == (12, 6)  # of 12 x 16 cells the middle ones, where the picture is


def test_the_default_is_the_stages_of_all_levels_or_a_classifiers_last_fine_block(
    models: Callable[[str, str], SmallModel],
) -> None:
    (found,) = explain(str(models("yolo11n", "detect").onnx), scene(96, 128), method="EigenCAM")
    # 96 x 128 has 3 x 4 cells of stride 32: too few for a map, so the stage of stride 16 stands for that level too.
    assert found.blocks == (4, 6)
    model = models("yolo11n", "classify")
    (found,) = explain(model.onnx, scene(64, 64), method="eigencam")
    own = [[ImageLogit(0)]]
    (expected,) = explain(model.checkpoint, scene(64, 64), target=own, method="eigencam", imgsz=64)
    assert found.blocks == expected.blocks
    close(found.values, expected.values)


def test_a_yolo_object_of_an_export_counts_as_its_file(models: Callable[[str, str], SmallModel]) -> None:
    model = models("yolo11n", "detect")
    wrapped = YOLO(model.onnx, task="detect")
    assert exported_file(wrapped) == model.onnx
    (found,) = explain(wrapped, scene(96, 128), method="eigencam", block=6)
    (expected,) = explain(model.onnx, scene(96, 128), method="eigencam", block=6)
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("method", [None, "layercam", "grad-cam"])
def test_other_methods_are_refused_in_one_line_with_what_is_possible(
    method: str | None, tmp_path: Path, models: Callable[[str, str], SmallModel]
) -> None:
    model = models("yolo11n", "detect")
    copyfile(model.onnx, tmp_path / "best.onnx")
    with pytest.raises(CheckpointError, match=r"no gradients, which method=.*cam needs.*method='eigencam'") as caught:
        explain(tmp_path / "best.onnx", scene(96, 128), method=method)
    assert "\n" not in str(caught.value)
    assert "Use the .pt" in str(caught.value)


def test_what_an_export_cannot_answer_is_named(tmp_path: Path, models: Callable[[str, str], SmallModel]) -> None:
    file = models("yolo11n", "detect").onnx
    picture = scene(96, 128)
    for given in ({"target": "boxes"}, {"classes": 1}, {"objects": [(np.zeros((0, 4)), [])]}):
        with pytest.raises(ArgumentError, match=f"{next(iter(given))} makes no difference"):
            explain(file, picture, method="eigencam", **given)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="block=23 has no map"):
        explain(file, picture, method="eigencam", block=23)
    with pytest.raises(ArgumentError, match="imgsz=64"):
        explain(file, picture, method="eigencam", imgsz=64)
    with pytest.raises(ArgumentError, match="method=smooth"):
        explain(file, picture, method="smooth")
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    for name in ("broken.onnx", "none.onnx"):
        with pytest.raises(CheckpointError, match=name):
            explain(tmp_path / name, picture, method="eigencam")
    (tmp_path / "best.engine").touch()
    with pytest.raises(CheckpointError, match=r"best\.engine is exported: it has no gradients, and no blocks"):
        explain(tmp_path / "best.engine", picture, method="eigencam")
