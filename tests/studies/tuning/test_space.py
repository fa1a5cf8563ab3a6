import json
from pathlib import Path

import pytest

from mlflow_yolo.exceptions import InputError
from mlflow_yolo.studies.tuning.dimensions import Dimension
from mlflow_yolo.studies.tuning.space import Space, parse_space

ISSUE = "freeze=0:backbone,lr0=1e-4:1e-1:log,prune=0:0.6"


def test_the_issues_example_is_a_space_of_the_shipped_model() -> None:
    space = parse_space(ISSUE, model="digits")
    assert space.names == ("freeze", "lr0", "prune")
    assert space.text == "freeze=0:11,lr0=0.0001:0.1:log,prune=0:0.6"
    assert list(space.models) == [""]
    assert space.models[""].task == "detect"
    assert space.model({"freeze": 3}) is space.models[""]


def test_a_yaml_file_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("freeze: 0:backbone\nlr0: {low: 1e-4, high: 1e-1, log: true}\nprune: 0:0.6\n")
    assert parse_space(str(file), model="digits") == parse_space(ISSUE, model="digits")


def test_thresholds_are_kept_apart_from_what_is_trained() -> None:
    space = parse_space("lr0=1e-3:1e-2,conf=0.1:0.9,iou=0.3:0.8", model="digits")
    assert space.names == ("lr0",)
    assert space.replayed == {"conf": (0.1, 0.9), "iou": (0.3, 0.8)}
    assert space.text == "lr0=0.001:0.01,conf=0.1:0.9,iou=0.3:0.8"


def test_models_are_choices_and_bound_what_is_frozen() -> None:
    space = parse_space("model=yolo11n.yaml+yolov8n.yaml,freeze=0:backbone", model="digits")
    assert list(space.models) == ["yolo11n.yaml", "yolov8n.yaml"]
    assert space.text == "model=yolo11n.yaml+yolov8n.yaml,freeze=0:10"
    assert space.model({"model": "yolov8n.yaml", "freeze": 1}).source == "yolov8n.yaml"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lr0=0.1:0.2,lr0=3", "lr0 twice"),
        ("conf=0.1:0.9", "thresholds"),
        ("lr0=0.1,freeze=3", "leaves nothing to search"),
        ("freeze=0:30", "freeze=30"),
        ("", "no dimension"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(text: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        parse_space(text, model="digits")
    assert "\n" not in str(error.value)


def made(*dimensions: Dimension) -> Space:
    return Space(dimensions)


FREEZE = Dimension("freeze", "int", 0, 11)
LR0 = Dimension("lr0", "float", 1e-4, 1e-1, log=True)
OPTIMIZER = Dimension("optimizer", "choice", choices=("SGD", "AdamW"))
PRUNE = Dimension("prune", "float", 0.0, 0.6, step=0.2)


def test_points_are_counted_where_they_can_be() -> None:
    assert made(FREEZE, OPTIMIZER, PRUNE).n_points == 12 * 2 * 4
    assert made(FREEZE, LR0).n_points is None


def test_the_first_trial_is_the_defaults_brought_into_the_space() -> None:
    space = made(Dimension("freeze", "int", 3, 11), LR0, OPTIMIZER, Dimension("momentum", "float", 0.0, 0.9))
    found = space.enqueue({"lr0": 0.5, "optimizer": "AdamW", "epochs": 5})
    assert found == {"freeze": 3, "lr0": 0.1, "optimizer": "AdamW", "momentum": 0.9}
    assert space.contains(found)


def test_a_space_contains_whole_points_only() -> None:
    space = made(FREEZE, OPTIMIZER)
    assert space.contains({"freeze": 3, "optimizer": "SGD"})
    assert not space.contains({"freeze": 3})
    assert not space.contains({"freeze": 12, "optimizer": "SGD"})
    assert not space.contains({"freeze": 3, "optimizer": "SGD", "lr0": 0.1})


def test_two_points_share_a_key_exactly_when_they_are_the_same_trial() -> None:
    space = made(FREEZE, PRUNE)
    assert space.key({"freeze": 1, "prune": 0.1 + 0.2}) == space.key({"prune": 0.3, "freeze": 1})
    assert space.key({"freeze": 1, "prune": 0.3}) != space.key({"freeze": 1, "prune": 0.300001})
    assert made(OPTIMIZER).key({"optimizer": "SGD"}) != made(OPTIMIZER).key({"optimizer": "AdamW"})


def test_what_identifies_a_space_survives_json_and_tells_checkpoints_by_their_bytes() -> None:
    space = parse_space("model=digits+yolo11n.yaml,freeze=0:3,conf=0.1:0.9", model="digits")
    found = space.to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["models"] == {"digits": space.models["digits"].sha256[:16], "yolo11n.yaml": "yolo11n.yaml"}
    assert found["replayed"] == {"conf": [0.1, 0.9]}
    assert [one["name"] for one in found["dimensions"]] == ["model", "freeze"]
