"""A variant is whole or not there, and its bytes are those that were described."""

import json
from pathlib import Path

import pytest

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.variant import Variant, digest, is_variant, making, read_variant, size_mb, write_variant


def described(**changes: object) -> Variant:
    values = {"kind": "fp32-onnx", "file": "model.onnx", "task": "detect", "names": ("a", "b"), "imgsz": (64, 96)}
    return Variant(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "variant").mkdir()
    (tmp_path / "variant" / "model.onnx").write_bytes(b"abc")
    return tmp_path / "variant"


def test_what_is_written_is_read_back_with_the_digest_of_the_file(folder: Path) -> None:
    written = write_variant(folder, described(operating_point={"conf": 0.3}, sources={"checkpoint": "ff"}, opset=20))

    # SHA-256 of "abc": FIPS 180-4, first example.
    assert written.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert read_variant(folder) == read_variant(folder / "variant.json") == written
    assert is_variant(folder)
    assert not is_variant(folder.parent)


def test_a_changed_byte_names_both_digests(folder: Path) -> None:
    written = write_variant(folder, described())
    (folder / "model.onnx").write_bytes(b"abd")

    with pytest.raises(CheckpointError) as error:
        read_variant(folder)

    assert written.sha256 in str(error.value)
    assert digest(folder / "model.onnx") in str(error.value)
    assert read_variant(folder, check=False) == written


def test_the_digest_of_a_folder_knows_names_and_bytes(tmp_path: Path) -> None:
    def folder_digest(name: str, **files: str) -> str:
        for file, text in files.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).write_text(text)
        return digest(tmp_path / name)

    assert folder_digest("one", a="1", b="2") == folder_digest("two", b="2", a="1")
    assert folder_digest("three", a="1", b="3") != digest(tmp_path / "one") != folder_digest("four", a="1", c="2")
    assert size_mb(tmp_path / "one") == 2e-6


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "cannot be read"),
        ("[]", "no description"),
        ('{"kind": "fp32-onnx"}', "imgsz"),
        (json.dumps({**described().__dict__, "kind": "int3-onnx"}), "int3-onnx"),
        (json.dumps({**described().__dict__, "file": "../model.onnx"}), "../model.onnx"),
        (json.dumps({**described().__dict__, "file": "other.onnx"}), "other.onnx"),
    ],
)
def test_a_description_that_cannot_be_used_is_one_line(folder: Path, text: str, named: str) -> None:
    (folder / "variant.json").write_text(text)

    with pytest.raises(CheckpointError, match=named) as error:
        read_variant(folder)

    assert "\n" not in str(error.value)


def test_a_folder_without_a_variant_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no variant\.json"):
        read_variant(tmp_path)


def test_an_error_while_making_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with making(tmp_path / "new") as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_what_was_made_takes_its_name_at_the_end(tmp_path: Path) -> None:
    with making(tmp_path / "a" / "new") as folder:
        (folder / "model.onnx").write_bytes(b"abc")
        assert not (tmp_path / "a" / "new").exists()

    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    assert (tmp_path / "a" / "new" / "model.onnx").read_bytes() == b"abc"


def test_a_folder_that_holds_something_is_not_replaced(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="not empty"), making(folder):
        pass

    assert (folder / "model.onnx").read_bytes() == b"abc"
