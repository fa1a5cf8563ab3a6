"""The command lines that do a trial's training again: every value that decides it, the seed included."""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlflow_yolo import checkpoints
from mlflow_yolo.studies.study import default_name
from mlflow_yolo.studies.tuning.costs import ROUND_TO
from mlflow_yolo.studies.tuning.trial_plan import TrialPlan
from mlflow_yolo.training.plan import Plan
from mlflow_yolo.training.strategies import options_of

_FEW = {"runs": 10, "rounds": 1}
"""How often the pruned model is timed here; the trial's own figures are in its run."""


def repeat_commands(
    trial: TrialPlan, *, directory: Path | None = None, threads: int | None = None, trust: bool = False
) -> list[str]:
    """Return what to type for the trainings of a trial: `mlflow-yolo train …`, one line a seed, and `prune` before.

    Args:
        trial: What it did.
        directory: Its folder. A model whose head was new to the data was pruned with the weights that training began
            with, which no command makes alone: then the line names the pruned file in that folder.
        threads: Threads of its worker; sums on a CPU depend on them in the last digit.
        trust: Whether its model names foreign classes.

    Returns:
        Lines for a POSIX shell.
    """
    lines, model = [], _model(trial.plan)
    if trial.prune:
        if directory is not None and (directory / "start.pt").exists():
            model = str(directory / "pruned" / "pruned.pt")
        else:
            folder = str(Path("runs") / default_name("pruned", trial.to_json()))
            lines.append(_line("prune", _pruning(trial, model, folder), threads=threads, trust=trust))
            model = str(Path(folder) / "pruned.pt")
    for seed in trial.all_seeds:
        lines.append(_line("train", _training(trial.plan, model, seed), threads=threads, trust=trust))
    return lines


def _pruning(trial: TrialPlan, model: str, folder: str) -> Iterable[tuple[str, Any]]:
    """Yield the options with which `prune` makes the checkpoint that the trial was trained from."""
    plan = trial.plan
    yield from (("data", plan.data), ("model", model), ("imgsz", plan.imgsz), ("ratio", trial.prune))
    yield from (("importance", "taylor"), ("round_to", ROUND_TO), ("seed", plan.seed), ("device", plan.device))
    yield from (("epochs", 0), ("control", False), *_FEW.items(), ("output", folder))


def _training(plan: Plan, model: str, seed: int) -> Iterable[tuple[str, Any]]:
    """Yield the options of `train`; of what decides no weight only what is not the default."""
    first = plan.stages[0]
    yield from (("data", plan.data), ("model", model), ("epochs", plan.epochs), ("imgsz", plan.imgsz))
    yield from (("batch", plan.batch), ("device", plan.device), ("seed", seed), ("freeze", _freeze(first.freeze)))
    yield from (("optimizer", plan.optimizer), ("lr0", first.lr0), ("warmup_epochs", first.warmup_epochs))
    if (options := options_of(plan.stages)) != {"strategy": "single"}:
        yield from options.items()
    if plan.lr_decay != 1:
        yield "lr_decay", plan.lr_decay
    if plan.statistics != "default":
        yield "statistics", plan.statistics
    if plan.every_n_steps is not None:
        yield "every_n_steps", plan.every_n_steps
    if plan.maps is not None:
        yield "maps", plan.maps or "off"
    yield from plan.arguments.items()


def _model(plan: Plan) -> str:
    """Return the model as one would name it."""
    return "digits" if plan.model == str(checkpoints.path()) else plan.model


def _freeze(blocks: tuple[int, ...]) -> str:
    """Return the word for frozen blocks: how many where they are the leading ones, else the first of them and `-`."""
    return str(len(blocks)) if blocks == tuple(range(len(blocks))) else f"{blocks[0]}-"


def _line(command: str, options: Iterable[tuple[str, Any]], *, threads: int | None, trust: bool) -> str:
    words = ["mlflow-yolo", command]
    for name, value in options:
        words += [f"--{name}", _text(value)]
    if trust:
        words.append("--trust")
    prefix = "" if threads is None else f"OMP_NUM_THREADS={threads} "
    return prefix + shlex.join(words)


def _text(value: Any) -> str:
    """Return a value as `models.arguments.read_value` reads it back: floats to the last digit."""
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json.dumps(value)
