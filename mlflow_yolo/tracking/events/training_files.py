"""The files Ultralytics leaves in its save_dir, logged under names that are the same for every run."""

from collections.abc import Iterable
from pathlib import Path

from mlflow_yolo.tracking.run import TrackedRun

TABLES = ("args.yaml", "results.csv")
_PICTURES = ("*.png", "*.jpg")
_PREDICTIONS = "val_batch*_pred.jpg"


def log_training_files(
    run: TrackedRun,
    save_dir: Path,
    *,
    weights: Iterable[str] = ("best.pt",),
    images: bool = True,
    plots: str = "plots",
) -> None:
    """Log what is there of Ultralytics' arguments, results, plots and weights.

    Args:
        run: The open run.
        save_dir: Ultralytics' folder of one training or validation; nothing happens where it is gone.
        weights: Names of the checkpoints to log under `weights/`.
        images: Whether plots are logged.
        plots: Where plots go.
    """
    _log_existing(run, [save_dir / name for name in TABLES], "")
    if images:
        for pattern in _PICTURES:
            _log_existing(run, sorted(save_dir.glob(pattern)), plots)
    _log_existing(run, [save_dir / "weights" / name for name in weights], "weights")


def log_predictions(run: TrackedRun, save_dir: Path, *, step: int, series: str = "predictions") -> None:
    """Add Ultralytics' pictures of validation images with their predicted boxes to the grid of MLflow's UI."""
    for file in sorted(save_dir.glob(_PREDICTIONS)):
        run.log_image(f"{series}/{file.stem.removeprefix('val_').removesuffix('_pred')}", file, step=step)


def _log_existing(run: TrackedRun, files: Iterable[Path], artifact_path: str) -> None:
    for file in files:
        if file.is_file():
            run.log_file(file, artifact_path)
