"""An address in the registry works where the path of a variant does, and nowhere else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from mlflow_yolo import explain
from mlflow_yolo.cli import main
from mlflow_yolo.compression.export import export_onnx
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.registry.flavor import save_model
from mlflow_yolo.variant import read_variant

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Run = Callable[..., tuple[int, str, str]]
ADDRESS = "models:/cells@champion-cpu"


@pytest.fixture
def run(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line and returns exit code, output and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*words, "--tracking-uri", store])
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped detector as an MLflow model."""
    root = tmp_path_factory.mktemp("exported")
    (root / "fp32-onnx").mkdir()
    export_onnx("digits", root / "fp32-onnx", imgsz=128)
    save_model(root / "fp32-onnx", root / "model")
    return root


@pytest.fixture
def champion(exported: Path, client: "MlflowClient") -> Iterator[str]:
    """Return the digest of version 2 of `cells`, the champion on `cpu`."""
    sha256 = read_variant(exported / "fp32-onnx").sha256
    client.create_registered_model("cells")
    for _ in range(2):
        version = client.create_model_version("cells", str(exported / "model"), tags={"model.sha256": sha256})
    client.set_registered_model_alias("cells", "champion-cpu", version.version)
    yield sha256
    client._tracking_client.store.engine.dispose()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data.yaml of a few scenes of digits."""
    return generate("digits", cache_dir=tmp_path_factory.mktemp("scenes"), n_train=4, n_val=8, n_test=4)


def test_thresholds_are_chosen_for_a_registered_version_and_its_run_names_it(
    champion: str, run: Run, scenes: Path, client: "MlflowClient", tmp_path: Path
) -> None:
    words = ["--model", ADDRESS, "--data", str(scenes), "--conf", "0.3,0.5", "--iou", "0.5"]
    code, shown, error = run("thresholds", *words, "--output", str(tmp_path / "out"))

    assert (code, error) == (0, "")
    assert "Ship conf" in shown
    [found] = client.search_runs(["0"])
    assert found.data.params["model"] == f"models:/cells/2 ({champion[:12]})"
    assert {name: found.data.tags[name] for name in found.data.tags if name.startswith(("registry.", "model."))} == {
        "registry.model": "cells",
        "registry.version": "2",
        "registry.alias": "champion-cpu",
        "model.sha256": champion,
    }
    assert str(tmp_path) not in found.data.tags["mlflow.note.content"]


def test_what_is_registered_is_not_written_into(champion: str, run: Run, scenes: Path, tmp_path: Path) -> None:
    words = ["--data", str(scenes), "--write", "true", "--output", str(tmp_path / "out")]
    code, _, error = run("thresholds", "--model", ADDRESS, *words)

    assert code == 2
    assert error.startswith("error: write=true, but models:/cells/2 is registered")
    assert "register a new version" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_registered_versions_are_measured_beside_variants_and_the_first_row_is_what_was_named(
    champion: str, exported: Path, run: Run, scenes: Path, client: "MlflowClient", tmp_path: Path
) -> None:
    variants = (
        f"models:/cells/1,{exported / 'fp32-onnx'},{Path(__file__).parents[2] / 'mlflow_yolo/checkpoints/digits.pt'}"
    )
    words = ["--variants", variants, "--data", str(scenes), "--runs", "2", "--rounds", "1"]
    out = ["--output", str(tmp_path / "out")]
    code, _, error = run("benchmark", "--model", ADDRESS, *words, *out)

    assert (code, error) == (0, "")
    table = pd.read_csv(tmp_path / "out" / "benchmark" / "table.csv").set_index("variant")
    assert list(table.index) == ["cells-2", "cells-1", "fp32-onnx", "digits.pt"]
    assert (table["latency_p50_ms"] > 0).all()
    runs = {found.info.run_name: found for found in client.search_runs(["0"])}
    assert runs["out"].data.params["model"] == f"models:/cells/2 ({champion[:12]})"
    registered = {name: one.data.tags.get("registry.version") for name, one in runs.items()}
    assert registered == {"out": "2", "cells-2": "2", "cells-1": "1", "fp32-onnx": None, "digits.pt": None}
    assert runs["cells-1"].data.tags["model.sha256"] == champion


@pytest.mark.slow
def test_a_variant_may_be_the_first_row(exported: Path, run: Run, scenes: Path, tmp_path: Path) -> None:
    words = ["--data", str(scenes), "--runs", "2", "--rounds", "1", "--output", str(tmp_path / "out")]
    code, _, error = run("benchmark", "--model", str(exported / "fp32-onnx"), *words)

    assert (code, error) == (0, "")
    table = pd.read_csv(tmp_path / "out" / "benchmark" / "table.csv")
    assert list(table["variant"]) == ["fp32-onnx"]
    assert (table["test/mAP50-95"] > 0).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--imgsz", "256"), r"imgsz=256, but models:/cells/2 is made for 128x128"),
        (("--data", "{other}"), r"models:/cells/2"),
        (("--variants", "models:/cells/9"), r"models:/cells/9"),
        (("--variants", "models:/cells"), r"model=models:/cells names no version"),
        (("--model", "models:/none@champion-cpu"), r"none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_version_that_does_not_fit_or_is_not_there_is_said_in_one_line(
    words: tuple[str, ...], said: str, champion: str, run: Run, scenes: Path, small_data: Path, tmp_path: Path
) -> None:
    asked = [word.format(other=small_data) for word in words]
    out = ["--output", str(tmp_path / "out")]
    code, _, error = run("benchmark", "--model", ADDRESS, "--data", str(scenes), *asked, *out)

    assert (code, error.count("\n")) == (2, 1)
    assert said in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", ["train", "freeze-ablation", "tune", "prune", "distill", "export", "quantize", "compress"]
)
def test_a_command_that_needs_weights_says_why_a_registered_version_has_none(command: str, run: Run) -> None:
    teacher = ["--teacher", "digits"] if command == "distill" else []
    code, _, error = run(command, "--model", ADDRESS, *teacher)

    assert code == 2
    assert error.startswith(f"error: model={ADDRESS} is a registered variant: an exported file, whose weights")
    assert error.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", [("distill", "--teacher"), ("compress", "--also")])
def test_nor_is_it_a_teacher_or_a_checkpoint_to_compare_with(words: tuple[str, str], run: Run, scenes: Path) -> None:
    code, _, error = run(*words, ADDRESS, "--data", str(scenes))

    assert (code, error.count("\n")) == (2, 1)
    assert ADDRESS in error


def test_explain_as_a_command_needs_gradients_and_says_what_does_without(run: Run) -> None:
    code, _, error = run("explain", "--model", ADDRESS)

    assert (code, error.count("\n")) == (2, 1)
    assert ADDRESS in error
    assert "no gradients" in error
    assert "eigencam" in error


def test_eigencam_needs_no_gradients_and_takes_an_address(champion: str, exported: Path, scenes: Path) -> None:
    picture = sorted((scenes.parent / "images" / "test").iterdir())[0]

    [ours] = explain(ADDRESS, picture, method="eigencam")
    [theirs] = explain(exported / "fp32-onnx", picture, method="eigencam")

    assert champion
    assert ours.values.tobytes() == theirs.values.tobytes()
    assert ours.values.max() > 0


def test_another_method_is_refused_before_anything_is_downloaded() -> None:
    with pytest.raises(CheckpointError, match=r"model=models:/cells@champion-cpu is exported: it has no gradients"):
        explain(ADDRESS, "picture.png", method="gradcam")
