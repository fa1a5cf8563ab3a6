"""How the weights of each block are distributed, and how that moves over the epochs.

Ridges on a signed logarithmic axis were chosen over a linear density: the histograms have one bin per power of two, so
that on a linear axis three bins a side hold nearly everything and the curve is a staircase; by exponent a block's bulk
covers eight to ten bins, and a change of scale is a shift.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.lettering import legible
from mlflow_yolo.figures.seed_range import Floats

N_BINS = 64
LOWEST_EXPONENT = -40
MOST_BLOCKS = 24
MOST_RIDGES = 10
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = "\N{MINUS SIGN}"
_NEGLIGIBLE = 2e-3  # share of a block's values below which a bin does not widen the axis
_OVERLAP = 2.4  # height of the highest ridge in distances between ridges


def histogram_ridges(
    counts: npt.ArrayLike,
    *,
    blocks: Sequence[str],
    what: str = "weights",
    subject: str = "",
    epochs: Sequence[int] | None = None,
    frozen: Sequence[str] = (),
) -> Figure:
    """Return one panel per block: a ridge per epoch of the distribution by sign and power of two.

    Args:
        counts: (n_epochs, n_blocks, 2, 64); sign 0 is negative, 1 positive; bin k counts the values whose magnitude
            lies in [2^(k-40), 2^(k-39)), the outermost bins also what lies beyond.
        blocks: Block names.
        what: What was counted: `weights` or `gradients`.
        subject: What was trained, appended to the title.
        epochs: (n_epochs,) their numbers; default from 1.
        frozen: Names of blocks that have no values because they were frozen; the figure says so.

    Returns:
        A figure with one axes per block that has values, gid `block:<name>`; its ridges are lines of gid
        `epoch:<number>`, at most 10, the first at the back. Of more than 24 blocks those 24 are drawn whose
        distribution changed most between first and last epoch.

    Raises:
        ShapeError: Counts are not (n_epochs, n_blocks, 2, 64), or blocks or epochs have another length.
    """
    table = np.array(counts, dtype=np.float64)
    if table.ndim != 4 or table.shape[1:] != (len(blocks), 2, N_BINS):
        raise ShapeError(
            f"counts has shape {table.shape} for {len(blocks)} blocks. Pass (n_epochs, {len(blocks)}, 2, {N_BINS})."
        )
    table = np.nan_to_num(table, nan=0, posinf=0, neginf=0).clip(min=0)
    numbers = np.arange(1, 1 + len(table)) if epochs is None else np.asarray(epochs, dtype=np.intp)
    if len(numbers) != len(table):
        raise ShapeError(f"counts has {len(table)} rows for {len(numbers)} epochs. Pass one row per epoch.")
    chosen, left_out = _choose(table)
    kept = np.unique(np.linspace(0, len(table) - 1, min(MOST_RIDGES, len(table))).round().astype(np.intp))
    n_columns = min(max(len(chosen), 1), 4 if len(chosen) > 6 else 3)
    n_rows = max(1, -(-len(chosen) // n_columns))
    figure = style.new_figure(width_in=max(2.5 * n_columns + 0.4, 5.6), height_in=1.75 * n_rows + 1.5)
    if not len(chosen) or not len(kept):
        style.state(figure, f"Distribution of {what} over the epochs")
        style.say_nothing_to_draw(figure, f"There are no {what} to draw.")
        return figure
    lowest, highest = _exponents(table[:, chosen])
    shares = _shares(table[:, chosen], lowest=lowest, highest=highest)
    n_values = table[-1, chosen].sum(axis=(1, 2))
    style.state(
        figure,
        f"Distribution of {what} by block, {_span(numbers)}" + (f": {subject}" if subject else ""),
        f"Height: share of the block's {what} per power of two, same scale everywhere. In the middle: "
        f"magnitudes below {_power(lowest + 1)}. n: values.{left_out}{_resting(frozen)}",
    )
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    for i, axes in enumerate(panels.flat):
        if i >= len(chosen):
            axes.set_visible(False)
            continue
        name = blocks[chosen[i]]
        axes.set_gid(f"block:{name}")
        _draw(axes, shares[kept, i], numbers=numbers[kept], scale=float(shares[kept].max()))
        _dress(axes, lowest=lowest, highest=highest, bottom=i + n_columns >= len(chosen))
        title = f"{legible(name, longest=20)}  n={_brief(n_values[i])}"
        axes.set_title(title, loc="left", **style.lettering(style.SMALL_SIZE))
    figure.supylabel("epoch: first at the back", **style.lettering(style.SMALL_SIZE, color=style.QUIET))
    return figure


def signed_shares(counts: npt.ArrayLike) -> tuple[Floats, int, int]:
    """Return how each histogram's values are spread over signed powers of two, on one axis for all.

    Args:
        counts: (n_epochs, n_blocks, 2, 64): negative, positive.

    Returns:
        (n_epochs, n_blocks, 2K - 1) shares from the most negative to the most positive power, the smallest magnitudes
        of both signs in the middle, all 0 for an empty histogram; the exponent of the middle; the largest exponent.
    """
    table = np.array(counts, dtype=np.float64)
    lowest, highest = _exponents(table)
    return _shares(table, lowest=lowest, highest=highest), lowest, highest


def _choose(table: Floats) -> tuple[npt.NDArray[np.intp], str]:
    """Return the blocks to draw, in the model's order, and the sentence about those left out."""
    totals = table.sum(axis=(2, 3))
    filled = np.flatnonzero((totals > 0).any(axis=0))
    if len(filled) <= MOST_BLOCKS:
        return filled, ""
    share = table / np.where(totals > 0, totals, 1)[:, :, None, None]
    change = np.abs(share[-1, filled] - share[0, filled]).sum(axis=(1, 2))
    most = np.argsort(-change, kind="stable")[:MOST_BLOCKS]
    return np.sort(filled[most]), f" {MOST_BLOCKS} of {len(filled)} blocks: those that changed most."


