"""The commands `export` and `quantize`: files of a checkpoint, checked against it, not timed."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlflow_yolo.compression.quantization.calibration import CalibrationSet, choose_calibration
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.figures.table import text_table
from mlflow_yolo.runtime.accuracy import Accuracy, measure_accuracy
from mlflow_yolo.runtime.parity import Parity
from mlflow_yolo.stages import Stages
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variant import read_variant, size_mb
from mlflow_yolo.variants.checkpoints import open_pipeline
from mlflow_yolo.variants.exactness import check_parity
from mlflow_yolo.variants.making import BASE, METHODS, Orders, make_variant
from mlflow_yolo.variants.subject import Subject, read_subject
from mlflow_yolo.variants.table import loss_warning
from mlflow_yolo.variants.workplace import Workplace, workplace

OPSETS = range(9, 23)
"""ONNX operator sets in which a YOLO11 was exported and opened by ONNX Runtime."""


def run_export(
    *,
    data: str,
    model: str,
    kinds: Sequence[str],
    imgsz: int | None,
    split: str,
    trust: bool,
    options: Mapping[str, Any],
    tracking: Target,
    output: str | None,
) -> str:
    """Export a checkpoint to float files, check them against it, and return the lines to print.

    Args:
        data: As for a training; parity and operating point are measured on it.
        model: A checkpoint.
        kinds: Checked kinds, see `making.parse_kinds`.
        imgsz: Side of the input, None for the one the model was trained with.
        split: Of the scores.
        trust: Load a checkpoint that names foreign classes.
        options: `opset`, `dynamic`, `simplify`.
        tracking: Where the run goes.
        output: The folder, None for a new one below `runs`. Each variant is a folder in it, named after its kind.

    Raises:
        InputError: Something in the input cannot work; nothing has been written.
    """
    check_opset(options.get("opset"))
    subject = read_subject(model, data, split=split, imgsz=imgsz, trust=trust)
    question = {"kinds": ",".join(kinds), **options}
    with workplace("export", output, subject, question, tracking) as place, Stages() as stages:
        return _make_and_check(Orders(subject, **options), kinds, place, stages)


def run_quantize(
    *,
    data: str,
    model: str,
    kinds: Sequence[str],
    method: str,
    calibration: int,
    max_drop: float,
    symmetric: bool,
    imgsz: int | None,
    split: str,
    seed: int,
    trust: bool,
    tracking: Target,
    output: str | None,
) -> str:
    """Make int8 files of a checkpoint, measure what they lose, and return the lines to print.

    Args:
        data: As for a training; calibrated on its train split, chosen on val, reported on `split`.
        model: A checkpoint.
        kinds: Checked kinds, see `making.parse_kinds`.
        method: One of `making.METHODS`.
        calibration: Images to calibrate on.
        max_drop: Largest loss on val, in hundredths of the headline value, that `method=auto` accepts.
        symmetric: Whether the zero of activations is the middle of their range.
        imgsz: Side of the input, None for the one the model was trained with.
        split: Of the scores.
        seed: Of the choice of calibration images.
        trust: Load a checkpoint that names foreign classes.
        tracking: Where the run goes.
        output: The folder, None for a new one below `runs`. Each variant is a folder in it, named after its kind.

    Raises:
        InputError: Something in the input cannot work; nothing has been written.
    """
    check_method(method, max_drop)
    subject = read_subject(model, data, split=split, imgsz=imgsz, trust=trust)
    chosen = choose_calibration(subject.dataset, n=calibration, seed=seed)
    orders = Orders(subject, chosen, method=method, max_drop=max_drop / 100, symmetric=symmetric)
    question = {"kinds": ",".join(kinds), "method": method, "max_drop": max_drop, "symmetric": symmetric}
    question |= calibration_params(chosen)
    with workplace("quantize", output, subject, question, tracking) as place, Stages() as stages:
        return _make_and_check(orders, kinds, place, stages)


def check_opset(opset: int | None) -> None:
    """Raise ArgumentError for an operator set that the exporter cannot write."""
    if opset is not None and opset not in OPSETS:
        raise ArgumentError(f"opset={opset} is not supported. Use {OPSETS[0]} to {OPSETS[-1]}, or leave it out.")


def check_method(method: str, max_drop: float) -> None:
    """Raise ArgumentError for a calibration method that does not exist or a loss that is none."""
    if method not in METHODS:
        raise ArgumentError(f"method={method} does not exist. Use one of {', '.join(METHODS)}.")
    if not 0 <= max_drop <= 100:
        raise ArgumentError(f"max_drop={max_drop:g} is no loss in points. Use 0 to 100, for example 0.5.")


def calibration_params(chosen: CalibrationSet) -> dict[str, Any]:
    """Return what a run says of its calibration images."""
    return {
        "calibration_images": len(chosen.files),
        "calibration_sha256": chosen.sha256[:12],
        "calibration_split": chosen.split,
    }


def log_parity(place: Workplace, found: Parity) -> None:
    """Log how far the float32 export is from its checkpoint."""
    place.run.log_metrics({"parity/score_max": found.score_max, "parity/box_max_px": found.box_max_px})


def _make_and_check(orders: Orders, kinds: Sequence[str], place: Workplace, stages: Stages) -> str:
    subject = orders.subject
    wanted = dict.fromkeys([BASE, *kinds])
    count = stages.count("making", unit="variant")
    folders = {kind: place.directory / kind for kind in wanted}
    for done, kind in enumerate(wanted, start=1):
        make_variant(kind, folders[kind], orders, base=folders[BASE])
        count(done, len(wanted))
    found = check_parity(subject, folders[BASE])
    log_parity(place, found)
    scores = {subject.checkpoint.name: _score(subject, partial(open_pipeline, subject.checkpoint, imgsz=subject.imgsz))}
    scores |= {kind: _score(subject, partial(open_pipeline, folder)) for kind, folder in folders.items()}
    for kind in kinds:
        place.run.log_file(folders[kind])
        place.run.log_metrics({f"{subject.split}/{kind}": scores[kind].headline[1]})
    lines = [_row(name, score, folders.get(name, subject.checkpoint)) for name, score in scores.items()]
    metric = next(iter(scores.values())).headline[0]
    return "\n".join(
        [
            text_table(["variant", "MB", f"{subject.split} {metric}", "worst class", "conf on val"], lines),
            *(line for kind in kinds for line in loss_warning(kind, read_variant(folders[kind], check=False))),
            f"parity on {found.n_images} images: scores to {found.score_max:.1e}, boxes to {found.box_max_px:.1e} px",
            f"result: {place.directory}",
        ]
    )


def _score(subject: Subject, opened: Any) -> Accuracy:
    return measure_accuracy(opened, subject.dataset, subject.split)


def _row(name: str, score: Accuracy, path: Path) -> list[object]:
    worst, value = score.worst_class
    point = read_variant(path).operating_point if path.is_dir() else {}
    conf = f"{point['conf']:.3f}" if point else None
    return [name, f"{size_mb(path):.1f}", f"{score.headline[1]:.4f}", f"{worst} {value:.3f}", conf]
