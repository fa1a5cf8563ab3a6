"""What a pruning did."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo.compression.pruning.size import Size, Width, compare_widths

if TYPE_CHECKING:
    import pandas as pd


UNSTRUCTURED = "zeros are multiplied like other weights: neither faster nor smaller"


@dataclass(frozen=True)
class PruningRecord:
    """What a pruning was asked for and what it reached.

    Attributes:
        method: `structured`, `dead-channels` or `unstructured`.
        ratio: Share asked for: of each layer's channels (structured) or of the weights (unstructured); None for dead
            channels, where the channels say how many.
        ratio_reached: Share of all output channels (unstructured: of the weights) that is gone. Channels that put
            something out, and attention's, are counted and never go.
        parameters_before: Number of parameters of the parent as it is trained.
        parameters_after: The same of the result.
        macs_before: Multiply-adds for one image as deployed (batch norms fused, one branch of a YOLO26 head).
        macs_after: The same of the result.
        size_mb_before: Size of the parent's file, 1e6 bytes.
        size_mb_after: Size of the result's file, 1e6 bytes.
        widths: Output channels of every layer, before and after.
        imgsz: Input size that multiply-adds were counted at, pixels.
        importance: What channels were kept for; '' for dead channels.
        round_to: What widths were rounded to.
        steps: In how many steps.
        parts: The ratios of parts with one of their own.
        recalibrated: Whether batch norms were counted anew.
        seconds: How long it took.
        output_change: Largest difference of a raw output (logits) between parent and result; None where not proved.
        score_change: The same of a class probability.
        n_images: Images the change was measured on.
    """

    method: str
    ratio: float | None
    ratio_reached: float
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    size_mb_before: float
    size_mb_after: float
    widths: tuple[Width, ...]
    imgsz: int
    importance: str = ""
    round_to: int = 1
    steps: int = 1
    parts: Mapping[str, float] = field(default_factory=dict)
    recalibrated: bool = False
    seconds: float = 0.0
    output_change: float | None = None
    score_change: float | None = None
    n_images: int = 0

    @property
    def note(self) -> str:
        """What a reader of the figures must know; '' for nothing."""
        return UNSTRUCTURED if self.method == "unstructured" else ""

    @property
    def macs_ratio(self) -> float:
        """Multiply-adds of the result over those of the parent."""
        return self.macs_after / self.macs_before

    def block_widths(self) -> dict[int, tuple[int, int]]:
        """Return the sum of output channels before and after, by block."""
        sums: dict[int, tuple[int, int]] = {}
        for width in self.widths:
            before, after = sums.get(width.block, (0, 0))
            sums[width.block] = before + width.before, after + width.after
        return sums

    def to_frame(self) -> "pd.DataFrame":
        """Return the widths as a table: block, layer, before, after."""
        import pandas as pd

        return pd.DataFrame([asdict(width) for width in self.widths], columns=["block", "layer", "before", "after"])

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        return {**asdict(self), "parts": dict(self.parts), "widths": [asdict(width) for width in self.widths]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PruningRecord":
        """Return the record that `to_json` gave."""
        return cls(**{**data, "widths": tuple(Width(**width) for width in data["widths"])})


def size_fields(before: Size, after: Size, checkpoint: Path, path: Path) -> dict[str, Any]:
    """Return the fields of a record that two measured networks and their files give."""
    return {
        "parameters_before": before.parameters,
        "parameters_after": after.parameters,
        "macs_before": before.macs,
        "macs_after": after.macs,
        "size_mb_before": checkpoint.stat().st_size / 1e6,
        "size_mb_after": path.stat().st_size / 1e6,
        "widths": compare_widths(before, after),
    }
