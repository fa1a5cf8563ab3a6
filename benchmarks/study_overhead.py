"""What a study costs beside its trainings: milliseconds per trial, and what a second worker gains.

A study of 200 trials whose objective does nothing: four dimensions, TPE, five reports a trial to the median pruner, the
journal file, a parent run and a run per trial in a SQLite store. As in a real study the runs of the trials are made by
another process, here one for all of them, whose time is reported (`worker_ms`) but is not the driver's. `blocked` is
the time in the coordinator, in which it hears no worker; `in all` adds what the driver's other threads compute, which
send the parent run. Both are medians or means over the last hundred trials, so late trials, which are dearer, count.
Growth is the time of all 200 trials over that of the first 100: 2 where it is linear, 4 where it is quadratic.

Then the same coordinator with real processes, one and two at once in turns: trials of one thread that compute for about
two seconds each.

Targets: 20 ms blocked, 40 ms in all, growth at most 2.5; two workers at least 1.7 times as fast as one.
"""

import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from benchmarks.outcome import Outcome, Target, finish, read_arguments
from mlflow_yolo import checkpoints
from mlflow_yolo.studies.driver import child_run, settle_ended
from mlflow_yolo.studies.executors import Event, Executor, NextJob
from mlflow_yolo.studies.executors.local import SubprocessExecutor
from mlflow_yolo.studies.parent import open_parent
from mlflow_yolo.studies.progress import Progress
from mlflow_yolo.studies.study import Trial, open_study
from mlflow_yolo.studies.tuning.coordinator import Coordinator, Rules
from mlflow_yolo.studies.tuning.live import Live
from mlflow_yolo.studies.tuning.objective import Goal
from mlflow_yolo.studies.tuning.search import Stopping, make_pruner, make_sampler
from mlflow_yolo.studies.tuning.space import parse_space
from mlflow_yolo.studies.tuning.storage import open_storage
from mlflow_yolo.tracking.run import open_run
from mlflow_yolo.tracking.stores.store import prepare_store
from mlflow_yolo.tracking.stores.target import Target as Store
from mlflow_yolo.tracking.stores.target import resolve_target
from mlflow_yolo.training.job import RESULT, write_json

N_TRIALS = 200
N_EPOCHS = 5
N_PARALLEL = 8
N_TURNS = 3
SPACE = "lr0=1e-4:1e-1:log,momentum=0.6:0.98,weight_decay=1e-5:1e-2:log,freeze=0:backbone"
GOALS = (Goal("final/mAP50-95", "maximize"),)

# About two seconds of one thread, the same number of steps in every trial.
COMPUTING = """
import hashlib, json, pathlib, sys
block, digest = bytes(1 << 20), hashlib.sha256()
for _ in range(int(sys.argv[1])):
    digest.update(block)
result = {"status": "finished", "values": {"final/mAP50-95": 0.5}}
pathlib.Path(sys.argv[2]).with_name("result.json").write_text(json.dumps(result))
"""


