"""What of an epoch's block statistics becomes a metric: few of them, since MLflow's UI draws a card for each key."""

from collections.abc import Mapping

from mlflow_yolo import keys
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics, Key

BLOCK_METRICS = {
    "gradient_l2": ("gradients", "l2"),
    "update_ratio": ("weights", "update_ratio"),
    "off_fraction": ("activations", "off_fraction"),
}
"""What is logged of every block as a metric, in this order while `MAX_BLOCK_METRICS` allows; the rest is in files."""

MAX_BLOCK_METRICS = 60
MODEL_METRICS = ("gradient_norm", "clip_coefficient")


def block_metrics(summary: Mapping[Key, float], names: Mapping[int, str]) -> dict[str, float]:
    """Return an epoch's metrics by key, from `EpochStatistics.summary`; what was not measured is absent.

    Args:
        summary: Means over the epoch's sampled steps by kind, statistic and block index.
        names: Block names by index.
    """
    of_model = {name: summary.get(("global", name, NO_BLOCK)) for name in MODEL_METRICS}
    values = {keys.model_metric(name): value for name, value in of_model.items() if value is not None}
    for name, measured in BLOCK_METRICS.items():
        of_blocks = {
            keys.block_metric(name, names[block]): value
            for (kind, statistic, block), value in summary.items()
            if (kind, statistic) == measured and block != NO_BLOCK
        }
        if len(values) + len(of_blocks) <= MAX_BLOCK_METRICS:
            values |= of_blocks
    return values


def step_metrics(found: EpochStatistics, *, n_aborted: int, scaled: bool) -> dict[str, float]:
    """Return how many steps of an epoch had a NaN or infinite gradient, and with a loss scale its mean.

    Args:
        found: The whole epoch.
        n_aborted: Such steps in attempts at this epoch that the trainer gave up.
        scaled: Whether the gradients carry a loss scale. The scaler leaves such a step out; without one it is taken.
    """
    n_nonfinite = float(len(found.nonfinite_steps))
    values = {keys.model_metric("nonfinite_steps"): n_nonfinite + n_aborted}
    if scaled:
        values[keys.model_metric("skipped_steps")] = n_nonfinite
        scale = found.summary().get(("global", "loss_scale", NO_BLOCK))
        values |= {} if scale is None else {keys.model_metric("loss_scale"): scale}
    return values
