"""sRGB against log-chromaticity: every measure of both, their difference, and what may be said of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from recall import Counts, count, measures, shadow_fractions

from mlflow_yolo.detection.bootstrap import Difference, bootstrap_map
from mlflow_yolo.detection.boxes import Floats
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.statistics.comparison import TestResult, Verdict, compare, paired_t
from mlflow_yolo.studies.freeze.analysis import Child

SRGB, LOGCHROMA = "sRGB", "log-chromaticity"
"""The two domains; sRGB is the one to compare with."""


@dataclass(frozen=True)
class Row:
    """One measure; all are better when higher.

    Attributes:
        measure: Its name.
        values: By domain, one value per seed.
        seeds: Paired t test over seeds, log-chromaticity minus sRGB.
        images: Paired bootstrap over images of the seed-mean difference.
        verdict: What may be said, after Holm over all measures.
    """

    measure: str
    values: Mapping[str, Sequence[float]]
    seeds: TestResult
    images: Difference
    verdict: Verdict

    def mean(self, domain: str) -> float:
        """Return the mean over seeds."""
        return float(np.mean(self.values[domain]))


@dataclass(frozen=True)
class Analysis:
    """The comparison.

    Attributes:
        split: The split it is measured on.
        n_images: Its images.
        n_objects: Objects, by where they are: `all`, and where known `light` and `shadow`.
        seeds: The seeds that both domains have.
        conf: By domain, each seed's confidence: where mean F1 peaks on val.
        rows: One per measure.
    """

    split: str
    n_images: int
    n_objects: Mapping[str, int]
    seeds: Sequence[int]
    conf: Mapping[str, Sequence[float]]
    rows: Sequence[Row]

    def row(self, measure: str) -> Row | None:
        """Return the row of a measure, None where it could not be measured."""
        return next((row for row in self.rows if row.measure == measure), None)


def analyse(children: Mapping[str, Sequence[Child]], *, root: Path, n_resamples: int = 1000) -> Analysis | None:
    """Return the comparison over the seeds that both domains have finished, or None where there is none.

    Args:
        children: The finished trainings by domain.
        root: Folder of the sRGB data, in which `objects/<split>.csv` may say what lies in shadow.
        n_resamples: Bootstrap resamples over the images.
    """
    by_seed = {domain: {child.seed: child for child in group} for domain, group in children.items()}
    seeds = sorted(by_seed[SRGB].keys() & by_seed[LOGCHROMA].keys())
    if not seeds:
        return None
    chosen = {domain: [group[seed] for seed in seeds] for domain, group in by_seed.items()}
    split = "test" if "test" in chosen[SRGB][0].result["measured"] else "val"
    samples = {domain: [_paired(child.samples(split)) for child in group] for domain, group in chosen.items()}
    conf = {domain: [float(child.result["operating_conf"]) for child in group] for domain, group in chosen.items()}
    shadows = shadow_fractions(root, split, samples[SRGB][0])
    counts = {
        domain: [count(each, conf=at, shadows=shadows) for each, at in zip(group, conf[domain], strict=True)]
        for domain, group in samples.items()
    }
    values = {domain: [_on_all_images(child) for child in group] for domain, group in counts.items()}
    for domain, group in chosen.items():
        for child, measured in zip(group, values[domain], strict=True):
            measured["mAP50-95"] = child.value(split, "mAP50-95")
    images = bootstrap(counts, n_resamples=n_resamples)
    n_classes = len(chosen[SRGB][0].result["names"])
    images["mAP50-95"] = bootstrap_map(samples, baseline=SRGB, n_classes=n_classes, n_resamples=n_resamples)[LOGCHROMA]
    first = counts[SRGB][0]
    return Analysis(
        split=split,
        n_images=len(samples[SRGB][0]),
        n_objects={name.removeprefix("objects in ").replace("objects", "all"): int(first[name].sum())
                   for name in first if name.startswith("objects")},
        seeds=seeds,
        conf=conf,
        rows=_rows(values, images),
    )  # fmt: skip


def bootstrap(
    counts: Mapping[str, Sequence[Counts]], *, n_resamples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """Return, for each measure, log-chromaticity minus sRGB of the seed means, with an interval over images.

    Each resample draws the same images with replacement for both domains and every seed; interval and p value as in
    `mlflow_yolo.detection.bootstrap`. Measures that no resample has are left out.

    Args:
        counts: By domain, the counts per image of each seed.
        n_resamples: Resamples.
        seed: Of the random draws.
    """
    n_images = len(counts[SRGB][0]["objects"])
    drawn = np.random.default_rng(seed).multinomial(n_images, np.full(n_images, 1 / n_images), size=n_resamples)
    weights = np.vstack([np.ones(n_images), drawn])  # the first is the data set as it is
    means = {domain: _seed_means(group, weights) for domain, group in counts.items()}
    found = {}
    for measure, of_srgb in means[SRGB].items():
        difference = means[LOGCHROMA][measure] - of_srgb
        known = difference[1:][~np.isnan(difference[1:])]
        if np.isnan(difference[0]) or not len(known):
            continue
        low, high = np.percentile(known, [2.5, 97.5])
        rarer = min(int(np.sum(known <= 0)), int(np.sum(known >= 0)))
        p = min(1.0, 2 * (1 + rarer) / (len(known) + 1))
        found[measure] = Difference(float(difference[0]), float(low), float(high), p, n_images, len(known))
    return found


def _seed_means(children: Sequence[Counts], weights: Floats) -> dict[str, Floats]:
    """Return each measure's mean over seeds, (B,), for image weights (B, I)."""
    found = [measures({name: weights @ values for name, values in child.items()}) for child in children]
    return {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}


def _on_all_images(counts: Counts) -> dict[str, float]:
    totals = {name: np.array([values.sum()]) for name, values in counts.items()}
    return {name: float(value[0]) for name, value in measures(totals).items()}


def _rows(values: Mapping[str, Sequence[Mapping[str, float]]], images: Mapping[str, Difference]) -> list[Row]:
    """Return a row for each measure that every training and the bootstrap have."""
    by_domain = {
        name: {domain: [child[name] for child in group] for domain, group in values.items()} for name in images
    }
    kept = {name: found for name, found in by_domain.items() if np.isfinite([*found[SRGB], *found[LOGCHROMA]]).all()}
    tests = {name: paired_t(found[LOGCHROMA], found[SRGB]) for name, found in kept.items()}
    verdicts = compare(tests, {name: images[name] for name in kept})
    return [Row(name, kept[name], tests[name], images[name], verdicts[name]) for name in kept]


def _paired(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples named and sorted by file name without folder and suffix, the same in both domains."""
    return sorted((replace(sample, image=Path(sample.image).stem) for sample in samples), key=lambda s: s.image)
