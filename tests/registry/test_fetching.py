"""Registered versions as files: downloaded once, checked always, whole or not at all."""

import os
import resource
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mlflow_yolo.exceptions import ArgumentError, CheckpointError, StoreError
from mlflow_yolo.registry.fetching import SHA_TAG, fetch
from mlflow_yolo.registry.flavor import save_model
from mlflow_yolo.registry.store import RegistryDown
from mlflow_yolo.variant import digest
from tests.registry.known_models import make_variant

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

NOBODY = "http://127.0.0.1:9"
"""A server's address where nobody listens: the port of the discard service."""


class Registry:
    """One registered model, its versions' files in folders that a test may damage."""

    def __init__(self, client: "MlflowClient", folder: Path) -> None:
        self.client, self.folder, self.cache = client, folder, folder / "cache"
        client.create_registered_model("cells")

    def add(self, word: str, *, sha256: str | None = None, **saved: Any) -> Path:
        """Register one more version and return where its files lie."""
        variant, source = make_variant(self.folder / f"variant-{word}", marker=word), self.folder / f"logged-{word}"
        save_model(variant, source, **saved)
        tags = {SHA_TAG: sha256 or digest(variant / "model.onnx"), "variant.kind": "fp32-onnx"}
        self.client.create_model_version("cells", str(source), run_id="0" * 32, tags=tags)
        return source

    def fetch(self, what: str) -> Any:
        return fetch(f"models:/cells{what}", client=self.client, cache=self.cache)

    def kept(self) -> list[Path]:
        """Return every folder of a version in the cache, finished or not."""
        return sorted(self.cache.glob("models/*/*/*"))


@pytest.fixture
def registry(client: "MlflowClient", tmp_path: Path) -> Registry:
    return Registry(client, tmp_path)


def change_a_byte(file: Path) -> str:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return digest(file)


def test_a_version_is_the_bytes_that_were_registered(registry: Registry) -> None:
    (registry.folder / "measured").mkdir()
    (registry.folder / "measured" / "record.json").write_text("{}")
    source = registry.add("one", benchmark=registry.folder / "measured")
    found = registry.fetch("/1")
    assert (found.name, found.version, found.alias, found.uri) == ("cells", "1", None, "models:/cells/1")
    assert found.sha256 == digest(source / "variant" / "model.onnx") == digest(found.folder / "model.onnx")
    assert found.tags == {SHA_TAG: found.sha256, "variant.kind": "fp32-onnx"}
    assert found.run_id == "0" * 32
    assert (found.benchmark / "record.json").read_text() == "{}"
    assert registry.cache in found.folder.parents


def test_an_alias_is_followed_to_the_version_that_it_names_now(registry: Registry) -> None:
    registry.add("one")
    registry.add("two")
    for version in ("1", "2", "1"):
        registry.client.set_registered_model_alias("cells", "champion-cpu", version)
        found = registry.fetch("@champion-cpu")
        assert (found.version, found.alias, found.uri) == (version, "champion-cpu", f"models:/cells/{version}")


def test_a_version_is_downloaded_once_and_its_tags_are_read_anew(registry: Registry) -> None:
    source = registry.add("one")
    first = registry.fetch("/1")
    shutil.rmtree(source)
    registry.client.set_model_version_tag("cells", "1", "gate.size", "passed")
    second = registry.fetch("/1")
    assert second.folder == first.folder
    assert second.tags["gate.size"] == "passed"


@pytest.mark.parametrize("what", ["/2", "@champion-cpu"])
def test_what_is_not_registered_is_the_users_mistake(registry: Registry, what: str) -> None:
    registry.add("one")
    with pytest.raises(ArgumentError, match=f"cannot find models:/cells{what}: .*not found"):
        registry.fetch(what)


def test_a_deleted_version_is_not_served_from_what_lies_here(registry: Registry) -> None:
    registry.add("one")
    registry.fetch("/1")
    registry.client.delete_model_version("cells", "1")
    with pytest.raises(ArgumentError, match="models:/cells/1"):
        registry.fetch("/1")


def test_a_registry_made_anew_gives_its_own_version_of_the_same_number(registry: Registry) -> None:
    registry.add("one")
    old = registry.fetch("/1")
    registry.client.delete_registered_model("cells")
    registry.client.create_registered_model("cells")
    source = registry.add("two")
    assert registry.fetch("/1").sha256 == digest(source / "variant" / "model.onnx") != old.sha256


def test_a_changed_byte_is_refused_before_it_is_kept(registry: Registry) -> None:
    source = registry.add("one")
    registered = digest(source / "variant" / "model.onnx")
    found = change_a_byte(source / "variant" / "model.onnx")
    with pytest.raises(CheckpointError) as error:
        registry.fetch("/1")
    assert found in str(error.value)
    assert registered in str(error.value)
    assert registry.kept() == []


def test_a_byte_that_changed_in_the_cache_is_refused(registry: Registry) -> None:
    registry.add("one")
    fetched = registry.fetch("/1")
    found = change_a_byte(fetched.folder / "model.onnx")
    with pytest.raises(CheckpointError) as error:
        registry.fetch("/1")
    assert found in str(error.value)
    assert fetched.sha256 in str(error.value)
    shutil.rmtree(fetched.folder.parents[1])  # the remedy that it names
    assert str(fetched.folder.parents[1]) in str(error.value)
    assert registry.fetch("/1").sha256 == fetched.sha256


@pytest.mark.parametrize("where", ["variant/variant.json", "MLmodel", "the registry"])
def test_each_description_is_compared_with_the_bytes(registry: Registry, where: str) -> None:
    source = registry.add("one", sha256="f" * 64 if where == "the registry" else None)
    right = digest(source / "variant" / "model.onnx")
    if where != "the registry":
        described = source / where
        described.write_text(described.read_text().replace(right, "f" * 64))
    with pytest.raises(CheckpointError, match=f"{right}, {where} says {'f' * 64}"):
        registry.fetch("/1")