def main() -> int:
    """Measure both and print the outcome."""
    quick = read_arguments(__doc__).quick
    n_trials, n_parallel, n_turns = (20, 2, 1) if quick else (N_TRIALS, N_PARALLEL, N_TURNS)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        costs = no_op_study(Path(folder), n_trials)
        n_blocks = 20 if quick else blocks_in(seconds=2.0)
        seconds = {workers: list[float]() for workers in (1, 2)}
        for turn in range(n_turns):
            for workers in seconds:
                place = Path(folder, f"turn-{turn}-{workers}")
                seconds[workers].append(parallel_study(place, n_parallel, workers=workers, n_blocks=n_blocks))
    late = costs[n_trials // 2 :]
    blocked_ms = 1e3 * statistics.median(cost.blocked_s for cost in late)
    in_all_ms = blocked_ms + 1e3 * statistics.fmean(cost.threads_s for cost in late)
    growth = sum(c.blocked_s for c in costs) / sum(c.blocked_s for c in costs[: n_trials // 2])
    gain = statistics.median(one / two for one, two in zip(*seconds.values(), strict=True))
    targets = [
        Target(f"blocked in the coordinator per trial at {N_TRIALS} trials, ms", blocked_ms, 20.0),
        Target(f"in all per trial at {N_TRIALS} trials, ms", in_all_ms, 40.0),
        Target("time of 200 trials over that of 100", growth, 2.5),
        Target("two workers over one, trials of one thread", gain, 1.7, at_least=True),
    ]
    figures = {
        "blocked_ms": blocked_ms,
        "in_all_ms": in_all_ms,
        "blocked_ms_of_each_tenth": [1e3 * statistics.median(c.blocked_s for c in part) for part in tenths(costs)],
        "worker_ms": 1e3 * statistics.median(cost.worker_s for cost in late),
        "growth": growth,
        "workers_s": {str(workers): values for workers, values in seconds.items()},
        "gain": gain,
        "trials": n_trials,
    }
    judged = [] if quick else targets
    return finish(Outcome("study_overhead", ratio=blocked_ms / 20.0, target=1.0, targets=judged, figures=figures))


@dataclass
class Cost:
    """What one trial has cost, in seconds.

    Attributes:
        blocked_s: In the coordinator.
        threads_s: Computed by the driver's other threads meanwhile and while its worker was busy.
        worker_s: Of the worker.
    """

    blocked_s: float = 0.0
    threads_s: float = 0.0
    worker_s: float = 0.0


class NoOpExecutor:
    """Lets one process for all do job after job: a run with five reports and a result. Keeps what each has cost."""

    def __init__(self) -> None:
        self.costs: list[Cost] = []

    def run(self, next_job: NextJob) -> Iterator[Event]:
        """Yield what the worker says; the time until the next event is wanted is the coordinator's."""
        command = [sys.executable, "-c", "from benchmarks.study_overhead import serve; serve()"]
        root, pipe = Path(__file__).parents[1], subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root) as worker:
            while True:
                cost, start, threads = Cost(), time.perf_counter(), of_other_threads_s()
                if (job := next_job()) is None:
                    break
                cost.blocked_s = time.perf_counter() - start
                start = time.perf_counter()
                print(job.file, file=worker.stdin, flush=True)
                assert worker.stdout is not None
                events = [Event(job.key, *json.loads(worker.stdout.readline())) for _ in range(N_EPOCHS + 1)]
                cost.worker_s = time.perf_counter() - start
                for event in events:
                    start = time.perf_counter()
                    yield event
                    cost.blocked_s += time.perf_counter() - start
                cost.threads_s = max(0.0, of_other_threads_s() - threads)  # two clocks, read one after the other
                self.costs.append(cost)

    def tell(self, key: str, message: Mapping[str, Any]) -> None:
        """Hear nothing: a trial that is to be pruned has ended by then."""


def of_other_threads_s() -> float:
    """Return the processor time that this process' other threads have taken."""
    return time.process_time() - time.thread_time()


def serve() -> None:
    """Do every job whose file is named on standard input, and say so on standard output."""
    for line in sys.stdin:
        file = Path(line.strip())
        job = json.loads(file.read_text())
        value = 1.0 / (1.0 + job["params"]["lr0"])
        run = open_run(file.parent, **job["run"])
        run.log_params(job["params"])
        for epoch in range(1, N_EPOCHS + 1):
            run.log_metrics({"metrics/mAP50-95B": value}, step=epoch)
            said = {"epoch": epoch, "epochs": N_EPOCHS, "metric": "mAP", "value": value}
            print(json.dumps(["progress", said]), flush=True)
        write_json(file.parent / RESULT, {"status": "finished", "values": {GOALS[0].metric: value}})
        run.close()
        print(json.dumps(["ended", {"exit_code": 0}]), flush=True)


def no_op_study(folder: Path, n_trials: int) -> list[Cost]:
    """Return what each trial of a study whose trials do nothing has cost."""
    store = resolve_target(tracking_uri=f"sqlite:///{folder}/mlflow.db", environment={})
    prepare_store(store.tracking_uri, directory=folder)
    executor = NoOpExecutor()
    run_study(folder / "no-op", executor, n_trials, store=store)
    return executor.costs


def parallel_study(folder: Path, n_trials: int, *, workers: int, n_blocks: int) -> float:
    """Return the seconds that a study of computing trials takes."""
    folder.mkdir()
    program = folder / "computing.py"
    program.write_text(COMPUTING)
    executor = SubprocessExecutor(workers=workers, threads=1, command=[sys.executable, str(program), str(n_blocks)])
    start = time.perf_counter()
    run_study(folder, executor, n_trials, store=None)
    return time.perf_counter() - start


def run_study(folder: Path, executor: Executor, n_trials: int, *, store: Store | None) -> None:
    """Run a study from its first to its last trial, with runs where there is a store."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = parse_space(SPACE, model=str(checkpoints.path()))
    rules = Rules(
        distributions=space.distributions(),
        goals=GOALS,
        constraints=(),
        stopping=Stopping(trials=n_trials, hours=None, patience=None, goals=GOALS),
    )
    with (
        open_study(folder, "study", config={}, trials=()) as study,
        open_storage(None, study.directory, "study") as storage,
        Progress("study", n_trials=n_trials, n_finished=0, n_epochs=N_EPOCHS) as bar,
    ):
        sampler = make_sampler("tpe", seed=0, space=space)
        pruner = make_pruner("median", epochs=N_EPOCHS, n_seeds=1, n_goals=1)
        search = optuna.create_study(
            storage=storage, study_name="study", direction="maximize", sampler=sampler, pruner=pruner
        )
        if store is None:
            coordinator = Coordinator(
                search, study, rules=rules, describe=describe, child_run=lambda *_: {}, settle=lambda _: None
            )
            coordinator.run(executor, bar)
            return
        parent = open_parent(study, store)
        coordinator = Coordinator(
            search,
            study,
            rules=rules,
            describe=describe,
            child_run=lambda trial, tags: child_run(study, trial, parent, store, tags=tags),
            settle=partial(settle_ended, target=store),
        )
        coordinator.run(executor, Live(bar, parent, search, GOALS))
        parent.close()


def describe(number: int, values: Mapping[str, Any]) -> Trial:
    """Return our trial of a number and the suggested values."""
    return Trial(f"trial-{number}", f"trial {number}", dict(values), {})


def blocks_in(*, seconds: float) -> int:
    """Return how many blocks a thread of this machine hashes in some seconds."""
    import hashlib

    block, n, start = bytes(1 << 20), 0, time.perf_counter()
    while time.perf_counter() - start < 0.5:
        hashlib.sha256(block)
        n += 1
    return max(1, round(n * seconds / (time.perf_counter() - start)))


def tenths(costs: list[Cost]) -> list[list[Cost]]:
    """Return the trials in ten parts, in their order."""
    size = max(1, len(costs) // 10)
    return [costs[at : at + size] for at in range(0, len(costs), size)]


if __name__ == "__main__":
    sys.exit(main())
