"""A data.yaml that means the same from every working directory."""

import shutil
from pathlib import Path

import pytest
import yaml

from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.models.data import localise


def test_a_relative_path_becomes_absolute_and_the_users_file_stays(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.data.utils import check_det_dataset

    copy = tmp_path / "data"
    shutil.copytree(small_data.parent, copy)
    content = yaml.safe_load((copy / "data.yaml").read_text()) | {"path": "."}
    (copy / "data.yaml").write_text(yaml.safe_dump(content))
    before = (copy / "data.yaml").read_bytes()
    monkeypatch.chdir(copy)
    dataset = localise(load_dataset("data.yaml"), tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert dataset.yaml == tmp_path / "out" / "data.yaml"
    assert Path(check_det_dataset(str(dataset.yaml))["val"]) == copy / "images" / "val"
    assert (copy / "data.yaml").read_bytes() == before


def test_what_is_known_of_the_data_stays(small_data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(small_data)
    found = localise(dataset, tmp_path)

    assert (found.fingerprint, found.names, found.root, found.splits) == (
        dataset.fingerprint,
        dataset.names,
        dataset.root,
        dataset.splits,
    )
