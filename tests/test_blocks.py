"""Blocks and freeze words; the expected backbones are counted by hand in Ultralytics' yaml files."""

import pytest

from mlflow_yolo.blocks import Block, Freeze, block_of, parse_freeze, parse_seeds, read_blocks
from mlflow_yolo.exceptions import ArgumentError, FreezeError

PARTS = ["backbone"] * 4 + ["neck", "head"]
BLOCKS = tuple(Block(index, "Conv", part) for index, part in enumerate(PARTS))


@pytest.mark.parametrize(
    ("name", "n_blocks", "n_backbone", "head"),
    [("yolov8n", 23, 10, "Detect"), ("yolo11n", 24, 11, "Detect"), ("yolo26n", 24, 11, "Detect")],
)
def test_blocks_come_from_the_models_own_yaml(name: str, n_blocks: int, n_backbone: int, head: str) -> None:
    from ultralytics.nn.tasks import yaml_model_load

    blocks = read_blocks(yaml_model_load(f"{name}.yaml"))

    assert len(blocks) == n_blocks
    assert sum(block.part == "backbone" for block in blocks) == n_backbone
    assert (blocks[-1].type, blocks[-1].part) == (head, "head")
    assert blocks[n_backbone].part == "neck"


def test_a_block_is_named_by_index_and_type() -> None:
    blocks = read_blocks(
        {"backbone": [[-1, 1, "Conv", []]], "head": [[-1, 1, "nn.Upsample", []], [-1, 1, "Detect", []]]}
    )

    assert [block.name for block in blocks] == ["00-Conv", "01-Upsample", "02-Detect"]


def test_a_yaml_without_backbone_is_refused() -> None:
    with pytest.raises(FreezeError, match="backbone"):
        read_blocks({"head": [[-1, 1, "Detect", []]]})


@pytest.mark.parametrize(
    ("parameter", "block"),
    [
        ("model.4.cv1.conv.weight", 4),
        ("model.22.dfl.conv.weight", 22),
        ("module.model.3.bn.bias", 3),
        ("criterion.w", None),
    ],
)
def test_a_parameter_belongs_to_its_block(parameter: str, block: int | None) -> None:
    assert block_of(parameter) == block


@pytest.mark.parametrize(
    ("word", "frozen", "param"),
    [
        ("3", (0, 1, 2), 3),
        ("backbone", (0, 1, 2, 3), 4),
        ("neck", (0, 1, 2, 3, 4), 5),
        ("head", (5,), "head"),
        ("2-", (2, 3, 4, 5), "2-"),
    ],
)
def test_a_word_freezes_its_blocks(word: str, frozen: tuple[int, ...], param: int | str) -> None:
    baseline, freeze = parse_freeze(word, BLOCKS)

    assert baseline == Freeze("0", ())
    assert freeze.blocks == frozen
    assert freeze.param == param


def test_the_baseline_is_always_first_and_nothing_twice() -> None:
    assert [f.word for f in parse_freeze("4,backbone,0,1,4", BLOCKS)] == ["0", "4", "1"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6", "freeze=6"),
        ("-1", "freeze=-1"),
        ("ten", "freeze=ten"),
        ("", "''"),
        (" , ", "' , '"),
        ("0-", "freeze=0-"),
        ("9-", "freeze=9-"),
    ],
)
def test_an_impossible_freeze_is_named_with_its_remedy(text: str, value: str) -> None:
    with pytest.raises(FreezeError, match=value) as error:
        parse_freeze(text, BLOCKS)

    assert "\n" not in str(error.value)


def test_everything_frozen_names_the_models_size() -> None:
    with pytest.raises(FreezeError, match=r"freeze=6 leaves nothing to train: the model has 6 blocks. Use 0 to 5."):
        parse_freeze("6", BLOCKS)


def test_seeds_are_whole_numbers_in_order_without_repetition() -> None:
    assert parse_seeds("2, 0,2") == (2, 0)


@pytest.mark.parametrize(
    ("text", "value"), [("0,x", "seeds=x"), ("1.5", "seeds=1.5"), ("-1", "seeds=-1"), ("", "seeds=''")]
)
def test_a_seed_that_is_no_whole_number_is_named(text: str, value: str) -> None:
    with pytest.raises(ArgumentError, match=value):
        parse_seeds(text)
