import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from mlflow_yolo.exceptions import ArgumentError, CheckpointError, ShapeError
from mlflow_yolo.runtime import openvino_session
from mlflow_yolo.runtime.openvino_session import N_COMPILED, OpenVinoSession
from mlflow_yolo.runtime.session import OnnxSession, open_session
from mlflow_yolo.variant import Variant
from tests.runtime.small_models import SmallModel

SHAPE = (3, 4, 4)


@pytest.fixture(autouse=True)
def _openvino(missing: Callable[[str, str], NoReturn]) -> None:
    try:
        import openvino  # noqa: F401
    except ImportError:
        missing("openvino", "Install it: pip install 'mlflow-yolo[openvino]'.")


def write(folder: Path, shape: tuple[int, ...], *, outputs: int = 1, name: str = "model") -> Path:
    """Write a model that returns its input plus one, and times two for the second output."""
    import openvino
    from openvino import opset13 as ops

    folder.mkdir(exist_ok=True)
    entry = ops.parameter(openvino.PartialShape(list(shape)), np.float32, "images")
    results = [ops.add(entry, np.float32(1)), ops.multiply(entry, np.float32(2))][:outputs]
    openvino.save_model(openvino.Model(results, [entry]), str(folder / f"{name}.xml"), compress_to_fp16=False)
    return folder


def images(n: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, *SHAPE), dtype=np.float32)


@pytest.mark.parametrize(("batch", "fixed"), [(1, 1), (4, 4), (-1, None)])
def test_the_batch_is_fixed_only_where_the_graph_says_so(tmp_path: Path, batch: int, fixed: int | None) -> None:
    assert OpenVinoSession(write(tmp_path, (batch, *SHAPE))).batch == fixed


def test_outputs_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    batch = images(1)
    added, doubled = OpenVinoSession(write(tmp_path, (1, *SHAPE), outputs=2), threads=1).run(batch)
    assert np.array_equal(added, batch + 1)
    assert np.array_equal(doubled, batch * 2)


def test_a_free_batch_takes_more_sizes_than_stay_compiled(tmp_path: Path) -> None:
    session = OpenVinoSession(write(tmp_path, (-1, *SHAPE)), threads=1)
    for n in [*range(1, N_COMPILED + 3), 1]:
        (output,) = session.run(images(n))
        assert np.array_equal(output, images(n) + 1)


def test_free_sides_take_images_of_any_size(tmp_path: Path) -> None:
    session = OpenVinoSession(write(tmp_path, (-1, 3, -1, -1)), threads=1)
    for shape in [(1, 3, 4, 8), (2, 3, 8, 4)]:
        (output,) = session.run(np.ones(shape, np.float32))
        assert np.array_equal(output, np.full(shape, 2, np.float32))


def test_an_output_is_not_overwritten_by_the_next_run(tmp_path: Path) -> None:
    session = OpenVinoSession(write(tmp_path, (1, *SHAPE)), threads=1)
    (first,) = session.run(np.zeros((1, *SHAPE), np.float32))
    session.run(np.ones((1, *SHAPE), np.float32))
    assert np.array_equal(first, np.ones((1, *SHAPE), np.float32))


def test_images_need_not_be_contiguous(tmp_path: Path) -> None:
    turned = images(1).transpose(0, 1, 3, 2)
    (output,) = OpenVinoSession(write(tmp_path, (1, *SHAPE)), threads=1).run(turned)
    assert np.array_equal(output, turned + 1)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 3, 4, 5), (3, 4, 4)])
