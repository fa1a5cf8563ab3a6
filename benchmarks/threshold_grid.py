"""How much faster one forward pass and its replays are than a validation for each combination of thresholds.

    python -m benchmarks.threshold_grid            # some three minutes; leave the machine alone meanwhile
    python -m benchmarks.threshold_grid --quick    # exercises the code, judges no time

The 20 combinations are five confidences (.30 to .50) by four overlaps (.45 to .60): `YOLO.val(conf=, iou=)` for each,
without its plots, against `collect_heads`, four replays and all measures of `threshold_surface`. The 400 are 20 by 20;
what 400 validations take is extrapolated from the 20. Validations and replays take turns, a quarter of the validations
at a time. Of every combination the statistics arrays are compared byte by byte.

Detection is YOLO11n on BCCD's test split where the data lie in `../shared`, else the embedded `digits` checkpoint on
its own. Segmentation is YOLO11n-seg with the same weights as far as they fit, so that its boxes are real and its masks,
whose weights are random, cost what masks cost; each object's box is its outline.

Targets, for detection and for segmentation: at least 12 times as fast for 20 combinations and 100 times for 400, with
equal bytes. The ratio is that of 20 combinations, detection.
"""

import itertools
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import LOGGER

from benchmarks.outcome import Outcome, Target, finish, machine, read_arguments
from benchmarks.pairing import Estimate, paired_ratio
from mlflow_yolo import checkpoints
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.operating_measures import Weighing
from mlflow_yolo.detection.threshold_surface import threshold_surface
from mlflow_yolo.models.data import localise
from mlflow_yolo.models.heads import Heads
from mlflow_yolo.models.replay import collect_heads

BCCD = Path(__file__).resolve().parents[2] / "shared" / "data" / "bccd"
CHECKPOINT = "yolo11n-bccd.pt"
GRIDS = {
    20: (np.arange(0.45, 0.61, 0.05).round(2).tolist(), np.arange(0.30, 0.51, 0.05).round(2).tolist()),
    400: (np.linspace(0.3, 0.8, 20).round(4).tolist(), np.linspace(0.05, 0.95, 20).round(4).tolist()),
}
"""Overlaps and confidences by the number of combinations."""

