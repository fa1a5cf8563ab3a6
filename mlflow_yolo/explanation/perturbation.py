"""Deletion and insertion: does the model rest on what a map marks, more than on what chance or Grad-CAM marks?"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from mlflow_yolo.attribution.cam import METHODS
from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.attribution.deletion import deletion_insertion, random_map
from mlflow_yolo.attribution.maps import TargetMap
from mlflow_yolo.attribution.outputs import DetectionOutputs
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.explanation.batches import Mapper, as_input, branch_of
from mlflow_yolo.explanation.detected import Detected, anchor_of
from mlflow_yolo.explanation.instances import Instance
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.split import DetectedSplit

RANDOM, PEER = "random", "gradcam"


def draw_detections(instances: Sequence[Instance], *, most: int, seed: int = 0) -> list[int]:
    """Return the positions of at most so many right detections, drawn by lot, as many of each class as possible."""
    right = [i for i, instance in enumerate(instances) if instance.outcome == "TP"]
    shuffled = np.random.default_rng(seed).permutation(right).tolist()
    turns: dict[int, int] = defaultdict(int)
    ranked = []
    for position in shuffled:
        class_id = instances[position].class_id
        ranked.append((turns[class_id], position))
        turns[class_id] += 1
    return sorted(position for _, position in sorted(ranked, key=lambda item: item[0])[:most])


def perturb(
    split: DetectedSplit,
    mapper: Mapper,
    maps: Mapping[int, Sequence[TargetMap]],
    *,
    peer_block: int,
    steps: int = 12,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how the score of detections falls and rises as pixels go and come in the order of their maps.

    Args:
        split: The split.
        mapper: What made the maps.
        maps: By image, the maps of some of its detections (`Detected` targets).
        peer_block: The block that the usual recipe takes, for Grad-CAM to be compared with.
        steps: Points of the curves.
        seed: Of the random maps.

    Returns:
        A row for each detection and kind of map: `detection` (a number), `image`, `class_id`, `map`, `deletion` (small
        is good), `insertion` (large is good); nan for a map that marks nothing.
    """
    wanted: dict[int, list[Target]] = {index: [made.target for made in of] for index, of in maps.items()}
    peer = replace(mapper, method=METHODS["gradcam"], blocks=(peer_block,))
    peers = peer.maps(wanted, stage="maps to compare with")
    done = mapper.stages.begin("deletion and insertion", sum(map(len, maps.values())), unit="detection")
    rows: list[dict[str, object]] = []
    for index, of in maps.items():
        image = as_input(split.input(index))[None].to(mapper.model.device)
        for made, other in zip(of, peers[index], strict=True):
            assert isinstance(made.target, Detected)
            number = len(rows) // 3
            kinds = {
                mapper.method.name: made.values,
                f"{PEER}, block {peer_block}": other.values,
                RANDOM: random_map((made.values.shape[0], made.values.shape[1]), seed + number),
            }
            of_detection = {"detection": number, "image": split.samples[index].image, "class_id": made.target.class_id}
            score = _Score(mapper.model, made.target, image)
            for kind, values in kinds.items():
                areas = deletion_insertion(image, values, score, steps=steps)
                rows.append({**of_detection, "map": kind, **areas._asdict()})
            done(1)
    return pd.DataFrame(rows, columns=["detection", "image", "class_id", "map", "deletion", "insertion"])


def perturbation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the means of each kind of map, and how often it beats the others on the same detection.

    Args:
        rows: What `perturb` returned.

    Returns:
        Columns `map`, `n` (maps that mark something), `deletion`, `insertion`, and for each other kind of map but the
        first `beats <kind>`: on what share of the detections on which both mark something insertion minus deletion is
        larger than its; nan where there is none. In the order of the first occurrence.
    """
    kinds = list(dict.fromkeys(rows["map"]))
    gain = rows.assign(gain=rows["insertion"] - rows["deletion"]).pivot(index="detection", columns="map", values="gain")
    table = []
    for kind in kinds:
        mine = rows[rows["map"] == kind]
        row = {"map": kind, "n": int(mine["deletion"].notna().sum())}
        row |= {name: mine[name].mean() for name in ("deletion", "insertion")}
        table.append(row | {f"beats {other}": _beats(gain, kind, other) for other in kinds[1:]})
    return pd.DataFrame(table, columns=["map", "n", "deletion", "insertion", *(f"beats {kind}" for kind in kinds[1:])])


def _beats(gain: pd.DataFrame, kind: str, other: str) -> float:
    """Return the share of detections on which one kind of map gains more than another; nan of a kind with itself."""
    both = gain[kind].notna() & gain[other].notna() & (kind != other)
    return float((gain[kind] > gain[other])[both].mean()) if both.any() else float("nan")


class _Score:
    """The probability of one class at one anchor, for changed versions of one image."""

    def __init__(self, model: ExplainedModel, target: Detected, image: Tensor) -> None:
        self._model = model
        self._class_id = target.class_id
        outputs = self._outputs(image)
        self._anchor = anchor_of(outputs, 0, box=target.box, conf=target.conf, class_id=target.class_id)

    def __call__(self, images: Tensor) -> Tensor:
        return self._outputs(images).logits[:, self._class_id, self._anchor].sigmoid()

    def _outputs(self, images: Tensor) -> DetectionOutputs:
        model = self._model
        with forward(model.network, images, [], branch=branch_of(model), needs_gradient=False) as run:
            assert isinstance(run.outputs, DetectionOutputs)
            return run.outputs
