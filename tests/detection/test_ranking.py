import numpy as np
import pytest

from mlflow_yolo.detection.ranking import Ranking
from mlflow_yolo.exceptions import ShapeError
from tests.detection.matches_by_hand import arrays_of, random_arrays

# image, class, score, right
DETECTIONS = [(0, 0, 0.9, True), (0, 1, 0.5, False), (1, 0, 0.5, False), (1, 1, 0.8, True), (2, 0, 0.3, True)]
OBJECTS = [(0, 0), (1, 1), (2, 0), (2, 1)]


@pytest.fixture
def ranking() -> Ranking:
    return Ranking.of(arrays_of(DETECTIONS, OBJECTS, n_images=4, n_classes=3))


def test_detections_are_ranked_by_score_and_equal_ones_by_image(ranking: Ranking) -> None:
    np.testing.assert_allclose(ranking.score, [0.9, 0.8, 0.5, 0.5, 0.3], rtol=1e-6)
    assert ranking.image.tolist() == [0, 1, 0, 1, 2]
    assert ranking.n_objects.tolist() == [2, 2, 0]


def test_counts_are_of_scores_above_the_threshold_not_at_it(ranking: Ranking) -> None:
    tp, seen = ranking.counts([0.0, 0.5, 0.85, 1.0])
    assert tp.tolist() == [[2, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert seen.tolist() == [[3, 2, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_a_threshold_is_compared_in_single_precision_as_ultralytics_compares_it() -> None:
    score = 0.1  # as a float32 it is above the Python number
    ranking = Ranking.of(arrays_of([(0, 0, score, True)], [(0, 0)], n_images=1, n_classes=1))
    assert float(ranking.score[0]) > score
    assert ranking.counts([score])[1].tolist() == [[0]]


def test_counts_of_images_sum_up_to_those_of_the_split(ranking: Ranking) -> None:
    counts = ranking.image_counts([0.4, 0.6, 0.0])
    assert counts.tp.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert counts.seen.toarray().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert counts.objects.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]
    tp, seen, objects = counts.totals(np.array([[1.0, 1, 1, 1], [2, 0, 1, 1]]))
    assert tp.tolist() == [[1, 1, 0], [2, 0, 0]]
    assert seen.tolist() == [[2, 1, 0], [2, 0, 0]]
    assert objects.tolist() == [[2, 2, 0], [3, 1, 0]]
    assert [part.tolist() for part in ranking.counts_by_class([0.4, 0.6, 0.0])] == [[1, 1, 0], [2, 1, 0]]


def test_parts_of_a_split_count_as_the_whole_does() -> None:
    ranking = Ranking.of(random_arrays(np.random.default_rng(0), n_images=9))
    chosen = np.arange(9) % 2 == 0
    confs = np.full(4, 0.3)
    parts = [ranking.of_images(mask) for mask in (chosen, ~chosen)]
    assert [part.n_images for part in parts] == [5, 4]
    both = parts[0].image_counts(confs) + parts[1].image_counts(confs)
    whole = ranking.image_counts(confs)
    for name in ("tp", "seen", "objects"):
        np.testing.assert_array_equal(getattr(both, name).toarray(), getattr(whole, name).toarray())
        assert not getattr(parts[0].image_counts(confs), name).toarray()[~chosen].any()


def test_a_class_by_itself_counts_as_its_column() -> None:
    ranking = Ranking.of(random_arrays(np.random.default_rng(1)))
    confs = [0.1, 0.5, 0.8]
    for class_id, rows in enumerate(ranking.rows_by_class()):
        alone = ranking.of_class(rows, class_id)
        for mine, whole in zip(alone.counts(confs), ranking.counts(confs), strict=True):
            np.testing.assert_array_equal(mine[:, 0], whole[:, class_id])
        assert alone.n_objects.tolist() == [ranking.n_objects[class_id]]


def test_verdicts_are_those_of_the_overlap_and_of_masks_where_asked() -> None:
    arrays = arrays_of(DETECTIONS, OBJECTS, n_images=3, n_classes=2)
    right = {
        (level, masks): int(Ranking.of(arrays, level=level, masks=masks).right.sum())
        for level in (0, 4, 5)
        for masks in (False, True)
    }
    # right by boxes up to .70; by masks class 0 alone, at .50
    assert right == {(0, False): 3, (4, False): 3, (5, False): 0, (0, True): 2, (4, True): 0, (5, True): 0}


def test_nothing_detected_counts_nothing() -> None:
    ranking = Ranking.of(arrays_of([], [(0, 0)], n_images=2, n_classes=1))
    assert ranking.counts([0.0])[1].tolist() == [[0]]
    assert ranking.image_counts([0.0]).objects.toarray().tolist() == [[1], [0]]


def test_masks_of_a_model_without_them_are_an_error() -> None:
    from dataclasses import replace

    arrays = replace(arrays_of(DETECTIONS, OBJECTS, n_images=3, n_classes=2), tp_mask=None)
    with pytest.raises(ShapeError, match="boxes"):
        Ranking.of(arrays, masks=True)
