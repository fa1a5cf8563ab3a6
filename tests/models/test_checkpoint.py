"""Which model a word means, and that a checkpoint naming foreign code is refused before it is opened."""

from pathlib import Path

import pytest
import torch

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.models import checkpoint


class _Payload:
    """Unpickling this would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


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


def test_a_checkpoint_that_names_foreign_code_is_refused_and_not_run(tmp_path: Path) -> None:
    file, target = tmp_path / "evil.pt", tmp_path / "ran"
    torch.save({"model": _Payload(target)}, file)

    with pytest.raises(CheckpointError, match=r"would run foreign code.*builtins.getattr.*--trust"):
        checkpoint.read_model(str(file))

    assert not target.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "os.system", "ultralytics.nn.tasks.torch_safe_load", "torch.hub.load"]
)
def test_functions_that_load_or_run_are_not_trusted(name: str) -> None:
    assert not checkpoint._TRUSTED.fullmatch(name)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.pt"
    file.write_text("not a checkpoint")

    with pytest.raises(CheckpointError, match="is not a PyTorch checkpoint"):
        checkpoint.read_model(str(file))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"weights": torch.zeros(3)}, file)

    with pytest.raises(CheckpointError, match="cannot be loaded"):
        checkpoint.read_model(str(file))


def test_a_classifier_that_ultralytics_trained_is_trusted_with_its_preprocessing(tmp_path: Path) -> None:
    from ultralytics.data.augment import classify_transforms

    torch.save({"transforms": classify_transforms(64)}, tmp_path / "classifier.pt")
    checkpoint.scan(tmp_path / "classifier.pt")