def test_a_tag_is_no_must(registry: Registry) -> None:
    registry.add("one")
    registry.client.delete_model_version_tag("cells", "1", SHA_TAG)
    assert registry.fetch("/1").version == "1"


def test_files_that_are_gone_are_said_so(registry: Registry) -> None:
    source = registry.add("one")
    shutil.rmtree(source)
    with pytest.raises(CheckpointError, match=f"files of models:/cells/1 are gone from {source}"):
        registry.fetch("/1")
    assert registry.kept() == []


@pytest.mark.parametrize("what", ["no MLmodel", "another flavor", "a checkpoint"])
def test_nothing_but_our_own_files_is_taken(registry: Registry, what: str) -> None:
    source = registry.add("one")
    if what == "no MLmodel":
        (source / "MLmodel").unlink()
    elif what == "another flavor":
        (source / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: model.pkl\n")
    else:
        (source / "variant" / "model.onnx").rename(source / "variant" / "model.pt")
        described = source / "variant" / "variant.json"
        described.write_text(described.read_text().replace("model.onnx", "model.pt"))
    with pytest.raises(CheckpointError) as error:
        registry.fetch("/1")
    assert "\n" not in str(error.value)
    assert registry.kept() == []


class Silent:
    """A client whose server has gone away."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri

    def get_model_version(self, *_: str) -> None:
        raise requests.ConnectionError("connection refused")

    get_model_version_by_alias = get_model_version


def test_without_the_registry_a_version_that_lies_here_is_served_as_it_was(registry: Registry) -> None:
    registry.add("one")
    registry.client.set_registered_model_alias("cells", "champion-cpu", "1")
    online = registry.fetch("@champion-cpu")
    registry.client = Silent(registry.client.tracking_uri)  # type: ignore[assignment]
    offline = registry.fetch("/1")
    assert (offline.version, offline.alias) == ("1", None)
    assert (offline.folder, offline.sha256, offline.tags) == (online.folder, online.sha256, online.tags)
    assert offline.run_id == online.run_id


def test_without_the_registry_its_bytes_are_still_checked(registry: Registry) -> None:
    registry.add("one")
    found = change_a_byte(registry.fetch("/1").folder / "model.onnx")
    registry.client = Silent(registry.client.tracking_uri)  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match=found):
        registry.fetch("/1")


@pytest.mark.parametrize(
    ("what", "named"), [("@champion-cpu", "cannot be known without it"), ("/2", "not downloaded to this machine")]
)
def test_without_the_registry_nothing_else_is_guessed(registry: Registry, what: str, named: str) -> None:
    registry.add("one")
    registry.client.set_registered_model_alias("cells", "champion-cpu", "1")
    registry.fetch("@champion-cpu")
    registry.client = Silent(registry.client.tracking_uri)  # type: ignore[assignment]
    with pytest.raises(RegistryDown, match=named):
        registry.fetch(what)


def test_what_another_registry_calls_the_same_is_not_served(registry: Registry) -> None:
    registry.add("one")
    registry.fetch("/1")
    with pytest.raises(RegistryDown, match="not downloaded"):
        fetch("models:/cells/1", tracking_uri=NOBODY, cache=registry.cache)


def test_many_may_fetch_at_once(registry: Registry) -> None:
    registry.add("one")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(registry.fetch, ["/1"] * 12))
    assert {one.folder for one in found} == {found[0].folder}
    assert len(registry.kept()) == 1


def test_what_a_killed_process_left_is_no_model_and_is_removed_a_day_later(registry: Registry) -> None:
    registry.add("one")
    registry.add("two")
    entry = registry.fetch("/1").folder.parents[1]
    fresh, old = (entry.with_name(f".{entry.name}.{word}") for word in ("00000000", "11111111"))
    for folder in (fresh, old):
        shutil.copytree(entry, folder)
    shutil.rmtree(entry)
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    assert registry.fetch("/1").folder.parents[1] == entry
    assert registry.kept() == sorted([fresh, entry])


def test_a_cache_that_is_no_folder_is_said_so(registry: Registry) -> None:
    registry.add("one")
    registry.cache.write_text("a file")
    with pytest.raises(StoreError, match="Set MLFLOW_YOLO_CACHE") as error:
        registry.fetch("/1")
    assert str(registry.cache) in str(error.value)


def test_a_disk_without_room_leaves_nothing_behind(registry: Registry) -> None:
    """A limit on the size of files stands in for a full disk: the same write fails, with EFBIG for ENOSPC."""
    registry.add("one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StoreError) as error:
            registry.fetch("/1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in str(error.value)
    assert "Set MLFLOW_YOLO_CACHE" in str(error.value)
    assert registry.kept() == []
    assert registry.fetch("/1").version == "1"


def test_an_interrupted_download_leaves_nothing_behind(registry: Registry) -> None:
    class Interrupted:
        def __getattr__(self, name: str) -> Any:
            if name == "get_model_version_download_uri":
                raise KeyboardInterrupt
            return getattr(client, name)

    registry.add("one")
    client, registry.client = registry.client, Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        registry.fetch("/1")
    assert registry.kept() == []


def test_a_version_that_mlflow_is_still_making_is_not_taken(registry: Registry) -> None:
    class Pending(Silent):
        def get_model_version(self, *_: str) -> Any:
            return type("Version", (), {"status": "PENDING_REGISTRATION"})

    registry.client = Pending(registry.client.tracking_uri)  # type: ignore[assignment]
    with pytest.raises(ArgumentError, match="PENDING_REGISTRATION"):
        registry.fetch("/1")
