"""Which figures a study gets, and that each is drawn from its own children's numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlflow_yolo.studies.freeze import figures
from mlflow_yolo.studies.freeze.analysis import Child, FreezeAnalysis, analyse
from mlflow_yolo.studies.freeze.figures import draw

MakeChild = Callable[..., Child]
ALWAYS = ["depth_effect", "learning_curves", "accuracy_against_time"]


def compared(children: list[Child]) -> FreezeAnalysis:
    analysis = analyse(children, n_resamples=20)
    assert analysis is not None
    return analysis


def test_detection_gets_every_figure_as_a_png(make_child: MakeChild, image_root: Path, tmp_path: Path) -> None:
    children = [make_child(word, seed, 0.5, n_right=n) for word, n in (("0", 8), ("6-", 18)) for seed in (0, 1)]

    pictures = draw(compared(children), tmp_path, image_root)

    expected = [*ALWAYS, "precision_recall", "f1_per_class", "confusion", "side_by_side"]
    assert [picture.name for picture in pictures] == expected
    for picture in pictures:
        assert picture.file == tmp_path / "figures" / f"{picture.name}.png"
        with Image.open(picture.file) as image:
            assert min(image.size) > 100
        assert picture.heading
    assert "IoU 0.50" in next(picture.text for picture in pictures if picture.name == "confusion")


def test_classification_gets_a_confusion_matrix_without_boxes(
    make_child: MakeChild, image_root: Path, tmp_path: Path
) -> None:
    children = [make_child(w, 0, v, n_right=n, task="classify") for w, v, n in (("0", 0.4, 8), ("10", 0.9, 18))]

    pictures = draw(compared(children), tmp_path, image_root)

    assert [picture.name for picture in pictures] == [*ALWAYS, "confusion"]
    assert "confidence" not in pictures[-1].text


def test_a_task_without_kept_predictions_gets_what_needs_none(
    make_child: MakeChild, image_root: Path, tmp_path: Path
) -> None:
    pictures = draw(compared([make_child("0", 0, 0.5), make_child("10", 0, 0.6)]), tmp_path, image_root)

    assert [picture.name for picture in pictures] == ALWAYS


def test_drawing_again_replaces_the_files(make_child: MakeChild, image_root: Path, tmp_path: Path) -> None:
    analysis = compared([make_child("0", 0, 0.5), make_child("10", 0, 0.6)])

    first = [picture.file.stat().st_size for picture in draw(analysis, tmp_path, image_root)]
    second = [picture.file.stat().st_size for picture in draw(analysis, tmp_path, image_root)]
    assert first == second
    assert len(list((tmp_path / "figures").iterdir())) == len(ALWAYS)


def test_a_training_that_stopped_early_leaves_its_later_epochs_open(make_child: MakeChild) -> None:
    curve = "metrics/mAP50-95B"
    short = make_child("0", 0, 0.5, curves={curve: [0.1]})
    analysis = compared([short, make_child("0", 1, 0.5, curves={curve: [0.2, 0.4]})])

    stacked = figures._stacked(analysis.baseline, curve)
    np.testing.assert_array_equal(stacked, [[0.1, np.nan], [0.2, 0.4]])


def test_the_confusion_of_a_classifier_counts_all_seeds(make_child: MakeChild) -> None:
    children = [make_child("0", seed, 0.5, n_right=n, task="classify") for seed, n in ((0, 20), (1, 10))]
    analysis = compared(children)

    matrix = figures._class_confusion(analysis.baseline, analysis)
    # 20 of 20 and 10 of 20 right: three quarters of each class, the rest taken for the other class.
    np.testing.assert_allclose(matrix[:2, :2], [[0.75, 0.25], [0.25, 0.75]])
    assert matrix.shape == (3, 3)


@pytest.mark.parametrize("n_right", [0, 20])
def test_nothing_found_and_everything_found_can_both_be_drawn(
    make_child: MakeChild, image_root: Path, tmp_path: Path, n_right: int
) -> None:
    pictures = draw(compared([make_child("0", 0, 0.0, n_right=n_right)]), tmp_path, image_root)

    assert len(pictures) == 7
