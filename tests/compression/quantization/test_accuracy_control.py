"""Tests of the search for a version that loses little, with an evaluation that is told what to say."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mlflow_yolo.compression.quantization.accuracy_control import quantize_to_target
from mlflow_yolo.compression.quantization.calibration import CalibrationSet
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.variant import read_variant

Evaluate = Callable[[Path], float]


@pytest.fixture
def scores() -> Callable[[Sequence[float]], Evaluate]:
    """Return a function that makes an evaluation of scores, the float model's first, each said once."""

    def make(values: Sequence[float]) -> Evaluate:
        waiting = iter(values)
        return lambda folder: next(waiting) if read_variant(folder) else 0.0

    return make


def test_the_first_method_that_holds_is_taken(
    float_folder: Path, calibration: CalibrationSet, folder: Path, scores: Callable[[Sequence[float]], Evaluate]
) -> None:
    variant, table = quantize_to_target(
        float_folder,
        folder,
        evaluate=scores([0.420, 0.400, 0.415]),
        max_drop=0.005,
        calibration=calibration,
        methods=("minmax", "percentile", "mse"),
    )
    assert list(table["method"]) == ["minmax", "percentile"]
    assert list(table["drop"]) == pytest.approx([0.02, 0.005])
    assert list(table["holds"]) == [False, True]  # a drop of just max_drop holds
    assert variant == read_variant(folder)
    assert variant.sources["quantization"]["method"] == "percentile"
    control = variant.sources["accuracy_control"]
    assert (control["reference"], control["accuracy"], control["holds"]) == (0.42, 0.415, True)
    assert sorted(file.name for file in folder.iterdir()) == ["model.onnx", "variant.json"]
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_then_the_head_and_then_the_worst_layers_stay_in_float(
    float_folder: Path, calibration: CalibrationSet, folder: Path, scores: Callable[[Sequence[float]], Evaluate]
) -> None:
    said: list[str] = []
    variant, table = quantize_to_target(
        float_folder,
        folder,
        evaluate=scores([0.42, 0.30, float("nan"), 0.29, 0.35, 0.38, 0.419]),
        max_drop=0.005,
        calibration=calibration,
        methods=("minmax", "percentile"),
        symmetric=True,
        progress=said.append,
    )
    assert list(table["method"]) == ["minmax", "percentile", "minmax", "minmax", "minmax", "minmax"]
    assert list(table["keep_head"]) == [False, False, True, False, False, False]  # in float it was no better
    assert list(table["n_layers_in_float"]) == [0, 0, 0, 1, 2, 4]
    layers = variant.sources["accuracy_control"]["layers_in_float"]
    assert len(layers) == 4
    assert table["layers_in_float"].iloc[-1] == ", ".join(layers)
    excluded = variant.sources["quantization"]["excluded"]
    assert excluded
    assert all(name.startswith(tuple(layers)) for name in excluded)
    assert variant.sources["quantization"]["symmetric"] is True
    assert "scoring float32" in said
    assert any("4 layers in float" in words for words in said)


def test_where_nothing_holds_the_best_is_kept_and_said_to_miss(
    float_folder: Path, calibration: CalibrationSet, folder: Path
) -> None:
    seen: list[int] = []

    def evaluate(path: Path) -> float:
        seen.append(len(seen))
        return {0: 0.9, 2: 0.5}.get(seen[-1], 0.1)

    variant, table = quantize_to_target(
        float_folder, folder, evaluate=evaluate, max_drop=0.01, calibration=calibration, methods=("minmax",)
    )
    assert not table["holds"].any()
    assert variant.sources["accuracy_control"]["holds"] is False
    assert variant.sources["accuracy_control"]["accuracy"] == 0.5
    assert variant.sources["quantization"]["keep_head"] is True  # the second version, which was the best


def test_targets_and_methods_that_are_none_are_refused(
    float_folder: Path, calibration: CalibrationSet, folder: Path, scores: Callable[[Sequence[float]], Evaluate]
) -> None:
    for max_drop, methods, named in ((-0.1, ("mse",), "max_drop"), (0.1, (), "methods"), (0.1, ("x",), "method=x")):
        with pytest.raises(ArgumentError, match=named):
            quantize_to_target(
                float_folder,
                folder,
                evaluate=scores([]),
                max_drop=max_drop,
                calibration=calibration,
                methods=methods,
            )
    assert list(folder.iterdir()) == []