def test_images_of_another_shape_are_refused_by_name(tmp_path: Path, shape: tuple[int, ...]) -> None:
    session = OpenVinoSession(write(tmp_path, (1, *SHAPE)))
    with pytest.raises(ShapeError, match=r"\(1, 3, 4, 4\)"):
        session.run(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("options", "precision"),
    [(None, "f32"), ({"INFERENCE_PRECISION_HINT": "f32"}, "f32"), ({"INFERENCE_PRECISION_HINT": "bf16"}, "bf16")],
)
def test_threads_hint_and_precision_are_what_was_asked_for(
    tmp_path: Path, options: dict[str, str] | None, precision: str
) -> None:
    """OpenVINO would choose bf16 by itself where the CPU has it."""
    session = OpenVinoSession(write(tmp_path, (1, *SHAPE)), threads=2, options=options)
    (request,) = session._requests.values()
    compiled = request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") <= 2  # never more than there are
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("PERFORMANCE_HINT") == "LATENCY"
    asked = session._properties["INFERENCE_PRECISION_HINT"]
    assert asked == precision
    if precision == "f32":
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_an_error(tmp_path: Path, threads: int) -> None:
    with pytest.raises(ArgumentError, match=f"threads={threads}"):
        OpenVinoSession(write(tmp_path, (1, *SHAPE)), threads=threads)


def test_no_model_two_models_and_missing_weights_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="0 OpenVINO models"):
        OpenVinoSession(tmp_path)
    with pytest.raises(CheckpointError, match="0 OpenVINO models"):
        OpenVinoSession(tmp_path / "none.xml")
    write(tmp_path, (1, *SHAPE))
    (tmp_path / "model.bin").rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match="no weights"):
        OpenVinoSession(tmp_path)
    write(tmp_path, (1, *SHAPE), name="other")
    with pytest.raises(CheckpointError, match="2 OpenVINO models"):
        OpenVinoSession(tmp_path)


def test_a_damaged_model_and_an_unknown_option_are_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path, (1, *SHAPE))
    with pytest.raises(CheckpointError, match="NO_SUCH_OPTION") as unknown:
        OpenVinoSession(folder, options={"NO_SUCH_OPTION": "1"})
    (folder / "model.xml").write_text((folder / "model.xml").read_text()[:200])
    with pytest.raises(CheckpointError, match=r"model\.xml") as damaged:
        OpenVinoSession(folder)
    assert "\n" not in str(unknown.value) + str(damaged.value)


def test_without_openvino_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, (1, *SHAPE))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ArgumentError, match=r"mlflow-yolo\[openvino\]"):
        OpenVinoSession(folder)


@pytest.mark.parametrize(
    ("version", "task"),
    [
        ("yolov8n", "detect"),
        ("yolo11n", "detect"),
        ("yolo26n", "detect"),
        ("yolo11n", "segment"),
        ("yolo11n", "classify"),
    ],
)
def test_openvino_returns_what_onnx_runtime_returns(
    small_models: Callable[[str, str], SmallModel], tmp_path: Path, version: str, task: str
) -> None:
    import openvino

    file = small_models(version, task).onnx
    openvino.save_model(openvino.Core().read_model(str(file)), str(tmp_path / "model.xml"), compress_to_fp16=False)
    names = ("one", "two", "three", "four")
    expected = OnnxSession(file, threads=1)
    shape = expected._session.get_inputs()[0].shape
    batch = np.random.default_rng(0).random(shape, dtype=np.float32)
    variant = Variant("fp32-openvino", tmp_path.name, task, names, (shape[2], shape[3]))
    session = open_session(tmp_path, variant, threads=1)
    for ours, theirs in zip(session.run(batch), expected.run(batch), strict=True):
        assert ours.shape == theirs.shape
        assert theirs.std() > 0
        assert np.abs(ours - theirs).max() <= 1e-4 * max(1.0, np.abs(theirs).max())


def test_the_session_needs_neither_torch_nor_ultralytics(tmp_path: Path) -> None:
    folder = write(tmp_path, (1, *SHAPE))
    code = (
        "import sys, pathlib; from mlflow_yolo.runtime.openvino_session import OpenVinoSession; "
        f"OpenVinoSession(pathlib.Path({str(folder)!r}), threads=1); "
        "print([name for name in ('torch', 'ultralytics', 'nncf') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert run.stderr == ""


def test_the_file_may_be_named_instead_of_its_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, (1, *SHAPE))
    assert openvino_session.model_file(folder / "model.xml") == openvino_session.model_file(folder)
