from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.session import OnnxSession, open_session
from mlflow_yolo.variant import Variant

VARIANT = Variant(kind="fp32-onnx", file="double.onnx", task="detect", names=("a",), imgsz=(2, 2))


def doubling(path: Path, *, batch: int | str | None, half: bool = False) -> Path:
    """Write a model that returns its input (N, 3, 2, 2) twice as large."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    two = helper.make_tensor("two", kind, [1], [2.0])
    entry, output = (helper.make_tensor_value_info(name, kind, [batch, 3, 2, 2]) for name in ("images", "output0"))
    graph = helper.make_graph([helper.make_node("Mul", ["images", "two"], ["output0"])], "g", [entry], [output], [two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(("batch", "fixed"), [(1, 1), (4, 4), ("batch", None), (None, None)])
def test_the_batch_is_fixed_only_where_the_graph_says_so(tmp_path: Path, batch: int | str | None, fixed: int) -> None:
    assert OnnxSession(doubling(tmp_path / "double.onnx", batch=batch)).batch == fixed


def test_a_run_returns_what_the_graph_computes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 3, 2, 2), dtype=np.float32)
    (output,) = open_session(doubling(tmp_path / "double.onnx", batch="n"), VARIANT, threads=1).run(images)
    assert np.array_equal(output, images * 2)


def test_a_half_precision_model_takes_and_gives_single_precision(tmp_path: Path) -> None:
    images = np.full((1, 3, 2, 2), 0.25, dtype=np.float32)
    (output,) = OnnxSession(doubling(tmp_path / "double.onnx", batch=1, half=True)).run(images)
    assert output.dtype == np.float32
    assert output.tolist() == (images * 2).tolist()


def test_threads_and_provider_are_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def remember(path: str, options: onnxruntime.SessionOptions, providers: list[str]) -> onnxruntime.InferenceSession:
        seen.update(intra=options.intra_op_num_threads, inter=options.inter_op_num_threads, providers=providers)
        return session(path, options, providers=providers)

    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", remember)
    open_session(doubling(tmp_path / "double.onnx", batch=1), VARIANT, threads=2)
    assert seen == {"intra": 2, "inter": 1, "providers": ["CPUExecutionProvider"]}


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_an_error(tmp_path: Path, threads: int) -> None:
    with pytest.raises(ArgumentError, match=f"threads={threads}"):
        open_session(doubling(tmp_path / "double.onnx", batch=1), VARIANT, threads=threads)


def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    whole = doubling(tmp_path / "double.onnx", batch=1).read_bytes()
    for content in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"^model=.*bad\.onnx[^\n]*$"):
            OnnxSession(tmp_path / "bad.onnx")
