"""A search is checked whole before anything is trained: what it asks, and one clear line for what cannot be asked."""

from dataclasses import replace

import pytest

from mlflow_yolo.exceptions import InputError
from mlflow_yolo.studies.tuning.question import TuneQuestion, check_tune
from mlflow_yolo.studies.tuning.trial_plan import TrialPlan
from mlflow_yolo.training.plan import Stage

QUESTION = TuneQuestion(
    data="digits-logchroma",
    model="digits",
    space="freeze=0:backbone,lr0=1e-4:1e-2:log",
    objective="final/mAP50-95",
    constraints="",
    sampler="tpe",
    pruner="auto",
    seeds="0",
    freeze="0",
    strategy="single",
    lr_decay=1.0,
    epochs=4,
    imgsz=None,
    batch=16,
    device="cpu",
    optimizer="AdamW",
    lr0=0.002,
    warmup_epochs=0.5,
    statistics="off",
)


def test_a_trials_values_take_their_places_in_its_plan() -> None:
    space = "freeze=0:backbone,lr0=1e-4:1e-2:log,momentum=0.8:0.99,prune=0:0.5,lr_decay=0.5:1,hsv_h=0:0.1,imgsz=64:128"
    checked = check_tune(replace(QUESTION, space=space, seeds="3,5", arguments={"mosaic": 0.0}))

    trial = checked.plan(
        {"freeze": 3, "lr0": 0.004, "momentum": 0.9, "prune": 0.25, "lr_decay": 0.7, "hsv_h": 0.05, "imgsz": 96}
    )

    assert trial.plan.stages == (Stage(4, (0, 1, 2), 0.004, 0.5),)
    assert trial.plan.arguments == {"momentum": 0.9, "hsv_h": 0.05, "mosaic": 0.0}
    assert (trial.plan.lr_decay, trial.plan.imgsz, trial.plan.seed, trial.seeds, trial.prune) == (
        0.7,
        96,
        3,
        (5,),
        0.25,
    )
    assert TrialPlan.from_json(trial.to_json()) == trial


@pytest.mark.parametrize(
    ("data", "model", "metric"),
    [("digits", "digits", "final/mAP50-95"), ("digits-cls", "yolo11n-cls.yaml", "final/top1")],
)
def test_the_goal_is_what_the_task_is_judged_by_unless_another_is_named(data: str, model: str, metric: str) -> None:
    checked = check_tune(replace(QUESTION, data=data, model=model, objective="auto"))

    assert [(goal.metric, goal.direction) for goal in checked.goals] == [(metric, "maximize")]


def test_without_values_a_plan_is_the_default_and_other_seeds_can_be_asked_for() -> None:
    checked = check_tune(replace(QUESTION, freeze="backbone"))

    trial = checked.plan({}, seeds=(7,))

    assert trial.plan.stages[0].freeze == tuple(range(11))
    assert (trial.plan.seed, trial.seeds, trial.plan.imgsz, trial.plan.optimizer) == (7, (), 128, "AdamW")


def test_conf_and_iou_are_looked_up_after_the_training_and_not_trained_for() -> None:
    checked = check_tune(replace(QUESTION, space="lr0=1e-4:1e-2:log,conf=0.1:0.9,iou=0.4:0.7", objective="op/f1"))

    trial = checked.plan({"lr0": 0.001})

    assert (trial.conf, trial.iou) == ((0.1, 0.9), (0.4, 0.7))
    assert not {"conf", "iou"} & trial.plan.arguments.keys()
    assert list(checked.space.distributions()) == ["lr0"]


@pytest.mark.parametrize(
    ("changes", "costs"),
    [({}, False), ({"constraints": "size_mb<=6"}, True), ({"objective": "final/mAP50,latency_p95_ms"}, True)],
)
def test_costs_are_measured_only_where_they_are_asked_for(changes: dict[str, str], costs: bool) -> None:
    checked = check_tune(replace(QUESTION, **changes))

    assert checked.costs is costs
    assert checked.plan({}).costs is costs


@pytest.mark.parametrize(
    ("changes", "pruner"),
    [
        ({}, "median"),
        ({"objective": "test/mAP50"}, "median"),
        ({"objective": "size_mb"}, "none"),
        ({"objective": "final/mAP50,size_mb"}, "none"),
        ({"objective": "final/mAP50:min"}, "none"),
        ({"pruner": "asha"}, "asha"),
    ],
)
def test_trials_are_pruned_only_by_what_accuracy_during_training_can_say(changes: dict[str, str], pruner: str) -> None:
    checked = check_tune(replace(QUESTION, **changes))

    assert checked.pruner == pruner
    assert checked.reports is (pruner != "none")


def test_how_much_is_tried_does_not_make_another_question_and_what_is_asked_does() -> None:
    same = check_tune(replace(QUESTION, device="0", maps="off")).config
    others = [
        {"space": "freeze=0:backbone,lr0=1e-4:2e-2:log"},
        {"objective": "final/mAP50"},
        {"constraints": "size_mb<=6"},
        {"sampler": "random"},
        {"seeds": "1"},
        {"epochs": 5},
        {"lr0": 0.003},
        {"arguments": {"mosaic": 0.0}},
        {"data": "digits"},
    ]

    configs = [check_tune(replace(QUESTION, **change)).config for change in others]

    assert check_tune(QUESTION).config == same
    assert all(config != same for config in configs)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"space": "freeze=0:backbone,lr=1e-4:1e-2"}, "lr"),
        ({"objective": "final/mAP"}, "final/mAP"),
        ({"constraints": "latency<=20"}, "latency"),
        ({"sampler": "bayes"}, "sampler=bayes"),
        ({"sampler": "grid"}, "lr0="),
        ({"pruner": "early"}, "pruner=early"),
        ({"pruner": "wilcoxon", "seeds": "0,1"}, "pruner=wilcoxon"),
        ({"pruner": "asha", "objective": "latency_p50_ms"}, "pruner=asha"),
        ({"seeds": "a"}, "seeds=a"),
        ({"freeze": "0,3,5"}, "freeze=0,3,5"),
        ({"strategy": "gradual", "epochs": 1}, "epochs=1"),
        ({"space": "strategy=single+gradual", "epochs": 1}, "epochs=1"),
        ({"lr_decay": 1.5}, "lr_decay=1.5"),
        ({"epochs": 0}, "epochs=0"),
        ({"optimizer": "auto"}, "auto"),
        ({"data": "digits-cls"}, "detect"),
        ({"data": "nowhere.yaml"}, "nowhere.yaml"),
        ({"model": "nothing.pt"}, "nothing.pt"),
        ({"arguments": {"mosaics": 1.0}}, "mosaics"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_asked_is_one_line_that_names_it(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError) as raised:
        check_tune(replace(QUESTION, **changes))  # type: ignore[arg-type]

    assert named in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
