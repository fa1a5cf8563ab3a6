"""One turn of a benchmark in a process of its own: `python -m mlflow_yolo.runtime.worker`.

Standard input brings one JSON line, the job, and then stays open for as long as the driver lives; standard output gets
one JSON line, the answer. What libraries print goes to standard error. A process serves one turn only: two models
never share a thread pool, an allocator or a warm cache, and where memory happens to lie, which alone can make a
process a percent or two faster, is drawn anew every round instead of being mistaken for a property of the model.

torch is imported only where the job's opener imports it.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import InputError

THRESHOLDS: Mapping[str, Any] = {"conf": 0.25, "iou": 0.7, "max_det": 300}
"""Ultralytics' defaults for prediction, the same for every candidate: postprocessing takes longer the more passes."""

_PR_SET_PDEATHSIG = 1
_IMAGES_PER_BATCH_SIZE = 8
_PROVIDERS = {"torch": "PyTorch", "openvino": "OpenVINO CPU", "onnxruntime": "CPUExecutionProvider"}


def main() -> int:
    """Do the job on standard input, and answer with what was measured or with the error."""
    answers = _redirect()
    _die_with_driver()
    job = json.loads(_read_line())
    threading.Thread(target=_wait_for_end_of_input, name="die-with-driver", daemon=True).start()
    try:
        answer = take_turn(job)
    except Exception as error:
        answer = {"error": _sentence(error)}
    with contextlib.suppress(OSError):
        os.write(answers, json.dumps(answer).encode() + b"\n")
    return 0


def take_turn(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one process measures of one candidate.

    Args:
        job: `opener` (`module:function`), `path`, `imgsz`, `options`, `threads`, `cores` (to stay on), `images`
            (files), `runs`, `warmup`, `batches`.

    Returns:
        `latency_ms` (inference alone, batch 1, one value per run), `preprocess_ms` and `postprocess_ms` (one value per
        image), `throughput` (images/s of inference by batch size), `peak_memory_mb`, `load_s` (with the imports that
        the opener needs), `fixed_batch` (None where the file takes any), `provider`.
    """
    from mlflow_yolo.runtime.images import read_image

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"])
    images = [read_image(path) for path in job["images"]]
    start = time.perf_counter()
    pipeline = _open(job)
    load_s = time.perf_counter() - start
    inputs = [pipeline.preprocess([image]) for image in images]
    for batch, _ in islice(cycle(inputs), job["warmup"]):
        pipeline.infer(batch)
    gc.collect()
    gc.disable()  # a collection in the middle of a run would be counted as inference
    latency_ms = [_milliseconds(pipeline.infer, batch) for batch, _ in islice(cycle(inputs), job["runs"])]
    outputs = [pipeline.infer(batch) for batch, _ in inputs]
    timed_pairs = list(zip(outputs, inputs, strict=True))
    pipeline.postprocess(outputs[0], inputs[0][1], **THRESHOLDS)
    return {
        "latency_ms": latency_ms,
        "preprocess_ms": [_milliseconds(pipeline.preprocess, [image]) for image in images],
        "postprocess_ms": [
            _milliseconds(pipeline.postprocess, output, frames, **THRESHOLDS) for output, (_, frames) in timed_pairs
        ],
        # Read before the larger batches, which a file of fixed batch size never sees.
        "peak_memory_mb": peak_memory_mb(),
        "throughput": {str(size): _throughput(pipeline, images, size) for size in job["batches"]},
        "load_s": load_s,
        "fixed_batch": getattr(getattr(pipeline, "session", None), "batch", None),
        "provider": _provider(pipeline),
    }


def peak_memory_mb() -> float:
    """Return the most resident memory that this process has had, 10^6 bytes: interpreter and libraries are in it.

    Nothing is subtracted, since whoever deploys the model pays for all of it.
    """
    # VmHWM belongs to this program; ru_maxrss is inherited from the driver through fork and exec.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _open(job: Mapping[str, Any]) -> Any:
    module, _, function = job["opener"].partition(":")
    opener = getattr(importlib.import_module(module), function)
    imgsz = tuple(job["imgsz"]) if isinstance(job["imgsz"], list) else job["imgsz"]
    return opener(job["path"], threads=job["threads"], imgsz=imgsz, **job["options"])


def _milliseconds(call: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    start = time.perf_counter_ns()
    call(*arguments, **options)
    return (time.perf_counter_ns() - start) / 1e6


def _throughput(pipeline: Any, images: list[Any], size: int) -> float:
    """Return the images per second of inference at a batch size: median of a few batches after a warm one."""
    batch, _ = pipeline.preprocess(list(islice(cycle(images), size)))
    pipeline.infer(batch)
    times_ms = [_milliseconds(pipeline.infer, batch) for _ in range(max(1, _IMAGES_PER_BATCH_SIZE // size))]
    return size / statistics.median(times_ms) * 1e3


def _provider(pipeline: Any) -> str:
    """Return what ran the model: what the session says, else the runtime that was imported."""
    told = getattr(getattr(pipeline, "session", None), "provider", None)
    return str(told or next((name for module, name in _PROVIDERS.items() if module in sys.modules), ""))


def _sentence(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text if text and isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _redirect() -> int:
    """Send what libraries print to standard error; return a descriptor of the former standard output."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (chunk := os.read(0, 65536)):
        line += chunk
    return line or b"null"


def _die_with_driver() -> None:
    """Ask Linux to kill this process with its driver, for the case that a library holds the interpreter's lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for_end_of_input() -> None:
    """End this process and its children when the driver is gone: then standard input closes."""
    while os.read(0, 1024):
        pass
    if os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
