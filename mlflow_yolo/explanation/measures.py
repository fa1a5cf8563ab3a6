"""How far maps lie on their objects: of single instances, of whole classes, and of confused classes on each other."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from mlflow_yolo.attribution.attention_iou import attention_iou, effective_fraction, uniform_baseline
from mlflow_yolo.attribution.bias import PairCase, heat_map_baseline
from mlflow_yolo.attribution.localisation import Localisation, localise
from mlflow_yolo.attribution.maps import TargetMap
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.detection.worst_predictions import Case
from mlflow_yolo.explanation.batches import Mapper
from mlflow_yolo.explanation.detected import DetectedClass
from mlflow_yolo.explanation.instances import Instance, detected, input_box, instance_mask, target_of
from mlflow_yolo.explanation.split import DetectedSplit

Values = npt.NDArray[np.float32]


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
    split: DetectedSplit, mapper: Mapper, instances: Sequence[Instance]
) -> list[tuple[Measured, TargetMap]]:
    """Return how every instance's map lies on its object, and the map, in the order given."""
    wanted: dict[int, list[Target]] = defaultdict(list)
    places = []
    for instance in instances:
        places.append(len(wanted[instance.image]))
        wanted[instance.image].append(target_of(split, instance))
    maps = mapper.maps(wanted, stage="maps of objects")
    results = []
    for instance, place in zip(instances, places, strict=True):
        made = maps[instance.image][place]
        values = _on_image(split, instance.image, made.values)
        found = localise(values, instance_mask(split, instance, values.shape))
        measured = Measured(instance.image, instance.class_id, instance.outcome, instance.size, found)
        results.append((measured, made))
    return results


@dataclass(frozen=True, eq=False)
class ClassAttention:
    """Where the maps of whole classes lie.

    Attributes:
        own: Of each class on its own objects.
        others: Of each class on the objects of others in the same image, the part that is not its own.
    """

    own: tuple[Measured, ...]
    others: tuple[PairCase, ...]


def measure_classes(split: DetectedSplit, mapper: Mapper, *, conf: float, most: int, seed: int = 0) -> ClassAttention:
    """Return how the map of a class, all its detections of an image together, lies on objects.

    Args:
        split: The split.
        mapper: Makes the maps.
        conf: Detections below this score are left out.
        most: Images of a class, drawn by lot among those with a detection of it.
        seed: Of the lot.
    """
    chosen = _draw_classes(split, conf=conf, most=most, seed=seed)
    wanted = {index: [_class_target(split, index, c, conf) for c in classes] for index, classes in chosen.items()}
    maps = mapper.maps(wanted, stage="maps of classes")
    own: list[Measured] = []
    others: list[PairCase] = []
    for index, classes in chosen.items():
        sample = split.samples[index]
        rows = {int(c): np.flatnonzero(sample.gt_classes == c).tolist() for c in np.unique(sample.gt_classes)}
        for class_id, made in zip(classes, maps[index], strict=True):
            values = _on_image(split, index, made.values)
            mine = split.mask(index, rows.get(class_id, []), values.shape)
            own.append(Measured(index, class_id, "class", "", localise(values, mine)))
            for other in rows.keys() - {class_id}:
                rest = np.clip(split.mask(index, rows[other], values.shape) - mine, 0, 1)
                score = float(attention_iou(values[None], rest[None])[0])
                baseline = float(uniform_baseline(effective_fraction(rest)))
                others.append(PairCase(sample.image, class_id, other, score, baseline))
    return ClassAttention(tuple(own), tuple(others))


def measure_pairs(split: DetectedSplit, mapper: Mapper, confused: Sequence[Case]) -> list[PairCase]:
    """Return, for detections of one class on objects of another, how far both classes rest on the same evidence."""
    wanted: dict[int, list[Target]] = defaultdict(list)
    places = []
    for case in confused:
        assert case.detection is not None
        places.append(len(wanted[case.image]))
        for class_id in (case.class_id, case.other_class):
            wanted[case.image].append(detected(split, case.image, case.detection, explained=class_id))
    maps = mapper.maps(wanted, stage="maps of confused classes")
    pairs = []
    for case, place in zip(confused, places, strict=True):
        assert case.other_class is not None
        true, predicted = (
            _on_image(split, case.image, made.values)[None] for made in maps[case.image][place : place + 2]
        )
        score, baseline = attention_iou(true, predicted)[0], heat_map_baseline(true, predicted)[0]
        name = split.samples[case.image].image
        pairs.append(PairCase(name, case.class_id, case.other_class, float(score), float(baseline)))
    return pairs


def _on_image(split: DetectedSplit, index: int, values: Tensor) -> Values:
    """Return the part of a map that covers the image, without what is negative."""
    return split.frames[index].cut(values.clamp(min=0).numpy())


def _draw_classes(split: DetectedSplit, *, conf: float, most: int, seed: int) -> dict[int, list[int]]:
    """Return the images whose class maps are made, and of which classes."""
    rows = [(i, int(c)) for i, one in enumerate(split.samples) for c in np.unique(one.classes[one.scores >= conf])]
    table = pd.DataFrame(rows, columns=["image", "class_id"], dtype=np.int64)
    drawn = table.sample(frac=1, random_state=seed).groupby("class_id").head(most).sort_values(["image", "class_id"])
    return {int(str(index)): part["class_id"].tolist() for index, part in drawn.groupby("image")}


def _class_target(split: DetectedSplit, index: int, class_id: int, conf: float) -> DetectedClass:
    sample, frame = split.samples[index], split.frames[index]
    rows = np.flatnonzero((sample.classes == class_id) & (sample.scores >= conf))
    return DetectedClass(class_id, tuple((input_box(sample.boxes[r], frame), float(sample.scores[r])) for r in rows))
