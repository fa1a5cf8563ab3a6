"""One tracked training from the command line, in this process, with Ultralytics' own output on the terminal."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.blocks import parse_freeze
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.models.arguments import (
    check_arguments,
    check_device,
    check_every_n_steps,
    check_imgsz,
    check_optimizer,
    check_positive,
)
from mlflow_yolo.models.checkpoint import read_model
from mlflow_yolo.models.data import default_imgsz, new_directory
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.events.tracked_training import keep_active
from mlflow_yolo.tracking.maps.schedule import check_interval
from mlflow_yolo.tracking.run import open_run
from mlflow_yolo.tracking.stores.addresses import without_password
from mlflow_yolo.tracking.stores.store import check_store, ensure_store
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.training.job import JOB, RESULT, read_json, run_job, write_json
from mlflow_yolo.training.plan import Plan
from mlflow_yolo.training.resuming import Interrupted, find_interrupted
from mlflow_yolo.training.strategies import check_lr_decay, check_second_stage, schedule_params, stages_of


def run_training(
    *,
    data: str,
    model: str,
    freeze: str,
    seed: int,
    epochs: int,
    imgsz: int | None,
    batch: int,
    device: str,
    optimizer: str,
    lr0: float,
    warmup_epochs: float,
    statistics: str,
    trust: bool,
    arguments: Mapping[str, Any],
    tracking: Target,
    output: Path,
    every_n_steps: int | None = None,
    maps: int | str | None = None,
    resume: str | None = None,
    strategy: str = "single",
    epochs1: int | None = None,
    epochs2: int | None = None,
    lr02: float | None = None,
    warmup_epochs2: float = 0.0,
    unfreeze_every: int | None = None,
    lr_decay: float = 1.0,
) -> str:
    """Train once and return the lines to print; see `studies.freeze.question.FreezeQuestion` for most of the arguments.

    Args:
        resume: The directory, or the `last.pt`, of a training that was interrupted. It goes on as it was started, in
            its own run; of the other arguments only `trust` counts.
        every_n_steps: Optimizer steps between two samples of the block statistics.
        maps: Epochs between two sets of maps, `off`, or None for what 3 % of the time allow.
        strategy: How frozen blocks come to train; the arguments after it are those of `strategies.stages_of`.
        lr_decay: Factor of the learning rate from each block to the one before it; 1 is the same rate everywhere.

    Raises:
        InputError: Something in the input cannot work; nothing has been trained.
        WorkError: The training failed; its run says why.
    """
    if resume is not None:
        return _resume(find_interrupted(resume, trust=trust), tracking)
    check_positive(epochs=epochs, epochs1=epochs1, epochs2=epochs2, batch=batch)
    check_every_n_steps(every_n_steps)
    check_arguments({"lr0": lr0, "warmup_epochs": warmup_epochs, "seed": seed})
    check_second_stage(lr02=lr02, warmup_epochs2=warmup_epochs2)
    found = read_model(model, trust=trust)
    frozen = parse_freeze(freeze, found.blocks)
    if len(frozen) > 2:
        raise ArgumentError(f"freeze={freeze} names several configurations. Use one, or the command freeze-ablation.")
    if strategy == "gradual" and not frozen[-1].blocks:
        raise ArgumentError(
            f"strategy=gradual has nothing to unfreeze with freeze={freeze}. Use for example freeze=10."
        )
    plan = Plan(
        model=found.source,
        data=data,
        task=found.task,
        stages=stages_of(
            strategy,
            epochs=epochs,
            freeze=frozen[-1].blocks,
            lr0=lr0,
            warmup_epochs=warmup_epochs,
            epochs1=epochs1,
            epochs2=epochs2,
            lr02=lr02,
            warmup_epochs2=warmup_epochs2,
            unfreeze_every=unfreeze_every,
        ),
        seed=seed,
        imgsz=default_imgsz(data) if imgsz is None else check_imgsz(imgsz),
        batch=batch,
        device=check_device(device),
        optimizer=check_optimizer(optimizer),
        statistics=statistics,
        every_n_steps=every_n_steps,
        maps=check_interval(maps),
        arguments=check_arguments(arguments),
        lr_decay=check_lr_decay(lr_decay),
    )
    load_dataset(data, task=found.task)
    directory = new_directory(output, "train")
    if not ensure_store(tracking.tracking_uri).reachable:
        print(f"note: {check_store(tracking.tracking_uri, journal_directory=directory).message}", file=sys.stderr)
    # A name of our own: MLflow would draw one from Python's global random numbers, which augmentation uses as well.
    name = tracking.run_name or (None if tracking.run_id else directory.name)
    job = {
        "plan": plan.to_json(),
        "params": {"freeze": frozen[-1].param, "seed": seed, "lr0": lr0, **schedule_params(strategy, plan)},
        "shared": str(directory),
        "keep_active": keep_active(),
        "log_models": True,
        "run": {**tracking.place, "run_id": tracking.run_id, "name": name},
    }
    write_json(directory / JOB, {**job, "run": {"tracking_uri": without_password(tracking.tracking_uri)}})
    return _run(job, directory)


def _resume(interrupted: Interrupted, tracking: Target) -> str:
    """Let an interrupted training go on in its own run."""
    directory = interrupted.directory
    known = read_run_file(directory)
    if known is None:
        raise ArgumentError(f"{directory} has no run.json: nothing says which run to continue. Start a new training.")
    if tracking.run_id and known.run_id and tracking.run_id != known.run_id:
        # `mlflow run` has opened a run for this command: it only points to the one that goes on.
        pointer = open_run(directory / "pointers" / tracking.run_id, **tracking.place, run_id=tracking.run_id)
        pointer.set_tags({keys.TAG_CONTINUES: known.run_id})
        pointer.close()
    place = {"tracking_uri": known.tracking_uri, "experiment": known.experiment, "experiment_id": known.experiment_id}
    run = {**place, "uid": known.uid, "name": directory.name}
    return _run({**interrupted.job, "run": run, "resume": True, "keep_active": keep_active()}, directory)


def _run(job: Mapping[str, Any], directory: Path) -> str:
    code = run_job(job, directory=directory, report=_say_note)
    if code == 130:
        raise KeyboardInterrupt
    result = read_json(directory / RESULT)
    if code:
        raise WorkError(f"the training failed: {result['error']}")
    return _summary(result, directory)


def _say_note(values: Mapping[str, Any]) -> None:
    if "note" in values:
        print(f"note: {values['note']}", file=sys.stderr)


def _summary(result: Mapping[str, Any], directory: Path) -> str:
    """Return what the terminal shows: the headline value of every split, and where everything lies."""
    lines = []
    for split, measured in result["measured"].items():
        shown = ("top1", "top5") if "top1" in measured["values"] else ("mAP50-95", "mAP50", "precision", "recall")
        values = ", ".join(f"{name} {measured['values'][name]:.3f}" for name in shown)
        lines.append(f"{split}: {values} ({measured['n_images']} images)")
    return "\n".join([*lines, f"files: {directory}"])
