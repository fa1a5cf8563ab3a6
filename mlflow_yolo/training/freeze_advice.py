"""A hint at how deep to freeze, taken from a few batches before anything is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo.blocks import Block
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.training.block_need import BlockAdvice, best_depth, block_rows, depth_scores
from mlflow_yolo.training.freeze_reasons import reasons

if TYPE_CHECKING:
    from mlflow_yolo.training.block_evidence import Evidence

N_BATCHES = 8
_LARGEST_BATCH = 16


@dataclass(frozen=True)
class FreezeAdvice:
    """A hint at how deep to freeze, and why.

    Attributes:
        blocks: One row a block, in the model's order.
        depth: How many leading blocks to freeze.
        reasons: Why, one sentence each.
        data: Name of the data.
        source: Name of the data that it was held against, None where the noise of the gradient had to do.
        n_batches: Batches it was measured on.
        n_images: Images in them.
    """

    blocks: tuple[BlockAdvice, ...]
    depth: int
    reasons: tuple[str, ...]
    data: str
    source: str | None
    n_batches: int
    n_images: int

    @property
    def scores(self) -> tuple[float, ...]:
        """What speaks for freezing each depth from 0 up to everything but the head; see `depth_scores`."""
        return depth_scores(self.blocks)

    def to_json(self) -> dict[str, Any]:
        """Return the advice as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FreezeAdvice":
        """Return the advice that `to_json` wrote."""
        blocks = tuple(BlockAdvice(**block) for block in data["blocks"])
        return cls(**{**data, "blocks": blocks, "reasons": tuple(data["reasons"])})


def advise(
    model: str,
    blocks: Sequence[Block],
    dataset: Dataset,
    *,
    imgsz: int,
    batch: int,
    device: str,
    directory: Path,
    n_batches: int = N_BATCHES,
    seed: int = 0,
    source: Dataset | None = None,
    arguments: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> FreezeAdvice:
    """Return how deep to freeze after a few batches of the training split.

    Nothing is trained and nothing changed; the memory is that of a training step in single precision.

    Args:
        model: A located checkpoint.
        blocks: Its blocks.
        dataset: What is to be trained on.
        imgsz: Input size, pixels.
        batch: Images a batch of the training; here at most 16, and fewer where there would be too few batches.
        device: A checked device.
        directory: Where files lie for a while.
        n_batches: Batches; with a single one only `source` can tell a need.
        seed: Decides which images, and the weights of a new head.
        source: What the model was trained on, with its classes.
        arguments: Ultralytics arguments of the training.
        progress: Told how many passes over batches are done, and of how many.

    Raises:
        InputError: Model or data cannot be used.
    """
    from ultralytics.utils.torch_utils import select_device

    from mlflow_yolo.training.block_evidence import measure_blocks

    place = select_device(device, verbose=False)

    def evidence(data: Dataset, n_done: int) -> "Evidence":
        return measure_blocks(
            model,
            data,
            imgsz=imgsz,
            batch=_batch_size(data, batch, n_batches),
            n_batches=n_batches,
            seed=seed,
            device=place,
            directory=directory,
            arguments=arguments or {},
            progress=lambda done, total: progress(n_done + done, total * (1 if source is None else 2)),
        )

    target = evidence(dataset, 0)
    known = evidence(source, 2 * target.n_batches) if source else None
    rows = block_rows(blocks, target, known)
    depth = best_depth(rows)
    return FreezeAdvice(
        blocks=rows,
        depth=depth,
        reasons=reasons(
            rows, depth, data=dataset.name, source=source.name if source else None, new_head=target.new_head
        ),
        data=dataset.name,
        source=source.name if source else None,
        n_batches=target.n_batches,
        n_images=target.n_images,
    )


def _batch_size(dataset: Dataset, batch: int, n_batches: int) -> int:
    """Return the images of a batch: few enough that a small split still gives all batches."""
    return max(1, min(batch, _LARGEST_BATCH, dataset.splits["train"].n_images // n_batches))
