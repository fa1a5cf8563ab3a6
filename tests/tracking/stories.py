"""Two real sessions with `autolog()`, each done once and looked at by many tests."""

import os
import shutil
import sqlite3
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import mlflow_yolo

METHODS = ("train", "val", "export", "tune", "benchmark")


@dataclass
class Story:
    """What happened, and the store it went to.

    Attributes:
        uri: The store.
        client: A client of it.
        ids: Run ids by what they are of.
        seen: Whatever else a test wants to look at.
    """

    uri: str
    folder: Path
    client: MlflowClient
    ids: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str) -> Run:
        return self.client.get_run(self.ids[name])

    def runs(self, experiment: str = "Default") -> list[Run]:
        found = self.client.get_experiment_by_name(experiment)
        assert found is not None
        return list(self.client.search_runs([found.experiment_id]))

    def steps(self, name: str, key: str) -> list[int]:
        return sorted(metric.step for metric in self.client.get_metric_history(self.ids[name], key))

    def artifacts(self, name: str, path: str | None = None) -> set[str]:
        """Return the path of every file of a run."""
        files = set()
        for item in self.client.list_artifacts(self.ids[name], path):
            files |= self.artifacts(name, item.path) if item.is_dir else {item.path}
        return files

    def fetch(self, name: str, path: str) -> Path:
        return Path(self.client.download_artifacts(self.ids[name], path))


def new_story(folder: Path, template: Path, patch: pytest.MonkeyPatch) -> Story:
    """Return a story in a store and working directory of its own."""
    database = folder / "mlflow.db"
    shutil.copyfile(template, database)
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "mlruns" / "0"),))
    connection.close()
    uri = f"sqlite:///{database}"
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.delenv("MLFLOW_RUN_ID", raising=False)
    patch.chdir(folder)
    return Story(uri, folder, MlflowClient(tracking_uri=uri))


def end_story(story: Story) -> None:
    mlflow_yolo.autolog(disable=True)
    story.client._tracking_client.store.engine.dispose()


def tell_own_runs(story: Story, model: Path, arguments: Mapping[str, Any]) -> None:
    """One model made before `autolog()`: trained with everything, validated on test, exported, trained again."""
    from ultralytics import YOLO
    from ultralytics.engine.model import Model

    plain = YOLO(model)
    plain.train(**{**arguments, "save_dir": str(story.folder / "plain")})
    story.seen["plain"] = plain.trainer
    story.seen["class before"] = {name: vars(Model)[name] for name in METHODS}
    network = YOLO(model)
    network.add_callback("on_train_epoch_end", lambda trainer: story.seen.setdefault("user", []).append(trainer.epoch))
    story.seen["callbacks before"] = {event: list(found) for event, found in network.callbacks.items()}
    story.seen["environment before"] = dict(os.environ)
    mlflow_yolo.autolog(registered_model_name="squares", extra_tags={"team": "eyes"}, every_n_steps=2)
    network.train(**{**arguments, "plots": True, "save_dir": str(story.folder / "train")})
    story.seen["trainer"] = network.trainer
    story.ids["train"] = network.trainer.mlflow_run_id
    ours = {"imgsz": 64, "device": "cpu"}
    network.val(data=arguments["data"], split="test", workers=0, conf=0.01, save_dir=str(story.folder / "val"), **ours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates what Ultralytics exports with
        exported = network.export(format="torchscript", project=str(story.folder), name="export", **ours)
    story.seen["exported"] = Path(exported)
    network.predict(str(Path(arguments["data"]).parent / "images" / "val"), verbose=False, **ours)
    network.train(name="again", **{**arguments, "epochs": 1, "save_dir": str(story.folder / "again")})
    story.ids["again"] = network.trainer.mlflow_run_id
    mlflow_yolo.autolog(disable=True)
    story.seen["environment after"] = dict(os.environ)
    story.seen["callbacks after"] = {event: list(found) for event, found in network.callbacks.items()}
    story.seen["class after"] = {name: vars(Model)[name] for name in METHODS}
    story.seen["threads"] = [thread.name for thread in threading.enumerate() if thread.name.startswith("mlflow-yolo")]
    for run in story.runs():
        if kind := run.data.tags.get("mlflow_yolo.kind"):
            story.ids[kind] = run.info.run_id


def tell_active_runs(story: Story, model: Path, arguments: Mapping[str, Any]) -> None:
    """Cross-validation in every way people write it, inside runs of their own, in an experiment they chose."""
    from ultralytics import YOLO

    given = {**arguments, "epochs": 1}
    mlflow_yolo.autolog(log_statistics="off")
    mlflow.set_experiment("folds")

    def train(folder: str, **changed: Any) -> None:
        network = YOLO(model)
        network.train(**{**given, **changed, "save_dir": str(story.folder / folder)})
        story.ids[folder] = network.trainer.mlflow_run_id

    with mlflow.start_run(run_name="outer") as outer:
        story.ids["outer"] = outer.info.run_id
        mlflow.log_param("lr0", "mine")
        for fold in ("first", "second"):
            train(fold)
        network = YOLO(story.folder / "first" / "weights" / "best.pt")
        for conf in (0.1, 0.2):
            network.val(
                data=given["data"], imgsz=64, workers=0, device="cpu", conf=conf, save_dir=str(story.folder / "val")
            )
        story.seen["outer status"] = story.run("outer").info.status
        # A second call replaces the options.
        mlflow_yolo.autolog(
            log_statistics="off", exclusive=True, log_images=False, log_models=False, log_datasets=False
        )
        train("exclusive", plots=True)
        mlflow_yolo.autolog(log_statistics="off")
    with mlflow.start_run(run_name="folds") as parent:
        story.ids["parent"] = parent.info.run_id
        with mlflow.start_run(run_name="fold 1", nested=True) as child:
            story.ids["child"] = child.info.run_id
            train("nested")
    story.seen["active"] = mlflow.active_run()


def story(tell: Any, folder: Path, template: Path, model: Path, arguments: Mapping[str, Any]) -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as patch:
        told = new_story(folder, template, patch)
        try:
            tell(told, model, arguments)
        finally:
            mlflow_yolo.autolog(disable=True)
            _forget_experiment()
    yield told
    end_story(told)


def _forget_experiment() -> None:
    from mlflow.tracking import fluent

    fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
