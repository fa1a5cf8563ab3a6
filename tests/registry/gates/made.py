"""Versions written by hand: a graph of five nodes, records and predictions whose scores can be worked out on paper."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlflow_yolo.detection.samples import Sample, save_samples
from mlflow_yolo.registry.fetching import SHA_TAG, Fetched
from mlflow_yolo.registry.gates.evidence import Evidence, Subject
from mlflow_yolo.registry.record import PARENT_PREDICTIONS, PREDICTIONS, Measured, Record, Scores, write_record
from mlflow_yolo.runtime.accuracy import Accuracy, read_accuracy
from mlflow_yolo.runtime.benchmark_result import BenchmarkResult
from mlflow_yolo.runtime.hardware import Hardware
from mlflow_yolo.variant import Variant, write_variant

HARDWARE = Hardware("Test CPU", "avx2", False, 4, 1, 0.5, "3.12.0", {"onnxruntime": "1.20.0"}, "CPUExecutionProvider")
NAMES = ("bright", "dark")
METADATA = {
    "names": "{0: 'bright', 1: 'dark'}",
    "stride": "32",
    "imgsz": "[32, 64]",
    "task": "detect",
    "end2end": "False",
    "channels": "3",
}
BOX = [10.0, 10.0, 30.0, 30.0]
N_ANCHORS = 6


def write_model(
    file: Path, *, n_rows: int = 6, poison: str = "", metadata: dict[str, str] | None = None, task: str = "detect"
) -> Path:
    """Write a model of 32x64 pixels that answers the same to every image.

    Args:
        file: The .onnx file.
        n_rows: Rows of its output: four of the box and one a class; of a classifier the classes.
        poison: `black` answers nan to a black image.
        metadata: What it says of itself.
        task: `detect` or `classify`.
    """
    shape = (1, n_rows, N_ANCHORS) if task == "detect" else (1, n_rows)
    answer = np.full(shape, 1 / n_rows if task == "classify" else 0.5, np.float32)
    if task == "detect":
        answer[:, :4] = np.linspace(4, 20, N_ANCHORS)
    axes = [1, 2, 3] if task == "detect" else [2, 3]
    constants = {"zero": np.zeros(shape, np.float32), "answer": answer, "axes": np.array(axes, np.int64)}
    if task == "classify":
        constants["shape"] = np.array([1, 3], np.int64)
    nodes = [helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0)]
    brightness = "mean"
    if poison == "black":
        nodes.append(helper.make_node("Log", ["mean"], ["log"]))  # -inf, and times zero it is no number
        brightness = "log"
    if task == "classify":
        nodes.append(helper.make_node("ReduceMean", [brightness], ["grey"], keepdims=1))
        brightness = "grey"
    nodes += [
        helper.make_node("Mul", [brightness, "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "answer"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name != "shape"],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, METADATA if metadata is None else metadata)
    onnx.save(model, str(file))
    return file


def a_variant(folder: Path, *, kind: str = "int8-onnx", file: str = "model.onnx", **changes: Any) -> Variant:
    """Write `variant.json` for the file that lies in a folder."""
    given = {"task": "detect", "names": NAMES, "imgsz": (32, 64), **changes}
    return write_variant(folder, Variant(kind=kind, file=file, **given))


def a_version(
    folder: Path, *, version: str = "7", kind: str = "int8-onnx", tags: dict[str, str] | None = None, **variant: Any
) -> Fetched:
    """Return a version with a model, and nothing measured of it."""
    (folder / "variant").mkdir(parents=True)
    write_model(folder / "variant" / "model.onnx")
    written = a_variant(folder / "variant", kind=kind, **variant)
    given = {SHA_TAG: written.sha256} if tags is None else tags
    return Fetched("shapes", version, None, written.sha256, folder / "variant", given, None)


def an_image(number: int, *objects: tuple[int, float | None]) -> Sample:
    """Return an image with objects (class, score) apart from one another, each found at its very place, or not: None.

    A class of -1 stands for an object that is not there, so that its detection is a false one.
    """
    boxes = np.array([[10.0 + 30 * i, 10.0, 30.0 + 30 * i, 30.0] for i in range(len(objects))]).reshape(-1, 4)
    there = [index for index, (class_id, _) in enumerate(objects) if class_id >= 0]
    found = [index for index, (_, score) in enumerate(objects) if score is not None]
    return Sample(
        image=f"{number}.png",
        height=64,
        width=640,
        gt_boxes=boxes[there],
        gt_classes=np.array([objects[index][0] for index in there], dtype=np.int64),
        boxes=boxes[found],
        scores=np.array([objects[index][1] for index in found], dtype=np.float64),
        classes=np.array([max(objects[index][0], 0) for index in found], dtype=np.int64),
    )


def images(n: int, *, lost: int = 0, class_id: int = 0, start: int = 0) -> list[Sample]:
    """Return images with one object each, all found but the last ones."""
    return [an_image(start + index, (class_id, 0.8 if index < n - lost else None)) for index in range(n)]


def a_cost(name: str, ms: float = 10.0, **changes: Any) -> BenchmarkResult:
    """Return what a candidate costs: `ms` in each of ten rounds."""
    cost = BenchmarkResult(
        name=name,
        latency_p50_ms=ms,
        latency_p95_ms=ms + 1,
        latency_p99_ms=ms + 2,
        latency_mean_ms=ms,
        latency_std_ms=0.25,
        preprocess_ms=1.5,
        postprocess_ms=0.5,
        throughput={1: 1000 / ms},
        peak_memory_mb=100.0,
        load_s=0.1,
        size_mb=5.0,
        n_runs=100,
        n_warmup=1,
        rounds=(ms,) * 10,
        hardware=HARDWARE,
        benchmark="b1",
        date="2026-01-02T03:04:05Z",
    )
    return replace(cost, **changes)


def scores_of(accuracy: Accuracy, *, dataset: str = "f00d") -> Scores:
    """Return an accuracy as a record holds it."""
    return Scores(
        metric=accuracy.headline[0],
        values=accuracy.values,
        per_class=accuracy.per_class,
        split=accuracy.split,
        n_images=accuracy.n_images,
        dataset=dataset,
        conf=accuracy.conf,
    )


def measure(
    fetched: Fetched,
    own: Sequence[Sample],
    parent: Sequence[Sample] | None = None,
    *,
    names: tuple[str, ...] = NAMES,
    dataset: str = "f00d",
    ms: float = 10.0,
    parent_ms: float = 20.0,
    cost: BenchmarkResult | None = None,
    parent_kind: str = "fp32-onnx",
    parity: dict[str, float] | None = None,
) -> Fetched:
    """Write the record and predictions of a version into its `benchmark` folder."""
    folder = fetched.benchmark
    folder.mkdir()
    save_samples(folder / PREDICTIONS, own)
    found = read_accuracy(folder / PREDICTIONS, names=names, task="detect", split="test")
    of_parent = None
    if parent is not None:
        save_samples(folder / PARENT_PREDICTIONS, parent)
        theirs = read_accuracy(folder / PARENT_PREDICTIONS, names=names, task="detect", split="test")
        cost_of_parent = a_cost(parent_kind, parent_ms)
        of_parent = Measured(parent_kind, parent_kind, "d" * 64, cost_of_parent, scores_of(theirs, dataset=dataset))
    kind = fetched.folder.joinpath("variant.json").read_text().split('"kind": "')[1].split('"')[0]
    measured = Measured(kind, kind, fetched.sha256, cost or a_cost(kind, ms), scores_of(found, dataset=dataset))
    write_record(folder, Record(measured, of_parent, parity=parity))
    return fetched


def evidence(candidate: Fetched, champion: Fetched | None = None, **changes: Any) -> Evidence:
    """Return what is stored, on the machine of `a_cost`."""
    return replace(
        Evidence(
            Subject(candidate, candidate.benchmark),
            Subject(champion, champion.benchmark) if champion else None,
            read_hardware=lambda threads: replace(HARDWARE, threads=threads),
        ),
        **changes,
    )
