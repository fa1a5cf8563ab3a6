"""What one training does, as plain data that survives a job file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.datasets.digits import EMBEDDED


@dataclass(frozen=True)
class Stage:
    """One stretch of training that starts with one set of frozen blocks.

    Attributes:
        epochs: Number of epochs.
        freeze: Indices of the blocks that are frozen when it starts.
        lr0: Initial learning rate.
        warmup_epochs: Epochs over which the learning rate rises to lr0.
        unfreeze: When frozen blocks begin to train: pairs of an epoch of this stage, counted from 0, and the indices
            of the blocks that train from its start on.
        ramp_epochs: Epochs over which the learning rate of blocks rises from 0 to its full value after they unfreeze.
    """

    epochs: int
    freeze: tuple[int, ...]
    lr0: float
    warmup_epochs: float
    unfreeze: tuple[tuple[int, tuple[int, ...]], ...] = ()
    ramp_epochs: float = 1.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Stage":
        """Return the stage that `Plan.to_json` wrote; one written before blocks could unfreeze has none that do."""
        unfreeze = tuple((int(epoch), tuple(blocks)) for epoch, blocks in data.get("unfreeze", ()))
        return cls(**{**data, "freeze": tuple(data["freeze"]), "unfreeze": unfreeze})


@dataclass(frozen=True)
class Plan:
    """One training of one configuration with one seed.

    Attributes:
        model: A located model (see `models.checkpoint.read_model`).
        data: The data as the user named it.
        task: The model's task.
        stages: One stage, or two for two-stage training (see `training.strategies.stages_of`).
        seed: Seed of weights, augmentation and data order.
        imgsz: Input size, pixels.
        batch: Images a batch.
        device: A checked device.
        optimizer: An explicit optimizer, never `auto`.
        statistics: `off`, `default` or `all`, see `tracking.block_statistics.LEVELS`.
        every_n_steps: Sample every n-th optimizer step; None for what `statistics` says.
        maps: Epochs between two sets of maps of where the model looks, None for what 3 % of the time allow, 0 for none.
        arguments: Further Ultralytics arguments by their own names.
        distillation: What is learned from a teacher (see `compression.distillation.settings`), None for nothing.
        lr_decay: Factor of the learning rate from each block to the one before it, above 0; the head has the full rate.
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
    every_n_steps: int | None = None
    maps: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    distillation: Mapping[str, Any] | None = None
    lr_decay: float = 1.0

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
        return cls(**{**data, "stages": tuple(Stage.from_json(stage) for stage in data["stages"])})


def default_arguments(dataset: Dataset) -> dict[str, Any]:
    """Return the Ultralytics arguments that a dataset asks for where the user gives none.

    Log-chromaticity images hold no hue and saturation in the sense of sRGB, so colour augmentation would shift their
    meaning; a mirrored digit is no digit.
    """
    colour = {"hsv_h": 0.0, "hsv_s": 0.0} if dataset.domain == "log-chromaticity" else {}
    return colour | ({"fliplr": 0.0} if dataset.name in EMBEDDED else {})
