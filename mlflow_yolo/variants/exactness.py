"""Whether a float32 export computes what its checkpoint computes, on real images."""

from pathlib import Path

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.images import read_image
from mlflow_yolo.runtime.parity import MAX_BOX_PX, MAX_SCORE, Parity, parity
from mlflow_yolo.variants.checkpoints import open_pipeline
from mlflow_yolo.variants.subject import Subject

N_IMAGES = 16
"""Images that an exported file is compared with its checkpoint on."""


def check_parity(subject: Subject, folder: Path) -> Parity:
    """Return how far a float32 export is from its checkpoint on real images.

    Raises:
        ArgumentError: It is further off than rounding explains, so it must not be used.
    """
    images = [read_image(file) for file in subject.dataset.splits[subject.split].images[:N_IMAGES]]
    found = parity(open_pipeline(subject.checkpoint, imgsz=subject.imgsz), open_pipeline(folder), images)
    if not found.holds:
        raise ArgumentError(
            f"the float32 export differs from {subject.checkpoint.name} by {found.score_max:.2g} in a score and "
            f"{found.box_max_px:.2g} px in a box, more than {MAX_SCORE:g} and {MAX_BOX_PX:g} px. "
            "Try another opset, or --simplify false."
        )
    return found
