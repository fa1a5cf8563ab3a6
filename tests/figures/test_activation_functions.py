from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.activation_functions import FunctionPanel, activation_functions
from mlflow_yolo.figures.encode import png_bytes

Z = np.linspace(-6, 6, 13)


def panel(name: str = "ReLU", blocks: tuple[str, ...] = ("00-Conv", "01-C3k2", "01-C3k2")) -> FunctionPanel:
    densities = np.arange(len(blocks) * 4, dtype=float).reshape(len(blocks), 4)
    value, edges = np.maximum(Z, 0), np.linspace(-6, 6, 5)
    return FunctionPanel(name, Z, value, 0.0, np.inf, 0.0, blocks, edges, densities, 0.6, 0.4)


def axes_of(figure: Figure, gid: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_gid() == gid)


def test_the_graph_is_the_function() -> None:
    axes = axes_of(activation_functions([panel()]), "function:ReLU")
    (line,) = [line for line in axes.lines if line.get_gid() == "graph"]
    np.testing.assert_array_equal(line.get_xdata(), Z)
    np.testing.assert_array_equal(line.get_ydata(), np.maximum(Z, 0))


def test_the_line_behind_is_the_median_layer() -> None:
    figure = activation_functions([panel()])
    (line,) = [line for axes in figure.axes for line in axes.lines if line.get_gid() == "median"]
    np.testing.assert_array_equal(line.get_xdata(), [-4.5, -1.5, 1.5, 4.5])
    np.testing.assert_array_equal(line.get_ydata(), [4, 5, 6, 7])


def test_each_layer_is_a_row_the_first_on_top_and_each_block_named_at_its_rows() -> None:
    axes = axes_of(activation_functions([panel()]), "layers:ReLU")
    (mesh,) = axes.collections
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(3, 4), panel().densities)
    assert axes.get_ylim() == (3, 0)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert dict(zip(names, axes.get_yticks(), strict=True)) == {"00-Conv": 0.5, "01-C3k2": 2.0}


def test_regions_carry_their_shares_and_what_is_nowhere_is_not_named() -> None:
    def texts(of: FunctionPanel) -> list[str]:
        return [text.get_text().replace("\n", " ") for text in axes_of(activation_functions([of]), "function:f").texts]

    relu = panel("f")
    assert texts(relu) == ["off 60.0%", "linear 40.0%"]
    tanh = replace(relu, off_below=-2.0, off_above=2.0, linear_above=np.inf, linear_fraction=0.0)
    assert texts(tanh) == ["off 60.0%", "nonlinear 40.0%", "off 60.0%"]
    leaky = replace(relu, off_below=-np.inf, off_fraction=0.0)
    assert texts(leaky) == ["nonlinear 60.0%", "linear 40.0%"]


def test_a_panel_for_every_function() -> None:
    figure = activation_functions([panel(name) for name in ("a", "b", "c", "d")])
    gids = [axes.get_gid() for axes in figure.axes if (axes.get_gid() or "").startswith("function:")]
    assert gids == ["function:a", "function:b", "function:c", "function:d"]


@pytest.mark.parametrize("panels", [[], [panel(blocks=())], [panel(blocks=("x",) * 200)], [panel("$\\x$ 层")]])
def test_nothing_much_and_odd_names_are_drawn_without_a_warning(panels: list[FunctionPanel]) -> None:
    assert png_bytes(activation_functions(panels, subject="epoch 3"), dpi=40)


def test_no_function_is_said_in_words() -> None:
    assert "No pre-activation" in activation_functions([]).axes[0].texts[0].get_text()


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 layers"):
        activation_functions([replace(panel(), blocks=("a", "b"))])
    with pytest.raises(ShapeError, match="ReLU"):
        activation_functions([replace(panel(), value=Z[1:])])
