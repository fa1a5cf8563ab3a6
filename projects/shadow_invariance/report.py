"""The comparison as words and tables, each derived from the numbers it stands beside."""

import pandas as pd
from analysis import LOGCHROMA, SRGB, Analysis, Row
from recall import IN_LIGHT, IN_SHADOW

from mlflow_yolo.figures.table import markdown_table, text_table
from mlflow_yolo.statistics.comparison import mean_interval

_COLUMNS = ("measure", SRGB, LOGCHROMA, "difference", "95 % over seeds", "95 % over images", "against sRGB")


def answer(analysis: Analysis) -> list[str]:
    """Return the answer in three sentences."""
    light, shadow, cost = (analysis.row(name) for name in ("recall in light", "recall in shadow", "shadow minus light"))
    everywhere = analysis.row("recall")
    if light and shadow and cost:
        shares = [
            f"{domain} finds {shadow.mean(domain):.1%} of the objects in shadow and {light.mean(domain):.1%} in light"
            for domain in (SRGB, LOGCHROMA)
        ]
        verdicts = (
            f"Log-chromaticity against sRGB: recall in shadow {shadow.verdict.text}, recall in light "
            f"{light.verdict.text}, what shadow costs (shadow minus light) {cost.verdict.text}."
        )
    else:
        assert everywhere is not None
        shares = [f"{domain} finds {everywhere.mean(domain):.1%} of the objects" for domain in (SRGB, LOGCHROMA)]
        verdicts = (
            f"Log-chromaticity against sRGB: recall {everywhere.verdict.text}; nothing is said of shadow and light, "
            f"because the sRGB data has no objects/{analysis.split}.csv."
        )
    return [f"On {analysis.split}, {shares[0]}; {shares[1]}.", verdicts, _evidence(analysis)]


def _evidence(analysis: Analysis) -> str:
    n = len(analysis.seeds)
    seeds = f"a paired t test over {n} seeds" if n >= 3 else f"{n} seeds without a test (that needs three)"
    return (
        f"The evidence: {seeds} and a paired bootstrap over {analysis.n_images} {analysis.split} images, "
        f"corrected by Holm over the {len(analysis.rows)} measures."
    )


def caveat(analysis: Analysis) -> str:
    """Return what must be known to read the table."""
    places = (
        f" In light: at most {IN_LIGHT:.0%} of the box is shadow ({analysis.n_objects['light']} objects); in shadow: "
        f"at least {IN_SHADOW:.0%} ({analysis.n_objects['shadow']}); all: {analysis.n_objects['all']}."
        if "shadow" in analysis.n_objects
        else ""
    )
    return (
        "Precision and recall at IoU .5 and at the confidence where mean F1 peaks on val, chosen for each training. "
        f"Seeds: {', '.join(map(str, analysis.seeds))}.{places} mAP50-95 is Ultralytics' own, its interval over images "
        "COCO's on the same boxes."
    )


def terminal_text(analysis: Analysis) -> str:
    """Return what the terminal shows."""
    return "\n".join(["", text_table(_COLUMNS, [_cells(row) for row in analysis.rows]), "", *answer(analysis)])


def note(analysis: Analysis) -> str:
    """Return the markdown note of the parent run."""
    table = markdown_table(_COLUMNS, [_cells(row) for row in analysis.rows])
    return "\n\n".join([" ".join(answer(analysis)), table, caveat(analysis)])


def csv(analysis: Analysis) -> str:
    """Return the table with full precision, one line per measure."""
    records = []
    for row in analysis.rows:
        record: dict[str, object] = {"measure": row.measure, "split": analysis.split, "n_seeds": len(analysis.seeds)}
        for domain in (SRGB, LOGCHROMA):
            mean, low, high = mean_interval(row.values[domain])
            record |= {domain: mean, f"{domain}/low": low, f"{domain}/high": high}
        record |= {"difference": row.seeds.difference, "low_seeds": row.seeds.low, "high_seeds": row.seeds.high}
        record |= {"low_images": row.images.low, "high_images": row.images.high}
        record |= {"p_seeds_holm": row.verdict.p_seeds, "p_images_holm": row.verdict.p_images}
        records.append(record | {"verdict": row.verdict.text})
    return str(pd.DataFrame(records).to_csv(index=False))


def metrics(analysis: Analysis) -> dict[str, float]:
    """Return the parent's metrics: of each measure both means and the difference."""
    values: dict[str, float] = {}
    for row in analysis.rows:
        values |= {f"{analysis.split}/{row.measure}/{domain}": row.mean(domain) for domain in (SRGB, LOGCHROMA)}
        values[f"difference/{row.measure}"] = row.seeds.difference
    return values


def _cells(row: Row) -> list[str]:
    over_seeds = "" if row.seeds.n < 2 else f"{row.seeds.low:+.3f} to {row.seeds.high:+.3f}"
    return [
        row.measure,
        f"{row.mean(SRGB):.3f}",
        f"{row.mean(LOGCHROMA):.3f}",
        f"{row.seeds.difference:+.3f}",
        over_seeds,
        f"{row.images.low:+.3f} to {row.images.high:+.3f}",
        row.verdict.text,
    ]
