import pytest

from mlflow_yolo.blocks import Block
from mlflow_yolo.exceptions import ArgumentError, FreezeError, InputError
from mlflow_yolo.models.checkpoint import Model
from mlflow_yolo.studies.tuning.built_in import build, check_replayed, known_good


def model(n_backbone: int, n_blocks: int) -> Model:
    def part(i: int) -> str:
        return "head" if i == n_blocks - 1 else "backbone" if i < n_backbone else "neck"

    return Model("m.yaml", "detect", tuple(Block(i, "C3k2", part(i)) for i in range(n_blocks)), "")


V11, V8 = model(11, 24), model(10, 23)
ONE = {"": V11}


def test_freeze_is_bounded_by_words_of_the_model() -> None:
    assert build("freeze", "0:backbone", models=ONE).values == tuple(range(12))
    assert build("freeze", "backbone:neck", models=ONE).values == tuple(range(11, 24))
    assert build("freeze", "3:backbone:4", models=ONE).values == (3, 7, 11)


def test_freeze_may_be_choices_and_words_among_them() -> None:
    assert build("freeze", "0+3+backbone", models=ONE).choices == (0, 3, 11)


def test_freeze_of_several_models_is_what_is_valid_for_all() -> None:
    assert build("freeze", "0:backbone", models={"11": V11, "8": V8}).high == 10
    assert build("freeze", "backbone:neck", models={"11": V11, "8": V8}).values == tuple(range(11, 23))


def test_a_freeze_word_that_means_two_depths_is_no_choice() -> None:
    with pytest.raises(FreezeError, match="10 blocks of one model, 11 of another"):
        build("freeze", "0+backbone", models={"11": V11, "8": V8})


def test_freeze_beyond_the_model_is_refused_and_the_model_named_among_several() -> None:
    with pytest.raises(FreezeError, match=r"freeze=24 leaves nothing to train.*0 to 23"):
        build("freeze", "0:24", models=ONE)
    with pytest.raises(FreezeError, match=r"model=8: freeze=23"):
        build("freeze", "0:23", models={"11": V11, "8": V8})


@pytest.mark.parametrize("text", ["head", "0:head", "3-", "1.5", "-1:3", "backbone:3", ":3", "0:3:5:7", "0:x"])
def test_a_freeze_that_is_no_depth_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="freeze"):
        build("freeze", text, models=ONE)


def test_arguments_of_ultralytics_have_their_own_kind() -> None:
    assert build("lr0", "1e-4:1e-1:log", models=ONE).kind == "float"
    assert build("close_mosaic", "0:10", models=ONE).kind == "int"
    assert build("scale", "0:0.9", models=ONE).kind == "float"
    assert build("cos_lr", "true+False", models=ONE).choices == (True, False)


def test_an_optimizer_is_spelt_as_ultralytics_does() -> None:
    assert build("optimizer", "sgd+adamw", models=ONE).choices == ("SGD", "AdamW")


def test_sizes_go_in_steps_of_the_stride() -> None:
    assert build("imgsz", "320:416", models=ONE).values == (320, 352, 384, 416)
    assert build("imgsz", "320:640:160", models=ONE).values == (320, 480, 640)


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("lr", "0:1", "lr is not a dimension.*lr"),
        ("freez", "0:1", "Did you mean freeze"),
        ("hsvh", "0:1", "Did you mean hsv_"),
        ("seed", "0:3", "seed is not a dimension"),
        ("workers", "0:3", "workers is not a dimension"),
        ("xyzzy", "0:1", "xyzzy is not a dimension. Use"),
        ("imgsz", "100:200", "imgsz=100 is not a multiple of 32"),
        ("imgsz", "320:640:50", "imgsz=370"),
        ("imgsz", "0:64", "imgsz=0"),
        ("batch", "0:8", "batch=0"),
        ("epochs", "0:5", "epochs"),
        ("prune", "0:1", "prune=1"),
        ("prune", "-0.1:0.5", "prune=-0.1"),
        ("lr_decay", "0:1", "lr_decay=0"),
        ("lr_decay", "0.5+1.1", "lr_decay=1.1"),
        ("mosaic", "0:1.5", "mosaic"),
        ("optimizer", "auto+SGD", "optimizer=auto"),
        ("optimizer", "Foo", "optimizer=Foo"),
        ("strategy", "single+gradul", "strategy=gradul"),
        ("cos_lr", "yes", "cos_lr=yes"),
    ],
)
def test_what_no_training_could_use_is_named_in_one_line(name: str, text: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        build(name, text, models=ONE)
    assert "\n" not in str(error.value)


def test_thresholds_are_a_range_that_is_looked_up() -> None:
    assert check_replayed("conf", "0.1:0.9", task="detect") == (0.1, 0.9)
    assert check_replayed("iou", "0.5", task="segment") == (0.5, 0.5)


@pytest.mark.parametrize("text", ["0:0.9", "0.1:1", "0.9:0.1", "0.1+0.2", "0.1:0.9:log", "0.1:0.9:0.1", "x"])
def test_a_threshold_that_is_no_range_within_0_and_1_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="conf"):
        check_replayed("conf", text, task="detect")


def test_a_classifier_has_no_threshold_to_look_up() -> None:
    with pytest.raises(ArgumentError, match=r"conf.*classify"):
        check_replayed("conf", "0.1:0.9", task="classify")


@pytest.mark.parametrize(
    ("name", "text", "good"),
    [
        ("freeze", "3:9", 0),
        ("prune", "0.1:0.5", 0.0),
        ("strategy", "gradual+single", "single"),
        ("lr_decay", "0.7:0.9", 1.0),
        ("momentum", "0.5:0.9", 0.937),  # Ultralytics' cfg/default.yaml
        ("imgsz", "320:640", 640),
        ("model", "s+n", "s"),
    ],
)
def test_the_known_good_value_is_the_usual_one(name: str, text: str, good: object) -> None:
    assert known_good(build(name, text, models=ONE)) == good
