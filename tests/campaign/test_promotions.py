"""Many who promote at once, and promoters that are killed: always one valid champion, and a history without a gap."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from benchmarks import postgres
from benchmarks.ingest import tracking_server

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from mlflow_yolo.registry.history import History

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(3600)]

SEED = int(os.environ.get("CAMPAIGN_SEED", "1"))
VICTIM = Path(__file__).with_name("promoting_victim.py")
A_PROCESS = 5
"""Most promoters in one process: they meet in the registry, not in the process."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """Return the address of an MLflow server before PostgreSQL."""
    if postgres.missing_part():
        yield None
        return
    with postgres.cluster() as database, tracking_server(database, tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def registry(server: str | None, missing: Callable[[str, str], NoReturn]) -> tuple[str, "MlflowClient"]:
    from mlflow_yolo.registry.store import open_registry

    if server is None:
        missing("PostgreSQL", postgres.missing_part())
    return server, open_registry(server)


def register(client: "MlflowClient", name: str, n: int) -> list[str]:
    """Return so many versions of a model; only their aliases are moved, so they hold nothing."""
    from mlflow_yolo.registry.history import create_model, open_history

    create_model(client, name)
    run_id = open_history(client, name)
    source = client.get_run(run_id).info.artifact_uri
    return [str(client.create_model_version(name, source=source, run_id=run_id).version) for _ in range(n)]


def start(uri: str, name: str, mode: str, versions: Sequence[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, str(VICTIM), uri, name, mode, ",".join(versions)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def begin(victims: Sequence["subprocess.Popen[str]"]) -> None:
    """Wait until every victim is ready, and let all begin."""
    for victim in victims:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
    for victim in victims:
        assert victim.stdin is not None
        victim.stdin.write("go\n")
        victim.stdin.flush()


def check(history: "History") -> None:
    """Check that the log has no gap, that each entry goes on from the one before it, and that the aliases follow."""
    assert [entry.number for entry in history.entries] == list(range(1, len(history.entries) + 1))
    now = ""
    for entry in history.entries:
        assert entry.action in ("promote", "rollback")
        assert entry.replaced == now
        now = entry.version
    champions = history.champions("cpu")
    assert history.aliases["champion-cpu"] == now == champions[-1]
    assert history.aliases.get("previous-cpu", "") == (champions[-2] if len(champions) > 1 else "")


def together(uri: str, client: "MlflowClient", name: str, mode: str, n: int) -> tuple[list[str], "History", float]:
    """Let `n` promoters begin at once; return the versions that were told they won, the history, and the seconds."""
    from mlflow_yolo.registry.champions import settled

    versions = register(client, name, n)
    a_process = min(n // 2, A_PROCESS)
    victims = [start(uri, name, mode, versions[i : i + a_process]) for i in range(0, n, a_process)]
    began = time.monotonic()
    begin(victims)
    told = [line for victim in victims for line in victim.communicate(timeout=1800)[0].split("\n") if line]
    assert [victim.returncode for victim in victims] == [0] * len(victims)
    history = settled(client, name, "cpu", by="test")
    check(history)
    return [line.removeprefix("won ") for line in told], history, time.monotonic() - began


def test_of_many_promoters_at_once_one_wins_and_the_others_are_told(
    registry: tuple[str, "MlflowClient"], campaign_count: int
) -> None:
    n = max(4, campaign_count)
    told, history, seconds = together(*registry, "once", "try", n)
    assert [entry.version for entry in history.entries] == told
    assert len(told) == 1
    print(f"\n{n} promoters at once: {seconds:.1f} s, version {told[0]} won")


def test_promoters_that_try_again_each_have_their_place_in_the_history(
    registry: tuple[str, "MlflowClient"], campaign_count: int
) -> None:
    n = max(4, campaign_count // 5)
    told, history, seconds = together(*registry, "again", "once", n)
    assert sorted(told) == sorted(entry.version for entry in history.entries)
    assert len(set(told)) == n
    print(f"\n{n} promoters until each has won: {seconds:.1f} s, {len(history.entries)} entries")


def test_promoters_that_are_killed_leave_a_champion_and_a_history_that_goes_on(
    registry: tuple[str, "MlflowClient"], campaign_count: int
) -> None:
    from mlflow_yolo.registry.champions import crown, settled
    from mlflow_yolo.registry.history import read_history

    uri, client = registry
    name, chance = "killed", random.Random(SEED)
    versions = register(client, name, 4)
    crown(client, name, version=versions[0], target="cpu", expected="", by="test")
    seen = 0
    for _ in range(min(campaign_count, 20)):
        victims = [start(uri, name, "for-ever", versions[:2]), start(uri, name, "for-ever", versions[2:])]
        begin(victims)
        time.sleep(chance.uniform(0.05, 2.0))
        for victim in victims:
            assert victim.poll() is None  # it was killed, it did not fail
            victim.kill()
            victim.communicate()
        before = read_history(client, name)
        assert before.aliases.get("champion-cpu") in versions
        history = settled(client, name, "cpu", by="test")
        assert [entry.id for entry in history.entries] == [entry.id for entry in before.entries]
        check(history)
        assert len(history.entries) >= seen
        seen = len(history.entries)
    print(f"\n{min(campaign_count, 20)} kills, {seen} entries")


def test_a_rollback_asks_a_server_without_mlflows_own_client(registry: tuple[str, "MlflowClient"]) -> None:
    """MLflow's client takes two seconds to import; the champion is back before it would be there."""
    from mlflow_yolo.registry.champions import crown
    from mlflow_yolo.registry.history import read_history
    from mlflow_yolo.registry.quick_client import quick_client

    uri, client = registry
    name = "quick"
    versions = register(client, name, 2)
    for version, before in zip(versions, ["", versions[0]], strict=True):
        crown(client, name, version=version, target="cpu", expected=before, by="test")
    script = (
        "import sys; from mlflow_yolo.registry import champions, quick_client\n"
        f"client = quick_client.quick_client({uri!r}, {name!r})\n"
        f"champions.roll_back(client, {name!r}, target='cpu', by='test', reason='slow')\n"
        "sys.exit('mlflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    history = read_history(client, name)
    check(history)
    assert history.aliases == {"champion-cpu": versions[0]}
    assert (history.entries[-1].action, history.entries[-1].reason) == ("rollback", "slow")
    assert quick_client(uri, "nobody") is None
    assert quick_client("sqlite:///m.db", name) is None
