"""Every task and every version is tracked in the same way, and none of them learns that it was.

One real training of one epoch for each of five tasks and three versions, at 64 pixels (classify: 32) and a sixteenth of
the width; all blocks and heads are those of the real models.
"""

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

import mlflow_yolo
from mlflow_yolo.keys import MAX_METRIC_KEYS
from tests.training.task_data import SUFFIXES, VERSIONS, bars, narrow_model, task_data

slow = pytest.mark.slow

FROZEN = (0, 1)
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "yolov8n": {"log_images": False},
    "yolo11n": {"log_images": False},
    "yolo26n": {"log_statistics": "all"},
}
"""`all` does everything that `default` does, and watches the training's own forward passes besides. Drawing takes two
seconds, as long as such a training: one version a task is enough."""

DETECTION = {f"final/{name}" for name in ("mAP50", "mAP50-95", "precision", "recall", "F1")}
FINAL = {
    "detect": DETECTION,
    "segment": DETECTION | {key.replace("final/", "final/mask/") for key in DETECTION},
    "classify": {"final/top1", "final/top5"},
    "pose": DETECTION | {key.replace("final/", "final/pose/") for key in DETECTION},
    "obb": DETECTION,
}
HEADS = {"detect": "Detect", "segment": "Segment", "classify": "Classify", "pose": "Pose", "obb": "OBB"}


@dataclass(frozen=True)
class Task:
    """A task's data set and the folder of its models and results."""

    name: str
    data: Path
    folder: Path

    def train(self, version: str, folder: str, **tracking: Any) -> Any:
        """Return the trainer of one epoch of this version, tracked if `tracking` says where."""
        from ultralytics import YOLO

        network = YOLO(narrow_model(version, self.name, self.data, self.folder), task=self.name)
        if tracking:
            mlflow_yolo.track(network, **tracking)
        network.train(
            data=str(self.data),
            epochs=1,
            imgsz=32 if self.name == "classify" else 64,
            batch=4,
            nbs=4,
            workers=0,
            device="cpu",
            optimizer="AdamW",
            lr0=0.01,
            warmup_epochs=0.0,
            seed=1,
            freeze=list(FROZEN),
            plots=False,
            verbose=False,
            save_dir=str(self.folder / folder),
        )
        return network.trainer


@dataclass(frozen=True)
class Followed:
    """One tracked training and what arrived of it."""

    task: Task
    version: str
    trainer: Any
    run: Any
    statistics: pd.DataFrame

    def blocks(self, kind: str, statistic: str) -> dict[int, list[float]]:
        """Return the values of one statistic by block index."""
        frame = self.statistics
        rows = frame[(frame["kind"] == kind) & (frame["statistic"] == statistic) & (frame["block"] >= 0)]
        return {int(str(block)): group["value"].tolist() for block, group in rows.groupby("block")}


@pytest.fixture(scope="module", params=list(SUFFIXES))
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp(request.param)
    return Task(request.param, task_data(request.param, folder / "data"), folder)


@pytest.fixture(scope="module", params=VERSIONS)
def followed(request: pytest.FixtureRequest, task: Task, store_template: Path) -> Iterator[Followed]:
    version = request.param
    database = task.folder / f"{version}.db"
    shutil.copyfile(store_template, database)
    uri = f"sqlite:///{database}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("tasks", artifact_location=str(task.folder / f"{version}-artifacts"))
    trainer = task.train(version, version, tracking_uri=uri, experiment="tasks", **OPTIONS[version])
    (run,) = client.search_runs([experiment])
    yield Followed(task, version, trainer, run, mlflow_yolo.load_statistics(run.info.run_id, tracking_uri=uri))
    client._tracking_client.store.engine.dispose()


@pytest.mark.parametrize("task_name", ["pose", "obb"])
def test_generated_labels_lie_on_the_bright_bars(task_name: str, tmp_path: Path) -> None:
    bars(task_name, tmp_path)
    files = sorted((tmp_path / "labels").rglob("*.txt"))

    assert len(files) == 16
    for file in files:
        pixels = np.asarray(Image.open(tmp_path / "images" / file.parent.name / f"{file.stem}.png"))
        numbers = np.array(file.read_text().split()[1:], dtype=float)
        # Pulled in by a fifth towards the middle: an end or a corner lies on the bar's edge.
        points = numbers.reshape(4, 2) if task_name == "obb" else numbers[4:].reshape(2, 3)[:, :2]
        inner = 64 * (points + 0.2 * (points.mean(axis=0) - points))
        assert all(pixels[int(y), int(x)].min() > 200 for x, y in inner)
        assert (pixels[..., 0] > 200).sum() == pytest.approx(24 * 10, rel=0.25)