def _exponents(table: Floats) -> tuple[int, int]:
    """Return the bins from which to which the axis runs, common to all blocks; `table` is (E, B, 2, 64)."""
    totals = table.sum(axis=(2, 3), keepdims=True)
    largest = (table / np.where(totals > 0, totals, 1)).max(axis=(0, 1, 2))
    needed: npt.NDArray[np.bool_] = largest > _NEGLIGIBLE
    needed[0] = False  # what is too small for any bin belongs in the middle, whatever the axis shows
    bins = np.flatnonzero(needed)
    if not len(bins):
        return LOWEST_EXPONENT, LOWEST_EXPONENT + 2
    low, high = int(bins[0]) - 1, int(bins[-1]) + 1
    return max(low, 0) + LOWEST_EXPONENT, max(min(high, N_BINS - 1), low + 2) + LOWEST_EXPONENT


def _shares(table: Floats, *, lowest: int, highest: int) -> Floats:
    """Return (E, B, 2K - 1) shares from the most negative to the most positive bin, the lowest magnitudes in one."""
    first, last = lowest - LOWEST_EXPONENT, highest - LOWEST_EXPONENT
    inner = table[..., first : last + 1].copy()
    inner[..., 0] += table[..., :first].sum(axis=-1)
    inner[..., -1] += table[..., last + 1 :].sum(axis=-1)
    middle = inner[:, :, :, 0].sum(axis=2)[..., None]
    signed = np.concatenate([inner[:, :, 0, :0:-1], middle, inner[:, :, 1, 1:]], axis=-1)
    totals = signed.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(signed, totals, out=np.zeros_like(signed), where=totals > 0)
    return shares


def _draw(axes: Axes, shares: Floats, *, numbers: npt.NDArray[np.intp], scale: float) -> None:
    """Draw the ridges of one block; `shares` is (n_ridges, n_bins)."""
    places = np.arange(shares.shape[1]) - shares.shape[1] // 2
    colors = colormaps["Blues"](np.linspace(0.35, 0.95, len(shares)) if len(shares) > 1 else [0.85])
    n = len(shares)
    for i, (share, color, number) in enumerate(zip(shares, colors, numbers, strict=True)):
        base = float(n - 1 - i)
        curve = base + share / max(scale, 1e-12) * _OVERLAP
        axes.fill_between(places, base, curve, color=color, alpha=0.85, linewidth=0, zorder=2 + i)
        axes.plot(places, curve, color=color, linewidth=0.9, zorder=2.5 + i, gid=f"epoch:{number}")
    axes.set_ylim(-0.15, n - 1 + _OVERLAP * 1.05)


def _dress(axes: Axes, *, lowest: int, highest: int, bottom: bool) -> None:
    """Label the axis with signed powers of two."""
    style.dress(axes, grid="x")
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    n = highest - lowest
    step = max(1, -(-n // 3))
    powers = list(range(highest, lowest, -step))
    ticks = [-(p - lowest) for p in powers] + [0] + [p - lowest for p in reversed(powers)]
    labels = [f"{_MINUS}{_power(p)}" for p in powers] + ["0"] + [_power(p) for p in reversed(powers)]
    axes.set_xticks(ticks, labels, **style.lettering(6.0))
    axes.tick_params(axis="x", labelbottom=bottom)


def _resting(frozen: Sequence[str]) -> str:
    """Return the sentence about frozen blocks."""
    more = f" and {len(frozen) - 3} more" if len(frozen) > 3 else ""
    return f" Frozen, not drawn: {', '.join(map(legible, frozen[:3]))}{more}." if frozen else ""


def _span(numbers: npt.NDArray[np.intp]) -> str:
    """Return which epochs are drawn and where they stand."""
    first, last = int(numbers[0]), int(numbers[-1])
    return f"epoch {first}" if first == last else f"epoch {first} (back, light) to {last} (front, dark)"


def _power(exponent: int) -> str:
    """Return 2 to the power of `exponent` with raised digits."""
    return "2" + str(exponent).translate(_RAISED)


def _brief(number: float) -> str:
    """Return a count in at most five characters: 912, 36.9k, 1.2M."""
    for divisor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= divisor:
            return f"{number / divisor:.3g}{letter}"
    return f"{number:.0f}"
