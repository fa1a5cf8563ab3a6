import os
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from mlflow import MlflowClient
from ultralytics import YOLO

from mlflow_yolo.compression.quantization.calibration import CalibrationSet
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.parity import Parity
from mlflow_yolo.variant import read_variant
from mlflow_yolo.variants import exactness, making
from mlflow_yolo.variants.convert import calibration_params, check_method, check_opset
from tests.explanation.conftest import make_lively
from tests.training.task_data import narrow_model
from tests.variants.conftest import Exported, Run

slow = pytest.mark.slow


def small_checkpoint(task: str, folder: Path) -> tuple[Path, Path]:
    """Return an untrained checkpoint of ten digits that says something, and its data."""
    name = {"segment": "digits-seg", "classify": "digits-cls"}[task]
    n = {"segment": 2, "classify": 10}[task]
    data = generate(name, cache_dir=folder, imgsz=64, n_train=n, n_val=n, n_test=n)
    model_yaml = narrow_model("yolo11n", task, data, folder)
    if task == "classify":
        model = YOLO(str(model_yaml), verbose=False)
        names = sorted(path.name for path in (data / "train").iterdir())
    else:
        model = make_lively(str(model_yaml))
        names = list(yaml.safe_load(data.read_text())["names"])
    model.model.names = dict(enumerate(map(str, names)))
    model.save(folder / "small.pt")
    return folder / "small.pt", data


@pytest.mark.parametrize("opset", [None, 9, 17, 22])
def test_operator_sets_that_can_be_written_pass(opset: int | None) -> None:
    check_opset(opset)


@pytest.mark.parametrize("opset", [-1, 0, 3, 99])
def test_other_operator_sets_are_refused(opset: int) -> None:
    with pytest.raises(ArgumentError, match=f"opset={opset} is not supported"):
        check_opset(opset)


@pytest.mark.parametrize(
    ("method", "max_drop", "named"),
    [("median", 0.5, "method=median"), ("auto", -0.1, "max_drop"), ("mse", 101, "max_drop")],
)
def test_methods_and_losses_that_do_not_exist_are_refused(method: str, max_drop: float, named: str) -> None:
    check_method("auto", 0.5)
    with pytest.raises(ArgumentError, match=named):
        check_method(method, max_drop)


def test_a_run_says_what_was_calibrated_on() -> None:
    chosen = CalibrationSet((Path("a.png"), Path("b.png")), ("a.png", "b.png"), "0123456789abcdef", "train")
    assert calibration_params(chosen) == {
        "calibration_images": 2,
        "calibration_sha256": "0123456789ab",
        "calibration_split": "train",
    }


@slow
def test_export_makes_checked_files_with_an_operating_point_and_logs_what_was_asked_for(exported: Exported) -> None:
    assert sorted(path.name for path in exported.folder.iterdir() if (path / "variant.json").exists()) == [
        "fp16-onnx",
        "fp32-onnx",
    ]
    for kind in ("fp16-onnx", "fp32-onnx"):
        variant = read_variant(exported.folder / kind)
        assert (variant.kind, variant.task, variant.imgsz) == (kind, "detect", (128, 128))
        assert variant.sources["checkpoint"] == "digits.pt"
        assert 0 < variant.operating_point["conf"] < 1
        assert variant.operating_point["split"] == "val"
        onnx.checker.check_model(onnx.load(str(exported.folder / kind / "model.onnx")))
    assert "parity on 4 images" in exported.text
    assert [line.split()[0] for line in exported.text.splitlines() if line.startswith(("digits.pt", "fp"))] == [
        "digits.pt",
        "fp32-onnx",
        "fp16-onnx",
    ]
    client = MlflowClient(tracking_uri=exported.uri)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["parity/score_max"] <= 1e-3
    assert run.data.metrics["parity/box_max_px"] <= 1
    assert run.data.metrics["test/fp16-onnx"] > 0.5
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"fp16-onnx"}
    client._tracking_client.store.engine.dispose()