def trainable_blocks(trainer: Any) -> set[int]:
    """Return the indices of the blocks with a parameter that trains: an independent reading of the names."""
    return {int(name.split(".")[1]) for name, p in trainer.model.named_parameters() if p.requires_grad}


@slow
def test_the_run_is_finished_and_has_the_values_of_its_task(followed: Followed) -> None:
    found, run = followed.run.data.metrics, followed.run

    assert type(followed.trainer.model.model[-1]).__name__.rstrip("26") == HEADS[followed.task.name]
    assert run.info.status == "FINISHED"
    assert {key for key in found if key.startswith("final/") and "/AP50-95/" not in key} == FINAL[followed.task.name]
    assert {f"train/{name}" for name in followed.trainer.loss_names} <= set(found)
    assert all(0.0 <= found[key] <= 1.0 for key in FINAL[followed.task.name])
    assert len(found) <= MAX_METRIC_KEYS
    assert "mlflow_yolo.statistics" not in run.data.tags


@slow
def test_every_block_that_trains_has_gradients_and_updates_at_every_step(followed: Followed) -> None:
    expected = trainable_blocks(followed.trainer)
    n_steps = math.ceil(len(followed.trainer.train_loader.dataset) / 4)

    assert len(expected) > 5
    for kind, statistic in (("gradients", "l2"), ("weights", "update_l2"), ("weights", "update_ratio")):
        found = followed.blocks(kind, statistic)
        assert set(found) == expected
        assert {len(values) for values in found.values()} == {n_steps}
        assert all(math.isfinite(value) for values in found.values() for value in values)
        # A head's mask or class branch may have nothing to learn in a step; a whole block always has.
        assert all(max(values) > 0.0 for values in found.values())


@slow
def test_frozen_blocks_are_reported_as_frozen_and_never_as_zero(followed: Followed) -> None:
    names = [f"{i:02d}-{type(followed.trainer.model.model[i]).__name__}" for i in FROZEN]

    assert followed.run.data.tags["mlflow_yolo.statistics.frozen"] == ", ".join(names)
    assert not set(FROZEN) & set(followed.blocks("gradients", "l2"))
    assert not set(FROZEN) & set(followed.blocks("weights", "update_l2"))
    # Its outputs are measured all the same: a frozen block may well be dead.
    trained = [key for key in followed.run.data.metrics if key.startswith(("stats/gradient", "stats/update"))]
    assert trained
    assert not [key for key in trained if key.endswith(tuple(names))]


@slow
def test_activations_of_every_block_with_an_activation_are_there(followed: Followed) -> None:
    def has_activation(layer: Any) -> bool:
        return any(isinstance(module, torch.nn.SiLU) for module in layer.modules())

    layers = followed.trainer.model.model
    copies = {i for i, layer in enumerate(layers) if type(layer).__name__ in ("Concat", "Upsample")}
    expected = {i for i, layer in enumerate(layers) if has_activation(layer)} - copies

    assert set(followed.blocks("activations", "off_fraction")) == expected
    # A head returns several tensors, so it has pre-activations but no output of its own.
    assert set(followed.blocks("activations", "mean")) == set(range(len(layers) - 1)) - copies


@slow
def test_the_trainer_is_given_back_without_hooks_and_with_its_own_step(followed: Followed) -> None:
    trainer = followed.trainer
    saved = torch.load(trainer.best, weights_only=False)["model"]

    assert "optimizer_step" not in vars(trainer)
    for model in (trainer.model, trainer.ema.ema, saved):
        assert [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks] == []
    for parameter in trainer.model.parameters():
        assert not parameter._backward_hooks
        assert not getattr(parameter, "_post_accumulate_grad_hooks", None)
    assert not trainer.optimizer._optimizer_step_pre_hooks
    assert not trainer.optimizer._optimizer_step_post_hooks


@slow
@pytest.mark.parametrize("followed", VERSIONS[-1:], indirect=True)
def test_weights_are_those_of_the_training_without_this_package(followed: Followed) -> None:
    plain = followed.task.train(followed.version, "plain")

    for one, two in ((plain.model, followed.trainer.model), (plain.ema.ema, followed.trainer.ema.ema)):
        first, second = one.state_dict(), two.state_dict()
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert plain.metrics == followed.trainer.metrics
