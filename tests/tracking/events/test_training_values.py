"""What a training's own objects say about it."""

import pytest
from torch import nn

from mlflow_yolo.tracking.events.training_values import (
    changed_arguments,
    count_batch_norm,
    count_parameters,
    headline,
    peak_memory_mb,
    plain_params,
)


def test_only_arguments_that_differ_become_params_and_the_place_never() -> None:
    defaults = {"imgsz": 640, "batch": 16, "save_dir": None, "resume": False, "lr0": 0.01}
    arguments = {"imgsz": 64, "batch": 16, "save_dir": "/x", "resume": "/x/last.pt", "lr0": 0.1, "unknown": 1}

    assert changed_arguments(arguments, defaults) == {"imgsz": "64"}


@pytest.mark.parametrize(("freeze", "param"), [(None, 0), (3, 3), ([0, 1], 2), ([], 0), ([5, 6], "5,6"), ("x", 0)])
def test_freezing_is_a_number_where_it_is_a_depth(freeze: object, param: object) -> None:
    assert plain_params({"freeze": freeze, "seed": 1})["freeze"] == param


def test_parameters_and_batch_norm_are_counted_by_what_they_do() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    model[0].requires_grad_(False)
    model[1].eval()

    assert count_parameters(model) == {"parameters_trainable": 12, "parameters_frozen": 9}
    assert count_batch_norm(model) == {"bn_total": 2, "bn_eval": 1, "bn_train": 1}


def test_the_metric_that_decides_is_found_and_its_absence_is_no_number() -> None:
    assert headline({"metrics/mAP50B": 1.0, "metrics/mAP50-95B": 0.5}) == ("metrics/mAP50-95B", 0.5)
    name, value = headline({"other": 1.0})
    assert (name, value != value) == ("", True)


def test_this_process_uses_memory() -> None:
    assert 10 < peak_memory_mb() < 1e6
