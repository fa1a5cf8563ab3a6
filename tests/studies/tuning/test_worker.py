"""Whole trials in processes of their own: done to the end, given up on the way, left alone."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_yolo.models import checkpoint
from mlflow_yolo.studies.tuning.objective import known_metrics
from mlflow_yolo.studies.tuning.trial_plan import TrialPlan
from mlflow_yolo.training.job import read_json
from mlflow_yolo.training.plan import Plan, Stage

pytestmark = pytest.mark.slow

Said = dict[str, Any]


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


@pytest.fixture
def small_trial(small_data: Path, small_model: Path) -> TrialPlan:
    """Return a trial of a training with far too many epochs."""
    plan = Plan(
        model=str(small_model),
        data=str(small_data),
        task="detect",
        stages=(Stage(500, (0,), 0.01, 0.0),),
        seed=1,
        imgsz=64,
        batch=4,
        device="cpu",
        optimizer="AdamW",
        statistics="off",
        maps=0,
        arguments={"workers": 0, "nbs": 4, "plots": False},
    )
    return TrialPlan(plan, runs=6)


@dataclass
class Worker:
    """A worker in its attempt's folder, and a driver's two pipes to it."""

    process: "subprocess.Popen[str]"
    directory: Path

    def says(self) -> Iterator[Said]:
        assert self.process.stdout is not None
        return map(json.loads, self.process.stdout)

    def tell(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        return read_json(self.directory / "result.json")


@pytest.fixture
def start(store: str, tmp_path: Path) -> Iterator[Callable[[TrialPlan], Worker]]:
    """Return a function that starts the worker of a trial; none is left at the end."""
    workers = []

    def run(trial: TrialPlan) -> Worker:
        directory = tmp_path / "trial-0" / "attempt-1"
        directory.mkdir(parents=True)
        job = {
            "plan": trial.to_json(),
            "params": {"lr0": 0.01},
            "shared": str(tmp_path / "shared"),
            "run": {"tracking_uri": store, "experiment": "Default", "name": "trial 0", "tags": {"optuna.number": "0"}},
        }
        (directory / "job.json").write_text(json.dumps(job))
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow_yolo.studies.tuning.worker", str(directory / "job.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        workers.append(Worker(process, directory))
        return workers[-1]

    yield run
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def runs_by_name(client: MlflowClient) -> dict[str, Any]:
    return {run.info.run_name: run for run in client.search_runs(["0"])}


def n_parameters(path: Path) -> int:
    return sum(tensor.numel() for tensor in checkpoint.load(str(path)).model.parameters())


def test_a_trial_is_pruned_measured_trained_with_every_seed_and_looked_up(
    start: Callable[[TrialPlan], Worker], digits_plan: Plan, client: MlflowClient
) -> None:
    plan = replace(digits_plan, statistics="off", maps=0)
    worker = start(TrialPlan(plan, seeds=(5,), prune=0.4, costs=True, runs=6, conf=(0.1, 0.9)))
    said = list(worker.says())
    result = worker.result()

    assert worker.process.wait(timeout=60) == 0
    assert (result["status"], result["trainings"], result["epochs_done"]) == ("finished", [".", "seed-5"], 4)
    # In this order: costs before any training, epochs counted through both seeds, each seed's value when it is known.
    kinds = [next(kind for kind in ("measured", "seed", "epoch") if kind in values) for values in said]
    assert kinds == ["measured", "epoch", "epoch", "seed", "epoch", "epoch", "seed"]
    assert [(v["epoch"], v["epochs"]) for v in said if "epoch" in v] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [v["seed"] for v in said if "seed" in v] == [0, 1]

    # The pruned network is the one that was measured and trained.
    pruned = n_parameters(worker.directory / "pruned" / "pruned.pt")
    assert pruned < 0.7 * n_parameters(Path(digits_plan.model))
    for folder in result["trainings"]:
        assert n_parameters(worker.directory / folder / "train" / "weights" / "best.pt") == pruned
    assert said[0]["measured"]["parameters_m"] == result["values"]["parameters_m"] == pruned / 1e6
    assert said[0]["measured"]["size_mb"] == result["values"]["size_mb"]
    assert 4 * pruned / 1e6 < result["values"]["size_mb"] < 4 * pruned / 1e6 + 0.5  # float32, and the graph
    assert 0 < result["values"]["latency_p50_ms"] <= result["values"]["latency_p95_ms"]

    # Values are means over the two trainings, and everything that a search may ask for is there.
    other = read_json(worker.directory / "seed-5" / "result.json")
    firsts, others = result["final"]["mAP50-95"], other["final"]["mAP50-95"]
    assert result["values"]["final/mAP50-95"] == pytest.approx((firsts + others) / 2)
    assert [v["value"] for v in said if "seed" in v] == [firsts, others]
    assert [v["values"] for v in said if "seed" in v] == result["by_seed"]
    assert 0.1 <= result["values"]["op/conf"] <= 0.9
    assert result["by_seed"][0]["op/iou"] == 0.7
    asked = known_metrics("detect", result["names"], has_test=True, replayed={"conf": (0.1, 0.9)})
    absent = {name.split("/")[1] for name in set(asked) - result["values"].keys()}
    assert absent <= {"AP-small", "AP-medium", "AP-large", "AP50-95"}, "only sizes and classes that do not occur"

    runs = runs_by_name(client)
    trial, seed = runs["trial 0"], runs["seed=5"]
    assert (trial.info.status, seed.info.status) == ("FINISHED", "FINISHED")
    assert seed.data.tags["mlflow.parentRunId"] == trial.info.run_id
    assert trial.data.tags["optuna.number"] == "0"
    assert trial.data.metrics["size_mb"] == result["values"]["size_mb"]
    assert trial.data.metrics["final/mAP50-95"] == pytest.approx(firsts, abs=1e-5)
    assert seed.data.metrics["final/mAP50-95"] == pytest.approx(others, abs=1e-5)
    assert trial.data.metrics["mean/final/mAP50-95"] == pytest.approx((firsts + others) / 2)
    assert trial.data.metrics["op/f1"] == result["by_seed"][0]["op/f1"]
    assert trial.data.metrics["prune/parameters_after"] == pruned
    assert not (worker.directory / "exported").exists()


def test_a_trial_that_costs_too_much_is_not_trained(
    start: Callable[[TrialPlan], Worker], small_trial: TrialPlan, client: MlflowClient
) -> None:
    worker = start(replace(small_trial, costs=True))
    for values in worker.says():
        worker.tell({"stop": "pruned"})
        assert set(values["measured"]) == {"latency_p50_ms", "latency_p95_ms", "size_mb", "parameters_m"}
        break
    rest = list(worker.says())
    result = worker.result()

    assert (worker.process.wait(timeout=60), rest) == (0, [])
    assert (result["status"], result["values"], result["epochs_done"]) == ("pruned", values["measured"], 0)
    assert result["trainings"] == []
    assert not (worker.directory / "train").exists()
    run = runs_by_name(client)["trial 0"]
    assert (run.info.status, run.data.tags["mlflow_yolo.state"]) == ("KILLED", "pruned")
    assert run.data.metrics["size_mb"] == values["measured"]["size_mb"]


def test_a_training_ends_within_an_epoch_and_keeps_what_it_measured(
    start: Callable[[TrialPlan], Worker], small_trial: TrialPlan, client: MlflowClient
) -> None:
    worker = start(small_trial)
    said = []
    for values in worker.says():
        said.append(values)
        if len(said) == 2:
            worker.tell({"stop": "pruned"})
    result = worker.result()

    assert worker.process.wait(timeout=60) == 0
    assert 2 <= len(said) < 20
    assert result["status"] == "pruned"
    assert result["epochs_done"] == len(said) == said[-1]["epoch"]
    assert result["values"] == {"metrics/mAP50-95B": said[-1]["value"]}
    assert (result["trainings"], result["by_seed"]) == ([], [])
    assert not (worker.directory / "predictions").exists(), "no evaluation of what nobody wants"
    run = runs_by_name(client)["trial 0"]
    assert (run.info.status, run.data.tags["mlflow_yolo.state"]) == ("KILLED", "pruned")
    history = client.get_metric_history(run.info.run_id, "metrics/mAP50-95B")
    assert [point.step for point in history] == list(range(1, len(said) + 1))
    assert "final/mAP50-95" not in run.data.metrics


def test_a_trial_given_up_in_its_second_seed_keeps_the_first(
    start: Callable[[TrialPlan], Worker], small_trial: TrialPlan, client: MlflowClient
) -> None:
    plan = replace(small_trial.plan, stages=(Stage(20, (), 0.01, 0.0),))
    worker = start(replace(small_trial, plan=plan, seeds=(2,)))
    for values in worker.says():
        if values.get("epoch") == 21:
            worker.tell({"stop": "pruned"})
    result = worker.result()

    assert worker.process.wait(timeout=60) == 0
    assert (result["status"], result["trainings"]) == ("pruned", ["."])
    assert 21 <= result["epochs_done"] < 40
    assert result["values"] == result["by_seed"][0]
    assert "final/mAP50-95" in result["values"]
    runs = runs_by_name(client)
    ends = {name: (run.info.status, run.data.tags["mlflow_yolo.state"]) for name, run in runs.items()}
    assert ends == {"trial 0": ("KILLED", "pruned"), "seed=2": ("KILLED", "pruned")}
