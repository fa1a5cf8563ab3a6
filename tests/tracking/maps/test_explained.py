"""Maps of watched images: in the picture's frame, one by one as in a batch, and the model is left as it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.layers import read_layers
from mlflow_yolo.tracking.maps.choice import Chosen
from mlflow_yolo.tracking.maps.explained import ExplainedObjects, explain_images, explain_objects
from mlflow_yolo.tracking.maps.inputs import Input
from mlflow_yolo.tracking.maps.watched import Watched

slow = pytest.mark.slow


def watched(
    boxes: Any,
    *,
    classes: Any = (0,),
    size: tuple[int, int] = (64, 64),
    pad: int = 0,
    seed: int = 0,
    outlines: Any = (),
) -> Watched:
    """Return an image of noise in a frame of `size` with `pad` pixels of padding above and below."""
    pixels = torch.randint(0, 255, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    frame = Frame((size[0] - 2 * pad, size[1]), size, (1.0, 1.0), (pad, 0))
    picture = np.ascontiguousarray(pixels[:, pad : size[0] - pad].permute(1, 2, 0).numpy())
    chosen = Chosen(f"cam/{seed}", "hardest", 0, None)
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Watched(chosen, Input("a.png", pixels, picture, frame), np.array(classes), boxes, outlines)


def test_boxes_are_found_again_in_the_frame_of_the_input() -> None:
    one = watched([0.25, 0.5, 0.75, 1.0], size=(64, 96), pad=8)

    assert one.input_boxes.tolist() == [[24.0, 8 + 24.0, 72.0, 8 + 48.0]]


@pytest.mark.parametrize(
    ("outlines", "energy", "coverage"),
    [
        ((), 0.75, 0.5),  # the left half: cells of 1 and 2
        ((np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]),), 0.25, 0.25),  # its upper half
    ],
)
def test_a_map_is_measured_on_outlines_where_there_are_any_and_else_on_boxes(
    outlines: Any, energy: float, coverage: float
) -> None:
    image = watched([0.0, 0.0, 0.5, 1.0], outlines=outlines)
    values = np.array([[1.0, 0.5], [2.0, 0.5]], dtype=np.float32)

    place = ExplainedObjects(image, values, np.zeros(1, np.float32)).localisation()

    assert (place.energy, place.coverage) == (pytest.approx(energy), pytest.approx(coverage))


@pytest.fixture(scope="module")
def detector(small_model: Path) -> Any:
    from ultralytics import YOLO

    torch.manual_seed(0)
    network = YOLO(small_model).model.train()
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 64))  # statistics of batch norms
    return network


def state_of(network: Any) -> dict[str, Any]:
    modes = {name: module.training for name, module in network.named_modules()}
    wants = {name: (p.requires_grad, p.grad) for name, p in network.named_parameters()}
    hooks = [name for name, m in network.named_modules() if m._forward_hooks or m._forward_pre_hooks]
    return {"modes": modes, "wants": wants, "hooks": hooks, "head": sorted(vars(network.model[-1]))}


@slow
def test_images_of_several_sizes_are_explained_as_each_by_itself_and_the_model_is_left_as_it_was(detector: Any) -> None:
    images = [
        watched([[0.1, 0.1, 0.6, 0.5], [0.5, 0.5, 0.9, 1.0]], classes=(0, 1), seed=1),
        watched([0.2, 0.2, 0.8, 0.7], classes=(1,), size=(64, 96), pad=8, seed=2),
        *(watched([0.1 * i, 0.0, 0.1 * i + 0.3, 0.5], seed=i) for i in range(3, 8)),
    ]
    layers = read_layers(detector)
    before, weights = state_of(detector), {name: value.clone() for name, value in detector.state_dict().items()}

    together = {one.watched.chosen.key: one for one in explain_objects(detector, layers, images, "cpu")}
    singles = [next(explain_objects(detector, layers, [one], "cpu")) for one in images]

    assert state_of(detector) == before
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())
    assert set(together) == {one.chosen.key for one in images}
    for single in singles:
        same = together[single.watched.chosen.key]
        np.testing.assert_allclose(same.map, single.map, rtol=1e-3, atol=1e-4 * single.map.max())
        np.testing.assert_allclose(same.scores, single.scores, rtol=1e-4)
        assert single.map.max() > 0
        assert single.map.min() >= 0
    assert together["cam/1"].map.shape in [(8, 8), (4, 4), (2, 2)]  # by the level that sees an object best
    assert together["cam/2"].map.shape in [(6, 12), (3, 6), (2, 3)]  # without the padding


@slow
def test_a_map_depends_on_the_objects_that_are_explained(detector: Any) -> None:
    left, right = ([0.0, 0.3, 0.3, 0.7], [0.7, 0.3, 1.0, 0.7])
    layers = read_layers(detector)

    (first,) = explain_objects(detector, layers, [watched(left)], "cpu")
    (second,) = explain_objects(detector, layers, [watched(right)], "cpu")

    for one, other in ((first, second), (second, first)):
        own = one.localisation().energy
        assert own > replace(other, watched=one.watched).localisation().energy


@pytest.fixture(scope="module")
def classifier() -> Any:
    from ultralytics.nn.tasks import ClassificationModel, yaml_model_load

    torch.manual_seed(0)
    content = yaml_model_load("yolo11n-cls.yaml") | {"nc": 3, "scales": {"n": [0.33, 0.0625, 256]}, "scale": "n"}
    network = ClassificationModel(content, ch=3, verbose=False).train()
    with torch.no_grad():
        network(torch.rand(4, 3, 128, 128))
    return network


def whole(seed: int, side: int) -> Watched:
    """Return an image of a classifier: no boxes, pixels as shares."""
    one = watched(np.zeros((0, 4)), classes=(1,), size=(side, side), seed=seed)
    return replace(one, input=replace(one.input, pixels=one.input.pixels.float() / 255))


@slow
def test_maps_of_a_classifier_add_up_to_its_logits(classifier: Any) -> None:
    images = [whole(seed, 128) for seed in range(5)]
    before = state_of(classifier)

    found = list(explain_images(classifier, read_layers(classifier), images, "cpu"))

    assert state_of(classifier) == before
    with torch.no_grad():
        probabilities, logits = classifier.eval()(torch.stack([one.input.pixels for one in images]))
    classifier.train()
    bias = classifier.model[-1].linear.bias.detach()
    for one, of, share in zip(found, logits, probabilities, strict=True):
        assert one.predicted == int(of.argmax())
        assert one.is_signed
        for values, p, c in zip(one.maps, one.probabilities, (1, one.predicted), strict=True):
            assert values.shape == (4, 4)
            assert float(values.sum()) + float(bias[c]) == pytest.approx(float(of[c]), abs=1e-4)
            assert p == pytest.approx(float(share[c]), abs=1e-5)


@slow
def test_a_classifier_whose_last_grid_is_too_small_is_seen_at_a_finer_block(classifier: Any) -> None:
    (one,) = explain_images(classifier, read_layers(classifier), [whole(0, 32)], "cpu")

    assert not one.is_signed
    assert [values.shape for values in one.maps] == [(4, 4), (4, 4)]
    assert all(values.min() >= 0 for values in one.maps)
