"""Models that detect something without a training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import yaml_model_load

from mlflow_yolo import checkpoints
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.explanation.network import ExplainedModel, open_model
from mlflow_yolo.explanation.split import DetectedSplit, detect_split
from mlflow_yolo.models.checkpoint import read_model
from mlflow_yolo.models.data import localise


@pytest.fixture
def lively(tmp_path: Path) -> Callable[..., YOLO]:
    """Return a function (model yaml, end_to_end=False) that builds a narrow, untrained model of five classes."""

    def make(name: str, *, end_to_end: bool = False) -> YOLO:
        content = yaml_model_load(name) | {"nc": 5, "scales": {"n": [0.33, 0.125, 256]}, "scale": "n"}
        content.pop("yaml_file", None)
        (tmp_path / name).write_text(yaml.safe_dump(content))
        return make_lively(str(tmp_path / name), end_to_end=end_to_end)

    return make


def make_lively(name: str, *, end_to_end: bool = False) -> YOLO:
    """Return an untrained model that detects a fifth of its anchors: as it is built, all are alike."""
    torch.manual_seed(0)
    model = YOLO(name)
    network = model.model.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    head = network.model[-1]
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        for branch, prefix in (("one2many", ""), ("one2one", "one2one_")):
            for wanted in ("spread", "level"):
                raw = network(image)[1]
                scores = raw.get(branch, raw)["scores"]
                for layer in [level[-1] for level in getattr(head, f"{prefix}cv3", [])]:
                    if wanted == "spread":
                        layer.weight *= 1.5 / scores.std()
                        layer.bias.fill_(0.0)
                    else:
                        layer.bias.fill_(-float(scores.amax(1).quantile(0.8)))
        # Masks that are not empty: predict leaves out detections without one.
        for level in [*getattr(head, "cv4", []), *getattr(head, "one2one_cv4", [])] if hasattr(head, "proto") else []:
            level[-1].bias.fill_(1.0)
        if hasattr(head, "proto"):
            head.proto.cv3.bn.bias.fill_(3.0)
    network.end2end = end_to_end
    return model


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data.yaml of a few scenes of digits, 12 of them to explain."""
    folder = tmp_path_factory.mktemp("few-digits")
    return generate("digits", cache_dir=folder, n_train=1, n_val=1, n_test=12)


@pytest.fixture(scope="session")
def digits_model() -> ExplainedModel:
    """Return the shipped detector; nothing changes it."""
    return open_model("digits", device="cpu")


@pytest.fixture(scope="session")
def found(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> DetectedSplit:
    """Return what the shipped detector finds in `few_digits`."""
    return detect(checkpoints.path(), few_digits, tmp_path_factory.mktemp("found"), imgsz=128)


def detect(weights: Path, data: Path, folder: Path, *, imgsz: int, batch: int = 5) -> DetectedSplit:
    """Return what a checkpoint finds in the test split of a data set."""
    dataset = load_dataset(data, task=read_model(str(weights)).task)
    return detect_split(
        str(weights),
        localise(dataset, folder),
        split="test",
        progress=lambda done, total: None,
        imgsz=imgsz,
        batch=batch,
        device="cpu",
        directory=folder / "measured",
    )
