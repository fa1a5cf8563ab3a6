"""The network that a training begins with is the one that Ultralytics would make inside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_yolo import checkpoints
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.models import checkpoint
from mlflow_yolo.training.starting_weights import starting_weights


@pytest.fixture(scope="module")
def small(small_data: Path) -> Dataset:
    """Return data of two classes, which the shipped checkpoint does not know."""
    return load_dataset(str(small_data), task="detect")


def weights_of(path: Path | str) -> dict[str, torch.Tensor]:
    return dict(checkpoint.load(str(path)).model.float().state_dict())


def by_ultralytics(model: str, data: Path, folder: Path) -> Mapping[str, torch.Tensor]:
    """Return the weights that Ultralytics' own trainer begins with."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    loaded = checkpoint.load(model, task="detect")
    overrides: dict[str, Any] = {"model": model, "data": str(data), "save_dir": str(folder), "device": "cpu"}
    trainer = DetectionTrainer(overrides=overrides)
    weights = loaded.model if model.endswith(".pt") else None
    return dict(trainer.get_model(cfg=loaded.model.yaml, weights=weights, verbose=False).state_dict())


def test_a_model_with_the_classes_of_the_data_is_its_own_file(tmp_path: Path) -> None:
    data = generate("digits", cache_dir=tmp_path / "digits", n_train=4, n_val=2, n_test=2)

    found = starting_weights(str(checkpoints.path()), load_dataset(str(data)), tmp_path / "start.pt", seed=0)

    assert found == checkpoints.path()
    assert not (tmp_path / "start.pt").exists()


def test_a_model_of_other_classes_gets_the_head_that_ultralytics_gives_it(
    small: Dataset, small_data: Path, tmp_path: Path
) -> None:
    found = starting_weights(str(checkpoints.path()), small, tmp_path / "start.pt", seed=0)

    ours, theirs = weights_of(found), by_ultralytics(str(checkpoints.path()), small_data, tmp_path / "trainer")
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    old = weights_of(checkpoints.path())
    taken_over = [name for name, value in old.items() if value.shape == ours[name].shape and value.ndim == 4]
    assert len(taken_over) > 70
    assert all(torch.equal(ours[name], theirs[name].half().float()) for name in taken_over)
    assert list(checkpoint.load(str(found)).model.names.values()) == ["bright", "dark"]


def test_an_untrained_model_becomes_a_checkpoint(
    small: Dataset, small_data: Path, small_model: Path, tmp_path: Path
) -> None:
    found = starting_weights(str(small_model), small, tmp_path / "start.pt", seed=0)

    theirs = by_ultralytics(str(small_model), small_data, tmp_path / "trainer")
    assert {name: value.shape for name, value in weights_of(found).items()} == {
        name: value.shape for name, value in theirs.items()
    }
    checkpoint.scan(found)


def test_the_seed_decides_the_new_weights_and_nothing_else_is_drawn(
    small: Dataset, small_model: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    made = [
        weights_of(starting_weights(str(small_model), small, tmp_path / f"{i}.pt", seed=seed))
        for i, seed in enumerate((0, 0, 1))
    ]

    assert torch.equal(torch.get_rng_state(), before)
    first = "model.0.conv.weight"
    assert torch.equal(made[0][first], made[1][first])
    assert not torch.equal(made[0][first], made[2][first])
