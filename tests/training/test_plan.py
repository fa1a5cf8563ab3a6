"""Plans survive a job file, and a dataset's own defaults give way to the user's words."""

import json
from dataclasses import replace
from pathlib import Path

from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.models.data import default_imgsz
from mlflow_yolo.training.plan import Plan, Stage, default_arguments

PLAN = Plan(
    model="m.pt",
    data="d.yaml",
    task="detect",
    stages=(Stage(2, (0, 1), 0.01, 0.5), Stage(3, (), 0.001, 0.0)),
    seed=1,
    imgsz=64,
    batch=4,
    device="cpu",
    optimizer="SGD",
    arguments={"hsv_h": 0.1},
)


def test_a_plan_survives_json() -> None:
    assert Plan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


def test_a_plan_that_unfreezes_survives_json_with_its_types() -> None:
    stage = Stage(9, (0, 1, 2), 0.01, 0.5, unfreeze=((3, (2,)), (6, (0, 1))), ramp_epochs=2.0)
    plan = replace(PLAN, stages=(stage,), lr_decay=0.9)

    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_job_written_before_blocks_could_unfreeze_is_still_read() -> None:
    written = json.loads(json.dumps(PLAN.to_json()))
    del written["lr_decay"]
    for stage in written["stages"]:
        del stage["unfreeze"], stage["ramp_epochs"]

    assert Plan.from_json(written) == PLAN


def test_epochs_are_those_of_all_stages() -> None:
    assert PLAN.epochs == 5


def test_embedded_data_train_at_their_own_size() -> None:
    assert (default_imgsz("digits-logchroma"), default_imgsz("digits.yaml"), default_imgsz("cells.yaml")) == (
        128,
        640,
        640,
    )


def test_log_chromaticity_is_not_colour_augmented(small_data: Path) -> None:
    dataset = load_dataset(small_data)

    assert default_arguments(dataset) == {}
    assert default_arguments(replace(dataset, domain="log-chromaticity")) == {"hsv_h": 0.0, "hsv_s": 0.0}
    assert default_arguments(replace(dataset, name="digits")) == {"fliplr": 0.0}