LIMITS = {20: 12.0, 400: 100.0}
N_ROUNDS = 4

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A checkpoint and the split it is validated on.

    Attributes:
        weights: The checkpoint.
        dataset: The data.
        folder: Where anything may be written.
        imgsz: Side of the input, pixels.
    """

    weights: Path
    dataset: Dataset
    folder: Path
    imgsz: int
    split: str = "test"
    batch: int = 16


@dataclass(frozen=True)
class Measured:
    """What one case took.

    Attributes:
        validations_s: Seconds of each validation, in the order of the 20 combinations.
        replays_s: Seconds of every replay of a whole grid, forward pass included, by number of combinations.
        n_different: Statistics arrays, of all combinations validated, whose bytes differ.
        n_images: Images of the split.
        n_detections: Detections at the lowest of the 20 combinations.
    """

    validations_s: tuple[float, ...]
    replays_s: Mapping[int, tuple[float, ...]]
    n_different: int
    n_images: int
    n_detections: int

    def speed(self, n: int) -> Estimate:
        """Return how many times faster `n` combinations are replayed than validated, with its interval over rounds."""
        quarters = np.array_split(np.array(self.validations_s), len(self.replays_s[n]))
        return paired_ratio([float(quarter.mean() * n) for quarter in quarters], self.replays_s[n])


def main() -> int:
    """Measure, print, and return the exit code."""
    quick: bool = read_arguments(__doc__).quick
    LOGGER.setLevel(logging.WARNING)
    figures: dict[str, Any] = {"quick": quick, "machine": machine()}
    promised: list[Target] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases(Path(folder), quick=quick).items():
            measured = measure(case, n_rounds=1 if quick else N_ROUNDS, every=7 if quick else 1)
            figures[name] = summary(case, measured)
            promised += targets(name, measured)
            for n in GRIDS:
                print(f"{name}: {n} combinations {figures[name]['speed'][n]['value']:.1f} times as fast", flush=True)
    headline = promised[0]
    if quick:
        return finish(Outcome("threshold_grid", None, None, (), figures))
    return finish(Outcome("threshold_grid", headline.value, headline.limit, promised, figures))


def cases(folder: Path, *, quick: bool) -> dict[str, Case]:
    """Return what is measured, detection first."""
    has_bccd = (BCCD / CHECKPOINT).is_file() and not quick
    weights = BCCD / CHECKPOINT if has_bccd else checkpoints.path()
    n_test = 4 if quick else 64
    if has_bccd:
        data = shutil.copytree(BCCD, folder / "bccd") / "data.yaml"  # Ultralytics writes a cache beside the labels
    else:
        data = generate("digits", cache_dir=folder, n_train=1, n_val=1, n_test=n_test)
    imgsz = 320 if has_bccd else 128
    detect = Case(weights, localise(load_dataset(data), folder), folder / "detect", imgsz)
    outlined = localise(load_dataset(with_outlines(detect, folder / "outlined"), task="segment"), folder / "outlined")
    return {
        "detect": detect,
        "segment": Case(as_segmentation(weights, folder), outlined, folder / "segment", imgsz),
    }


def measure(case: Case, *, n_rounds: int, every: int = 1) -> Measured:
    """Return the times of validations and replays in turns, after one of each that is thrown away.

    Of the 20 combinations the first of each `every` is validated.
    """
    ious, confs = GRIDS[20]
    combinations = list(itertools.product(ious, confs))[::every]
    validate(case, ious[0], confs[0])
    replay(case, *GRIDS[20])
    validations: list[float] = []
    replays: dict[int, list[float]] = {n: [] for n in GRIDS}
    theirs: dict[tuple[float, float], Arrays] = {}
    for part in np.array_split(np.arange(len(combinations)), n_rounds):
        for iou, conf in (combinations[index] for index in part):
            seconds, theirs[iou, conf] = timed(validate, case, iou, conf)
            validations.append(seconds)
        for n, grid in GRIDS.items():
            seconds, heads = timed(replay, case, *grid)
            replays[n].append(seconds)
    kept = {iou: heads.replay(iou=iou) for iou in ious}
    return Measured(
        validations_s=tuple(validations),
        replays_s={n: tuple(seconds) for n, seconds in replays.items()},
        n_different=sum(n_different(kept[iou].above(conf), theirs[iou, conf]) for iou, conf in combinations),
        n_images=heads.n_images,
        n_detections=len(kept[ious[0]].above(confs[0]).conf),
    )


def validate(case: Case, iou: float, conf: float) -> Arrays:
    """Return the statistics of one validation by Ultralytics."""
    remembering = RememberingSegmentation if case.dataset.task == "segment" else RememberingDetection
    network = YOLO(case.weights, verbose=False)
    network.val(
        validator=remembering, data=str(case.dataset.yaml), split=case.split, imgsz=case.imgsz, batch=case.batch,
        conf=conf, iou=iou, device="cpu", plots=False, verbose=False, project=str(case.folder), name="val",
        exist_ok=True,
    )  # fmt: skip
    return remembering.last


def replay(case: Case, ious: Sequence[float], confs: Sequence[float]) -> Heads:
    """Run the model once, compute all measures of the grid, and return what the model said."""
    heads = collect_heads(
        str(case.weights), case.dataset, split=case.split, imgsz=case.imgsz, batch=case.batch, device="cpu",
        directory=case.folder / "heads", progress=lambda *_: None,
    )  # fmt: skip
    arrays = heads.replay_all(ious, conf=min(confs))
    threshold_surface(arrays, confs, weighing=Weighing())
    if heads.task == "segment":
        threshold_surface(arrays, confs, weighing=Weighing(), masks=True)
    return heads


def timed(work: Any, *arguments: Any) -> tuple[float, Any]:
    """Return the seconds that a call took, and what it returned."""
    start = time.perf_counter()
    done = work(*arguments)
    return time.perf_counter() - start, done


def n_different(ours: MatchArrays, theirs: Arrays) -> int:
    """Return how many of the statistics arrays differ in a byte.

    Where an image has no detection, Ultralytics' scores and classes become doubles; they are single again before.
    """
    names = {"tp": ours.tp, "conf": ours.conf, "pred_cls": ours.pred_cls, "target_cls": ours.target_cls}
    names |= {"tp_m": ours.tp_mask} if ours.tp_mask is not None else {}
    return sum(theirs[name].astype(values.dtype).tobytes() != values.tobytes() for name, values in names.items())


def targets(name: str, measured: Measured) -> list[Target]:
    """Return what is promised of a case and what was measured."""
    speeds = [
        Target(
            f"{name}: {n} combinations, times as fast as {n} validations", measured.speed(n).value, limit, at_least=True
        )
        for n, limit in LIMITS.items()
    ]
    return [*speeds, Target(f"{name}: statistics arrays that differ", measured.n_different, 0)]


def summary(case: Case, measured: Measured) -> dict[str, Any]:
    """Return the figures of a case."""
    speeds = {n: measured.speed(n) for n in GRIDS}
    return {
        "weights": case.weights.name,
        "data": case.dataset.name,
        "imgsz": case.imgsz,
        "n_images": measured.n_images,
        "n_detections": measured.n_detections,
        "validation_s": float(np.median(measured.validations_s)),
        "replay_s": {n: float(np.median(seconds)) for n, seconds in measured.replays_s.items()},
        "speed": {n: {"value": s.value, "interval_95": [s.low, s.high]} for n, s in speeds.items()},
        "n_different": measured.n_different,
    }


class Remembering:
    """Keeps the statistics of the last validation, which Ultralytics throws away."""

    last: Arrays

    def get_stats(self) -> Any:
        """Return Ultralytics' metrics."""
        statistics = self.metrics.stats  # type: ignore[attr-defined]
        type(self).last = {name: np.concatenate(values) for name, values in statistics.items()}
        return super().get_stats()  # type: ignore[misc]


