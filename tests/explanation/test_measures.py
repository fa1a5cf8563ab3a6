"""What is measured of maps, against maps made by hand or one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mlflow_yolo.attribution.attention_iou import attention_iou
from mlflow_yolo.attribution.cam import METHODS
from mlflow_yolo.attribution.capture import forward
from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.maps import TargetMap, map_targets
from mlflow_yolo.attribution.outputs import Outputs
from mlflow_yolo.attribution.targets import ClassLogit, Contrast, Target, Terms
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.detection.worst_predictions import Case, all_cases
from mlflow_yolo.explanation.attention import localisation_table
from mlflow_yolo.explanation.batches import Mapper, as_input
from mlflow_yolo.explanation.detected import Detected, anchor_of
from mlflow_yolo.explanation.detection_errors import calibration_table, find_errors
from mlflow_yolo.explanation.examples import crop_region, difference_layers, draw_cases, targets_of, title_of
from mlflow_yolo.explanation.instances import Instance, detected, draw_instances, missed
from mlflow_yolo.explanation.measures import measure_classes, measure_instances, measure_pairs
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.perturbation import draw_detections, perturb, perturbation_table
from mlflow_yolo.explanation.split import DetectedSplit

NAMES = ("left", "right")


class HandMade(Mapper):
    """Gives the maps of a dictionary instead of a model's; a frame of 40 x 40 pixels without padding, 4 x 4 cells."""

    def __init__(self, by_class: Mapping[int, Any]) -> None:
        object.__setattr__(self, "by_class", by_class)

    def maps(self, wanted: Mapping[int, Sequence[Target]], *, stage: str) -> dict[int, list[TargetMap]]:
        return {index: [self._map(target) for target in targets] for index, targets in wanted.items()}

    def _map(self, target: Any) -> TargetMap:
        explained = getattr(target, "explained", None)
        values = self.by_class[target.class_id if explained is None else explained]  # type: ignore[attr-defined]
        return TargetMap(target, torch.tensor(values, dtype=torch.float32), (4,), 0.0)


class NoOutlines:
    labels = ({},)


def split_of(**changed: Any) -> DetectedSplit:
    """Return one image of 40 x 40 pixels: an object of class 0 in its left half, one of class 1 in its right half."""
    halves = np.array([[0.0, 0, 20, 40], [20, 0, 40, 40]])
    sample = Sample("a.png", 40, 40, halves, np.array([0, 1]), halves, np.array([0.9, 0.8]), np.array([0, 1]))
    frame = Frame((40, 40), (40, 40), (1.0, 1.0), (0.0, 0.0))
    return DetectedSplit("test", (replace(sample, **changed),), (frame,), NoOutlines())


@dataclass(frozen=True)
class Against:
    """What a detection's place says for one class more than for another, as one target instead of two."""

    detected: Detected
    other: int

    def terms(self, outputs: Outputs, image: int) -> Terms:
        found = self.detected
        anchor = anchor_of(outputs, image, box=found.box, conf=found.conf, class_id=found.class_id)
        assert found.explained is not None
        return Contrast(anchor, found.explained, self.other).terms(outputs, image)


# A quarter of its sum lies in the right half, and a negative part that does not count.
MOSTLY_LEFT = [[3, 0, 0, 1], [3, 0, -9, 1], [3, 0, 0, 1], [3, 0, 0, 1]]
ALL_RIGHT = [[0, 0, 1, 1]] * 4


def test_the_energy_of_an_instance_is_the_share_of_its_map_on_its_object() -> None:
    instances = [Instance(0, 0, "TP", 0, 0, "small"), Instance(0, 1, "FN", None, 1, "small")]
    found = measure_instances(split_of(), HandMade({0: MOSTLY_LEFT, 1: MOSTLY_LEFT}), instances)

    assert [one.localisation.energy for one, _ in found] == pytest.approx([0.75, 0.25])
    assert [one.localisation.coverage for one, _ in found] == pytest.approx([0.5, 0.5])
    assert [one.localisation.pointing for one, _ in found] == [1.0, 0.0]
    assert [made.target for _, made in found] == [detected(split_of(), 0, 0), missed(split_of(), 0, 1)]
    row = localisation_table([one for one, _ in found], NAMES).set_index(["class", "maps"]).loc[("all", "TP")]
    assert (row["n"], row["energy"], row["energy_ratio"], row["energy_ceiling"]) == pytest.approx((1, 0.75, 1.5, 2))


