import math

import numpy as np
from matplotlib.figure import Figure

from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.freeze_advice import BlockEvidence, freeze_advice

BLOCKS = [
    BlockEvidence(0, "00-Conv", need=1.5, gradient=0.5, source_gradient=0.25, drift=0.1, source_drift=0.01),
    BlockEvidence(1, "01-Concat"),
    BlockEvidence(2, "02-C3k2", need=8.0, gradient=2.0, drift=0.0),
]


def lines(figure: Figure) -> dict:
    return {line.get_gid(): line for axes in figure.axes for line in axes.lines}


def test_every_block_that_has_weights_is_a_row_with_its_values() -> None:
    figure = freeze_advice(BLOCKS, depth=0, little=4.0, data="cells", source="digits")
    drawn = lines(figure)

    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["00-Conv", "02-C3k2"]
    np.testing.assert_allclose(drawn["needs"].get_xydata(), [[1.5, 0], [8.0, 1]])
    np.testing.assert_allclose(drawn["gradient:target"].get_xydata(), [[0.5, 0], [2.0, 1]])
    np.testing.assert_allclose(drawn["gradient:source"].get_xydata(), [[0.25, 0]])
    np.testing.assert_allclose(drawn["drift:target"].get_xydata(), [[0.1, 0]])  # 0 has no place on this axis
    assert list(drawn["little"].get_xdata()) == [4.0, 4.0]


def test_the_rows_to_freeze_are_tinted_and_named() -> None:
    figure = freeze_advice(BLOCKS, depth=2, little=4.0, data="cells")
    tints = [patch for axes in figure.axes for patch in axes.patches if patch.get_gid() == "frozen"]

    assert len(tints) == 3
    assert (tints[0].get_y(), tints[0].get_y() + tints[0].get_height()) == (-0.5, 0.5)
    assert "freeze the first 2 blocks" in figure.get_suptitle()
    assert "the noise of its gradient" in " ".join(figure.get_supxlabel().split())


def test_freezing_nothing_tints_nothing() -> None:
    figure = freeze_advice(BLOCKS, depth=0, little=4.0, data="cells")

    assert not [patch for axes in figure.axes for patch in axes.patches if patch.get_gid() == "frozen"]
    assert "freeze nothing" in figure.get_suptitle()


def test_a_block_with_only_batch_norms_is_drawn_and_without_any_it_is_said() -> None:
    only = freeze_advice([BlockEvidence(0, "x", drift=0.2)], depth=0, little=2.0, data="$c$")
    assert lines(only)["drift:target"].get_xdata()[0] == 0.2
    empty = freeze_advice([BlockEvidence(0, "x", need=math.nan)], depth=0, little=2.0, data="$c$")
    assert "No block" in empty.axes[0].texts[0].get_text()
    assert png_bytes(only)
    assert png_bytes(empty)
