"""Bad input to the commands that make variants: one line, exit code 2, nothing written and no run opened."""

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from ultralytics import YOLO

from mlflow_yolo import checkpoints
from mlflow_yolo.cli import main
from mlflow_yolo.variant import Variant, write_variant
from tests.training.task_data import bars, narrow_model
from tests.variants.conftest import Run

NAMES = tuple(str(digit) for digit in range(10))
COMMANDS = ("prune", "distill", "export", "quantize", "benchmark", "compress")


@pytest.fixture
def data(few: Path, tmp_path: Path) -> Path:
    """Return the data.yaml of a copy of a few scenes of digits that a test may change."""
    root = tmp_path / "data"
    shutil.copytree(few.parent, root, ignore=shutil.ignore_patterns("*.cache"))
    return change(root / "data.yaml", path=str(root))


def change(data: Path, **changes: object) -> Path:
    data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), **changes}))
    return data


@pytest.fixture(scope="session")
def pose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained checkpoint for keypoints."""
    folder = tmp_path_factory.mktemp("pose")
    model = YOLO(str(narrow_model("yolo11n", "pose", bars("pose", folder), folder)), verbose=False)
    model.save(folder / "pose.pt")
    return folder / "pose.pt"


def a_text(data: Path) -> list[str]:
    (data.parent / "text.pt").write_text("not a checkpoint")
    return ["--model", str(data.parent / "text.pt")]


def a_model_yaml(data: Path) -> list[str]:
    return ["--model", "yolo11n.yaml"]


def a_folder_of_classes(data: Path) -> list[str]:
    root = data.parent / "classes"
    for split in ("train", "val"):
        for name in NAMES:
            (root / split / name).mkdir(parents=True)
            shutil.copy(next((data.parent / "images" / "train").iterdir()), root / split / name / "a.png")
    return ["--data", str(root)]


def other_names(data: Path) -> list[str]:
    change(data, names=["zero", *NAMES[1:]])
    return []


def fewer_names(data: Path) -> list[str]:
    change(data, names=[*NAMES, "ten"])
    return []


def no_train_images(data: Path) -> list[str]:
    for file in (data.parent / "images" / "train").iterdir():
        file.unlink()
    return []


def no_usable_train_images(data: Path) -> list[str]:
    for file in (data.parent / "images" / "train").iterdir():
        file.write_bytes(b"")
    return []


def a_variant(folder: Path, content: bytes = b"no model", names: Sequence[str] = NAMES, task: str = "detect") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    write_variant(folder, Variant("fp32-onnx", "model.onnx", task, tuple(names), (128, 128)))
    return folder


def a_changed_byte(data: Path) -> list[str]:
    folder = a_variant(data.parent / "changed")
    (folder / "model.onnx").write_bytes(b"no modeL")
    return ["--variants", str(folder)]


def a_bare_file(data: Path) -> list[str]:
    (data.parent / "model.onnx").write_bytes(b"no model")
    return ["--variants", str(data.parent / "model.onnx")]


def a_variant_of_other_classes(data: Path) -> list[str]:
    return ["--variants", str(a_variant(data.parent / "other", names=["zero", *NAMES[1:]]))]


def a_variant_of_another_task(data: Path) -> list[str]:
    return ["--variants", str(a_variant(data.parent / "other", task="segment"))]


def an_unfinished_variant(data: Path) -> list[str]:
    a_variant(data.parent / "made" / ".int8-onnx.0123abcd")
    return ["--variants", str(data.parent / "made")]


def a_full_folder(data: Path) -> list[str]:
    return ["--output", str(data.parent)]


Words = list[str] | Callable[[Path], list[str]]

EVERYWHERE: dict[str, tuple[Words, str]] = {
    "missing model": (["--model", "none.pt"], "model=none.pt"),
    "text as model": (a_text, "is not a PyTorch checkpoint"),
    "model yaml": (a_model_yaml, "model=yolo11n.yaml is no checkpoint"),
    "missing data": (["--data", "none.yaml"], "data=none.yaml"),
    "data of another task": (a_folder_of_classes, "classes"),
    "other class names": (other_names, "calls class 0 '0' and data calls it 'zero'"),
    "more class names": (fewer_names, "has 10 classes and data has 11"),
    "missing split": (["--split", "holdout"], "split=holdout does not exist in data"),
    "size too small": (["--imgsz", "16"], "imgsz=16"),
    "size that is no multiple of the stride": (
        ["--imgsz", "100"],
        "imgsz=100 is no multiple of 32. Use for example 96",
    ),
    "full folder": (a_full_folder, "is not empty"),
    "folder that cannot be written": (["--output", "/proc/nowhere"], "output=/proc/nowhere cannot be written"),
    "unknown store": (["--tracking-uri", "gopher://x"], "gopher"),
}

BAD: dict[str, dict[str, tuple[Words, str]]] = {
    "prune": {
        "ratio 0": (["--ratio", "0"], "ratio=0"),
        "ratio 1": (["--ratio", "1"], "ratio=1"),
        "ratio 1.5": (["--ratio", "1.5"], "ratio=1.5"),
        "ratio nan": (["--ratio", "nan"], "ratio=nan"),
        "unstructured ratio 1": (["--method", "unstructured", "--ratio", "1"], "ratio=1"),
        "part without a ratio": (["--parts", "backbone=x"], "parts=backbone=x"),
        "unknown part": (["--parts", "tail=0.2"], "'tail'"),
        "ratio of a part": (["--parts", "neck=1"], "ratio=1.0 of the neck"),
        "unknown importance": (["--importance", "size"], "importance='size'"),
        "unknown method": (["--method", "magic"], "method=magic"),
        "round_to 0": (["--round_to", "0"], "round_to=0"),
        "steps 0": (["--steps", "0"], "steps=0"),
        "missing teacher": (["--teacher", "none.pt"], "teacher=none.pt"),
        "epochs -1": (["--epochs", "-1"], "epochs=-1"),
        "batch 0": (["--batch", "0"], "batch=0"),
        "unknown device": (["--device", "cuda:9"], "device=cuda:9"),
        "optimizer auto": (["--optimizer", "auto"], "optimizer=auto"),
        "unknown argument": (["--mosiac", "0"], "Did you mean mosaic?"),
        "runs 0": (["--runs", "0"], "runs=0"),
    },
    "distill": {
        "no teacher": ([], "teacher="),
        "missing teacher": (["--teacher", "none.pt"], "teacher=none.pt"),
        "unknown loss": (["--teacher", "digits", "--losses", "respnse=1"], "Did you mean response?"),
        "loss without a weight": (["--teacher", "digits", "--losses", "cwd"], "losses=cwd"),
        "temperature 0": (["--teacher", "digits", "--temperature", "0"], "temperature=0"),
        "rounds 0": (["--teacher", "digits", "--rounds", "0"], "rounds=0"),
    },
    "export": {
        "opset 3": (["--opset", "3"], "opset=3 is not supported"),
        "opset 99": (["--opset", "99"], "opset=99 is not supported"),
        "opset no number": (["--opset", "new"], "opset=new"),
        "unknown format": (["--format", "tflite"], "format=tflite does not exist"),
        "format of quantize": (["--format", "int8-onnx"], "format=int8-onnx does not exist"),
        "no format": (["--format", ","], "names no kind"),
    },
    "quantize": {
        "unknown format": (["--format", "int4"], "format=int4 does not exist"),
        "unknown method": (["--method", "median"], "method=median"),
        "no calibration images": (["--calibration", "0"], "calibration"),
        "no train images": (no_train_images, "train"),
        "no usable train images": (no_usable_train_images, "train"),
        "negative loss": (["--max_drop", "-1"], "max_drop=-1"),
        "loss no number": (["--max_drop", "nan"], "max_drop=nan"),
    },
    "benchmark": {
        "missing variants": (["--variants", "/nowhere"], "variants=/nowhere"),
        "changed byte": (a_changed_byte, "has changed since it was made"),
        "bare corrupt file": (a_bare_file, "model.onnx"),
        "variant of other classes": (a_variant_of_other_classes, "calls class 0 'zero'"),
        "variant of another task": (a_variant_of_another_task, "is for segment"),
        "unfinished variant": (an_unfinished_variant, "nor a folder of variants"),
        "runs 0": (["--runs", "0"], "runs=0"),
        "rounds 0": (["--rounds", "0"], "rounds=0"),
        "threads 0": (["--threads", "0"], "threads=0"),
        "threads beyond the machine": (["--threads", "9999"], "threads=9999"),
    },
    "compress": {
        "ratio 1.5": (["--ratio", "1.5"], "ratio=1.5"),
        "ratio nan": (["--ratio", "nan"], "ratio=nan"),
        "unknown kind": (["--kinds", "fp32-onnx,int2"], "kinds=int2 does not exist"),
        "unknown method": (["--method", "median"], "method=median"),
        "size no number": (["--sizes", "96,big"], "sizes=big"),
        "size too small": (["--sizes", "16"], "imgsz=16"),
        "missing other checkpoint": (["--also", "none.pt"], "model=none.pt"),
        "missing teacher": (["--teacher", "none.pt"], "teacher=none.pt"),
        "threads 0": (["--threads", "0"], "threads=0"),
        "no train images": (no_train_images, "train"),
    },
}  # fmt: skip

CASES = [("export", case) for case in EVERYWHERE] + [(command, case) for command in BAD for case in BAD[command]]


@pytest.mark.parametrize(("command", "case"), CASES)
def test_what_cannot_work_is_one_line_and_nothing_is_written(
    run: Run, data: Path, client: MlflowClient, tmp_path: Path, command: str, case: str
) -> None:
    given, value = (BAD[command] if case in BAD[command] else EVERYWHERE)[case]
    words = given(data) if callable(given) else given
    _is_refused(run, client, tmp_path, [command, "--data", str(data), "--output", str(tmp_path / "out"), *words], value)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_for_keypoints_is_refused(
    run: Run, data: Path, client: MlflowClient, pose: Path, tmp_path: Path, command: str
) -> None:
    words = [command, "--data", str(data), "--model", str(pose), "--output", str(tmp_path / "out")]
    _is_refused(
        run, client, tmp_path, [*words, *(["--teacher", "digits"] if command == "distill" else [])], "is for pose"
    )


@pytest.mark.parametrize(
    ("words", "absent", "argument"),
    [
        (["export", "--format", "bf16-openvino"], "openvino", "format=bf16-openvino needs openvino"),
        (["quantize", "--format", "int8-openvino"], "nncf", "format=int8-openvino needs nncf"),
        (["compress", "--kinds", "int8-openvino"], "openvino", "kinds=int8-openvino needs openvino"),
    ],
)
def test_a_missing_extra_is_named_with_its_installation(
    run: Run,
    data: Path,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    absent: str,
    argument: str,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else found(name))
    given = [*words, "--data", str(data), "--output", str(tmp_path / "out")]
    _is_refused(run, client, tmp_path, given, argument, "pip install 'mlflow-yolo[openvino]'")


def test_a_corrupt_checkpoint_of_the_right_beginning_is_one_line(
    run: Run, data: Path, client: MlflowClient, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(checkpoints.path().read_bytes()[:100_000])
    words = ["export", "--data", str(data), "--model", str(broken), "--output", str(tmp_path / "out")]
    _is_refused(run, client, tmp_path, words, "broken.pt")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert not end.value.code
    for option in ("--data", "--model", "--output", "--tracking-uri", "--debug"):
        assert option in shown


def _is_refused(run: Run, client: MlflowClient, folder: Path, words: Sequence[str], *named: str) -> None:
    before = sorted(folder.rglob("*"))
    code, shown, error = run(*words)
    assert (code, shown) == (2, ""), error
    assert len(error.splitlines()) == 1, error
    for value in named:
        assert value in error
    assert sorted(folder.rglob("*")) == before
    assert client.search_runs(["0"]) == []
