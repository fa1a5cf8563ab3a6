"""What a freeze ablation asks becomes trials: which, in which order, and what each trains."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.exceptions import FreezeError, InputError
from mlflow_yolo.studies.freeze.question import CheckedQuestion, FreezeQuestion, check_question
from mlflow_yolo.studies.study import default_name
from mlflow_yolo.training.plan import Plan


@pytest.fixture
def question(small_data: Path, small_model: Path) -> FreezeQuestion:
    return FreezeQuestion(
        data=str(small_data),
        model=str(small_model),
        freeze="3,0,backbone,neck,6-",
        seeds="1,0",
        strategy="single",
        epochs=9,
        epochs1=None,
        epochs2=None,
        imgsz=64,
        batch=4,
        device="cpu",
        optimizer="adamw",
        lr0=0.01,
        lr02=None,
        warmup_epochs=0.5,
        warmup_epochs2=0.25,
        statistics="default",
    )


def plans(checked: CheckedQuestion) -> list[Plan]:
    return [Plan.from_json(trial.plan) for trial in checked.trials]


def test_seeds_are_the_outer_loop_and_the_baseline_comes_first(question: FreezeQuestion) -> None:
    checked = check_question(question)

    order = [(trial.params["seed"], trial.params["freeze"]) for trial in checked.trials]
    assert order == [(seed, freeze) for seed in (1, 0) for freeze in (0, 3, 11, 23, "6-")]
    assert len({trial.key for trial in checked.trials}) == 10


def test_words_mean_blocks_of_the_models_own_yaml(question: FreezeQuestion) -> None:
    checked = check_question(question)

    frozen = {
        trial.key.partition("_")[0]: plan.stages[0].freeze
        for trial, plan in zip(checked.trials, plans(checked), strict=True)
    }
    assert frozen == {
        "freeze-0": (),
        "freeze-3": (0, 1, 2),
        "freeze-backbone": tuple(range(11)),
        "freeze-neck": tuple(range(23)),
        "freeze-6-": tuple(range(6, 24)),
    }
    # Where the number of frozen blocks is the param `freeze` itself, it is not said twice.
    assert [trial.params.get("n_frozen_blocks") for trial in checked.trials[:5]] == [None] * 4 + [18]


def test_params_are_numbers_so_that_mlflow_can_draw_them(question: FreezeQuestion) -> None:
    params = check_question(question).trials[1].params

    assert {name: (type(value), value) for name, value in params.items()} == {
        "freeze": (int, 3),
        "seed": (int, 1),
        "lr0": (float, 0.01),
        "strategy": (str, "single"),
        "lr_decay": (float, 1.0),
    }


def test_a_single_stage_is_as_given(question: FreezeQuestion) -> None:
    plan = plans(check_question(replace(question, arguments={"hsv_h": 0.0})))[1]

    (stage,) = plan.stages
    assert (stage.epochs, stage.lr0, stage.warmup_epochs) == (9, 0.01, 0.5)
    assert (plan.imgsz, plan.batch, plan.device, plan.optimizer, plan.arguments) == (
        64,
        4,
        "cpu",
        "AdamW",
        {"hsv_h": 0.0},
    )


def test_two_stages_freeze_first_and_train_everything_after(question: FreezeQuestion) -> None:
    plan = plans(check_question(replace(question, strategy="two_stage")))[1]

    first, second = plan.stages
    assert (first.epochs, first.freeze, first.lr0, first.warmup_epochs) == (3, (0, 1, 2), 0.01, 0.5)
    assert (second.epochs, second.freeze, second.warmup_epochs) == (6, (), 0.25)
    assert second.lr0 == pytest.approx(0.001)


def test_stages_can_be_set_apart(question: FreezeQuestion) -> None:
    given = replace(question, strategy="two_stage", epochs1=2, epochs2=5, lr02=0.02)

    first, second = plans(check_question(given))[1].stages
    assert (first.epochs, second.epochs, first.lr0, second.lr0) == (2, 5, 0.01, 0.02)


def test_the_baseline_gets_the_same_stages_with_nothing_frozen(question: FreezeQuestion) -> None:
    baseline, deep = plans(check_question(replace(question, strategy="two_stage")))[:2]

    assert [replace(stage, freeze=()) for stage in deep.stages] == list(baseline.stages)
    assert [stage.freeze for stage in baseline.stages] == [(), ()]


def test_one_epoch_still_makes_two_stages_of_one(question: FreezeQuestion) -> None:
    given = replace(question, strategy="two_stage", epochs=1)

    assert [stage.epochs for stage in plans(check_question(given))[0].stages] == [1, 1]


def test_blocks_unfreeze_group_by_group_and_the_baseline_has_nothing_to_unfreeze(question: FreezeQuestion) -> None:
    checked = check_question(replace(question, strategy="gradual", unfreeze_every=3, lr_decay=0.9))

    baseline, deep = plans(checked)[:2]
    assert [(stage.freeze, stage.unfreeze) for stage in baseline.stages] == [((), ())]
    assert [(stage.freeze, stage.unfreeze) for stage in deep.stages] == [((0, 1, 2), ((3, (1, 2)), (6, (0,))))]
    assert {plan.lr_decay for plan in plans(checked)} == {0.9}
    gradual = {"strategy": "gradual", "lr_decay": 0.9, "unfreeze_every": 3}
    assert checked.trials[1].params == {"freeze": 3, "seed": 1, "lr0": 0.01, **gradual}


def test_the_same_question_has_the_same_name_and_another_one_another(question: FreezeQuestion) -> None:
    def name(given: FreezeQuestion) -> str:
        return default_name("freeze", check_question(given).config)

    assert name(question) == name(replace(question, optimizer="AdamW"))
    changes = {
        "freeze": "0,3",
        "seeds": "0",
        "strategy": "two_stage",
        "lr_decay": 0.9,
        "epochs": 8,
        "imgsz": 96,
        "batch": 2,
        "lr0": 0.02,
        "optimizer": "SGD",
        "warmup_epochs": 0.0,
        "arguments": {"hsv_h": 0.0},
        "statistics": "off",
        "model": "yolo11n.yaml",
    }
    names = {key: name(replace(question, **{key: value})) for key, value in changes.items()}
    assert len({*names.values(), name(question)}) == len(changes) + 1
    gradual = replace(question, strategy="gradual")
    assert len({name(question), name(gradual), name(replace(gradual, unfreeze_every=3))}) == 3


def test_the_data_are_part_of_the_question_by_their_content(question: FreezeQuestion) -> None:
    checked = check_question(question)

    assert checked.config["dataset"] == load_dataset(question.data).fingerprint


def test_the_machine_is_no_part_of_the_question(question: FreezeQuestion) -> None:
    assert "device" not in check_question(question).config


@pytest.mark.parametrize(("maps", "every"), [(None, None), ("off", 0), ("3", 3)])
def test_maps_are_planned_as_asked_for_and_are_no_part_of_the_question(
    question: FreezeQuestion, maps: str | None, every: int | None
) -> None:
    checked = check_question(replace(question, maps=maps))

    assert {plan.maps for plan in plans(checked)} == {every}
    assert checked.config == check_question(question).config


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"freeze": ""}, "freeze=''"),
        ({"freeze": "24"}, "freeze=24"),
        ({"maps": "-1"}, "maps=-1"),
        ({"freeze": "-1"}, "freeze=-1"),
        ({"freeze": "deep"}, "freeze=deep"),
        ({"seeds": "a"}, "seeds=a"),
        ({"seeds": ""}, "seeds=''"),
        ({"strategy": "three"}, "strategy=three"),
        ({"strategy": "gradual", "epochs": 1}, "epochs=1"),
        ({"strategy": "gradual", "unfreeze_every": 5}, "unfreeze_every=5"),
        ({"lr_decay": 0.0}, "lr_decay=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"epochs2": 0, "strategy": "two_stage"}, "epochs2=0"),
        ({"batch": 0}, "batch=0"),
        ({"imgsz": 0}, "imgsz=0"),
        ({"optimizer": "auto"}, "optimizer=auto"),
        ({"device": "cuda:9"}, "device=cuda:9"),
        ({"model": "none.pt"}, "model=none.pt"),
        ({"data": "none.yaml"}, "data=none.yaml"),
        ({"arguments": {"mosiac": 1}}, "mosiac"),
        ({"lr0": -1.0}, "lr0"),
        ({"lr02": -1.0, "strategy": "two_stage"}, "lr02"),
        ({"warmup_epochs2": "long", "strategy": "two_stage"}, "warmup_epochs2"),
    ],
)
def test_what_cannot_work_is_named_before_anything_is_trained(
    question: FreezeQuestion, changes: dict[str, object], value: str
) -> None:
    with pytest.raises(InputError, match=value):
        check_question(replace(question, **changes))


def test_everything_frozen_is_refused(question: FreezeQuestion) -> None:
    with pytest.raises(FreezeError, match="leaves nothing"):
        check_question(replace(question, freeze="0-"))


@pytest.mark.parametrize("task", ["cls", "seg", "pose"])
def test_a_model_of_another_task_is_refused(question: FreezeQuestion, task: str) -> None:
    with pytest.raises(InputError, match={"cls": "classify", "seg": "polygon", "pose": "pose"}[task]):
        check_question(replace(question, model=f"yolo11n-{task}.yaml", freeze="0"))
