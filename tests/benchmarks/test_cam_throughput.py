from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.cam_throughput import ratio, read_batch, strongest, summary, targets
from benchmarks.turns import Times


def times(**seconds: tuple[float, ...]) -> dict[str, Times]:
    return {name.replace("_", " "): Times(wall, tuple(s / 2 for s in wall)) for name, wall in seconds.items()}


def measured() -> dict[str, Times]:
    """Return three rounds, the second of which a busy machine made ten times as slow."""
    seconds = {
        "forward": 1.0,
        "ours, block 16": 1.1,
        "ours, block 4": 1.4,
        "grad-cam, block 4": 5.6,
        "ours, eigencam": 1.2,
        "grad-cam, eigencam": 48.0,
    }
    return {name: Times((s, 10 * s, s), (s / 2,) * 3) for name, s in seconds.items()}


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    found = ratio(times(a=(2.0, 30.0, 4.0), b=(1.0, 10.0, 1.0)), "a", "b")

    assert found is not None
    assert found.value == 3.0


def test_a_ratio_by_cpu_time_does_not_look_at_the_clock() -> None:
    spans = {"a": Times((9.0,), (3.0,)), "b": Times((1.0,), (2.0,))}

    found = ratio(spans, "a", "b", cpu=True)

    assert found is not None
    assert found.value == 1.5


@pytest.mark.parametrize(("way", "base"), [("a", "missing"), ("missing", "a")])
def test_what_was_not_measured_has_no_ratio(way: str, base: str) -> None:
    assert ratio(times(a=(1.0,)), way, base) is None


def test_targets_hold_what_was_measured_in_the_right_direction() -> None:
    found = targets(measured(), {"layercam, block 4": 2e-7, "gradcam, block 4": 5e-5})

    assert [target.value for target in found] == pytest.approx([1.1, 1.4, 4.0, 40.0, 5e-5])
    assert [target.limit for target in found] == [1.15, 1.45, 3.5, 50.0, 1e-4]
    assert [target.ok for target in found] == [True, True, True, False, True]


def test_without_grad_cam_nothing_is_promised_against_it() -> None:
    alone = {name: t for name, t in measured().items() if not name.startswith("grad-cam")}

    found = targets(alone, "grad-cam is not installed")

    assert [target.value for target in found[2:]] == [None, None, None]
    assert [target.ok for target in found] == [True, True, False, False, False]


def test_one_method_that_differs_breaks_the_promise_for_all() -> None:
    assert targets(measured(), {"layercam, block 4": 1e-7, "gradcam, block 4": 2e-4})[-1].ok is False


def test_summary_counts_the_images_of_a_batch() -> None:
    assert summary(times(a=(1.0, 2.0, 9.0)), batch=4) == {"a": {"ms": 2000.0, "cpu_ms": 1000.0, "images_per_s": 2.0}}


def test_the_strongest_anchor_is_sought_on_the_finest_level_only() -> None:
    logits = torch.zeros(2, 3, 5)
    logits[0, 2, 1] = 1.0
    logits[1, 1, 3] = 2.0
    logits[:, :, 4] = 9.0  # a coarser level

    assert strongest(logits, 4) == [(1, 2), (3, 1)]


def test_a_batch_is_the_first_pictures_by_name_in_the_order_of_their_channels(tmp_path: Path) -> None:
    for name, colour in (("b.png", (0, 255, 0)), ("a.png", (255, 0, 0)), ("c.png", (0, 0, 255))):
        Image.new("RGB", (7, 5), colour).save(tmp_path / name)

    batch = read_batch(tmp_path, 16, 2)

    assert batch.shape == (2, 3, 16, 16)
    assert batch[:, :, 0, 0].tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
