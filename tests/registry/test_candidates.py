import json
from pathlib import Path

import pytest

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.registry.candidates import find_candidates
from mlflow_yolo.variant import digest, read_variant, write_variant
from tests.registry.measured import change_byte, write_file, write_output


def names(*paths: Path) -> list[str]:
    return [one.name for one in find_candidates(paths)[0]]


def test_an_output_folder_stands_for_all_its_variants_parents_first(tmp_path: Path) -> None:
    rows = (("fp32-onnx", 10.0, "m.pt"), ("a-fp32-onnx", 9.0, "fp32-onnx"), ("a-int8-onnx", 4.0, "a-fp32-onnx"))
    assert names(write_output(tmp_path / "c", rows)) == ["fp32-onnx", "a-fp32-onnx", "a-int8-onnx"]


def test_a_folder_of_outputs_a_variant_and_a_folder_of_variants_do_too(tmp_path: Path) -> None:
    output = write_output(tmp_path / "runs" / "c")
    assert names(tmp_path / "runs") == ["fp32-onnx", "int8-onnx"]
    assert names(output / "variants" / "int8-onnx") == ["int8-onnx"]
    assert names(output / "variants" / "int8-onnx" / "variant.json") == ["int8-onnx"]
    assert names(output / "variants") == ["fp32-onnx", "int8-onnx"]


def test_a_variant_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    output = write_output(tmp_path / "c")
    assert names(output, output / "variants" / "int8-onnx") == ["fp32-onnx", "int8-onnx"]


def test_of_several_benchmarks_the_newest_counts(tmp_path: Path) -> None:
    one, two = write_output(tmp_path / "1"), write_output(tmp_path / "2")
    file = one / "benchmark" / "records" / "int8-onnx" / "record.json"
    file.write_text(file.read_text().replace("2026-01-02", "2026-01-03"))
    for order in ((one, two), (two, one)):
        found = {candidate.name: candidate.measured for candidate in find_candidates(order)[0]}
        assert found["int8-onnx"] == file.parent


def test_what_could_not_be_measured_is_passed_over_and_said(tmp_path: Path) -> None:
    output = write_output(tmp_path / "c", (("fp32-onnx", 10.0, "m.pt"), ("int8-onnx", -1.0, "fp32-onnx")))
    candidates, failed = find_candidates([output])
    assert [one.name for one in candidates] == ["fp32-onnx"]
    assert [(one.name, one.reason) for one in failed] == [("int8-onnx", "no kernel")]
    with pytest.raises(CheckpointError, match="no kernel"):
        find_candidates([output / "variants" / "int8-onnx"])


def test_a_variant_that_was_not_measured_is_refused_with_the_command(tmp_path: Path) -> None:
    write_file(tmp_path / "new" / "fp32-onnx", "fp32-onnx")
    with pytest.raises(CheckpointError, match=r"was not benchmarked.*mlflow-yolo benchmark --variants"):
        find_candidates([tmp_path / "new" / "fp32-onnx"])


def test_changed_bytes_are_refused_with_both_digests(tmp_path: Path) -> None:
    output = write_output(tmp_path / "c")
    folder = output / "variants" / "int8-onnx"
    before = read_variant(folder).sha256
    change_byte(folder)
    now = digest(folder / "model.onnx")
    with pytest.raises(CheckpointError) as caught:
        find_candidates([output])
    assert before in str(caught.value)
    assert now in str(caught.value)


@pytest.mark.parametrize("path", [".", "variants/int8-onnx"])
def test_a_variant_that_was_made_anew_must_be_measured_anew(tmp_path: Path, path: str) -> None:
    output = write_output(tmp_path / "c")
    folder = output / "variants" / "int8-onnx"
    measured = read_variant(folder)
    change_byte(folder)
    made = write_variant(folder, read_variant(folder, check=False))
    with pytest.raises(CheckpointError, match="changed since it was measured") as caught:
        find_candidates([output / path])
    assert measured.sha256 in str(caught.value)
    assert made.sha256 in str(caught.value)


def test_a_folder_with_nothing_measured_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match="nothing that was measured"):
            find_candidates([path])


def test_a_variant_whose_folder_is_gone_is_refused(tmp_path: Path) -> None:
    output = write_output(tmp_path / "c")
    file = output / "benchmark" / "records" / "int8-onnx" / "record.json"
    content = json.loads(file.read_text())
    content["about"]["folder"] = "elsewhere"
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="elsewhere"):
        find_candidates([output])
