"""Small networks of every family and task with batch norms that are not at their start, and their checkpoints."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, SegmentationModel, yaml_model_load

NETWORKS = tuple(f"yolo{version}n{task}" for version in ("v8", "11", "26") for task in ("", "-seg", "-cls"))
N_CLASSES = 3


@cache
def _built(name: str) -> nn.Module:
    yaml = yaml_model_load(f"{name}.yaml")
    yaml["scales"] = {"n": [0.33, 0.125, 1024]}  # half as wide as the published n
    kind = {"seg": SegmentationModel, "cls": ClassificationModel}.get(name.partition("-")[2], DetectionModel)
    torch.manual_seed(0)
    network = kind(yaml, ch=3, nc=N_CLASSES, verbose=False)
    network.args = vars(get_cfg())
    network.names = {i: f"class{i}" for i in range(N_CLASSES)}
    network.task = {"seg": "segment", "cls": "classify"}.get(name.partition("-")[2], "detect")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
            nn.init.normal_(module.running_mean, 0.0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="session")
def network_of() -> Callable[[str], Any]:
    """Return a function from a name like `yolo11n-seg` to a fresh network in evaluation mode."""
    return lambda name: deepcopy(_built(name))


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[[Any, Path], Path]:
    """Return a function that writes a network as training does, and returns the file."""

    def write(network: Any, path: Path) -> Path:
        network = deepcopy(network)
        network.args = {**network.args, "imgsz": 64, "data": "data.yaml", "box": 7.0}
        content = {"model": network.half(), "ema": None, "epoch": -1, "optimizer": None, "train_args": network.args}
        torch.save(content, path)
        return path

    return write


@pytest.fixture
def images() -> torch.Tensor:
    """Two images of noise, 64 x 64."""
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def batches(images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Two training batches of noise with an object in each image, for every task."""
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.4, 0.6, 0.3, 0.4]])
    one = {
        "img": images,
        "cls": torch.tensor([[0.0], [2.0]]),
        "bboxes": boxes,
        "batch_idx": torch.tensor([0.0, 1.0]),
        "masks": torch.ones(2, 16, 16),
        "sem_masks": torch.zeros(2, 16, 16, dtype=torch.long),
    }
    return [one, {**one, "img": images.flip(0)}]
