from multiprocessing import get_context
from pathlib import Path

import pytest

from mlflow_yolo.deployment.targets.deployments import (
    Deployment,
    folder_of,
    held,
    known,
    names,
    read,
    write,
    write_text,
)
from mlflow_yolo.exceptions import ArgumentError

DEPLOYMENT = Deployment("cells", "models:/cells@champion-cpu", "sqlite:////tmp/a.db", config={"threads": "1"})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(folder_of("cells", root=tmp_path), DEPLOYMENT)
    assert known("cells", root=tmp_path) == DEPLOYMENT
    assert names(root=tmp_path) == ["cells"]


def test_names_are_sorted_and_none_where_nothing_is(tmp_path: Path) -> None:
    assert names(root=tmp_path / "none") == []
    for name in ("b", "a", "C"):
        write(folder_of(name, root=tmp_path), DEPLOYMENT)
    assert names(root=tmp_path) == ["C", "a", "b"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "-x", ".x", "ä", "a b", "a\n", "x" * 64])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="name="):
        folder_of(name, root=tmp_path)


@pytest.mark.parametrize("name", ["a", "7", "cells", "Cells_2.0-cpu", "x" * 63])
def test_a_plain_name_is_taken(name: str, tmp_path: Path) -> None:
    assert folder_of(name, root=tmp_path) == tmp_path / name


def test_an_unknown_name_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="Known: none"):
        known("cells", root=tmp_path)
    write(folder_of("other", root=tmp_path), DEPLOYMENT)
    with pytest.raises(ArgumentError, match=r"'cells'\. Known: other"):
        known("cells", root=tmp_path)


def test_the_users_folder_is_below_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_YOLO_CACHE", str(tmp_path))
    assert folder_of("cells") == tmp_path / "deployments" / "cells"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "cells"}', '{"unknown": 1}'])
def test_a_damaged_file_is_said_in_one_line(content: str, tmp_path: Path) -> None:
    folder = folder_of("cells", root=tmp_path)
    folder.mkdir()
    (folder / "deployment.json").write_text(content)
    with pytest.raises(ArgumentError, match=r"deployment\.json cannot be read"):
        read(folder)


def test_only_one_command_at_a_time_holds_a_deployment(tmp_path: Path) -> None:
    with held("cells", root=tmp_path):
        with pytest.raises(ArgumentError, match="another command"), held("cells", root=tmp_path):
            pass
        with held("other", root=tmp_path):
            pass
    with held("cells", root=tmp_path) as folder:
        assert folder == tmp_path / "cells"


def test_a_lock_of_a_process_that_died_holds_nobody_up(tmp_path: Path) -> None:
    process = get_context("spawn").Process(target=_hold_and_die, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    with held("cells", root=tmp_path):
        pass


def _hold_and_die(root: Path) -> None:
    import os

    with held("cells", root=root):
        os._exit(9)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="MLFLOW_YOLO_CACHE"), held("cells", root=tmp_path / "file"):
        pass


def test_a_file_is_its_owners_alone_and_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "uri", "models:/cells/7\n")
    assert (tmp_path / "uri").stat().st_mode & 0o077 == 0
    with pytest.raises(OSError, match="uri"):
        write_text(tmp_path / "missing" / "uri", "x")
    assert [file.name for file in tmp_path.iterdir()] == ["uri"]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_a_server_for_everybody_is_asked_on_this_machine(host: str, address: str) -> None:
    assert Deployment("cells", "", "", host=host, port=80).address == address