def test_a_detection_of_nothing_is_measured_on_its_own_box() -> None:
    split = split_of(gt_boxes=np.zeros((0, 4)), gt_classes=np.zeros(0, dtype=np.int64))
    ((one, _),) = measure_instances(split, HandMade({1: ALL_RIGHT}), [Instance(0, 1, "FP", 1, None, "small")])
    assert one.localisation.energy == pytest.approx(1)


def test_an_empty_map_is_left_out_and_counted() -> None:
    split, empty = split_of(), np.zeros((4, 4))
    found = measure_instances(split, HandMade({0: empty}), [Instance(0, 0, "TP", 0, 0, "small")] * 2)
    row = localisation_table([one for one, _ in found], NAMES).iloc[0]
    assert (row["n"], row["n_left_out"]) == (0, 2)
    assert np.isnan(row["energy"])


def test_the_map_of_a_class_is_measured_on_its_objects_and_on_those_of_others() -> None:
    found = measure_classes(split_of(), HandMade({0: MOSTLY_LEFT, 1: ALL_RIGHT}), conf=0.5, most=5)

    assert {one.class_id: one.localisation.energy for one in found.own} == pytest.approx({0: 0.75, 1: 1.0})
    right = np.array(ALL_RIGHT, dtype=float)
    expected = float(attention_iou(np.clip(MOSTLY_LEFT, 0, None)[None], right[None])[0])
    scores = {(one.class_id, one.other_id): one.score for one in found.others}
    assert scores == pytest.approx({(0, 1): expected, (1, 0): 0.0})
    assert found.others[0].baseline == pytest.approx(4 * 0.5 / 2.5)


def test_what_a_class_covers_itself_does_not_count_as_that_of_another() -> None:
    split = split_of(gt_boxes=np.array([[0.0, 0, 20, 40], [0, 0, 40, 40]]))
    found = measure_classes(split, HandMade({0: MOSTLY_LEFT, 1: ALL_RIGHT}), conf=0.5, most=5)
    (one,) = [one for one in found.others if one.class_id == 0]
    right = np.array(ALL_RIGHT, dtype=float)
    assert one.score == pytest.approx(float(attention_iou(np.clip(MOSTLY_LEFT, 0, None)[None], right[None])[0]))


def test_classes_below_the_operating_point_have_no_map() -> None:
    found = measure_classes(split_of(), HandMade({0: MOSTLY_LEFT}), conf=0.85, most=5)
    assert [one.class_id for one in found.own] == [0]
    assert measure_classes(split_of(), HandMade({}), conf=0.5, most=0).own == ()


def test_confused_classes_are_compared_at_the_same_detection() -> None:
    split = split_of(classes=np.array([1, 1]))
    case = Case(0, 0, "confusion", 0.9, 0, 0, 1, 1.0, 0.9)
    same, disjoint = (
        measure_pairs(split, HandMade({0: one, 1: ALL_RIGHT}), [case])[0]
        for one in (ALL_RIGHT, np.fliplr(ALL_RIGHT).copy())
    )
    assert (same.score, disjoint.score) == pytest.approx((1, 0))
    assert (same.class_id, same.other_id, same.image) == (0, 1, "a.png")


def test_instances_are_drawn_of_each_class_and_outcome_alike(found: DetectedSplit) -> None:
    cases = all_cases(found.samples, n_classes=10, conf=0.3)
    drawn = draw_instances(cases, most=2, seed=1)

    assert drawn == draw_instances(cases, most=2, seed=1)
    counts = pd.Series([(one.class_id, one.outcome) for one in drawn]).value_counts()
    right = cases[cases["right"]].groupby("class_id").size().clip(upper=2)
    assert {c: n for (c, outcome), n in counts.items() if outcome == "TP"} == right.to_dict()
    assert counts.max() <= 2
    for one in drawn:
        sample = found.samples[one.image]
        if one.outcome == "TP":
            assert sample.gt_classes[one.object] == sample.classes[one.detection] == one.class_id
        assert (one.outcome == "FN") == (one.detection is None)
        assert (one.outcome == "FP") == (one.object is None)
    assert {one.outcome for one in drawn} >= {"TP", "FN"}
    assert draw_instances(cases, most=0) == []


def test_detections_to_perturb_are_of_as_many_classes_as_possible() -> None:
    instances = [Instance(0, class_id, "TP", 0, 0, "small") for class_id in (0, 0, 0, 0, 1, 2)]
    instances.append(Instance(0, 3, "FN", None, 0, "small"))
    chosen = draw_detections(instances, most=3)
    assert {instances[position].class_id for position in chosen} == {0, 1, 2}
    assert draw_detections(instances, most=100) == [0, 1, 2, 3, 4, 5]
    assert draw_detections(instances, most=0) == []


