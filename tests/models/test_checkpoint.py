"""Which model a word means, and that a checkpoint naming foreign code is refused before it is opened."""

from pathlib import Path

import pytest
import torch

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.models import checkpoint


def test_the_shipped_checkpoint_is_read_and_scanned() -> None:
    model = checkpoint.read_model("digits")

    assert (model.task, len(model.blocks)) == ("detect", 24)
    assert len(model.sha256) == 64


def test_a_yaml_name_is_built_untrained() -> None:
    model = checkpoint.read_model("yolov8n.yaml")

    assert (model.task, len(model.blocks), model.sha256) == ("detect", 23, "")


@pytest.mark.parametrize("name", ["missing.pt", "missing", "/nowhere/missing.pt"])
def test_a_model_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"model={name}"):
        checkpoint.read_model(name)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"weights": torch.zeros(3)}, file)

    with pytest.raises(CheckpointError, match="cannot be loaded"):
        checkpoint.read_model(str(file))


def test_an_address_of_the_registry_is_said_to_be_no_checkpoint() -> None:
    with pytest.raises(CheckpointError, match=r"models:/cells@champion-cpu is a registered variant.*\.pt checkpoint"):
        checkpoint.read_model("models:/cells@champion-cpu")
