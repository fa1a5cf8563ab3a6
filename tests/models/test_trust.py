"""Every command that takes a checkpoint refuses one that would run code, before anything is written."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_yolo import checkpoints
from mlflow_yolo.cli import main
from mlflow_yolo.datasets.digits import generate


class _Touches:
    """Unpickling this would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.target,)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data.yaml of a few scenes of digits."""
    return generate("digits", cache_dir=tmp_path_factory.mktemp("scenes"), n_train=4, n_val=4, n_test=4)


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Return the shipped checkpoint with one more entry, which makes the file `ran` beside it."""
    content = torch.load(checkpoints.path(), weights_only=False)
    torch.save({**content, "note": _Touches(tmp_path / "ran")}, tmp_path / "evil.pt")
    return tmp_path / "evil.pt"


def refusal(capsys: pytest.CaptureFixture[str], words: list[str], store: str) -> str:
    """Return the one line that a command ends with, having ended with 2."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--tracking-uri", store])
    error = capsys.readouterr().err
    assert end.value.code == 2, error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    "words",
    [
        "train --model EVIL",
        "freeze-ablation --model EVIL",
        "tune --model EVIL",
        "explain --model EVIL",
        "thresholds --model EVIL",
        "prune --model EVIL",
        "prune --model digits --teacher EVIL",
        "distill --model EVIL --teacher digits",
        "distill --model digits --teacher EVIL",
        "export --model EVIL",
        "quantize --model EVIL",
        "benchmark --model EVIL",
        "benchmark --model digits --variants EVIL",
        "compress --model EVIL",
        "compress --model digits --also EVIL",
    ],
)
def test_a_checkpoint_that_would_run_code_is_refused_and_not_run(
    words: str, evil: Path, scenes: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(evil) if word == "EVIL" else word for word in words.split()]
    error = refusal(capsys, [*asked, "--data", str(scenes)], store)

    assert "would run foreign code when loaded: it names builtins.getattr" in error
    assert "--trust" in error
    assert not evil.with_name("ran").exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", ["serve EVIL", "register --variants EVIL", "register --variants FOLDER"])
def test_what_serves_or_registers_never_takes_a_checkpoint(
    words: str, evil: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"EVIL": str(evil), "FOLDER": str(evil.parent)}
    refusal(capsys, [paths.get(word, word) for word in words.split()], store)

    assert not evil.with_name("ran").exists()


def test_the_checkpoint_would_have_run_its_code(evil: Path) -> None:
    torch.load(evil, weights_only=False)

    assert evil.with_name("ran").exists()