def test_means_of_perturbation_and_how_often_a_map_beats_another() -> None:
    rows = pd.DataFrame(
        [
            *((0, "a", 0, kind, *values) for kind, values in {"cam": (0.1, 0.9), "random": (0.5, 0.5)}.items()),
            *((1, "b", 0, kind, *values) for kind, values in {"cam": (0.6, 0.2), "random": (0.7, 0.1)}.items()),
            *((2, "b", 0, kind, *values) for kind, values in {"cam": (np.nan, np.nan), "random": (0.1, 0.2)}.items()),
        ],
        columns=["detection", "image", "class_id", "map", "deletion", "insertion"],
    )
    table = perturbation_table(rows).set_index("map")
    assert table.loc["cam", ["n", "deletion", "insertion"]].tolist() == pytest.approx([2, 0.35, 0.55])
    assert table.loc["random", ["n", "deletion", "insertion"]].tolist() == pytest.approx([3, 1.3 / 3, 0.8 / 3])
    assert table.loc["cam", "beats random"] == 1  # the third, which marks nothing, does not count
    assert np.isnan(table.loc["random", "beats random"])
    assert perturbation_table(rows.head(0)).empty


def mapper_of(model: ExplainedModel, split: DetectedSplit, method: str) -> Mapper:
    return Mapper(model, split.input, METHODS[method])


def surest(split: DetectedSplit, index: int) -> int:
    return int(split.samples[index].scores.argmax())


@pytest.mark.slow
def test_maps_of_stored_detections_are_those_of_their_anchors(
    found: DetectedSplit, digits_model: ExplainedModel
) -> None:
    wanted = {index: [detected(found, index, surest(found, index))] for index in (0, 1, 5, 6, 7)}
    made = mapper_of(digits_model, found, "layercam").maps(wanted, stage="test")

    for index, (target,) in wanted.items():
        image = as_input(found.input(index))[None]
        with forward(digits_model.network, image, [], needs_gradient=False) as run:
            anchor = anchor_of(run.outputs, 0, box=target.box, conf=target.conf, class_id=target.class_id)
            assert float(run.outputs.logits[0, target.class_id, anchor].sigmoid()) == pytest.approx(
                target.conf, abs=1e-4
            )
        exact = [[ClassLogit(anchor, target.class_id)]]
        ((expected,),) = map_targets(
            digits_model.network,
            image,
            lambda outputs, decoded, exact=exact: exact,
            method=METHODS["layercam"],
            layers=digits_model.layers,
        )
        (found_map,) = made[index]
        assert found_map.blocks == expected.blocks
        torch.testing.assert_close(
            found_map.values, expected.values, atol=1e-5 * float(expected.values.max()), rtol=1e-3
        )


@pytest.mark.slow
def test_the_difference_of_a_confusion_is_the_map_of_the_contrast(
    found: DetectedSplit, digits_model: ExplainedModel
) -> None:
    row = surest(found, 0)
    predicted = int(found.samples[0].classes[row])
    true = (predicted + 1) % 10
    case = Case(0, true, "confusion", 0.9, row, 0, predicted, 0.9, 0.9)
    mapper = mapper_of(digits_model, found, "layercam")

    layers = draw_cases(found, mapper, [case], digits_model.names)[case].layers

    one, other, difference = (layer.values for layer in layers)
    np.testing.assert_allclose(difference, one - other, atol=1e-5)
    assert len({layer.limit for layer in layers}) == 1
    assert layers[0].limit == pytest.approx(max(np.abs(layer.values).max() for layer in layers))
    assert [layer.title for layer in layers] == [
        f"for {true}",
        f"for {predicted}",
        f"{true} \N{MINUS SIGN} {predicted}",
    ]
    first, second = targets_of(case, found)
    assert isinstance(first, Detected)
    contrast = Against(first, predicted)
    signed = replace(mapper, method=METHODS["hirescam"]).maps({0: [first, second, contrast]}, stage="test")[0]
    assert one.min() < 0 < one.max()
    torch.testing.assert_close(
        signed[2].values,
        signed[0].values - signed[1].values,
        atol=1e-4 * float(signed[2].values.abs().max()),
        rtol=1e-3,
    )
    assert signed[2].score == pytest.approx(signed[0].score - signed[1].score, abs=1e-4)


