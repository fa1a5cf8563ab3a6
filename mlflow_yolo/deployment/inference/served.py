"""An open, warmed model with a count of those who compute with it: it is closed when the last one is done."""

import ctypes
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlflow_yolo.deployment.inference.backend import Loaded, Options
from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.description import describe
from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.images import Pixels, read_image
from mlflow_yolo.runtime.pipeline import Pipeline
from mlflow_yolo.runtime.session import OnnxSession, open_session
from mlflow_yolo.variant import Variant

if TYPE_CHECKING:
    from mlflow_yolo.registry.fetching import Fetched

_PINNING = "ENABLE_CPU_PINNING"


class Served:
    """An open model, as many workers use it at once.

    Attributes:
        loaded: What it is.
        sizes: How many images may be computed at once, ascending, the first of them 1.
    """

    def __init__(self, loaded: Loaded, pipelines: Sequence[Pipeline], *, sizes: tuple[int, ...] = (1,)) -> None:
        """Take what `open_served` opened.

        Args:
            loaded: What it is.
            pipelines: One that all workers share, or one for each.
            sizes: See above.
        """
        self.loaded = loaded
        self.sizes = sizes
        self._pipelines = tuple(pipelines)
        self._lock = threading.Lock()
        self._n_users = 0
        self._retired = False

    @property
    def closed(self) -> bool:
        """Whether the model's memory was given back."""
        return not self._pipelines

    def acquire(self) -> "Served":
        """Count one more user, and return the model."""
        with self._lock:
            self._n_users += 1
        return self

    def release(self) -> None:
        """Count one user less; the last one of a retired model closes it."""
        with self._lock:
            self._n_users -= 1
            self._close_if_done()

    def retire(self) -> None:
        """Close it as soon as nobody computes with it."""
        with self._lock:
            self._retired = True
            self._close_if_done()

    def read(self, image: bytes | Pixels) -> Pixels:
        """Return an image as the model takes it, (H, W, channels).

        Raises:
            ArgumentError: It cannot be read.
        """
        return read_image(image, channels=self._pipelines[0].variant.channels)

    def detect(self, images: Sequence[Pixels], options: Sequence[Options], *, worker: int = 0) -> list[Detections]:
        """Return the detections of each image, computed as one batch, each by its own options.

        Args:
            images: What `read` returned, at least one.
            options: One for each image.
            worker: Number of the worker that calls; no two calls with one number at the same time.
        """
        pipeline = self._pipelines[worker % len(self._pipelines)]
        point = pipeline.variant.operating_point
        batch, frames = pipeline.preprocess(images)
        outputs = pipeline.infer(batch)
        found = []
        for index, (frame, wanted) in enumerate(zip(frames, options, strict=True)):
            one, chosen = tuple(output[index : index + 1] for output in outputs), wanted.selection(point)
            found += pipeline.postprocess(
                one, [frame], conf=chosen.conf, iou=chosen.iou, max_det=chosen.max_det, per_class=chosen.per_class
            )
        return found

    def _close_if_done(self) -> None:
        if self._retired and not self._n_users and self._pipelines:
            self._pipelines = ()
            _give_memory_back()


def open_served(source: "Fetched | str | Path", *, workers: int = 1, threads: int = 1, max_batch: int = 1) -> Served:
    """Return a model that is open and has run once for every worker and batch size.

    Args:
        source: A registered version that was fetched, or what `Detector` takes as a path.
        workers: Number of workers that will use it at once.
        threads: Threads of one inference.
        max_batch: Largest number of images that are computed at once.

    Raises:
        CheckpointError: The file is missing, damaged, changed, not what it says, or not the bytes that were registered.
        ArgumentError: The operating point names a class that is not there, or a value out of its range.
    """
    folder = Path(source) if isinstance(source, str | Path) else source.folder
    file, variant = describe(folder)
    if not isinstance(source, str | Path) and source.sha256 != variant.sha256:
        raise CheckpointError(
            f"{source.uri} was registered with sha256 {source.sha256}, but its file has {variant.sha256}. "
            "Register it again."
        )
    pipelines = _open(file, variant, workers=workers, threads=threads)
    served = Served(_loaded(source, variant), pipelines, sizes=_sizes(pipelines[0].session.batch, max_batch))
    _warm_up(served, pipelines, variant)
    return served


def _open(file: Path, variant: Variant, *, workers: int, threads: int) -> list[Pipeline]:
    """Return one pipeline that all workers share where its session may be shared, else one for each."""
    options = variant
    if file.suffix != ".onnx":
        # OpenVINO pins every model's threads to the first cores: two workers then computed 78 images a second together
        # where one computed 76; without pinning 147 (YOLO11n, bf16, 320 pixels, 2 cores).
        options = replace(variant, runtime={_PINNING: "NO", **variant.runtime})
    first = Pipeline(variant, open_session(file, options, threads=threads))
    if isinstance(first.session, OnnxSession):
        return [first]
    return [first, *(Pipeline(variant, open_session(file, options, threads=threads)) for _ in range(1, workers))]


def _sizes(batch: int | None, max_batch: int) -> tuple[int, ...]:
    """Return the batch sizes to use: three at most, because OpenVINO compiles the model for each and keeps three.

    Args:
        batch: Size that the model is fixed to, None for any.
        max_batch: Largest size wanted.
    """
    largest = max_batch if batch is None else min(batch, max_batch)
    return tuple(sorted({1, (largest + 1) // 2, largest}))


def _warm_up(served: Served, pipelines: Sequence[Pipeline], variant: Variant) -> None:
    Options().selection(variant.operating_point).thresholds(variant.names)
    black = np.zeros((*variant.imgsz, variant.channels), dtype=np.uint8)
    for worker in range(len(pipelines)):
        for size in served.sizes:
            served.detect([black] * size, [Options()] * size, worker=worker)


def _give_memory_back() -> None:
    """Return freed memory to the system, where the C library has a call for it.

    In a hundred swaps between variants of 3 and 10 MB a process grew from 115 to 158 MB without, and to 116 with it.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _loaded(source: "Fetched | str | Path", variant: Variant) -> Loaded:
    name, version, alias = (
        (Path(source).absolute().name, None, None)
        if isinstance(source, str | Path)
        else (source.name, source.version, source.alias)
    )
    return Loaded(
        name=name,
        version=version,
        alias=alias,
        sha256=variant.sha256,
        kind=variant.kind,
        task=variant.task,
        names=variant.names,
        imgsz=variant.imgsz,
        loaded_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
