from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_yolo import keys
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.run import open_run
from mlflow_yolo.variants.fine_tuning import FineTuning, _fresh, keep


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"epochs": -1}, "epochs=-1"),
        ({"batch": 0}, "batch=0"),
        ({"optimizer": "auto"}, "optimizer=auto"),
        ({"device": "cuda:99"}, "device=cuda:99"),
        ({"lr0": -1.0}, "lr0"),
        ({"arguments": {"mosiac": 0}}, "mosaic"),
        ({"arguments": {"data": "other.yaml"}}, "data is set by mlflow_yolo"),
    ],
)
def test_what_cannot_train_is_refused(given: dict[str, object], named: str) -> None:
    FineTuning(0).check()
    with pytest.raises(ArgumentError, match=named):
        FineTuning(**{"epochs": 1, **given}).check()


def test_the_question_is_all_that_decides_what_comes_of_it() -> None:
    settings = FineTuning(3, batch=8, device="0", optimizer="SGD", lr0=0.01, seed=2, arguments={"mosaic": 0.0})
    assert settings.question == {
        "epochs": 3,
        "batch": 8,
        "optimizer": "SGD",
        "lr0": 0.01,
        "seed": 2,
        "mosaic": 0.0,
    }


def test_a_file_is_copied_whole_over_an_earlier_one(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        (tmp_path / "best.pt").write_bytes(content)
        keep(tmp_path / "best.pt", tmp_path / "kept.pt")
        assert (tmp_path / "kept.pt").read_bytes() == content
    assert sorted(path.name for path in tmp_path.glob("*.pt*")) == ["best.pt", "kept.pt"]


def test_an_attempt_that_was_killed_is_closed_and_the_next_one_has_a_folder_of_its_own(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    assert _fresh(tmp_path / "control") == tmp_path / "control"
    attempt = open_run(tmp_path / "control", tracking_uri=store, name="control", recover=False)
    attempt.flush()
    (run,) = client.search_runs(["0"])
    assert run.info.status == "RUNNING"
    _die(attempt)

    assert _fresh(tmp_path / "control") == tmp_path / "control-2"
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.data.tags[keys.TAG_STATE]) == ("KILLED", "interrupted")


def _die(run: object) -> None:
    """Let go of a run's journal as its process does when it is killed: without a last word."""
    run._thread.stop()  # type: ignore[attr-defined]
    run._writer.close(1.0)  # type: ignore[attr-defined]