class RememberingDetection(Remembering, DetectionValidator):  # type: ignore[misc]
    """`DetectionValidator` that remembers."""


class RememberingSegmentation(Remembering, SegmentationValidator):  # type: ignore[misc]
    """`SegmentationValidator` that remembers."""


def with_outlines(case: Case, folder: Path) -> Path:
    """Return the data.yaml of the case's split with every box written as an outline."""
    split = case.dataset.splits[case.split]
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for image, label in zip(split.images, split.labels, strict=True):
        (folder / "images" / image.name).symlink_to(image)
        rows = [line.split() for line in label.read_text().splitlines() if line.strip()] if label else []
        text = "".join(f"{row[0]} {outline([float(value) for value in row[1:5]])}\n" for row in rows)
        (folder / "labels" / image.name).with_suffix(".txt").write_text(text)
    content = {"path": str(folder), "train": "images", "val": "images", "names": list(case.dataset.names)}
    (folder / "data.yaml").write_text(yaml.safe_dump({**content, case.split: "images"}))
    return folder / "data.yaml"


def outline(box: Sequence[float]) -> str:
    """Return the corners x1 y1 … x4 y4 of a box given by centre and size."""
    x, y, width, height = box
    left, right = max(x - width / 2, 0.0), min(x + width / 2, 1.0)
    top, bottom = max(y - height / 2, 0.0), min(y + height / 2, 1.0)
    return " ".join(f"{value:.6f}" for value in (left, top, right, top, right, bottom, left, bottom))


def as_segmentation(weights: Path, folder: Path) -> Path:
    """Return a segmentation checkpoint whose boxes are those of a detector and whose masks are random."""
    detector = YOLO(weights, verbose=False).model
    content = {**detector.yaml, "nc": len(detector.names)}
    sources, repeats, _, _ = content["head"][-1]
    content["head"] = [*content["head"][:-1], [sources, repeats, "Segment", ["nc", 32, 256]]]
    content["scales"] = {detector.yaml["scale"]: detector.yaml["scales"][detector.yaml["scale"]]}
    content.pop("yaml_file", None)
    file = folder / "segment.yaml"  # a name that means no scale: the yaml's only one counts
    file.write_text(yaml.safe_dump(content))
    network = YOLO(file, task="segment", verbose=False)
    network.model.load_state_dict(detector.float().state_dict(), strict=False)
    network.model.names = detector.names
    network.save(folder / "segment.pt")
    return folder / "segment.pt"


if __name__ == "__main__":
    sys.exit(main())
