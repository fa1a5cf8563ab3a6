from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.pareto import Point, areas, front_path, pareto, pareto_front, ticks

SETTING = {"metric": "mAP50-95", "split": "test", "machine": "EPYC, 1 thread"}
VARIANTS = [
    Point("yolo11n.pt", 60, 0.4203, 5.5, "PyTorch"),
    Point("fp32-onnx", 17.7, 0.4200, 10.6, "ONNX Runtime"),
    Point("int8-onnx", 13.9, 0.4185, 4.6, "ONNX Runtime"),
    Point("bf16-openvino", 10.0, 0.4196, 5.4, "OpenVINO"),
    Point("fp32-openvino", 15.2, 0.4200, 10.5, "OpenVINO"),
    Point("int8-openvino", 11.3, 0.4150, 4.2, "OpenVINO"),
    Point("fp16-onnx", 19.0, 0.4200, 5.4, "ONNX Runtime"),
    Point("dynamic-int8-onnx", 41.0, 0.405, 3.1, "ONNX Runtime"),
    Point("pruned fp32-onnx", 13.1, 0.412, 6.2, "ONNX Runtime"),
    Point("pruned int8-onnx", 10.9, 0.4105, 2.8, "ONNX Runtime"),
    Point("pruned bf16-openvino", 7.9, 0.4115, 3.2, "OpenVINO"),
    Point("pruned distilled fp32-onnx", 13.1, 0.4165, 6.2, "ONNX Runtime"),
    Point("int8-qat-onnx", 29, 0.419, 3.0, "ONNX Runtime"),
    Point("fp32-onnx 256 px", 11.6, 0.392, 10.6, "ONNX Runtime"),
    Point("yolo11s fp32-onnx", 44, 0.4351, 37.9, "ONNX Runtime"),
]


def named(figure: Figure, start: str) -> dict[str, object]:
    artists = figure.axes[0].get_children()
    return {a.get_gid().removeprefix(start): a for a in artists if (a.get_gid() or "").startswith(start)}


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [
        Point("a", 10, 0.40),
        Point("b", 20, 0.50),
        Point("c", 20, 0.45),
        Point("d", 30, 0.50),
        Point("e", 9, 0.30),
    ]
    assert pareto_front(points) == [True, True, False, False, True]


def test_equal_points_share_the_front_and_what_was_not_measured_is_on_none() -> None:
    nan = float("nan")
    points = [Point("a", 10, 0.4), Point("b", 10, 0.4), Point("c", nan, 0.9), Point("d", 1, nan)]
    assert pareto_front(points) == [True, True, False, False]
    assert pareto_front([]) == []


def test_the_front_is_drawn_as_a_staircase() -> None:
    points = [Point("a", 10, 0.40), Point("b", 20, 0.50), Point("c", 25, 0.45), Point("e", 9, 0.30)]
    expected = [[9, 0.30], [10, 0.30], [10, 0.40], [20, 0.40], [20, 0.50]]
    np.testing.assert_allclose(front_path(points, pareto_front(points)), expected)
    figure = pareto(points, **SETTING)
    np.testing.assert_allclose(named(figure, "front")[""].get_xydata(), expected)


def test_areas_are_in_proportion_to_sizes_but_never_too_small_to_see() -> None:
    area = areas([Point("a", 1, 1, 40.0), Point("b", 1, 1, 10.0), Point("c", 1, 1, 0.001), Point("d", 1, 1)])
    assert area[0] == pytest.approx(4 * area[1])
    assert 0 < area[2] < area[1]
    assert area[3] == area[2]
    assert (areas([Point("a", 1, 1)]) > 0).all()


def test_every_variant_is_drawn_in_the_colour_of_its_group() -> None:
    groups = named(pareto(VARIANTS, **SETTING), "group:")
    assert {name: len(found.get_offsets()) for name, found in groups.items()} == {
        "PyTorch": 1, "ONNX Runtime": 10, "OpenVINO": 4}  # fmt: skip
    assert len({tuple(found.get_facecolors()[0][:3]) for found in groups.values()}) == 3


@pytest.mark.parametrize("n", [3, 8, 15])
def test_no_name_covers_another_or_leaves_the_figure(n: int) -> None:
    figure = pareto(VARIANTS[:n], **SETTING, reference="fp32-onnx")
    texts = named(figure, "name:")
    assert len(texts) == n
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts.values()]
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_latencies_far_apart_are_on_a_logarithmic_scale() -> None:
    assert pareto([Point("a", 10, 0.4), Point("b", 30, 0.5)], **SETTING).axes[0].get_xscale() == "log"
    assert pareto([Point("a", 10, 0.4), Point("b", 29, 0.5)], **SETTING).axes[0].get_xscale() == "linear"


def test_ticks_are_round_numbers_inside() -> None:
    assert ticks(6, 130) == [10, 20, 50, 100]
    assert ticks(7, 21) == [7, 10, 15, 20]
    assert all(9 <= tick <= 13 for tick in ticks(9, 13))
    assert len(ticks(9, 13)) >= 3


def test_what_was_not_measured_is_named_below() -> None:
    figure = pareto([*VARIANTS[:2], Point("broken", float("nan"), float("nan"), error="corrupt")], **SETTING)
    assert "Not measured: broken." in figure.get_supxlabel().replace("\n", " ")
    assert set(named(figure, "name:")) == {"yolo11n.pt", "fp32-onnx"}


@pytest.mark.parametrize(
    "points",
    [
        [],
        [Point("a", float("nan"), 0.5)],
        [Point("a", 10, 0.5)],
        [Point("a", 10, 0.5), Point("b", 10, 0.5)],
        [Point("$x^2$", 10, 0.0, 5.0)],
    ],
)
def test_few_or_equal_points_are_drawn(points) -> None:
    assert png_bytes(pareto(points, **SETTING, reference="a"), dpi=40)
