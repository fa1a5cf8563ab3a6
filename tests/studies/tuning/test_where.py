"""Where trials run: what is asked for is what there is, or one line says so."""

import os

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.tuning.where import where

ASKED = {"address": "auto", "workers": None, "threads": None, "device": "cpu", "gpus_per_trial": 0.0}


def test_without_a_gpu_there_are_at_most_two_trials_at_once() -> None:
    place = where("local", **ASKED)

    n = min(2, os.cpu_count() or 1)
    assert (place.workers, place.threads, place.device, place.gpus) == (n, (os.cpu_count() or 1) // n, "cpu", ())


def test_workers_and_threads_are_what_the_user_says() -> None:
    place = where("local", **{**ASKED, "workers": 3, "threads": 4})

    assert (place.workers, place.threads) == (3, 4)


def test_a_cluster_may_have_gpus_that_this_machine_has_not() -> None:
    place = where("ray", **{**ASKED, "gpus_per_trial": 0.5, "address": "ray://head:10001", "workers": 8})

    assert (place.device, place.gpus_per_trial, place.address, place.workers) == ("0", 0.5, "ray://head:10001", 8)
    without = where("ray", **ASKED)
    assert (without.device, without.workers, without.threads) == ("cpu", None, 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"executor": "dask"}, "executor=dask"),
        ({"workers": 0}, "workers=0"),
        ({"threads": 0}, "threads=0"),
        ({"gpus_per_trial": -1.0}, "gpus_per_trial=-1"),
        ({"device": "99"}, "99"),
        ({"device": "98,99"}, "98"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_what_does_not_exist_is_one_line(changes: dict[str, object], named: str) -> None:
    given = {**ASKED, **changes}
    with pytest.raises(ArgumentError, match=named):
        where(str(given.pop("executor", "local")), **given)  # type: ignore[arg-type]
