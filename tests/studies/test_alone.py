"""Who measures is alone on the machine, whoever else is there and however they end."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from mlflow_yolo.studies.alone import Machine

TRAINER = """
import sys, time
from pathlib import Path
from mlflow_yolo.studies.alone import Machine
folder, name = Path(sys.argv[1]), sys.argv[2]
machine = Machine(print, directory=folder, patience_s=60)
machine.enter()
(folder / f"{name}.ready").touch()
spans, last = [], False
while not last:
    last = (folder / "stop").exists()
    begin = time.monotonic()
    time.sleep(0.005)  # a batch
    spans.append(("batch", begin, time.monotonic()))
    machine.give_way()
machine.close()
for span in spans:
    print(*span)
"""
MEASURER = """
import sys, time
from pathlib import Path
from mlflow_yolo.studies.alone import Machine
folder = Path(sys.argv[1])
machine = Machine(print, directory=folder, patience_s=60)
machine.enter()
for _ in range(3):
    with machine.alone():
        begin = time.monotonic()
        time.sleep(0.05)
        print("measurement", begin, time.monotonic(), flush=True)
machine.close()
"""
HOLDER = """
import sys, time
from pathlib import Path
from mlflow_yolo.studies.alone import Machine
machine = Machine(print, directory=Path(sys.argv[1]))
with machine.alone():
    print("alone", flush=True)
    time.sleep(60)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a process of the machine's; all are gone at the end."""
    processes = []

    def run(program: str, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", program, str(tmp_path), *words]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def join(tmp_path: Path, notes: list[str]) -> Iterator[Callable[..., Machine]]:
    """Return a function that makes another participant; each has descriptors, and so locks, of its own."""
    made = []

    def make(patience_s: float = 0.0) -> Machine:
        made.append(Machine(notes.append, directory=tmp_path, patience_s=patience_s))
        return made[-1]

    yield make
    for machine in made:
        machine.close()


def test_a_measurement_overlaps_neither_a_batch_nor_another_one_and_is_not_kept_waiting(
    start: Start, tmp_path: Path
) -> None:
    trainers = [start(TRAINER, f"trainer{i}") for i in range(3)]
    while len(list(tmp_path.glob("*.ready"))) < 3:
        assert all(trainer.poll() is None for trainer in trainers)
        time.sleep(0.01)
    measurers = [start(MEASURER) for _ in range(2)]
    said = [measurer.communicate(timeout=60)[0] for measurer in measurers]  # while trainings go on without an end
    (tmp_path / "stop").touch()
    said += [trainer.communicate(timeout=60)[0] for trainer in trainers]

    spans = [(kind, float(a), float(b)) for kind, a, b in (line.split() for out in said for line in out.splitlines())]
    measurements = sorted((a, b) for kind, a, b in spans if kind == "measurement")
    batches = [(a, b) for kind, a, b in spans if kind == "batch"]
    assert len(measurements) == 6
    assert all(end <= begin for (_, end), (begin, _) in pairwise(measurements))
    assert all(b <= begin or a >= end for a, b in batches for begin, end in measurements)
    assert any(a > measurements[-1][1] for a, _ in batches), "nobody trained on afterwards"


def test_trainings_share_the_machine(join: Callable[..., Machine], notes: list[str]) -> None:
    one, other = join(), join()
    one.enter()
    other.enter()
    one.give_way()
    with join().alone():
        pass

    assert notes == ["latency was measured beside others, who did not stop within 0 s"]
    one.leave()
    other.leave()
    with join().alone():
        pass
    assert len(notes) == 1


def test_who_wants_in_waits_until_a_measurement_is_over(join: Callable[..., Machine], notes: list[str]) -> None:
    entered, late = threading.Event(), join(60.0)

    def enter() -> None:
        late.enter()
        entered.set()

    with join().alone():
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10.0)
    thread.join()
    with join().alone():
        pass
    assert len(notes) == 1, "the one who waited is inside"


def test_who_measures_is_back_among_those_who_train_only_if_he_was_there(
    join: Callable[..., Machine], notes: list[str]
) -> None:
    trains, measures = join(), join()
    trains.enter()
    with trains.alone():
        pass
    with measures.alone():
        pass
    assert len(notes) == 1, "the first is inside again"
    trains.leave()
    with trains.alone():
        pass
    with measures.alone():
        pass
    assert len(notes) == 1


def test_the_place_is_free_again_when_who_measures_is_killed(
    start: Start, join: Callable[..., Machine], notes: list[str]
) -> None:
    holder = start(HOLDER)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "alone\n"
    with join().alone():
        pass
    assert len(notes) == 1, "it was taken before"
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=30)

    with join().alone():
        pass
    assert len(notes) == 1


def test_an_error_in_a_measurement_frees_the_place(join: Callable[..., Machine], notes: list[str]) -> None:
    with pytest.raises(RuntimeError), join().alone():
        raise RuntimeError
    with join().alone():
        pass

    assert notes == []


def test_locks_that_cannot_be_made_are_a_note_and_nothing_else(tmp_path: Path, notes: list[str]) -> None:
    machine = Machine(notes.append, directory=tmp_path / "gone")
    machine.enter()
    machine.give_way()
    with machine.alone():
        pass
    machine.leave()
    machine.close()

    (note,) = notes
    assert note.startswith("latency may be measured beside other trials: ")
    assert "gone" in note


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / "mlflow-yolo-turnstile.lock").symlink_to(tmp_path / "elsewhere")

    Machine(notes.append, directory=tmp_path)

    assert len(notes) == 1
    assert not (tmp_path / "elsewhere").exists()
