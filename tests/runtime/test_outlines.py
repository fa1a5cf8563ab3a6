import numpy as np
import pytest

from mlflow_yolo.runtime.outlines import mask_outlines


def block(shape: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def test_a_mask_in_the_frame_of_the_image_is_outlined_where_it_lies() -> None:
    ((ring,),) = mask_outlines(block((20, 30), slice(5, 11), slice(7, 10))[None], (20, 30))
    assert sorted(map(tuple, ring)) == [(7, 5), (7, 10), (9, 5), (9, 10)]


def test_a_mask_in_the_frame_of_the_input_is_moved_and_scaled_to_the_image() -> None:
    # An image of 200x100 is halved into 100x100 and lies there 25 rows down.
    ((ring,),) = mask_outlines(block((100, 100), slice(35, 46), slice(10, 21))[None], (100, 200))
    assert sorted(map(tuple, ring)) == [(20, 20), (20, 40), (40, 20), (40, 40)]


def test_parts_are_listed_the_largest_first_without_holes_and_specks() -> None:
    mask = block((40, 40), slice(1, 5), slice(1, 5)) | block((40, 40), slice(10, 30), slice(10, 30))
    mask[15, 15] = False
    mask[35, 35] = True  # one pixel has no corners
    (rings,) = mask_outlines(mask[None], (40, 40))
    assert [np.ptp(ring[:, 0]) for ring in rings] == [19, 3]


def test_no_masks_and_an_empty_mask_give_no_outline() -> None:
    assert mask_outlines(np.zeros((0, 8, 8), bool), (8, 8)) == []
    assert mask_outlines(np.zeros((1, 8, 8), bool), (8, 8)) == [[]]


def test_the_outline_agrees_with_ultralytics_up_to_a_joined_part() -> None:
    results = pytest.importorskip("ultralytics.engine.results")
    torch = pytest.importorskip("torch")
    yy, xx = np.mgrid[:96, :128]
    mask = (yy - 50) ** 2 + (xx - 60) ** 2 < 30**2
    theirs = results.Masks(torch.from_numpy(mask[None].astype(np.float32)), (300, 400)).xy[0]
    ((ours,),) = mask_outlines(mask[None], (300, 400))
    assert np.allclose(ours, theirs, atol=0.01)
