import pytest

from mlflow_yolo.models.argument_kinds import argument_kind, default_value, variable_arguments


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lr0", "float"),
        ("warmup_epochs", "float"),
        ("scale", "float"),
        ("epochs", "int"),
        ("imgsz", "int"),
        ("batch", "int"),
        ("cos_lr", "switch"),
        ("optimizer", "optimizer"),
    ],
)
def test_arguments_of_a_training_have_a_kind(name: str, kind: str) -> None:
    assert argument_kind(name) == kind


@pytest.mark.parametrize("name", ["seed", "workers", "data", "conf", "iou", "max_det", "time", "save", "lr", "name"])
def test_what_no_search_varies_has_none(name: str) -> None:
    assert argument_kind(name) is None


def test_the_arguments_that_a_search_varies_are_listed_and_have_defaults_of_their_kind() -> None:
    found = variable_arguments()
    assert {"lr0", "momentum", "hsv_h", "mosaic", "fliplr", "degrees", "erasing", "weight_decay", "imgsz"} <= set(found)
    numbers = [name for name in found if argument_kind(name) in ("int", "float")]
    assert all(isinstance(default_value(name), int | float) for name in numbers)
    assert default_value("no_such_argument") is None