@slow
def test_quantize_calibrates_on_train_and_says_what_int8_loses(
    run: Run, few: Path, client: MlflowClient, tmp_path: Path
) -> None:
    words = ["--method", "minmax", "--calibration", "4", "--format", "int8-onnx,dynamic-int8-onnx"]
    code, shown, error = run("quantize", "--data", str(few), *words, "--output", str(tmp_path / "out"))

    assert (code, error) == (0, "")
    assert "int8-onnx" in shown
    calibration = read_variant(tmp_path / "out" / "int8-onnx").sources["calibration"]
    assert (calibration["split"], calibration["n"]) == ("train", 4)
    assert all("images/train" in name for name in calibration["files"])
    (found,) = client.search_runs(["0"])
    assert found.data.params["calibration_sha256"] == calibration["sha256"][:12]
    assert found.data.metrics["test/int8-onnx"] > 0.5
    sizes = {kind: (tmp_path / "out" / kind / "model.onnx").stat().st_size for kind in ("fp32-onnx", "int8-onnx")}
    assert sizes["int8-onnx"] < sizes["fp32-onnx"] / 2


@slow
@pytest.mark.parametrize("task", ["segment", "classify"])
def test_other_tasks_are_exported_and_quantized(run: Run, client: MlflowClient, tmp_path: Path, task: str) -> None:
    checkpoint, data = small_checkpoint(task, tmp_path)
    common = ["--data", str(data), "--model", str(checkpoint), "--imgsz", "64"]
    code, shown, error = run("export", *common, "--output", str(tmp_path / "float"))
    assert (code, error) == (0, "")
    assert ("top1" if task == "classify" else "mAP50-95") in shown
    words = ["--method", "minmax", "--calibration", "2"]
    code, shown, error = run("quantize", *common, *words, "--output", str(tmp_path / "int8"))
    assert (code, error) == (0, "")
    variant = read_variant(tmp_path / "int8" / "int8-onnx")
    assert (variant.task, variant.imgsz, len(variant.names)) == (task, (64, 64), 10)
    assert bool(variant.transform) == (task == "classify")
    assert [found.info.status for found in client.search_runs(["0"])] == ["FINISHED"] * 2


@slow
def test_a_step_that_fails_midway_leaves_no_variant_and_the_same_command_goes_on(
    run: Run, few: Path, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, *_: Any) -> None:
        (folder / "model.onnx").write_bytes(b"ha")
        raise RuntimeError("no more\nmemory")

    words = ["export", "--data", str(few), "--format", "fp16-onnx", "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(making, "_MAKERS", {**making._MAKERS, "fp16-onnx": fail})
        code, shown, error = run(*words)
    assert (code, shown) == (1, "")
    assert error.splitlines() == ["error: RuntimeError: no more memory (add --debug for the traceback)"]
    assert not [name for name in os.listdir(tmp_path / "out") if "fp16" in name]
    (found,) = client.search_runs(["0"])
    assert found.info.status == "FAILED"
    first = (tmp_path / "out" / "fp32-onnx" / "model.onnx").stat()

    code, _, error = run(*words)
    assert (code, error) == (0, "")
    assert (tmp_path / "out" / "fp32-onnx" / "model.onnx").stat().st_mtime_ns == first.st_mtime_ns
    (found,) = client.search_runs(["0"])
    assert found.info.status == "FINISHED"


@slow
def test_an_export_that_computes_something_else_is_refused_and_gone(
    run: Run, few: Path, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactness, "parity", _far_off)
    code, shown, error = run("export", "--data", str(few), "--output", str(tmp_path / "out"))
    assert (code, shown) == (2, "")
    assert error.splitlines() == [
        "error: the float32 export differs from digits.pt by 0.5 in a score and nan px in a box, "
        "more than 0.001 and 1 px. Try another opset, or --simplify false."
    ]
    assert not (tmp_path / "out" / "fp32-onnx").exists()
    (found,) = client.search_runs(["0"])
    assert found.info.status == "FAILED"


def _far_off(*_: object) -> Parity:
    return Parity(0.5, 0.5, float("nan"), 0.0, 4)
