import itertools

import matplotlib as mpl
from matplotlib.colors import to_rgb

from mlflow_yolo.figures import style


def test_the_baseline_is_first_and_grey_and_the_others_keep_the_palette_in_order() -> None:
    looks = style.looks(["0", "3", "10"])
    assert list(looks) == ["0", "3", "10"]
    assert [look.color for look in looks.values()] == [style.BASELINE_COLOR, *style.PALETTE[:2]]


def test_a_named_baseline_moves_first_and_does_not_use_up_a_colour() -> None:
    looks = style.looks(["3", "0", "10"], baseline="0")
    assert list(looks) == ["0", "3", "10"]
    assert looks == style.looks(["0", "3", "10"])


def test_a_configuration_added_at_the_end_changes_no_other_colour() -> None:
    few, many = style.looks(["0", "3", "6"]), style.looks(["0", "3", "6", "9"])
    assert few.items() <= many.items()


def test_looks_stay_distinct_beyond_the_palette() -> None:
    looks = style.looks(map(str, range(25)))
    assert len(set(looks.values())) == 25


def test_ten_configurations_have_colours_apart_from_each_other() -> None:
    colors = [to_rgb(look.color) for look in style.looks(map(str, range(10))).values()]
    for one, other in itertools.combinations(colors, 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 0.02


def test_nothing_to_name_gives_no_looks() -> None:
    assert style.looks([]) == {}


def test_a_figure_leaves_pyplot_and_settings_alone() -> None:
    settings = dict(mpl.rcParams)
    figure = style.new_figure(width_in=3, height_in=2)
    style.state(figure, "A statement $1 of $2", "How to read it.")
    figure.canvas.draw()
    assert dict(mpl.rcParams) == settings
    assert figure.get_suptitle() == "A statement $1 of $2"


def test_a_long_title_is_broken_within_the_figure() -> None:
    figure = style.new_figure(width_in=5, height_in=2)
    style.state(figure, "word " * 60, "word " * 90)
    figure.canvas.draw()
    for text in (figure._suptitle, figure._supxlabel):
        assert text.get_window_extent().x1 <= figure.bbox.x1
