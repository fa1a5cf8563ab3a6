import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_yolo.deployment.inference.engine import Engine
from mlflow_yolo.deployment.inference.follower import Follower, MlflowRegistry
from mlflow_yolo.exceptions import ArgumentError, CheckpointError, WorkError
from mlflow_yolo.registry.address import ModelAddress
from mlflow_yolo.registry.fetching import SHA_TAG, Fetched, fetch
from mlflow_yolo.registry.store import RegistryDown, open_registry
from mlflow_yolo.variant import read_variant
from tests.deployment.tiny_variants import picture, tiny_variant

URI = "models:/cells@champion-cpu"
PATIENCE_S = 20
RED = picture((1, 2, "red"))


class StandInRegistry:
    """A registry with variants' folders by version, whose alias names `now`; it can be told to fail."""

    def __init__(self, versions: dict[str, Path]) -> None:
        self.versions, self.now = versions, "1"
        self.error: Exception | None = None
        self.fetch_error: Exception | None = None
        self.fetched: list[str] = []
        self.n_looks = 0

    def find(self, address: ModelAddress) -> tuple[str, str]:
        self.n_looks += 1
        if self.error is not None:
            raise self.error
        version = address.version or self.now
        return version, read_variant(self.versions[version], check=False).sha256

    def fetch(self, address: ModelAddress) -> Fetched:
        assert address.version is not None, "between two questions an alias may move"
        self.fetched.append(address.version)
        if self.fetch_error is not None:
            raise self.fetch_error
        folder = self.versions[address.version]
        sha256 = read_variant(folder, check=False).sha256
        return Fetched(address.name, address.version, None, sha256, folder, {}, None)


@pytest.fixture
def registry(tmp_path: Path) -> StandInRegistry:
    versions = {str(index): tiny_variant(tmp_path / f"version-{index}", side=2 * index) for index in (1, 2, 3)}
    return StandInRegistry(versions)


@pytest.fixture
def engine(registry: StandInRegistry) -> Iterator[Engine]:
    sha256 = read_variant(registry.versions["1"]).sha256
    engine = Engine(Fetched("cells", "1", "champion-cpu", sha256, registry.versions["1"], {}, None), workers=1)
    yield engine
    engine.close(0)


@pytest.fixture
def follow(engine: Engine, registry: StandInRegistry) -> Iterator[Callable[..., Follower]]:
    """Return a function that makes a follower that looks only when it is told to."""
    followers = []

    def make(uri: str | Callable[[], str] = URI, **options: Any) -> Follower:
        followers.append(Follower(uri, engine=engine, **{"poll_s": 3600, "registry": registry, **options}))
        return followers[-1]

    yield make
    for follower in followers:
        follower.close()


def side(engine: Engine) -> float:
    """Return what tells the versions apart: the side of their boxes, twice their number."""
    (box,) = engine.submit(RED).result(PATIENCE_S).detections.boxes.tolist()
    return float(box[2] - box[0])


def break_file(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)


