import numpy as np

from mlflow_yolo.figures.threshold_curves import threshold_curves

SETTING = {"split": "val", "iou": 0.6, "marks": {"chosen": 0.4, "Ultralytics' own": 0.25}}


def test_a_line_for_each_measure_and_each_threshold() -> None:
    confs = np.linspace(0.1, 0.9, 5)
    figure = threshold_curves({"precision": confs, "recall": 1 - confs}, confs=confs, **SETTING, bound=0.9)
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["curve:recall"].get_ydata(), 1 - confs)
    assert list(lines["mark:chosen"].get_xdata()) == [0.4, 0.4]
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["precision", "recall", "chosen: 0.4", "Ultralytics' own: 0.25", "asked for: 0.9"]


def test_a_single_threshold_and_values_that_are_missing_can_be_drawn() -> None:
    figure = threshold_curves({"precision": [np.nan]}, confs=[0.3], **SETTING)
    figure.canvas.draw()


def test_nothing_to_draw_says_so() -> None:
    assert "no thresholds" in threshold_curves({}, confs=[], **SETTING).axes[0].texts[0].get_text()
