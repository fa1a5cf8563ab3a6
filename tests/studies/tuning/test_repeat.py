"""The command lines repeat the trial: read back by the commands themselves, and once for real, weight by weight."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_yolo import checkpoints
from mlflow_yolo.blocks import Block, parse_freeze
from mlflow_yolo.cli.training import train
from mlflow_yolo.cli.variants import prune
from mlflow_yolo.models.arguments import parse_arguments
from mlflow_yolo.studies.executors import Job
from mlflow_yolo.studies.executors.local import SubprocessExecutor
from mlflow_yolo.studies.tuning.repeat import repeat_commands
from mlflow_yolo.studies.tuning.trial_plan import TrialPlan
from mlflow_yolo.studies.tuning.where import WORKER
from mlflow_yolo.training.job import write_json
from mlflow_yolo.training.plan import Plan
from mlflow_yolo.training.strategies import stages_of

BLOCKS = tuple(Block(i, "Conv", "backbone" if i < 11 else "neck" if i < 23 else "head") for i in range(24))
STAGES = {"epochs": 5, "lr0": 0.1 + 0.2, "warmup_epochs": 0.5}


def plan_of(**changed: Any) -> Plan:
    """Return a training with values that a careless text would round."""
    given = {
        "model": "/models/my model.pt",
        "data": "cells/data.yaml",
        "task": "detect",
        "stages": stages_of("single", freeze=(0, 1, 2), **STAGES),
        "seed": 3,
        "imgsz": 320,
        "batch": 8,
        "device": "cpu",
        "optimizer": "SGD",
    }
    return Plan(**{**given, **changed})


def read(line: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return options and Ultralytics arguments as the command reads them from a shell's words."""
    program, name, *words = shlex.split(line)
    assert program == "mlflow-yolo"
    command = {"train": train, "prune": prune}[name]
    with command.make_context(name, words) as context:
        return dict(context.params), parse_arguments(context.args)


@pytest.mark.parametrize(
    "stages",
    [
        stages_of("single", freeze=(), **STAGES),
        stages_of("single", freeze=tuple(range(11)), **STAGES),
        stages_of("two_stage", freeze=(0, 1, 2), **STAGES),
        stages_of("two_stage", freeze=(0,), epochs1=1, epochs2=7, lr02=1e-05, warmup_epochs2=0.25, **STAGES),
        stages_of("gradual", freeze=tuple(range(10)), **STAGES),
        stages_of("gradual", freeze=tuple(range(10)), unfreeze_every=2, **STAGES),
        stages_of("gradual", freeze=(), **STAGES),
        stages_of("single", freeze=tuple(range(6, 24)), **STAGES),
    ],
)
def test_train_reads_the_same_stages_back(stages: tuple[Any, ...]) -> None:
    (line,) = repeat_commands(TrialPlan(plan_of(stages=stages)))

    options, _ = read(line)
    names = ("strategy", "epochs", "lr0", "warmup_epochs", "epochs1", "epochs2", "lr02", "warmup_epochs2")
    found = stages_of(
        freeze=parse_freeze(options["freeze"], BLOCKS)[-1].blocks,
        unfreeze_every=options["unfreeze_every"],
        **{name: options[name] for name in names},
    )
    assert found == stages


def test_train_reads_every_other_value_back() -> None:
    plan = plan_of(lr_decay=0.7 + 0.1, statistics="all", every_n_steps=2, maps=5)

    (line,) = repeat_commands(TrialPlan(plan))
    options, arguments = read(line)
    for name in ("model", "data", "seed", "imgsz", "batch", "device", "optimizer", "lr_decay", "statistics"):
        assert options[name] == getattr(plan, name), name
    assert (options["every_n_steps"], options["maps"], options["trust"], arguments) == (2, "5", False, {})


def test_ultralytics_arguments_come_back_with_their_types_and_last_digits() -> None:
    given = {"momentum": 0.1 + 0.2, "weight_decay": 1e-05, "cos_lr": True, "rect": False, "close_mosaic": 3}
    given |= {"classes": [0, 1], "auto_augment": "randaugment"}

    (line,) = repeat_commands(TrialPlan(plan_of(arguments=given)))
    _, found = read(line)
    assert found == given
    assert [type(value) for value in found.values()] == [type(value) for value in given.values()]


