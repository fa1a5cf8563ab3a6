"""How far maps lie on their objects: of instances, of whole classes, of confused and of co-occurring classes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.attribution.attention_iou import attention_iou, effective_fraction, uniform_baseline
from mlflow_yolo.attribution.bias import Case, PairCase, bias_table, co_occurrence_table, heat_map_baseline, pair_table
from mlflow_yolo.attribution.cam import Method
from mlflow_yolo.attribution.localisation import Localisation, localise, summarise
from mlflow_yolo.attribution.maps import TargetMap
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.detection.worst_predictions import Case as DetectedCase
from mlflow_yolo.explanation.batches import Progress, map_pictures
from mlflow_yolo.explanation.detected import DetectedClass
from mlflow_yolo.explanation.instances import Instance, input_box, instance_mask, mask_of, target_of
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.split import DetectedSplit

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """One map, measured on one mask.

    Attributes:
        image: Index of the image.
        class_id: The class that the map explains.
        outcome: `TP`, `FP` or `FN`; of a whole class's map `class`.
        size: Of the object; empty for a class.
        localisation: The measures.
    """

    image: int
    class_id: int
    outcome: str
    size: str
    localisation: Localisation


def measure_instances(
    split: DetectedSplit,
    model: ExplainedModel,
    instances: Sequence[Instance],
    *,
    method: Method,
    blocks: Sequence[int] = (),
    progress: Progress = lambda n: None,
) -> list[tuple[Measured, TargetMap]]:
    """Return every instance's map and how it lies on its object, in the order given."""
    of_image: dict[int, list[Instance]] = defaultdict(list)
    for instance in instances:
        of_image[instance.image].append(instance)
    wanted: dict[int, list[Target]] = {}
    for index, mine in of_image.items():
        frame = split.picture(index).frame
        wanted[index] = [target_of(instance, split.samples[index], frame) for instance in mine]
    maps = map_pictures(model, split.input, wanted, method=method, blocks=blocks, progress=progress)
    results: dict[Instance, tuple[Measured, TargetMap]] = {}
    for index, mine in of_image.items():
        picture = split.picture(index)
        for instance, made in zip(mine, maps[index], strict=True):
            values = picture.frame.cut(made.values.clamp(min=0).numpy())
            mask = instance_mask(instance, split.samples[index], picture, values.shape)
            found = localise(values, mask)
            measured = Measured(index, instance.class_id, instance.outcome, instance.size, found)
            results[instance] = measured, made
    return [results[instance] for instance in instances]


@dataclass(frozen=True, eq=False)
class ClassAttention:
    """Where the maps of whole classes lie.

    Attributes:
        own: Of each class on its own objects.
        others: Of each class on the objects of others in the same image, the part that is not its own.
    """

    own: tuple[Measured, ...]
    others: tuple[PairCase, ...]


def measure_classes(
    split: DetectedSplit,
    model: ExplainedModel,
    *,
    conf: float,
    most: int,
    method: Method,
    blocks: Sequence[int] = (),
    seed: int = 0,
    progress: Progress = lambda n: None,
) -> ClassAttention:
    """Return how the map of a class, all its detections of an image together, lies on objects.

    Args:
        split: The split.
        model: The model.
        conf: Detections below this score are left out.
        most: Images of a class, drawn by lot among those with a detection of it.
        method: How maps are made.
        blocks: Blocks to make them at.
        seed: Of the lot.
        progress: Told how many images were done.
    """
    chosen = _draw_classes(split.samples, conf=conf, most=most, seed=seed)
    wanted = {index: [_class_target(split, index, c, conf) for c in classes] for index, classes in chosen.items()}
    maps = map_pictures(model, split.input, wanted, method=method, blocks=blocks, progress=progress)
    own: list[Measured] = []
    others: list[PairCase] = []
    for index, classes in chosen.items():
        sample, picture = split.samples[index], split.picture(index)
        present = sorted({int(c) for c in sample.gt_classes})
        for class_id, made in zip(classes, maps[index], strict=True):
            values = picture.frame.cut(made.values.clamp(min=0).numpy())
            masks = {
                c: mask_of(sample, np.flatnonzero(sample.gt_classes == c).tolist(), picture, values.shape)
                for c in {*present, class_id}
            }
            own.append(Measured(index, class_id, "class", "", localise(values, masks[class_id])))
            others += [
                _on_other(sample.image, class_id, c, values, np.clip(masks[c] - masks[class_id], 0, 1))
                for c in present
                if c != class_id
            ]
    return ClassAttention(tuple(own), tuple(others))


