"""Jobs of the small model, and a way to look at the store they went to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_yolo.training.plan import Plan, Stage


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