def test_nothing_is_fetched_while_the_alias_stays(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    follower, before = follow(), engine.status()
    for _ in range(3):
        follower.look()
    assert (registry.n_looks, registry.fetched) == (3, [])
    assert engine.status() == before


def test_a_promotion_and_a_rollback_are_served(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    follower = follow()
    assert side(engine) == 2
    for version in ("2", "1", "3"):
        registry.now = version
        follower.look()
        serving = engine.status().serving
        assert (serving.name, serving.version, serving.alias) == ("cells", version, "champion-cpu")
        assert serving.sha256 == read_variant(registry.versions[version]).sha256
        assert side(engine) == 2 * int(version)
    assert engine.status().error == ""


def test_the_new_model_is_warm_before_it_is_served(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    events, opened, swapped = [], engine.open, engine.swap
    monkeypatch.setattr(engine, "open", lambda source: (opened(source), events.append("open and warm"))[0])
    monkeypatch.setattr(engine, "swap", lambda served: (events.append("swap"), swapped(served))[1])
    registry.now = "2"
    follow().look()
    assert events == ["open and warm", "swap"]


def test_a_version_with_a_changed_byte_is_not_served_and_said_so_once(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower], caplog: pytest.LogCaptureFixture
) -> None:
    break_file(registry.versions["2"])
    follower, registry.now = follow(), "2"
    for _ in range(3):
        follower.look()
    error = engine.status().error
    assert error.startswith("cells version 2 is not served, cells version 1 goes on: ")
    assert read_variant(registry.versions["2"], check=False).sha256 in error
    assert "\n" not in error
    assert side(engine) == 2
    assert registry.fetched == ["2"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [error]


def test_a_version_that_failed_is_forgotten_when_the_alias_moves_on_or_back(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    break_file(registry.versions["2"])
    follower = follow()
    for version, error, expected in [("2", True, 2), ("3", False, 6), ("2", True, 6), ("1", False, 2)]:
        registry.now = version
        follower.look()
        assert (engine.status().error != "", side(engine)) == (error, expected)
    assert registry.fetched == ["2", "3", "2", "1"]


def test_a_version_that_failed_is_tried_again_after_a_while(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    follower, registry.now = follow(retry_s=1e-9), "2"
    registry.fetch_error = CheckpointError("half of the file is missing.")
    follower.look()
    assert "half of the file" in engine.status().error
    registry.fetch_error = None
    follower.look()
    assert (engine.status().error, side(engine)) == ("", 4)


def test_the_while_doubles_up_to_an_hour(
    registry: StandInRegistry, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("mlflow_yolo.deployment.inference.follower.time.monotonic", lambda: now)
    follower, registry.now = follow(retry_s=1000), "2"
    registry.fetch_error = CheckpointError("half of the file is missing.")
    tried = []
    for now in range(0, 15_000, 100):
        follower.look()
        tried += [now] * (len(registry.fetched) - len(tried))
    assert tried == [0, 1000, 3000, 6600, 10_200, 13_800]


def test_another_task_is_not_what_clients_ask_for(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_yolo.deployment.inference import served

    follower, registry.now = follow(), "2"
    opened, loaded = [], served._loaded
    monkeypatch.setattr(served, "_loaded", lambda *about: replace(loaded(*about), task="segment"))
    real_open = engine.open
    monkeypatch.setattr(engine, "open", lambda source: (opened.append(real_open(source)), opened[-1])[1])
    follower.look()
    assert "its task is segment, but clients ask for detect" in engine.status().error
    assert side(engine) == 2
    assert opened[0].closed


def test_while_the_registry_is_down_the_old_version_is_served_and_then_it_recovers(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    follower, registry.now = follow(), "2"
    registry.error = RegistryDown("the registry at http://127.0.0.1:5000 does not answer.")
    for _ in range(2):
        follower.look()
        assert engine.status().error.startswith("cells version 1 is served; what is newer cannot be known: the reg")
        assert side(engine) == 2
    registry.error = None
    follower.look()
    assert (engine.status().error, side(engine)) == ("", 4)


def test_a_registry_that_goes_down_during_the_download_is_asked_again_at_the_next_look(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    follower, registry.now = follow(), "2"
    registry.fetch_error = RegistryDown("the registry does not answer.")
    follower.look()
    registry.fetch_error = None
    follower.look()
    assert (engine.status().error, side(engine)) == ("", 4)


def test_an_outage_does_not_hide_for_good_why_a_version_is_not_served(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    follower, registry.now = follow(), "2"
    registry.fetch_error = CheckpointError("half of the file is missing.")
    follower.look()
    why = engine.status().error
    registry.error = RegistryDown("the registry does not answer.")
    follower.look()
    assert engine.status().error != why
    registry.error = None
    follower.look()
    assert engine.status().error == why
    assert registry.fetched == ["2"]


@pytest.mark.parametrize(
    "error",
    [
        ArgumentError("cannot find models:/cells@champion-cpu: Registered model alias champion-cpu not found."),
        WorkError("two\nlines"),
        OSError("disk on fire at https://me:secret@example.com/"),
        KeyError("version"),
    ],
)
def test_no_error_ends_the_follower_and_each_is_one_line_without_a_password(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower], error: Exception
) -> None:
    follower, registry.error = follow(), error
    follower.look()
    text = engine.status().error
    assert text.startswith("cells version 1 is served")
    assert "\n" not in text
    assert "secret" not in text
    registry.error, registry.now = None, "3"
    follower.look()
    assert side(engine) == 6


def test_the_thread_finds_a_promotion_by_itself_and_ends_when_told_to(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped, swap = threading.Event(), engine.swap
    monkeypatch.setattr(engine, "swap", lambda served: (swap(served), swapped.set()))
    registry.now = "2"
    follower = follow(poll_s=0.01)
    assert swapped.wait(PATIENCE_S)
    assert side(engine) == 4
    follower.close()
    assert not any(thread.name == "follower" for thread in threading.enumerate())


@pytest.mark.parametrize("uri", ["models:/cells/1", "out/int8-onnx"])
def test_what_cannot_move_is_not_followed(registry: StandInRegistry, follow: Callable[..., Follower], uri: str) -> None:
    follower = follow(uri, poll_s=0.001)
    assert not follower.follows
    assert not any(thread.name == "follower" for thread in threading.enumerate())
    follower.close()
    assert registry.n_looks == 0


def test_a_uri_that_another_process_changes_is_followed(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower], tmp_path: Path
) -> None:
    file = tmp_path / "uri"
    file.write_text("models:/cells/1\n")
    follower = follow(file.read_text)
    local = tiny_variant(tmp_path / "local", side=8)
    for uri, version, expected in [
        ("models:/cells/3", "3", 6),
        (URI, "1", 2),
        (str(local), None, 8),
        ("models:/cells/2\n", "2", 4),
        (str(local), None, 8),
    ]:
        file.write_text(uri)
        for _ in range(2):
            before = engine.status().serving
            follower.look()
        assert (engine.status().serving.version, side(engine), engine.status().error) == (version, expected, "")
        assert engine.status().serving is before, "the second look finds nothing to do"
    file.unlink()
    follower.look()
    assert engine.status().error.startswith("local is served")


def test_a_folder_that_is_served_from_the_start_is_not_opened_again(
    engine: Engine, follow: Callable[..., Follower], tmp_path: Path
) -> None:
    follower, before = follow(lambda: "somewhere/int8-onnx"), engine.status()
    follower.look()
    assert engine.status() == before


def test_a_follower_of_a_closed_engine_ends(
    engine: Engine, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    follower, registry.now = follow(poll_s=0.01), "2"
    engine.close(0)
    follower._thread.join(PATIENCE_S)
    assert not follower._thread.is_alive()


@pytest.mark.parametrize("poll_s", [0, -1, float("nan"), float("inf")])
def test_a_time_between_looks_that_is_none_is_named(engine: Engine, poll_s: float) -> None:
    with pytest.raises(ArgumentError, match=f"^poll_s={poll_s} "):
        Follower(URI, engine=engine, poll_s=poll_s)


def test_an_address_that_names_nothing_is_an_error_at_once(engine: Engine) -> None:
    with pytest.raises(ArgumentError, match="latest"):
        Follower("models:/cells@latest", engine=engine)


def test_an_alias_of_a_real_registry_is_followed_past_a_deleted_version(
    store: str, tmp_path: Path, registry: StandInRegistry, follow: Callable[..., Follower]
) -> None:
    from mlflow_yolo.registry.flavor import save_model

    client = open_registry(store)
    client.create_registered_model("cells")
    for index, folder in registry.versions.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns of its own type hints while it is imported
            save_model(folder, tmp_path / f"logged-{index}")
        tags = {SHA_TAG: read_variant(folder).sha256}
        client.create_model_version("cells", source=str(tmp_path / f"logged-{index}"), tags=tags)
    client.set_registered_model_alias("cells", "champion-cpu", "1")
    engine = Engine(fetch(URI, tracking_uri=store), workers=1)
    follower = Follower(URI, engine=engine, tracking_uri=store, poll_s=3600)
    for version in ("2", "1", "3"):
        client.set_registered_model_alias("cells", "champion-cpu", version)
        follower.look()
        assert (engine.status().serving.version, engine.status().error) == (version, "")
        assert side(engine) == 2 * int(version)
    client.delete_model_version("cells", "3")
    follower.look()
    assert engine.status().error.startswith("cells version 3 is served; what is newer cannot be known: ")
    assert side(engine) == 6
    client.set_registered_model_alias("cells", "champion-cpu", "2")
    follower.look()
    assert (engine.status().error, side(engine)) == ("", 4)
    follower.close()
    engine.close(0)


def test_a_registry_that_nobody_serves_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        registry = MlflowRegistry(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(RegistryDown):
            registry.find(ModelAddress("cells", alias="champion-cpu"))


def test_a_registry_that_did_not_answer_is_connected_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def get_model_version_by_alias(self, name: str, alias: str) -> SimpleNamespace:
            if not opened[1:]:
                raise RegistryDown("the registry does not answer.")
            return SimpleNamespace(version=7, tags={SHA_TAG: "ab"}, status="READY")

    opened = []
    monkeypatch.setattr(
        "mlflow_yolo.deployment.inference.follower.open_registry", lambda uri: (opened.append(Client()), opened[-1])[1]
    )
    registry, address = MlflowRegistry("sqlite:///x.db"), ModelAddress("cells", alias="champion-cpu")
    with pytest.raises(RegistryDown):
        registry.find(address)
    assert [registry.find(address) for _ in range(2)] == [("7", "ab"), ("7", "ab")]
    assert len(opened) == 2
