"""One tracked training: train, then measure what came out, each number once and each with the split it is of."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo.blocks import read_blocks
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.models import checkpoint
from mlflow_yolo.models.data import localise
from mlflow_yolo.tracking.events.callbacks import TrainingCallbacks, attach
from mlflow_yolo.tracking.events.command_run import log_dataset
from mlflow_yolo.tracking.events.earlier import EarlierAttempts
from mlflow_yolo.tracking.events.final_values import FinalValues
from mlflow_yolo.tracking.events.model_files import log_model
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.training import results
from mlflow_yolo.training.block_table import block_table
from mlflow_yolo.training.measurement import measure
from mlflow_yolo.training.plan import Plan, Stage, default_arguments
from mlflow_yolo.training.subset import train_subset
from mlflow_yolo.training.trainers import trainer_of

if TYPE_CHECKING:
    from ultralytics import YOLO

Report = Callable[[dict[str, Any]], None]
AfterBatch = Callable[[], None]


def train(
    plan: Plan,
    *,
    run: TrackedRun,
    directory: Path,
    shared: Path,
    report: Report,
    earlier: EarlierAttempts | None = None,
    log_models: bool = False,
    after_batch: AfterBatch | None = None,
) -> dict[str, Any]:
    """Train a plan, log everything into `run` and return what a study needs to compare it, as JSON-able data.

    Args:
        plan: What to train.
        run: An open run; it is not closed.
        directory: Where this training writes: Ultralytics' files, statistics, predictions.
        shared: Where files that several trainings use are kept (the fixed training subset).
        report: Called after every epoch with `epoch`, `epochs` and the headline metric.
        earlier: What was logged before an interruption; given, the training goes on from its last checkpoint.
        log_models: Whether the best checkpoint is also logged as a model that can be registered.
        after_batch: Called after every batch of the training and of its validations. It may wait, and what it raises
            ends the training.
    """
    dataset = load_dataset(plan.data, task=plan.task)
    log_dataset(run, dataset, context="training")
    dataset = localise(dataset, directory)
    callbacks = _train_stages(
        plan, dataset, run=run, directory=directory, report=report, earlier=earlier, after_batch=after_batch
    )
    weights = callbacks.save_dir / "weights" / "best.pt"

    def measured_on(data: Dataset, split: str) -> results.Measurement:
        return measure(
            weights,
            data,
            split=split,
            imgsz=plan.imgsz,
            batch=plan.batch,
            device=plan.device,
            directory=directory / "measured",
            arguments=plan.arguments,
        )

    measured = {split: measured_on(dataset, split) for split in ("val", "test") if split in dataset.splits}
    # Where the trainer's own last evaluation could not be read (the run is tagged with the reason), this is the same
    # checkpoint on the same split, measured again.
    final = callbacks.final or measured["val"].final
    if callbacks.final is None:
        results.log_final(run, final)
    seen = measured_on(train_subset(dataset, shared), "val")
    network = checkpoint.load(str(weights)).model
    result = {
        "task": dataset.task,
        "names": list(dataset.names),
        "final": dict(final.values) | measured["val"].by_size,
        "overfit_gap": seen.final.headline[1] - measured["val"].final.headline[1],
        **_speed_of_learning(callbacks, final),
        **callbacks.summary(),
        "curves": callbacks.curves(),
        **results.keep_measurements(measured, directory, n_classes=len(dataset.names)),
    }
    results.log_results(run, result)
    results.log_tables(run, block_table(network, read_blocks(network.yaml), imgsz=plan.imgsz), measured)
    results.log_files(run, callbacks.save_dir)
    if log_models:
        log_model(run, weights, task=plan.task, names=dict(enumerate(dataset.names)), imgsz=plan.imgsz)
    return result


def _train_stages(
    plan: Plan,
    dataset: Dataset,
    *,
    run: TrackedRun,
    directory: Path,
    report: Report,
    earlier: EarlierAttempts | None,
    after_batch: AfterBatch | None,
) -> TrainingCallbacks:
    """Train every stage from the best weights of the one before; return the callbacks of the last.

    Only a plan of one stage can go on after an interruption: nothing says which stage was interrupted.
    """
    assert earlier is None or len(plan.stages) == 1
    from ultralytics.utils import DEFAULT_CFG_DICT

    source, done, previous = plan.model, 0, None
    for number, stage in enumerate(plan.stages, start=1):
        last = number == len(plan.stages)
        callbacks = TrainingCallbacks(
            run,
            statistics=plan.statistics,
            every_n_steps=plan.every_n_steps,
            maps=plan.maps,
            epoch_offset=done,
            n_epochs=plan.epochs,
            is_final=last,
            report=report,
            defaults=DEFAULT_CFG_DICT,
            continues=previous,
            earlier=earlier,
        )
        save_dir = directory / "train" if last else directory / f"stage{number}"
        if earlier is None:
            network = _watched(source, callbacks, after_batch, task=dataset.task)
            _train_stage(network, plan, stage, dataset, save_dir=save_dir)
        else:
            network = _watched(str(save_dir / "weights" / "last.pt"), callbacks, after_batch)
            # Everything but the device is as the checkpoint says.
            network.train(trainer=trainer_of(network, plan, stage), resume=True, device=plan.device)
        source, done, previous = str(save_dir / "weights" / "best.pt"), done + stage.epochs, callbacks
    return callbacks


def _watched(
    source: str, callbacks: TrainingCallbacks, after_batch: AfterBatch | None, *, task: str | None = None
) -> "YOLO":
    """Return a model that is ready to be trained, with everything that follows its training."""
    network = checkpoint.load(source, task=task)
    attach(network, callbacks)
    if after_batch is not None:
        for event in ("on_train_batch_end", "on_val_batch_end"):
            network.add_callback(event, lambda _: after_batch())
    return network


def _train_stage(network: "YOLO", plan: Plan, stage: Stage, dataset: Dataset, *, save_dir: Path) -> None:
    network.train(
        trainer=trainer_of(network, plan, stage),
        data=str(dataset.yaml),
        epochs=stage.epochs,
        freeze=list(stage.freeze),
        lr0=stage.lr0,
        warmup_epochs=stage.warmup_epochs,
        optimizer=plan.optimizer,
        seed=plan.seed,
        imgsz=plan.imgsz,
        batch=plan.batch,
        device=plan.device,
        save_dir=str(save_dir),
        exist_ok=True,
        **default_arguments(dataset) | dict(plan.arguments),
    )


def _speed_of_learning(callbacks: TrainingCallbacks, final: FinalValues) -> dict[str, float]:
    """Return the first epoch (1-based) that reached 90 % of the final value, and when it ended, in seconds."""
    value = final.headline[1]
    if value <= 0:
        return {}
    for epoch, (score, seconds) in enumerate(callbacks.headline_curve(), start=1):
        if score >= 0.9 * value:
            return {"epochs_to_90": epoch, "time_to_90_s": seconds}
    return {}
