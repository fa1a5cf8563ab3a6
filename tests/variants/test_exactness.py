from pathlib import Path
from typing import Any

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.parity import Parity
from mlflow_yolo.variants import exactness
from tests.variants.made import a_subject


@pytest.fixture
def differing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function (score, box in pixels) that checks an export which differs by so much."""

    def check(score: float, box: float) -> Parity:
        monkeypatch.setattr(exactness, "open_pipeline", lambda *_, **__: None)
        monkeypatch.setattr(exactness, "parity", lambda a, b, images: Parity(score, score, box, box, len(images)))
        return exactness.check_parity(a_subject(tmp_path / "m.pt"), tmp_path / "fp32-onnx")

    return check


@pytest.mark.parametrize(("score", "box"), [(0.0, 0.0), (1e-3, 1.0)])
def test_what_rounding_explains_passes(differing: Any, score: float, box: float) -> None:
    assert differing(score, box).score_max == score


@pytest.mark.parametrize(("score", "box"), [(1.1e-3, 0.0), (0.0, 1.1), (float("nan"), 0.0), (0.0, float("nan"))])
def test_more_than_that_and_what_is_no_number_is_refused(differing: Any, score: float, box: float) -> None:
    with pytest.raises(ArgumentError, match=r"the float32 export differs from m\.pt by"):
        differing(score, box)
