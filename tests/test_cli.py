"""Bad input: one line that names cause, value and remedy, exit code 2, and nothing trained or half-written."""

import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from mlflow_yolo.cli import main
from mlflow_yolo.studies.study import open_study

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line and returns exit code and standard error."""

    def call(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(list(words))
        return int(end.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    """Return the data.yaml of a copy of the small dataset that a test may damage."""
    root = tmp_path / "data"
    shutil.copytree(small_data.parent, root)
    content = yaml.safe_load((root / "data.yaml").read_text())
    (root / "data.yaml").write_text(yaml.safe_dump({**content, "path": "."}))
    return root / "data.yaml"


def _edit(data: Path, **changes: object) -> None:
    content = {**yaml.safe_load(data.read_text()), **changes}
    data.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))


def _first_label(data: Path) -> Path:
    return data.parent / "labels" / "train" / "train0.txt"


def _malformed(data: Path) -> None:
    data.write_text("names: [a, b\ntrain: x")


def _no_labels(data: Path) -> None:
    shutil.rmtree(data.parent / "labels")


def _class_out_of_range(data: Path) -> None:
    _first_label(data).write_text("7 0.5 0.5 0.1 0.1\n")


def _coordinate_outside(data: Path) -> None:
    _first_label(data).write_text("0 0.5 1.7 0.1 0.1\n")


def _zero_byte_image(data: Path) -> None:
    (data.parent / "images" / "train" / "train3.png").write_bytes(b"")


def _many_broken_images(data: Path) -> None:
    for index in range(5):
        (data.parent / "images" / "train" / f"train{index}.png").write_bytes(b"not an image")


DAMAGES = {
    "malformed yaml": (_malformed, ["data.yaml"]),
    "no names": (lambda data: _edit(data, names=None), ["names"]),
    "split path missing": (lambda data: _edit(data, val="images/nowhere"), ["val", "images/nowhere"]),
    "no labels": (_no_labels, ["label"]),
    "class out of range": (_class_out_of_range, ["train0.txt", "7", "0 to 1"]),
    "coordinate outside": (_coordinate_outside, ["train0.txt", "1.7"]),
    "zero-byte image": (_zero_byte_image, ["train3.png"]),
    "many broken images": (_many_broken_images, ["train0.png", "4 more"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data_are_named(run: Run, data: Path, small_model: Path, tmp_path: Path, damage: str) -> None:
    break_it, named = DAMAGES[damage]
    break_it(data)

    code, error = run("freeze-ablation", "--data", str(data), "--model", str(small_model), "--freeze", "0,3")

    _is_one_line(code, error, named)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()


SETTINGS = {
    "data missing": (["--data", "/nowhere/data.yaml"], ["data=/nowhere/data.yaml"]),
    "freeze beyond the model": (["--freeze", "0,30"], ["freeze=30", "24 blocks", "0 to 23"]),
    "freeze negative": (["--freeze", "-3"], ["freeze=-3"]),
    "freeze not a number": (["--freeze", "0,deep"], ["freeze=deep"]),
    "everything frozen": (["--freeze", "24"], ["freeze=24 leaves nothing to train"]),
    "empty list": (["--freeze", ","], ["freeze=','"]),
    "seeds not integers": (["--seeds", "0,x"], ["seeds=x"]),
    "epochs 0": (["--epochs", "0"], ["epochs=0"]),
    "epochs not a number": (["--epochs", "many"], ["many"]),
    "imgsz 0": (["--imgsz", "0"], ["imgsz=0"]),
    "imgsz not a number": (["--imgsz", "big"], ["imgsz=big"]),
    "workers 0": (["--workers", "0"], ["workers=0"]),
    "unknown device": (["--device", "cuda:9"], ["device=cuda:9"]),
    "unknown model": (["--model", "yolo99x.pt"], ["model=yolo99x.pt"]),
    "unknown argument": (["--mosiac", "0"], ["mosiac", "Did you mean mosaic?"]),
    "argument without a value": (["--mosaic"], ["--mosaic has no value"]),
    "value refused by Ultralytics": (["--hsv_h", "9"], ["hsv_h"]),
    "optimizer auto": (["--optimizer", "auto"], ["optimizer=auto"]),
    "unknown strategy": (["--strategy", "sudden"], ["strategy=sudden", "gradual"]),
    "gradual without time": (["--strategy", "gradual", "--epochs", "1"], ["epochs=1", "2 epochs"]),
    "groups too far apart": (["--strategy", "gradual", "--unfreeze_every", "3"], ["unfreeze_every=3", "1 to 2"]),
    "interval not a number": (["--unfreeze_every", "often"], ["unfreeze_every=often"]),
    "decay of more than all": (["--lr_decay", "1.5"], ["lr_decay=1.5"]),
    "unwritable output": (["--output", "/proc/nowhere"], ["output=/proc/nowhere", "--output"]),
    "store of a file": (["--tracking-uri", "file:///tmp/mlruns"], ["file:"]),
    "unknown store": (["--tracking-uri", "gopher://x"], ["gopher"]),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_cannot_work_is_named(
    run: Run, small_data: Path, small_model: Path, tmp_path: Path, setting: str
) -> None:
    words, named = SETTINGS[setting]

    code, error = run("freeze-ablation", "--data", str(small_data), "--model", str(small_model), *words)

    _is_one_line(code, error, named)
    assert not list(tmp_path.glob("runs/*/freeze-*"))


def test_a_half_migrated_store_is_named_with_its_remedy(
    run: Run, small_data: Path, small_model: Path, tmp_path: Path
) -> None:
    database = tmp_path / "half.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    connection.close()
    age = database.stat().st_mtime - 3600
    os.utime(database, (age, age))

    code, error = run(
        "freeze-ablation",
        "--data",
        str(small_data),
        "--model",
        str(small_model),
        "--tracking-uri",
        f"sqlite:///{database}",
    )

    _is_one_line(code, error, ["half-migrated", "doctor --fix"])


def test_a_name_of_another_question_is_refused(run: Run, small_data: Path, small_model: Path, tmp_path: Path) -> None:
    with open_study(tmp_path / "runs", "mine", config={"epochs": 1}, trials=[], workers=1):
        pass

    code, error = run("freeze-ablation", "--data", str(small_data), "--model", str(small_model), "--study", "mine")

    _is_one_line(code, error, ["study mine", "--study"])


@pytest.mark.slow
def test_an_unreachable_server_is_said_and_does_not_stop_the_training(
    run: Run, small_data: Path, small_model: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    options = ["--data", str(small_data), "--model", str(small_model), "--freeze", "3", "--seeds", "0"]
    small = ["--epochs", "1", "--imgsz", "64", "--batch", "4", "--plots", "false"]

    code, error = run("freeze-ablation", *options, *small, "--tracking-uri", address, "--study", "dark")

    assert code == 0
    assert "does not answer" in error
    assert "mlflow-yolo replay" in error
    assert (tmp_path / "runs" / "dark" / "freeze-3_seed-0" / "attempt-1" / "result.json").exists()

    replayed, _ = run("replay", str(tmp_path / "runs"), "--tracking-uri", f"sqlite:///{tmp_path / 'later.db'}")

    assert replayed == 0
    runs = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'later.db'}").search_runs(["0"])
    assert sorted(found.info.status for found in runs) == ["FINISHED"] * 3
    assert sum("mlflow.parentRunId" in found.data.tags for found in runs) == 2


def test_replay_of_a_missing_folder_is_bad_input(run: Run) -> None:
    code, error = run("replay", "/nowhere")

    _is_one_line(code, error, ["/nowhere"])


def test_every_command_explains_itself(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("freeze-ablation", "train", "replay", "doctor"):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert not end.value.code
        assert "--tracking-uri" in capsys.readouterr().out


def _is_one_line(code: int, error: str, named: list[str]) -> None:
    lines = [line for line in error.splitlines() if line.strip()]
    assert code == 2, error
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    for word in named:
        assert word in lines[0]
