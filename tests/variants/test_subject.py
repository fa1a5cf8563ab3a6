from pathlib import Path

import pytest

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.data import check_names, choose_split
from mlflow_yolo.variants.subject import check_size, read_subject
from tests.variants.made import a_dataset, a_subject


def test_auto_is_test_where_there_is_one_else_val() -> None:
    assert choose_split(a_dataset(), "auto") == "test"
    assert choose_split(a_dataset(splits={"train": None, "val": None}), "auto") == "val"


def test_a_split_is_itself_or_does_not_exist() -> None:
    assert choose_split(a_dataset(), "train") == "train"
    with pytest.raises(ArgumentError, match=r"split=holdout does not exist in shapes. Use one of train, val, test"):
        choose_split(a_dataset(), "holdout")


def test_choices_are_made_on_val_and_on_the_reported_split_where_there_is_none() -> None:
    assert a_subject(Path("m.pt")).choosing_split == "val"
    without = a_subject(Path("m.pt"), dataset=a_dataset(splits={"train": None, "test": None}))
    assert without.choosing_split == "test"


def test_names_must_be_those_of_the_data_in_their_order() -> None:
    check_names(("bright", "dark"), a_dataset(), model="m.pt")
    with pytest.raises(CheckpointError, match=r"model=m.pt calls class 0 'dark' and shapes calls it 'bright'"):
        check_names(("dark", "bright"), a_dataset(), model="m.pt")
    with pytest.raises(CheckpointError, match=r"model=m.pt has 1 classes and shapes has 2"):
        check_names(("bright",), a_dataset(), model="m.pt")


def test_sizes_of_detectors_are_multiples_of_the_stride_and_those_of_classifiers_need_not_be() -> None:
    assert check_size(96, task="detect") == 96
    assert check_size(100, task="classify") == 100
    with pytest.raises(ArgumentError, match=r"imgsz=100 is no multiple of 32. Use for example 96 or 128"):
        check_size(100, task="segment")
    for task in ("detect", "classify"):
        with pytest.raises(ArgumentError, match="imgsz=16"):
            check_size(16, task=task)


def test_the_shipped_checkpoint_is_read_with_its_data(few: Path) -> None:
    subject = read_subject("digits", str(few))
    assert (subject.checkpoint.name, subject.imgsz, subject.split) == ("digits.pt", 128, "test")
    assert subject.model.task == "detect"
    assert subject.label == f"digits.pt ({subject.model.sha256[:12]})"
    assert read_subject("digits", str(few), imgsz=96).imgsz == 96
