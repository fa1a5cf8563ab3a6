"""What is replayed from a head's raw output is what Ultralytics makes of the same output, byte by byte."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.nms import non_max_suppression

from mlflow_yolo.exceptions import ArgumentError, ShapeError
from mlflow_yolo.models import candidates, keeper
from mlflow_yolo.models.heads import Boxes, Heads
from tests.models.raw_outputs import (
    N_PROTOTYPES,
    Picture,
    assert_same_bytes,
    heads_of,
    some_pictures,
    validated,
)

IOUS, CONFS, MAX_DETS = (0.3, 0.7), (0.001, 0.25, 0.6), (300, 7)


def check_all(pictures: list[Picture], heads: Heads, folder: Path, **given: object) -> None:
    """Compare every combination; what is asked for anew at a confidence and what is cut out of the lowest."""
    for iou in IOUS:
        for max_det in MAX_DETS:
            lowest = heads.replay(iou=iou, max_det=max_det)
            for conf in CONFS:
                expected = validated(pictures, folder, conf=conf, iou=iou, max_det=max_det, **given)
                assert_same_bytes(lowest.above(conf), expected)
                assert_same_bytes(heads.replay(iou=iou, max_det=max_det, conf=conf), expected)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_classes", [1, 3, 100])
def test_every_combination_is_what_ultralytics_makes_of_the_same_output(
    n_classes: int, ties: bool, tmp_path: Path
) -> None:
    pictures = some_pictures(n_classes, n_classes=n_classes, ties=ties)

    check_all(pictures, heads_of(pictures, n_classes=n_classes), tmp_path, n_classes=n_classes)


@pytest.mark.parametrize("flag", ["agnostic_nms", "single_cls"])
def test_suppression_across_classes_is_done_as_ultralytics_does_it(flag: str, tmp_path: Path) -> None:
    pictures = some_pictures(5, n_classes=3)
    if flag == "single_cls":  # Ultralytics' data loader has made all objects class 0 then
        pictures = [replace(one, classes=one.classes * 0) for one in pictures]
    ours = {"agnostic_nms": "agnostic"}.get(flag, flag)

    heads = heads_of(pictures, n_classes=3, **{ours: True})
    check_all(pictures, heads, tmp_path, n_classes=3, **{flag: True})
    plain = heads_of(pictures, n_classes=3).replay(iou=0.3)
    assert len(plain.conf) > len(heads.replay(iou=0.3).conf)


def test_outputs_that_are_no_numbers_are_treated_as_ultralytics_treats_them(tmp_path: Path) -> None:
    pictures = some_pictures(6, n_classes=3)
    pictures[0].prediction[4, 3] = float("nan")  # a score
    pictures[0].prediction[1, 5] = float("nan")  # a place
    pictures[4].prediction[:, 7] = float("nan")

    check_all(pictures, heads_of(pictures, n_classes=3), tmp_path, n_classes=3)


@pytest.mark.parametrize("counts", [[(40, 0)], [(0, 4), (0, 2)], [(0, 0)]])
def test_no_objects_or_no_detections_anywhere_give_empty_statistics(
    counts: list[tuple[int, int]], tmp_path: Path
) -> None:
    pictures = some_pictures(7, n_classes=2, counts=counts)
    heads = heads_of(pictures, n_classes=2)

    check_all(pictures, heads, tmp_path, n_classes=2)
    arrays = heads.replay(iou=0.7)
    assert (arrays.n_images, len(arrays.target_cls)) == (len(counts), sum(m for _, m in counts))


def test_of_very_many_candidates_the_surest_are_suppressed_among(monkeypatch: pytest.MonkeyPatch) -> None:
    (picture,) = some_pictures(8, n_classes=2, counts=[(200, 10)])
    monkeypatch.setattr(candidates, "MAX_NMS", 50)

    found = heads_of([picture], n_classes=2).replay(iou=0.5)

    (expected,) = non_max_suppression(picture.prediction[None], 0.001, 0.5, multi_label=True, max_nms=50)
    assert found.conf.tobytes() == expected[:, 4].numpy().tobytes()
    assert found.pred_cls.tobytes() == expected[:, 5].numpy().tobytes()
    assert 0 < len(found.conf) < 50


def test_the_limit_of_detections_holds_where_many_candidates_say_the_same(tmp_path: Path) -> None:
    # 300 candidates of one object outrank the two others: looking at the surest few first must not lose those.
    (picture,) = some_pictures(9, n_classes=1, counts=[(300, 3)])
    place = picture.prediction[:4]
    place[:, :298] = place[:, :1]
    picture.prediction[4] = torch.linspace(0.99, 0.5, 300)

    found = heads_of([picture], n_classes=1).replay(iou=0.5, max_det=3)

    assert_same_bytes(found, validated([picture], tmp_path, n_classes=1, conf=0.001, iou=0.5, max_det=3))
    assert found.conf.min() < 0.51


def test_the_head_that_suppresses_by_itself_knows_no_iou(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for one in some_pictures(10, n_classes=3):
        n = one.prediction.shape[1]
        centre, half = one.prediction[:2], one.prediction[2:4] / 2
        score, class_id = one.prediction[4:7].max(0)
        rows = torch.cat([centre - half, centre + half, score[None], class_id[None].float()]).T
        pictures.append(
            replace(one, prediction=rows[score.argsort(descending=True)][: rng.integers(20, 60) if n else 0])
        )
    heads = heads_of(pictures, n_classes=3, end2end=True)

    check_all(pictures, heads, tmp_path, n_classes=3, end2end=True)
    first, second = heads.replay_all([0.1, 0.9]).values()
    assert first.conf.tobytes() == second.conf.tobytes()


@pytest.mark.parametrize("n_classes", [1, 4])
@pytest.mark.parametrize("native", [False, True])
def test_masks_are_matched_as_ultralytics_matches_them(n_classes: int, native: bool, tmp_path: Path) -> None:
    pictures = some_pictures(11, n_classes=n_classes, n_extra=N_PROTOTYPES)
    if native:
        enlarge = torch.nn.Upsample(scale_factor=4)
        pictures = [
            replace(one, masks=enlarge(one.masks[None])[0] if len(one.masks) else one.masks) for one in pictures
        ]
    heads = heads_of(pictures, n_classes=n_classes, task="segment", native=native)

    check_all(pictures, heads, tmp_path, n_classes=n_classes, task="segment", native=native)
    arrays = heads.replay(iou=0.7)
    assert arrays.tp_mask is not None
    assert 0 < arrays.tp_mask[:, 0].sum() < len(arrays.conf)
    assert (arrays.tp_mask != arrays.tp).any()


def test_masks_are_made_once_for_each_candidate_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = some_pictures(12, n_classes=2, n_extra=N_PROTOTYPES)
    heads = heads_of(pictures, n_classes=2, task="segment")
    made: list[int] = []
    original = keeper.ImageMasks.overlaps

    def counted(self: keeper.ImageMasks, places: np.ndarray) -> object:
        made.extend(self.candidates[places].tolist())
        return original(self, places)

    monkeypatch.setattr(keeper.ImageMasks, "overlaps", counted)
    together = heads.replay_all([0.3, 0.5, 0.7], conf=0.25)
    n_first = len(made)
    again = {iou: heads.replay(iou=iou) for iou in (0.7, 0.5, 0.3)}

    assert len(made) == len(set(made)) > n_first > 0
    for iou, arrays in together.items():
        np.testing.assert_array_equal(arrays.tp_mask, again[iou].above(0.25).tp_mask)


def test_prototypes_that_take_too_much_memory_are_kept_in_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures = some_pictures(13, n_classes=2, n_extra=N_PROTOTYPES)
    expected = heads_of(pictures, n_classes=2, task="segment").replay(iou=0.6)
    monkeypatch.setattr(keeper, "MEMORY_BYTES", pictures[0].prototypes.numpy().nbytes)

    heads = heads_of(pictures, n_classes=2, task="segment", folder=tmp_path)

    assert len(list(tmp_path.rglob("*.npy"))) == 2  # the first image is in memory; two have nothing to match
    np.testing.assert_array_equal(heads.replay(iou=0.6).tp_mask, expected.tp_mask)


@pytest.mark.parametrize("asked", [300, 299, 400])
def test_the_default_limit_of_detections_is_raised_as_ultralytics_raises_it(asked: int) -> None:
    pictures = some_pictures(14, n_classes=2, counts=[(5, 2), (10, 310)])
    args = SimpleNamespace(max_det=asked)
    labels = [{"cls": np.zeros((len(one.classes), 1))} for one in pictures]
    DetectionValidator._check_max_det(args, {"val": SimpleNamespace(labels=labels)})

    assert heads_of(pictures, n_classes=2).limit(asked) == args.max_det
    assert (args.max_det == 310) == (asked == 300)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"iou": 1.5}, "iou=1.5"),
        ({"iou": float("nan")}, "iou=nan"),
        ({"iou": 0.5, "conf": 0.0001}, "conf=0.0001"),
        ({"iou": 0.5, "conf": 1.1}, "conf=1.1"),
        ({"iou": 0.5, "max_det": 0}, "max_det=0"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, float], message: str) -> None:
    heads = heads_of(some_pictures(15, n_classes=1), n_classes=1)

    with pytest.raises(ArgumentError, match=message):
        heads.replay(**given)


def test_more_detections_than_the_head_was_asked_for_are_refused() -> None:
    heads = replace(heads_of(some_pictures(16, n_classes=1), n_classes=1), most_kept=50)

    assert len(heads.replay(iou=0.5, max_det=50).conf)
    with pytest.raises(ArgumentError, match="max_det=51"):
        heads.replay(iou=0.5, max_det=51)


def test_boxes_of_another_number_of_images_are_refused() -> None:
    heads = heads_of(some_pictures(17, n_classes=1), n_classes=1)

    with pytest.raises(ShapeError, match="objects"):
        replace(heads, objects=Boxes.joined([]))
