"""A trial survives its job file."""

import json

from mlflow_yolo.studies.tuning.trial_plan import TrialPlan
from mlflow_yolo.training.plan import Plan, Stage

PLAN = Plan(
    model="m.pt",
    data="d.yaml",
    task="detect",
    stages=(Stage(2, (0, 1), 0.01, 0.5), Stage(3, (), 0.001, 0.0)),
    seed=7,
    imgsz=64,
    batch=4,
    device="cpu",
    optimizer="SGD",
    arguments={"hsv_h": 0.1, "mosaic": 0},
)


def test_a_trial_is_the_same_after_its_job_file() -> None:
    trial = TrialPlan(PLAN, seeds=(8, 9), prune=0.3, costs=True, runs=20, conf=(0.1, 0.9), iou=(0.3, 0.8))

    assert TrialPlan.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_what_is_not_asked_for_stays_so() -> None:
    again = TrialPlan.from_json(json.loads(json.dumps(TrialPlan(PLAN).to_json())))

    assert (again.conf, again.iou, again.seeds, again.prune, again.costs) == (None, None, (), 0.0, False)


def test_the_seed_of_the_plan_is_the_first_one() -> None:
    assert TrialPlan(PLAN, seeds=(1, 2)).all_seeds == (7, 1, 2)