def test_maps_that_are_off_stay_off() -> None:
    (line,) = repeat_commands(TrialPlan(plan_of(maps=0)))

    assert read(line)[0]["maps"] == "off"


def test_the_shipped_model_is_called_by_its_word() -> None:
    (line,) = repeat_commands(TrialPlan(plan_of(model=str(checkpoints.path()))))

    assert read(line)[0]["model"] == "digits"


def test_every_seed_has_a_line_of_its_own() -> None:
    lines = repeat_commands(TrialPlan(plan_of(), seeds=(4, 7)))

    assert [read(line)[0]["seed"] for line in lines] == [3, 4, 7]


def test_a_pruned_model_is_pruned_first_and_then_trained() -> None:
    first, second = repeat_commands(TrialPlan(plan_of(), prune=0.1 + 0.2))

    pruning, training = read(first)[0], read(second)[0]
    assert (pruning["ratio"], pruning["epochs"], pruning["control"]) == (0.1 + 0.2, 0, False)
    assert (pruning["importance"], pruning["round_to"], pruning["seed"], pruning["imgsz"]) == ("taylor", 8, 3, 320)
    assert training["model"] == f"{pruning['output']}/pruned.pt"


def test_other_trials_are_pruned_into_other_folders() -> None:
    trials = [TrialPlan(plan_of(), prune=0.3), TrialPlan(plan_of(), prune=0.4), TrialPlan(plan_of(seed=4), prune=0.3)]

    assert len({read(repeat_commands(trial)[0])[0]["output"] for trial in trials}) == 3


def test_what_was_pruned_with_a_new_head_is_taken_from_the_trials_folder(tmp_path: Path) -> None:
    (tmp_path / "start.pt").touch()

    (line,) = repeat_commands(TrialPlan(plan_of(), prune=0.3), directory=tmp_path)
    assert read(line)[0]["model"] == str(tmp_path / "pruned" / "pruned.pt")
    assert len(repeat_commands(TrialPlan(plan_of(), prune=0.3), directory=tmp_path / "elsewhere")) == 2


def test_threads_and_trust_are_said() -> None:
    (line,) = repeat_commands(TrialPlan(plan_of()), threads=2, trust=True)

    assert line.startswith("OMP_NUM_THREADS=2 mlflow-yolo train ")
    assert line.endswith(" --trust")


@pytest.mark.slow
def test_the_commands_train_the_same_weights_again(digits_plan: Plan, tmp_path: Path, store: str) -> None:
    stages = stages_of("gradual", epochs=2, freeze=(0, 1, 2), lr0=0.003, warmup_epochs=0.5)
    arguments = {**digits_plan.arguments, "momentum": 0.85}
    plan = replace(digits_plan, stages=stages, arguments=arguments, lr_decay=0.9, statistics="off", maps=0)
    trial, attempt = TrialPlan(plan, prune=0.3), tmp_path / "trial-0000" / "attempt-1"
    attempt.mkdir(parents=True)
    run = {"tracking_uri": store, "experiment": "Default", "name": "trial 0"}
    job = {"plan": trial.to_json(), "params": {}, "shared": str(tmp_path / "shared"), "run": run}
    write_json(attempt / "job.json", job)
    jobs = iter([Job("trial-0000", attempt / "job.json")])

    executor = SubprocessExecutor(workers=1, threads=1, command=WORKER)
    ended = list(executor.run(lambda: next(jobs, None)))[-1]
    assert ended.values == {"exit_code": 0}, (attempt / "console.log").read_text()[-2000:]
    for line in repeat_commands(trial, directory=attempt, threads=1):
        _run_line(line, tmp_path, store)

    (again,) = (tmp_path / "runs").glob("train*/train/weights/best.pt")
    ours, theirs = _weights(again), _weights(attempt / "train" / "weights" / "best.pt")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    untouched = _weights(Path(plan.model))
    assert sum(weight.numel() for weight in ours.values()) < 0.9 * sum(w.numel() for w in untouched.values())


def _run_line(line: str, directory: Path, store: str) -> None:
    """Do what a line says, as a shell would."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(line, shell=True, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"


def _weights(checkpoint: Path) -> Mapping[str, torch.Tensor]:
    content = torch.load(checkpoint, weights_only=False)
    return {name: weight.float() for name, weight in (content.get("ema") or content["model"]).state_dict().items()}
