"""Ultralytics' label caches are there before the trainings start, and are the ones it would write itself."""

import shutil
from pathlib import Path

import pytest
import yaml

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.models.data import localise
from mlflow_yolo.training.data_cache import warm_label_caches


@pytest.fixture
def dataset(small_data: Path, tmp_path: Path) -> Dataset:
    copy = tmp_path / "data"
    shutil.copytree(small_data.parent, copy, ignore=shutil.ignore_patterns("*.cache"))
    content = yaml.safe_load((copy / "data.yaml").read_text()) | {"path": str(copy)}
    (copy / "data.yaml").write_text(yaml.safe_dump(content))
    return localise(load_dataset(copy / "data.yaml"), tmp_path / "out")


def test_every_split_has_a_cache_that_ultralytics_takes_as_its_own(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    warm_label_caches(dataset)

    caches = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.cache")}
    assert {path.stem for path in caches} == {"train", "val", "test"}
    assert LOGGER.level == level
    assert capsys.readouterr().out == ""
    found = check_det_dataset(str(dataset.yaml))
    assert len(YOLODataset(img_path=found["val"], data=found, task="detect").labels) == 4
    assert {path: path.stat().st_mtime_ns for path in caches} == caches


def test_a_classification_folder_is_scanned_too(tmp_path: Path) -> None:
    root = generate("digits-cls", cache_dir=tmp_path / "cache", imgsz=32, n_train=4, n_val=2, n_test=2)
    warm_label_caches(load_dataset(root))

    assert {path.stem for path in root.rglob("*.cache")} >= {"train", "val"}


def test_data_that_are_gone_are_an_error_and_the_messages_come_back(dataset: Dataset, tmp_path: Path) -> None:
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    shutil.rmtree(tmp_path / "data" / "images" / "val")

    with pytest.raises(FileNotFoundError):
        warm_label_caches(dataset)
    assert LOGGER.level == level
