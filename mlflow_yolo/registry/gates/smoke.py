"""The very bytes, opened and run on pictures that nobody trains on: nothing may crash, every output is a number."""

from collections.abc import Iterator, Sequence

import numpy as np

from mlflow_yolo.registry.gates.evidence import Evidence
from mlflow_yolo.registry.gates.gate import Verdict
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.images import Pixels, read_image
from mlflow_yolo.runtime.pipeline import Pipeline, open_pipeline

_LOW_CONF = 0.001
"""So low that suppression has much to do."""


def smoke(evidence: Evidence, limits: Limits) -> Verdict:
    """Does it open and run on black, white, grey and noise, on sides of one and of odd pixels, and on a batch?"""
    pipeline = open_pipeline(evidence.candidate.fetched.folder, threads=1)
    cases = dict(_cases(pipeline.variant.imgsz, pipeline.variant.channels))
    for index, (name, images) in enumerate(cases.items()):
        if reason := _fault(pipeline, images):
            value = f"{index} of {len(cases)} inputs"
            return Verdict("smoke", value, "all", False, f"{name}: {reason.rstrip('.')}. Export the model again.")
    return Verdict("smoke", f"{len(cases)} inputs", "all", True)


def _cases(imgsz: tuple[int, int], channels: int) -> Iterator[tuple[str, list[Pixels]]]:
    """Yield the name and pixels of every input."""
    height, width = imgsz
    noise = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    grey = noise[..., 0]
    yield "black", [np.zeros_like(noise)]
    yield "white", [np.full_like(noise, 255)]
    yield "noise", [noise]
    yield "a grey picture", [read_image(grey, channels=channels) if channels in (1, 3) else noise]
    yield "1x1 pixel", [noise[:1, :1]]
    yield "1x2000 pixels", [_of_size(noise, 1, 2000)]
    yield "2000x1 pixels", [_of_size(noise, 2000, 1)]
    yield "odd sides", [_of_size(noise, 2 * height + 1, width // 2 * 2 + 3)]
    yield "three at once", [noise, noise[: height // 2 + 1], np.zeros_like(noise)]


def _of_size(noise: Pixels, height: int, width: int) -> Pixels:
    """Return the noise repeated and cut to a size."""
    times = (-(-height // noise.shape[0]), -(-width // noise.shape[1]), 1)
    return np.ascontiguousarray(np.tile(noise, times)[:height, :width])


def _fault(pipeline: Pipeline, images: Sequence[Pixels]) -> str:
    """Return what is wrong with the answer to some images, empty for nothing."""
    try:
        batch, frames = pipeline.preprocess(images)
        outputs = pipeline.infer(batch)
        if not all(np.isfinite(output).all() for output in outputs):
            return "an output is not a number"
        found = pipeline.postprocess(outputs, frames, conf=_LOW_CONF)
    except Exception as error:  # the runtime's own failure, of any class, is what is looked for
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if len(found) != len(images):
        return f"{len(images)} images gave {len(found)} answers"
    return "" if all(_is_finite(one) for one in found) else "a detection is not a number"


def _is_finite(found: Detections) -> bool:
    values = [found.boxes, found.scores] + ([] if found.probabilities is None else [found.probabilities])
    return all(bool(np.isfinite(one).all()) for one in values)
