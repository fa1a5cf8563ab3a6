import numpy as np
import pytest
from ultralytics.utils.metrics import ap_per_class

from mlflow_yolo.detection.operating_measures import Weighing
from mlflow_yolo.detection.threshold_surface import MEASURES, threshold_surface
from tests.detection.matches_by_hand import arrays_of, random_arrays, slowly

WEIGHING = Weighing(beta=0.5, c_fp=2, c_fn=5)


def test_every_point_is_what_counting_there_gives() -> None:
    arrays = {iou: random_arrays(np.random.default_rng(seed), decimals=2) for seed, iou in enumerate((0.6, 0.3))}
    for level, masks in ((0, False), (5, False), (0, True)):
        surface = threshold_surface(arrays, [0.5, 0.2, 0.8, 0.5], weighing=WEIGHING, level=level, masks=masks)
        assert (surface.ious.tolist(), surface.confs.tolist()) == ([0.3, 0.6], [0.2, 0.5, 0.8])
        for j, iou in enumerate(surface.ious):
            for k, conf in enumerate(surface.confs):
                expected = slowly(arrays[iou], [conf] * 4, WEIGHING, level=level, masks=masks)
                for name, value in expected.items():
                    assert surface.values[name][j, k] == pytest.approx(value, nan_ok=True), (name, iou, conf)


def test_map_is_ultralytics_own_of_the_detections_above() -> None:
    arrays = {0.7: random_arrays(np.random.default_rng(4))}
    surface = threshold_surface(arrays, [0.1, 0.6], weighing=WEIGHING)
    for k, conf in enumerate((0.1, 0.6)):
        above = arrays[0.7].above(conf)
        ap = ap_per_class(above.tp, above.conf, above.pred_cls, above.target_cls)[5]
        assert surface.values["mAP50"][0, k] == pytest.approx(ap[:, 0].mean(), abs=1e-12)
        assert surface.values["mAP50-95"][0, k] == pytest.approx(ap.mean(), abs=1e-12)


def test_rows_are_the_table_of_every_point() -> None:
    arrays = {0.5: arrays_of([(0, 0, 0.9, True), (0, 0, 0.4, False)], [(0, 0)], n_images=2, n_classes=1)}
    rows = threshold_surface(arrays, [0.3, 0.6], weighing=WEIGHING).rows()
    assert [(row["iou"], row["conf"]) for row in rows] == [(0.5, 0.3), (0.5, 0.6)]
    assert set(rows[0]) == {"iou", "conf", *MEASURES}
    assert (rows[0]["precision"], rows[1]["precision"], rows[1]["f1"]) == (0.5, 1, 1)
    assert (rows[0]["cost"], rows[0]["detections"]) == (1, 1)


def test_nothing_detected_still_has_a_surface() -> None:
    arrays = {0.5: arrays_of([], [(0, 0), (1, 0)], n_images=2, n_classes=1)}
    surface = threshold_surface(arrays, [0.3], weighing=WEIGHING)
    assert surface.values["recall"].tolist() == [[0]]
    assert surface.values["cost"].tolist() == [[5]]
    assert np.isnan(surface.values["precision"]).all()
