"""One watched image at one moment of the training, as a picture for the image grid."""

from collections.abc import Mapping

import numpy as np

from mlflow_yolo.figures.example import Example, MapLayer, Mark, example_strip
from mlflow_yolo.figures.heat_map import Pixels, largest
from mlflow_yolo.tracking.maps.explained import ExplainedImage, ExplainedObjects

SIZES = 160, 256
"""Shortest and longest long side of a panel, pixels; between them it is that of the picture. More than MLflow's preview
shows would only take time to encode, and less leaves no room for words."""

_MOST_LABELS = 6


def draw_objects(explained: ExplainedObjects, names: Mapping[int, str]) -> Pixels:
    """Return the picture with the labelled boxes, and beside it where the model looks for them.

    Args:
        explained: The image and its map.
        names: Class names by id.
    """
    watched, place = explained.watched, explained.localisation()
    n = len(watched.classes)
    labels = [
        f"{names.get(int(c), int(c))} {score:.2f}" if n <= _MOST_LABELS else ""
        for c, score in zip(watched.classes, explained.scores, strict=True)
    ]
    where = f"{place.energy:.0%} on objects, area {place.coverage:.0%}"
    example = Example(
        title=f"{watched.chosen.title}: {n} object{'s' * (n != 1)}, mean score {float(explained.scores.mean()):.2f}",
        caption=f"{watched.input.name}: {where if place.is_measured else 'no map'}",
        picture=watched.input.picture,
        layers=(MapLayer("where it looks for them", explained.map),),
        marks=tuple(Mark(box, label, "true") for box, label in zip(watched.boxes, labels, strict=True)),
    )
    return example_strip(example, size=panel_side(example.picture))


def panel_side(picture: Pixels) -> int:
    """Return the long side of a picture's panels."""
    return min(max(*map(int, picture.shape[:2]), SIZES[0]), SIZES[1])


def draw_image(explained: ExplainedImage, names: Mapping[int, str]) -> Pixels:
    """Return the picture, and beside it the evidence for the true and for the predicted class, on one scale.

    Args:
        explained: The image and its maps.
        names: Class names by id.
    """
    watched = explained.watched
    words = [str(names.get(c, c)) for c in (int(watched.classes[0]), explained.predicted)]
    limit = max(largest(values, signed=explained.is_signed) for values in explained.maps)
    example = Example(
        title=f"{words[0]}: " + ("right" if words[0] == words[1] else f"taken for {words[1]}"),
        caption=f"{watched.input.name}: "
        + ", ".join(f"{word} {p:.0%}" for word, p in zip(words, explained.probabilities, strict=True)),
        picture=watched.input.picture,
        layers=tuple(
            MapLayer(f"{role}: {word}", np.nan_to_num(values), signed=explained.is_signed, limit=limit)
            for role, word, values in zip(("true", "predicted"), words, explained.maps, strict=True)
        ),
    )
    return example_strip(example, size=panel_side(example.picture))
