"""One way to run everything that is compared: checkpoints through PyTorch, variants through their runtime."""

from pathlib import Path

from mlflow_yolo.runtime import pipeline
from mlflow_yolo.runtime.pipeline import Pipeline

OPENER = f"{__name__}:open_pipeline"
"""What a benchmark's worker calls."""


def open_pipeline(path: str | Path, *, threads: int | None = None, imgsz: int | None = None) -> Pipeline:
    """Return the pipeline of a checkpoint or a variant.

    The checkpoint has been scanned, or trusted, by whoever named it.

    Args:
        path: A `.pt` file, a variant's folder, or an exported model.
        threads: Threads of one inference, None for what the runtime takes.
        imgsz: Side of a checkpoint's input, pixels; None for the one it was trained with.
    """
    if Path(path).suffix != ".pt":
        return pipeline.open_pipeline(path, threads=threads, imgsz=imgsz)
    from mlflow_yolo.models.session import open_checkpoint

    variant, session = open_checkpoint(path, threads=threads, imgsz=imgsz, trust=True)
    return Pipeline(variant, session)