def measure_pairs(
    split: DetectedSplit,
    model: ExplainedModel,
    confused: Sequence[DetectedCase],
    *,
    method: Method,
    blocks: Sequence[int] = (),
    progress: Progress = lambda n: None,
) -> list[PairCase]:
    """Return, for detections of one class on objects of another, how far both classes rest on the same evidence."""
    wanted: dict[int, list[Target]] = defaultdict(list)
    cases: dict[int, list[DetectedCase]] = defaultdict(list)
    for case in confused:
        sample, frame = split.samples[case.image], split.picture(case.image).frame
        assert case.detection is not None
        assert case.other_class is not None
        box = input_box(sample.boxes[case.detection], frame)
        found = ((box, float(sample.scores[case.detection])),)
        wanted[case.image] += [DetectedClass(case.other_class, found, c) for c in (case.class_id, case.other_class)]
        cases[case.image].append(case)
    maps = map_pictures(model, split.input, wanted, method=method, blocks=blocks, progress=progress)
    pairs = []
    for index, mine in cases.items():
        frame = split.picture(index).frame
        values = np.stack([frame.cut(made.values.clamp(min=0).numpy()) for made in maps[index]])
        true, predicted = values[0::2], values[1::2]
        scores, baselines = attention_iou(true, predicted), heat_map_baseline(true, predicted)
        for case, score, baseline in zip(mine, scores, baselines, strict=True):
            assert case.other_class is not None
            name = split.samples[index].image
            pairs.append(PairCase(name, case.class_id, case.other_class, float(score), float(baseline)))
    return pairs


@dataclass(frozen=True, eq=False)
class AttentionTables:
    """What is logged and shown of all this.

    Attributes:
        faithfulness: A row for each class and kind of map: how maps lie on their objects, beside chance and ceiling.
        bias: Attention-IoU by class, size and outcome, as lift over a uniform map with intervals.
        pairs: Shared evidence of confused classes.
        co_occurrence: Attention of a class on another one in the same image.
    """

    faithfulness: pd.DataFrame
    bias: pd.DataFrame
    pairs: pd.DataFrame
    co_occurrence: pd.DataFrame


def attention_tables(
    split: DetectedSplit,
    names: Sequence[str],
    *,
    instances: Sequence[Measured],
    classes: ClassAttention,
    pairs: Sequence[PairCase],
    seed: int = 0,
) -> AttentionTables:
    """Return the tables of what was measured."""
    images = [sample.image for sample in split.samples]
    own = [_case(one, images, size="large", outcome="TP") for one in classes.own]
    return AttentionTables(
        faithfulness=localisation_table([*instances, *classes.own], names),
        bias=bias_table([_case(one, images) for one in instances], names, seed=seed),
        pairs=pair_table(pairs, names, seed=seed),
        co_occurrence=co_occurrence_table(classes.others, names, own=own, seed=seed),
    )


def localisation_table(measured: Sequence[Measured], names: Sequence[str]) -> pd.DataFrame:
    """Return one row for each class and kind of map, and for all classes: see `attribution.localisation`."""
    rows = []
    for outcome in ("TP", "FN", "FP", "class"):
        of_kind = [one for one in measured if one.outcome == outcome]
        for class_id in [*sorted({one.class_id for one in of_kind}), None]:
            mine = [one.localisation for one in of_kind if class_id in (one.class_id, None)]
            if mine:
                name = "all" if class_id is None else names[class_id]
                rows.append({"class": name, "maps": outcome, **vars(summarise(mine))})
    columns = ["class", "maps", *(vars(summarise([])))]
    return pd.DataFrame(rows, columns=columns)


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


def _on_other(image: str, class_id: int, other: int, values: npt.NDArray[np.float32], mask: Floats) -> PairCase:
    score = attention_iou(values[None], mask[None])[0]
    baseline = uniform_baseline(effective_fraction(mask[None]))[0]
    return PairCase(image, class_id, other, float(score), float(baseline))


def _draw_classes(samples: Sequence[Sample], *, conf: float, most: int, seed: int) -> dict[int, list[int]]:
    """Return the images whose class maps are made, and of which classes."""
    rows = [(i, int(c)) for i, sample in enumerate(samples) for c in np.unique(sample.classes[sample.scores >= conf])]
    table = pd.DataFrame(rows, columns=["image", "class_id"], dtype=np.int64)
    drawn = table.sample(frac=1, random_state=seed).groupby("class_id").head(most).sort_values(["image", "class_id"])
    return {int(str(index)): part["class_id"].tolist() for index, part in drawn.groupby("image")}


def _class_target(split: DetectedSplit, index: int, class_id: int, conf: float) -> DetectedClass:
    sample, frame = split.samples[index], split.picture(index).frame
    rows = np.flatnonzero((sample.classes == class_id) & (sample.scores >= conf))
    return DetectedClass(class_id, tuple((input_box(sample.boxes[r], frame), float(sample.scores[r])) for r in rows))
