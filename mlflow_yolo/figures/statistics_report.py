"""The interactive page about a run's blocks: a heat map by block and step, curves of one block, its histograms.

It is drawn by a script of our own on canvases rather than by plotly, whose script alone is 4.8 MB in every run and
knows neither hatched (frozen) cells nor the arrow keys. This page weighs 40 kB and its numbers, asks for nothing from
anywhere, and works in the sandboxed frame in which MLflow shows artifacts.
"""

import base64
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib import colormaps
from matplotlib.colors import to_hex

from mlflow_yolo.figures.block_steps import (
    BlockSteps,
    block_names,
    block_steps,
    frozen_blocks,
    gather,
    nonfinite_steps,
)
from mlflow_yolo.figures.histogram_ridges import signed_shares

MOST_COLUMNS = 500
"""Columns of the heat map: two pixels each on a page of 1280 pixels."""
MOST_RIDGES = 12
_KINDS = ("weights", "ema_weights", "gradients")
_FIRST = ("gradients", "l2")
"""The statistic that the page opens with."""
_ORDER = ("gradients", "weights", "global", "activations", "batch_norm")


def statistics_report(
    frame: pd.DataFrame,
    arrays: Mapping[str, npt.NDArray[Any]],
    *,
    title: str,
    names: Mapping[int, str] | None = None,
    facts: Mapping[str, object] | None = None,
) -> str:
    """Return the page as text: HTML with inline style and script, no request to anywhere.

    Args:
        frame: Tidy table: epoch, step, block, name, kind, statistic, value; rows of kind `state` say what was frozen
            and where gradients were not finite.
        arrays: `epochs` (E,), `blocks` (B,), and for `weights`, `ema_weights` and `gradients` counts (E, B, 2, 64):
            positive, negative. Empty where there are no histograms.
        title: What was trained.
        names: Names of all blocks by index, also of those without any row; default those in the table.
        facts: Names and values below the title.

    Returns:
        An HTML document. Everything passed in is escaped. More than 500 sampled steps are gathered into columns with
        mean, smallest and largest value, and the page says so; histograms of at most 12 epochs are shown.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_template("statistics_report.html"))
    return template.render(
        title=title,
        facts=dict(facts or {}),
        data=_as_script(page_data(frame, arrays, names=names)),
        script=_template("statistics_report.js"),
    )


def page_data(
    frame: pd.DataFrame, arrays: Mapping[str, npt.NDArray[Any]], *, names: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """Return what the page's script draws; arrays are encoded as `encode` does, (columns, blocks)."""
    blocks = {**block_names(frame), **(names or {})}
    tables = sorted(block_steps(frame), key=_place)
    axes: list[dict[str, Any]] = []
    statistics = [_statistic(table, axes) for table in tables]
    colors = colormaps["viridis"](np.linspace(0, 1, 64))
    return {
        "blocks": [[index, name] for index, name in sorted(blocks.items())],
        "epochs": sorted({int(epoch) for epoch in frame["epoch"].unique()}),
        "frozen": {block: sorted(epochs) for block, epochs in frozen_blocks(frame).items()},
        "nonfinite": nonfinite_steps(frame),
        "axes": axes,
        "statistics": statistics,
        "histograms": _histograms(arrays),
        "colors": [to_hex(color) for color in colors],
    }


def encode(values: npt.ArrayLike) -> str:
    """Return float32 values without their last byte, base64: three bytes each, exact to 1 part in 65,000.

    NaN and infinity stay what they are.
    """
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(values, dtype="<f4").ravel().view("<u4").astype(np.uint64)
    rounded = ((bits + 0x80) >> 8).astype("<u4")
    return base64.b64encode(rounded.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()).decode("ascii")


def _place(table: BlockSteps) -> tuple[bool, int]:
    """Return where a statistic stands among the others; those of one kind stay in their order."""
    kind = _ORDER.index(table.kind) if table.kind in _ORDER else len(_ORDER)
    return (table.kind, table.statistic) != _FIRST, kind


def _statistic(table: BlockSteps, axes: list[dict[str, Any]]) -> dict[str, Any]:
    columns = gather(table, most=MOST_COLUMNS)
    epochs, means = table.epoch_means()
    is_gathered = len(columns.first) < len(table.steps)
    once = len(epochs) == len(table.steps)
    return {
        "kind": table.kind,
        "name": table.statistic,
        "axis": _axis(table, columns.first, axes),
        "blocks": table.blocks.tolist(),
        "mean": encode(columns.mean),
        "low": encode(columns.low) if is_gathered else None,
        "high": encode(columns.high) if is_gathered else None,
        "epochMeans": None if once else encode(means),
    }


def _axis(table: BlockSteps, first: npt.NDArray[np.int64], axes: list[dict[str, Any]]) -> int:
    """Return the index in `axes` of the columns' places; statistics that were sampled together share one."""
    last = np.append(first[1:], len(table.steps)) - 1
    epochs, starts = np.unique(table.epochs, return_index=True)
    per_column = int(first[1] - first[0]) if len(first) > 1 else max(1, len(table.steps))
    axis = {
        "nSteps": len(table.steps),
        "perColumn": per_column,
        "firstEpoch": table.epochs[first].tolist(),
        "firstStep": table.steps[first].tolist(),
        "lastEpoch": table.epochs[last].tolist(),
        "lastStep": table.steps[last].tolist(),
        "epochs": epochs.tolist(),
        "starts": starts.tolist(),
    }
    if axis not in axes:
        axes.append(axis)
    return axes.index(axis)


def _histograms(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any] | None:
    """Return shares of some epochs by sign and power of two, one axis for both kinds; None without histograms."""
    counted = {kind: arrays[kind][:, :, ::-1] for kind in _KINDS if kind in arrays and arrays[kind].any()}
    if not counted:
        return None
    epochs = arrays["epochs"]
    kept = np.unique(np.linspace(0, len(epochs) - 1, min(MOST_RIDGES, len(epochs))).round().astype(np.int64))
    result: dict[str, Any] = {"epochs": epochs[kept].tolist(), "blocks": arrays["blocks"].tolist(), "kinds": {}}
    result["nEpochs"] = len(epochs)
    for kind, counts in counted.items():
        shares, lowest, highest = signed_shares(counts)
        sizes = counts[kept].sum(axis=(2, 3))
        if f"{kind}_zeros" in arrays:
            sizes = sizes + arrays[f"{kind}_zeros"][kept]
        result["kinds"][kind] = {
            "lowest": lowest,
            "highest": highest,
            "shares": encode(shares[kept]),
            "sizes": sizes.tolist(),
        }
    return result


def _as_script(data: Mapping[str, Any]) -> str:
    """Return JSON that can stand in a script element: no `<` in it, so that no name can end the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _template(name: str) -> str:
    return files(__package__).joinpath(f"templates/{name}").read_text("utf-8")
