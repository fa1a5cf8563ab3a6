"""Where a detector looks on a split: on its objects or beside them, and whether it rests on what its maps mark."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mlflow_yolo.attribution.bias import Case, PairCase, bias_table, co_occurrence_table, pair_table
from mlflow_yolo.attribution.localisation import summarise
from mlflow_yolo.attribution.maps import TargetMap
from mlflow_yolo.detection.worst_predictions import confused_cases
from mlflow_yolo.explanation.batches import Mapper
from mlflow_yolo.explanation.detection_errors import DetectionErrors
from mlflow_yolo.explanation.findings import Settings
from mlflow_yolo.explanation.instances import draw_instances
from mlflow_yolo.explanation.measures import (
    ClassAttention,
    Measured,
    measure_classes,
    measure_instances,
    measure_pairs,
)
from mlflow_yolo.explanation.perturbation import draw_detections, perturb, perturbation_table
from mlflow_yolo.explanation.split import DetectedSplit

KINDS = ("TP", "FN", "FP", "class")
"""Maps of right detections, missed objects and detections of nothing; of all detections of a class together."""


@dataclass(frozen=True, eq=False)
class Attention:
    """Where the model looked.

    Attributes:
        faithfulness: A row for each class and kind of map: how maps lie on their objects, beside chance and ceiling.
        bias: Attention-IoU by class, size and outcome, as lift over a uniform map with intervals.
        pairs: Shared evidence of confused classes.
        co_occurrence: Attention of a class on another one in the same image.
        deletion_insertion: Means by kind of map.
        perturbed: The single values behind them.
    """

    faithfulness: pd.DataFrame
    bias: pd.DataFrame
    pairs: pd.DataFrame
    co_occurrence: pd.DataFrame
    deletion_insertion: pd.DataFrame
    perturbed: pd.DataFrame


def find_attention(
    split: DetectedSplit, mapper: Mapper, errors: DetectionErrors, settings: Settings, *, peer_block: int
) -> Attention:
    """Return where the model looked.

    Args:
        split: What it detected.
        mapper: Makes the maps.
        errors: What was wrong with it.
        settings: How much is looked at.
        peer_block: The block that the usual recipe of Grad-CAM takes, to be compared with.
    """
    most, seed, names = settings.instances, settings.seed, errors.names
    instances = draw_instances(errors.cases, most=most, seed=seed)
    measured = measure_instances(split, mapper, instances)
    classes = measure_classes(split, mapper, conf=errors.conf, most=most, seed=seed)
    confused = confused_cases(split.samples, n_classes=len(names), conf=errors.conf, per_pair=most)
    pairs = measure_pairs(split, mapper, [case for of in confused.values() for case in of])
    chosen: dict[int, list[TargetMap]] = {}
    for position in draw_detections(instances, most=settings.perturbed, seed=seed):
        chosen.setdefault(instances[position].image, []).append(measured[position][1])
    perturbed = perturb(split, mapper, chosen, peer_block=peer_block, seed=seed)
    images = [sample.image for sample in split.samples]
    return Attention(
        faithfulness=localisation_table([*(one for one, _ in measured), *classes.own], names),
        bias=bias_table([_case(one, images) for one, _ in measured], names, seed=seed),
        pairs=pair_table(pairs, names, seed=seed),
        co_occurrence=_co_occurrence(classes, images, names, seed=seed),
        deletion_insertion=perturbation_table(perturbed),
        perturbed=perturbed,
    )


def localisation_table(measured: Sequence[Measured], names: Sequence[str]) -> pd.DataFrame:
    """Return one row for each class and kind of map, and for all classes: see `attribution.localisation`."""
    rows = []
    for kind in KINDS:
        of_kind = [one for one in measured if one.outcome == kind]
        for class_id in [*sorted({one.class_id for one in of_kind}), None]:
            mine = [one.localisation for one in of_kind if class_id in (one.class_id, None)]
            if mine:
                name = "all" if class_id is None else names[class_id]
                rows.append({"class": name, "maps": kind, **vars(summarise(mine))})
    return pd.DataFrame(rows, columns=["class", "maps", *vars(summarise([]))])


def _co_occurrence(classes: ClassAttention, images: Sequence[str], names: Sequence[str], *, seed: int) -> pd.DataFrame:
    # Of a class's map neither size nor outcome are read.
    own = [_case(one, images, size="large", outcome="TP") for one in classes.own]
    cases: Sequence[PairCase] = classes.others
    return co_occurrence_table(cases, names, own=own, seed=seed)


def _case(one: Measured, images: Sequence[str], *, size: str = "", outcome: str = "") -> Case:
    found = one.localisation
    return Case(
        image=images[one.image],
        class_id=one.class_id,
        size=size or one.size,
        outcome=outcome or one.outcome,
        score=found.attention_iou,
        baseline=found.attention_iou_baseline,
    )
