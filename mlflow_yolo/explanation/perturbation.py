"""Deletion and insertion: does the model rest on what a map marks, more than on what chance or Grad-CAM marks?"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from mlflow_yolo.attribution.cam import METHODS, Method
from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.attribution.deletion import deletion_insertion, random_map
from mlflow_yolo.attribution.maps import TargetMap
from mlflow_yolo.attribution.outputs import DetectionOutputs
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.explanation.batches import Progress, as_input, branch_of, map_pictures
from mlflow_yolo.explanation.detected import Detected, anchor_of
from mlflow_yolo.explanation.instances import Instance
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.split import DetectedSplit

RANDOM = "random"


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
    model: ExplainedModel,
    maps: Mapping[int, Sequence[TargetMap]],
    *,
    method: Method,
    peer_block: int,
    steps: int = 12,
    seed: int = 0,
    progress: Progress = lambda n: None,
) -> pd.DataFrame:
    """Return how the score of detections falls and rises as pixels go and come in the order of their maps.

    Args:
        split: The split.
        model: The model.
        maps: By image, the maps of some of its detections (`Detected` targets).
        method: How they were made.
        peer_block: The block that the usual recipe takes, for Grad-CAM to be compared with.
        steps: Points of the curves.
        seed: Of the random maps.
        progress: Told how many detections were done.

    Returns:
        A row for each detection and kind of map: `image`, `class_id`, `map`, `deletion` (small is good), `insertion`
        (large is good).
    """
    wanted: dict[int, list[Target]] = {index: [made.target for made in of] for index, of in maps.items()}
    peers = map_pictures(model, split.input, wanted, method=METHODS["gradcam"], blocks=[peer_block])
    rows = []
    for index, of in maps.items():
        image = as_input(split.input(index))[None].to(model.device)
        for number, (made, peer) in enumerate(zip(of, peers[index], strict=True)):
            assert isinstance(made.target, Detected)
            score = _Score(model, made.target, image)
            kinds = {
                method.name: made.values,
                f"gradcam, block {peer_block}": peer.values,
                RANDOM: random_map((made.values.shape[0], made.values.shape[1]), seed + 1000 * index + number),
            }
            for kind, values in kinds.items():
                areas = deletion_insertion(image, values, score, steps=steps)
                rows.append(
                    {
                        "image": split.samples[index].image,
                        "class_id": made.target.class_id,
                        "map": kind,
                        "deletion": areas.deletion,
                        "insertion": areas.insertion,
                    }
                )
            progress(1)
    return pd.DataFrame(rows, columns=["image", "class_id", "map", "deletion", "insertion"])


def perturbation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the means of each kind of map, and how often it beats a random one on the same detection.

    Args:
        rows: What `perturb` returned.

    Returns:
        Columns `map`, `n`, `deletion`, `insertion`, `beats_random` (share of the detections whose insertion minus
        deletion is larger than with a random map; nan for the random one), in the order of the first occurrence.
    """
    table = []
    gain = rows["insertion"] - rows["deletion"]
    chance = gain[rows["map"] == RANDOM].to_numpy()
    for kind in rows["map"].unique():
        mine = rows["map"] == kind
        beats = float(np.mean(gain[mine].to_numpy() > chance)) if kind != RANDOM else float("nan")
        means = {name: float(rows.loc[mine, name].mean()) for name in ("deletion", "insertion")}
        table.append({"map": kind, "n": int(rows.loc[mine, "deletion"].notna().sum()), **means, "beats_random": beats})
    return pd.DataFrame(table, columns=["map", "n", "deletion", "insertion", "beats_random"])


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