@pytest.mark.slow
def test_deletion_begins_at_the_stored_confidence_and_its_areas_lie_below(
    found: DetectedSplit, digits_model: ExplainedModel
) -> None:
    mapper = mapper_of(digits_model, found, "layercam")
    maps = mapper.maps({0: [detected(found, 0, surest(found, 0))]}, stage="test")

    rows = perturb(found, mapper, maps, peer_block=10, steps=3)

    assert list(rows["map"]) == ["layercam", "gradcam, block 10", "random"]
    areas = rows[["deletion", "insertion"]].to_numpy()
    assert ((areas >= 0) & (areas <= 1) | np.isnan(areas)).all()  # Grad-CAM's map of it is zero everywhere
    ours = rows.set_index("map").loc["layercam"]
    assert ours["insertion"] > ours["deletion"]


def case(subtype: str, other: int | None = None, *, conf: float = 0.8) -> Case:
    detection = None if subtype == "missed" else 0
    return Case(0, 0, subtype, 0.5, detection, 0, other, 0.6, conf)


@pytest.mark.parametrize(
    ("one", "title"),
    [
        (case("confusion", 1), "left taken for right, 80%"),
        (case("both", 1), "right beside a left, 80%"),
        (case("duplicate"), "left found twice, 80%"),
        (case("background"), "left where nothing is labelled, 80%"),
        (case("missed", conf=0.0), "left missed"),
        (case("missed", conf=0.2), "left missed, its best box has 20%"),
        (case("localisation"), "left badly placed, IoU 0.60, 80%"),
        (case("low_confidence"), "left found, 80%, IoU 0.60"),
    ],
)
def test_a_case_says_what_happened(one: Case, title: str) -> None:
    assert title_of(one, NAMES) == title


def test_what_lies_beside_an_object_of_another_class_is_explained_like_a_confusion() -> None:
    first, second = targets_of(case("both", 1), split_of(classes=np.array([1, 1])))
    assert (first.explained, second.explained) == (0, 1)
    assert first.class_id == second.class_id == 1


def test_the_picture_is_cut_out_around_the_boxes_and_inside_the_image() -> None:
    frame = Frame((100, 200), (200, 200), (1.0, 1.0), (50.0, 0.0))
    assert crop_region(np.array([[90.0, 90, 110, 110]]), frame) == (68, 68, 132, 132)  # 64 pixels at least
    assert crop_region(np.array([[0.0, 50, 10, 60]]), frame) == (0, 50, 37, 87)
    assert crop_region(np.array([[0.0, 50, 200, 150]]), frame) == (0, 50, 200, 150)


def test_a_difference_without_any_value_has_a_scale_of_zero() -> None:
    zeros = np.zeros((2, 2), dtype=np.float32)
    assert {layer.limit for layer in difference_layers(zeros, zeros, true="a", predicted="b")} == {0.0}


def test_sure_errors_are_listed_the_surest_first_across_classes_and_below_any_operating_point() -> None:
    there, elsewhere = (0.0, 0.0, 50.0, 50.0), (200.0, 200.0, 260.0, 260.0)
    sample = Sample(
        image="a.png",
        height=300,
        width=300,
        gt_boxes=np.array([there]),
        gt_classes=np.array([0]),
        boxes=np.array([elsewhere, elsewhere, there]),
        scores=np.array([0.92, 0.97, 0.99]),
        classes=np.array([0, 1, 0]),
    )
    for conf in (0.5, 0.98):
        confident = find_errors([sample], ("a", "b"), split="test", conf=conf).confident
        assert confident["conf"].tolist() == [0.97, 0.92]
        assert confident["class"].tolist() == ["b", "a"]


def test_calibration_is_listed_by_class_and_for_all() -> None:
    there, elsewhere = (0.0, 0.0, 50.0, 50.0), (200.0, 200.0, 260.0, 260.0)
    sample = Sample(
        image="a.png",
        height=300,
        width=300,
        gt_boxes=np.array([there]),
        gt_classes=np.array([0]),
        boxes=np.array([there, elsewhere]),
        scores=np.array([0.75, 0.625]),
        classes=np.array([0, 1]),
    )
    table = calibration_table(find_errors([sample] * 12, ("a", "b", "c"), split="test", conf=0.5))
    assert table["class"].tolist() == ["a", "b", "c", "all"]
    assert table["n"].tolist() == [12, 12, 0, 24]
    np.testing.assert_allclose(table["d_ece"], [0.25, 0.625, np.nan, (0.25 + 0.625) / 2])
    np.testing.assert_allclose(table["la_ece"], [0.25, 0.625, np.nan, (0.25 + 0.625) / 2])
