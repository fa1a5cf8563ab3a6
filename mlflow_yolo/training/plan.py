"""What one training does, as plain data that survives a job file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DEFAULT_IMGSZ = 640
EMBEDDED_IMGSZ = 128
DEFAULT_DATA = "digits-logchroma"
DEFAULT_MODEL = "digits"
DEFAULT_OPTIMIZER = "AdamW"
DEFAULT_LR0 = 0.002
DEFAULT_EPOCHS = 5
DEFAULT_BATCH = 16


@dataclass(frozen=True)
class Stage:
    """One stretch of training with one set of frozen blocks.

    Attributes:
        epochs: Number of epochs.
        freeze: Indices of frozen blocks.
        lr0: Initial learning rate.
        warmup_epochs: Epochs over which the learning rate rises to lr0.
    """

    epochs: int
    freeze: tuple[int, ...]
    lr0: float
    warmup_epochs: float


@dataclass(frozen=True)
class Plan:
    """One training of one configuration with one seed.

    Attributes:
        model: A located model (see `training.checkpoint.read_model`).
        data: The data as the user named it.
        task: The model's task.
        stages: One stage, or two for two-stage training.
        seed: Seed of weights, augmentation and data order.
        imgsz: Input size, pixels.
        batch: Images a batch.
        device: A checked device.
        optimizer: An explicit optimizer, never `auto`.
        statistics: `off` or `default`.
        arguments: Further Ultralytics arguments by their own names.
    """

    model: str
    data: str
    task: str
    stages: tuple[Stage, ...]
    seed: int
    imgsz: int
    batch: int
    device: str
    optimizer: str
    statistics: str = "default"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Plan":
        """Return the plan that `to_json` wrote."""
        stages = tuple(Stage(**{**stage, "freeze": tuple(stage["freeze"])}) for stage in data["stages"])
        return cls(**{**data, "stages": stages})


def default_imgsz(data: str) -> int:
    """Return the input size for a dataset the user gave no size for: 128 for the embedded digits, else 640."""
    return EMBEDDED_IMGSZ if data.startswith("digits") and "/" not in data and "." not in data else DEFAULT_IMGSZ


def domain_arguments(domain: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with the defaults a data domain asks for.

    Log-chromaticity images hold no hue and saturation in the sense of sRGB, so colour augmentation would shift their
    meaning: hsv_h and hsv_s default to 0 there.
    """
    defaults = {"hsv_h": 0.0, "hsv_s": 0.0} if domain == "log-chromaticity" else {}
    return {**defaults, **given}
