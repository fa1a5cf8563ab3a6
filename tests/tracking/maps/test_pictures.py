"""A watched image becomes one strip: the picture, and where the model looks; whatever it predicts, it can be drawn."""

import numpy as np
import pytest

from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.tracking.maps.choice import Chosen
from mlflow_yolo.tracking.maps.explained import ExplainedImage, ExplainedObjects, Map
from mlflow_yolo.tracking.maps.inputs import Input
from mlflow_yolo.tracking.maps.pictures import draw_image, draw_objects, panel_side
from mlflow_yolo.tracking.maps.watched import Watched

SIZE = 160  # of a panel: the pictures here are smaller


def grey(n_objects: int) -> Watched:
    """Return a grey picture, 60 x 80, with so many objects."""
    import torch

    picture = np.full((60, 80, 3), 120, np.uint8)
    input = Input("grey.png", torch.zeros(3, 60, 80), picture, Frame((60, 80), (60, 80), (1.0, 1.0), (0, 0)))
    boxes = np.tile([0.1, 0.1, 0.4, 0.5], (n_objects, 1)).reshape(-1, 4)
    return Watched(Chosen("cam/01-hardest", "hardest", 0, None), input, np.zeros(max(n_objects, 1), int), boxes, ())


def colored(pixels: np.ndarray) -> np.ndarray:
    """Return where a strip is neither grey nor nearly so."""
    return np.asarray(np.ptp(pixels.astype(int), axis=2) > 40)


@pytest.mark.parametrize("n_objects", [1, 6, 7, 300])
def test_the_map_is_on_the_second_panel_where_its_values_are(n_objects: int) -> None:
    values = np.zeros((6, 8), np.float32)
    values[4, 6] = 3.0

    strip = draw_objects(ExplainedObjects(grey(n_objects), values, np.full(n_objects, 0.5, np.float32)), {0: "cell"})
    nothing = draw_objects(ExplainedObjects(grey(n_objects), 0 * values, np.full(n_objects, 0.5, np.float32)), {})

    assert strip.dtype == np.uint8
    assert strip.shape == nothing.shape
    changed = np.argwhere(np.abs(strip.astype(int) - nothing).max(axis=2) > 20)
    in_panels = changed[(changed[:, 0] > 40) & (changed[:, 0] < strip.shape[0] - 16)]
    right = in_panels[in_panels[:, 1] > SIZE]
    assert right[:, 1].mean() - (strip.shape[1] - SIZE) == pytest.approx(6.5 / 8 * SIZE, abs=6)


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.full((3, 4), np.nan), np.ones((1, 1))])
def test_maps_without_values_can_be_drawn(values: Map) -> None:
    explained = ExplainedObjects(grey(1), values.astype(np.float32), np.full(1, np.nan, np.float32))

    assert draw_objects(explained, {}).shape[2] == 3


@pytest.mark.parametrize("signed", [True, False])
def test_true_and_predicted_class_share_one_scale(signed: bool) -> None:
    weak, strong = np.full((4, 4), 0.5, np.float32), np.full((4, 4), 5.0, np.float32)
    explained = ExplainedImage(grey(0), 2, (weak, strong), signed, (0.1, 0.9))

    strip = draw_image(explained, {0: "cat", 2: "dog"})

    y = strip.shape[0] // 2
    first, second = (colored(strip)[y - 5 : y + 5, x : x + 10].mean() for x in (SIZE + 60, 2 * SIZE + 60))
    assert (first, second) == (0.0, 1.0)


@pytest.mark.parametrize(("side", "panel"), [(32, 160), (160, 160), (200, 200), (640, 256)])
def test_panels_are_as_large_as_the_picture_within_limits(side: int, panel: int) -> None:
    assert panel_side(np.zeros((side // 2, side, 3), np.uint8)) == panel_side(np.zeros((side, 9, 3), np.uint8)) == panel
