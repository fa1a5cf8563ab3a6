"""Small YOLO models with weights that mean nothing but make every logit depend on every pixel in reach."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Build = Callable[..., nn.Module]


@cache
def _built(name: str, channels: int) -> nn.Module:
    from ultralytics.nn import tasks

    kinds = {"-seg": "SegmentationModel", "-pose": "PoseModel", "-obb": "OBBModel", "-cls": "ClassificationModel"}
    kind = next((kind for ending, kind in kinds.items() if name.endswith(ending)), "DetectionModel")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        content = tasks.yaml_model_load(f"{name}.yaml") | {"scales": {"n": [0.33, 0.0625, 256]}, "scale": "n"}
        network = getattr(tasks, kind)(content, ch=channels, nc=3, verbose=False)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
            norm.momentum = 1.0  # one batch sets the running statistics, so no layer dies out
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.normal_(module.bias, std=0.5)
        network.train()
        with torch.no_grad():
            network(torch.rand(4, channels, 64, 64))
    for norm in norms:
        norm.momentum = 0.03
    return network.eval()


@pytest.fixture(scope="session")
def build() -> Build:
    """Return a function (name, channels=3, fused=False, end_to_end=None) that gives a model of its own."""

    def make(name: str, *, channels: int = 3, fused: bool = False, end_to_end: bool | None = None) -> nn.Module:
        network: Any = copy.deepcopy(_built(name, channels))
        if end_to_end is not None:
            network.model[-1].end2end = end_to_end
        return network.fuse(verbose=False) if fused else network

    return make


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Tensor]:
    """Return a function (n, channels=3, size=64) that gives random network inputs, the same ones every time."""

    def make(n: int, *, channels: int = 3, size: int = 64) -> Tensor:
        return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(n))

    return make
