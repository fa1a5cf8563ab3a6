"""What a trial does to its model before training, and what the model then costs: pruning, latency, size."""

import json
import shutil
from pathlib import Path

from mlflow_yolo.compression.batches import training_batches
from mlflow_yolo.compression.export import export_onnx
from mlflow_yolo.compression.pruning.record import PruningRecord
from mlflow_yolo.compression.pruning.settings import PruningSettings
from mlflow_yolo.compression.pruning.size import count_parameters
from mlflow_yolo.compression.pruning.structured import prune
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.models import checkpoint as models
from mlflow_yolo.runtime.benchmark import Candidate, run_benchmark
from mlflow_yolo.studies.alone import Machine
from mlflow_yolo.studies.tuning.objective import COSTS
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.training.plan import Plan

N_BATCHES = 8
"""Training batches for the gradients that channels are judged by, and for recounting batch norms."""

ROUND_TO = 8
"""Widths become multiples of it, as with the command `prune`."""

ROUNDS = 3
"""Processes that the timed runs are shared between."""


def prune_start(start: Path, plan: Plan, dataset: Dataset, ratio: float, directory: Path, *, run: TrackedRun) -> Path:
    """Return the pruned checkpoint of the one that a training begins with, as the command `prune` makes it.

    Args:
        start: A checkpoint with the classes of the data. What has been trained on them is judged by the loss; a new
            head says nothing about the layers below it, so there the size of the weights decides.
        plan: The training to come.
        dataset: Its data.
        ratio: Share of the channels of every layer that goes, above 0 and below 1.
        directory: Where `pruned.pt` and its record are written.
        run: Gets the record.

    Raises:
        InputError: The ratio leaves a layer without channels, or pruning does not know the model.
    """
    knows_the_classes = str(start) == plan.model
    batches = training_batches(start, dataset, imgsz=plan.imgsz, n=N_BATCHES, seed=plan.seed)
    record = prune(
        start,
        directory / "pruned.pt",
        PruningSettings(ratio, importance="taylor" if knows_the_classes else "l2", round_to=ROUND_TO, seed=plan.seed),
        imgsz=plan.imgsz,
        batches=lambda: batches,
        trust=True,  # it was scanned, or trusted, when the study was asked for
    )
    _log(record, directory, run)
    return directory / "pruned.pt"


def measure_costs(
    start: Path, plan: Plan, dataset: Dataset, directory: Path, *, runs: int, run: TrackedRun, machine: Machine
) -> dict[str, float]:
    """Return latency and size of a checkpoint as it is deployed (ONNX, float32, one image, one thread), and log them.

    Training changes the weights and not the layers, so this is known before it. Nothing else that a study of this
    machine does runs meanwhile.

    Args:
        start: The checkpoint that is to be trained.
        plan: The training to come; its image size counts.
        dataset: Its data; images of val are run.
        directory: Where the model is exported to for that long.
        runs: Timed inferences.
        run: Gets the values, and the machine as tags.
        machine: This process' place among the others.

    Raises:
        InputError: The model cannot be exported.
        WorkError: It cannot be run.
    """
    directory.mkdir(parents=True)
    export_onnx(start, directory, imgsz=plan.imgsz, trust=True)
    images = dataset.splits["val"].images
    with machine.alone():
        (cost,) = run_benchmark([Candidate("trial", directory)], images, runs=runs, rounds=ROUNDS, batches=(1,))
    shutil.rmtree(directory)
    if cost.error:
        raise WorkError(f"the exported model could not be timed: {cost.error}")
    values = {name: cost.metrics()[name] for name in COSTS} | {"parameters_m": parameters_m(start)}
    run.log_metrics(values)
    run.set_tags(cost.tags())
    return values


def parameters_m(checkpoint: Path) -> float:
    """Return the number of parameters of a checkpoint, in millions."""
    return count_parameters(models.load(str(checkpoint)).model) / 1e6


def _log(record: PruningRecord, directory: Path, run: TrackedRun) -> None:
    note = directory / "pruning.json"
    note.write_text(json.dumps(record.to_json(), indent=1))
    run.log_file(note, "pruning")
    run.log_metrics(
        {
            "prune/ratio_reached": record.ratio_reached,
            "prune/parameters_before": record.parameters_before,
            "prune/parameters_after": record.parameters_after,
            "prune/gmacs_before": record.macs_before / 1e9,
            "prune/gmacs_after": record.macs_after / 1e9,
        }
    )
