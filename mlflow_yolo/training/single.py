"""One tracked training from the command line, in this process, with Ultralytics' own output on the terminal."""

import itertools
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_yolo.blocks import parse_freeze
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.tracking.store import check_store, ensure_store
from mlflow_yolo.tracking.target import Target
from mlflow_yolo.training.arguments import check_arguments, check_device, check_imgsz, check_optimizer, check_positive
from mlflow_yolo.training.checkpoint import read_model
from mlflow_yolo.training.job import RESULT, read_json, run_job
from mlflow_yolo.training.plan import Plan, Stage, default_imgsz


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
) -> str:
    """Train once and return the lines to print; see `studies.question.FreezeQuestion` for the arguments.

    Raises:
        InputError: Something in the input cannot work; nothing has been trained.
        WorkError: The training failed; its run says why.
    """
    check_positive(epochs=epochs, batch=batch)
    check_arguments({"lr0": lr0, "warmup_epochs": warmup_epochs, "seed": seed})
    found = read_model(model, trust=trust)
    frozen = parse_freeze(freeze, found.blocks)
    if len(frozen) > 2:
        raise ArgumentError(f"freeze={freeze} names several configurations. Use one, or the command freeze-ablation.")
    plan = Plan(
        model=found.source,
        data=data,
        task=found.task,
        stages=(Stage(epochs, frozen[-1].blocks, lr0, warmup_epochs),),
        seed=seed,
        imgsz=default_imgsz(data) if imgsz is None else check_imgsz(imgsz),
        batch=batch,
        device=check_device(device),
        optimizer=check_optimizer(optimizer),
        statistics=statistics,
        arguments=check_arguments(arguments),
    )
    load_dataset(data, task=found.task)
    directory = _new_directory(output)
    if not ensure_store(tracking.tracking_uri).reachable:
        print(f"note: {check_store(tracking.tracking_uri, journal_directory=directory).message}", file=sys.stderr)
    job = {
        "plan": plan.to_json(),
        "params": {"freeze": frozen[-1].param, "seed": seed, "lr0": lr0},
        "shared": str(directory),
        "keep_active": os.environ.get("MLFLOW_KEEP_RUN_ACTIVE", "").lower() in ("1", "true"),
        "run": {**tracking.place, "run_id": tracking.run_id, "name": tracking.run_name},
    }
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


def _new_directory(output: Path) -> Path:
    first = output.expanduser().resolve() / time.strftime("train-%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        directory = first if number == 1 else first.with_name(f"{first.name}-{number}")
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            continue  # another training that started in the same second
        except OSError as error:
            raise ArgumentError(
                f"output={output} cannot be written: {error.strerror or error}. Choose another folder with --output."
            ) from error
    raise AssertionError("counting does not end")


def _summary(result: Mapping[str, Any], directory: Path) -> str:
    """Return what the terminal shows: the headline value of every split, and where everything lies."""
    lines = []
    for split, measured in result["measured"].items():
        shown = ("top1", "top5") if "top1" in measured["values"] else ("mAP50-95", "mAP50", "precision", "recall")
        values = ", ".join(f"{name} {measured['values'][name]:.3f}" for name in shown)
        lines.append(f"{split}: {values} ({measured['n_images']} images)")
    return "\n".join([*lines, f"files: {directory}"])
