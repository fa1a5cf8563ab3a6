"""Jobs of the small model, and a way to look at the store they went to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from ultralytics import YOLO

from mlflow_yolo.training.plan import Plan, Stage
from tests.training.rate_trainers import train_small


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    """A client of the fresh store, for looking at what arrived."""
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


@pytest.fixture
def small_plan(small_data: Path, small_model: Path) -> Plan:
    """Return a training of the small model of one epoch that takes about a second."""
    return Plan(
        model=str(small_model),
        data=str(small_data),
        task="detect",
        stages=(Stage(1, (0, 1), 0.01, 0.0),),
        seed=1,
        imgsz=64,
        batch=4,
        device="cpu",
        optimizer="AdamW",
        arguments={"workers": 0, "nbs": 4, "plots": False},
    )


@pytest.fixture(scope="session")
def start(small_model: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small model as a checkpoint; the small data have been read once, which draws random numbers."""
    folder = tmp_path_factory.mktemp("start")
    train_small(small_model, small_data, folder / "read", None, epochs=1)
    torch.manual_seed(0)
    YOLO(str(small_model), verbose=False).save(folder / "start.pt")
    return folder / "start.pt"


@pytest.fixture
def job_of(store: str, tmp_path: Path) -> Callable[[Plan], dict[str, Any]]:
    """Return a function that makes the job of a plan, tracked in the test's own store."""

    def make(plan: Plan, **run: Any) -> dict[str, Any]:
        return {
            "plan": plan.to_json(),
            "params": {"freeze": 2, "seed": plan.seed},
            "shared": str(tmp_path / "shared"),
            "run": {"tracking_uri": store, "experiment": "Default", "name": "child", **run},
        }

    return make
