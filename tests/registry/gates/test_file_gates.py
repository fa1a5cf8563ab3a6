import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_yolo.registry.fetching import SHA_TAG, Fetched
from mlflow_yolo.registry.gates.file_gates import integrity, metadata, size
from mlflow_yolo.registry.gates.gate import Verdict
from mlflow_yolo.registry.gates.judging import judge
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.variant import digest
from tests.registry.gates.made import METADATA, a_variant, a_version, evidence, write_model

ALL = Limits()


def judged(gate: str, version: Fetched, **changes: Any) -> Verdict:
    """Return one verdict as `judge` gives it, errors included."""
    (found,) = [one for one in judge(evidence(version, **changes), ALL.only([gate])) if one.gate == gate]
    return found


def tagged(version: Fetched, sha256: str) -> Fetched:
    return replace(version, tags={SHA_TAG: sha256}, sha256=sha256)


def rewrite(version: Fetched, **changes: Any) -> None:
    """Change `variant.json` and nothing else."""
    file = version.folder / "variant.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def as_openvino(version: Fetched, *, metadata: bool = True) -> Fetched:
    """Return the version with its model in OpenVINO's format instead."""
    openvino = pytest.importorskip("openvino")
    onnx_file = version.folder / "model.onnx"
    model = openvino.convert_model(str(onnx_file))
    if not metadata:
        del model.rt_info["framework"]
    openvino.save_model(model, str(version.folder / "model_openvino" / "model.xml"))
    onnx_file.unlink()
    written = a_variant(version.folder, kind="fp32-openvino", file="model_openvino")
    return tagged(version, written.sha256)


def test_bytes_that_are_what_they_were_pass(version: Fetched) -> None:
    found = integrity(evidence(version), ALL)
    assert found.passed
    assert found.value == f"sha256 {digest(version.folder / 'model.onnx')[:12]}"


def test_a_changed_byte_fails_and_both_digests_are_named(version: Fetched) -> None:
    file = version.folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    found = judged("integrity", version)
    assert not found.passed
    assert digest(file) in found.why
    assert version.sha256 in found.why


def test_bytes_that_the_tag_does_not_name_fail(version: Fetched) -> None:
    found = judged("integrity", replace(version, tags={SHA_TAG: "e" * 64}))
    assert not found.passed
    assert "e" * 64 in found.why


def test_bytes_that_variant_json_does_not_name_fail(version: Fetched) -> None:
    rewrite(version, sha256="e" * 64)
    found = judged("integrity", version)
    assert not found.passed
    assert "variant.json says " + "e" * 64 in found.why


def test_a_version_without_the_tag_fails(version: Fetched) -> None:
    found = judged("integrity", replace(version, tags={}))
    assert not found.passed
    assert SHA_TAG in found.why


def test_a_file_that_onnx_does_not_accept_fails_although_its_digests_agree(version: Fetched) -> None:
    file = version.folder / "model.onnx"
    file.write_bytes(file.read_bytes().replace(b"ReduceMean", b"ReduceMoan"))
    found = judged("integrity", tagged(version, a_variant(version.folder).sha256))
    assert not found.passed
    assert "ReduceMoan" in found.why


def test_a_file_that_is_gone_fails(version: Fetched) -> None:
    (version.folder / "model.onnx").unlink()
    assert not judged("integrity", version).passed
    assert not judged("metadata", version).passed


def test_an_openvino_model_passes_both(version: Fetched) -> None:
    version = as_openvino(version)
    assert judged("integrity", version) == integrity(evidence(version), ALL)
    assert judged("integrity", version).passed
    assert judged("metadata", version).passed


@pytest.mark.parametrize("ending", [".xml", ".bin"])
def test_an_openvino_model_that_cannot_be_read_fails_although_its_digests_agree(version: Fetched, ending: str) -> None:
    version = as_openvino(version)
    file = version.folder / "model_openvino" / f"model{ending}"
    if ending == ".xml":
        file.write_text(file.read_text()[:300])
    else:
        file.unlink()
    written = a_variant(version.folder, kind="fp32-openvino", file="model_openvino")
    found = judged("integrity", tagged(version, written.sha256))
    assert not found.passed
    assert "model" in found.why


def test_an_openvino_model_that_does_not_say_what_it_is_fails(version: Fetched) -> None:
    found = judged("metadata", as_openvino(version, metadata=False))
    assert not found.passed
    assert "does not say" in found.why


def test_what_ultralytics_wrote_beside_an_openvino_model_counts(version: Fetched) -> None:
    version = as_openvino(version, metadata=False)
    beside = version.folder / "model_openvino" / "metadata.yaml"
    lines = "names: {0: bright, 1: dark}\nstride: 32\nimgsz: [32, 64]\ntask: detect\n"
    beside.write_text(lines)
    assert judged("metadata", version).passed
    beside.write_text(lines.replace("dark", "dim"))
    assert judged("metadata", version).value == "names"
    beside.write_text("a: [")
    assert "metadata.yaml" in judged("metadata", version).why


def test_a_file_that_says_what_variant_json_says_passes(version: Fetched) -> None:
    assert metadata(evidence(version), ALL).passed


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("names", ["bright", "dim"]),
        ("names", ["dark", "bright"]),
        ("stride", 16),
        ("imgsz", [64, 32]),
        ("task", "segment"),
        ("end2end", True),
        ("channels", 1),
    ],
)
def test_one_word_in_which_the_file_differs_fails_and_is_named(version: Fetched, word: str, value: object) -> None:
    rewrite(version, **{word: value})
    found = judged("metadata", version)
    assert (found.passed, found.value) == (False, word)
    assert f"variant.json says {tuple(value) if isinstance(value, list) else value}" in found.why


@pytest.mark.parametrize("word", ["names", "stride", "task"])
def test_a_file_that_does_not_say_a_word_fails(version: Fetched, word: str) -> None:
    write_model(version.folder / "model.onnx", metadata={key: text for key, text in METADATA.items() if key != word})
    found = judged("metadata", version)
    assert (found.passed, found.value) == (False, word)
    assert "does not say" in found.why


@pytest.mark.parametrize("text", ["{0: 'bright', 2: 'dark'}", "7", "nothing"])
def test_a_file_whose_words_make_no_sense_fails(version: Fetched, text: str) -> None:
    write_model(version.folder / "model.onnx", metadata=METADATA | {"names": text})
    assert not judged("metadata", version).passed


def test_a_head_that_suppresses_by_itself_is_end_to_end(version: Fetched) -> None:
    write_model(version.folder / "model.onnx", metadata=METADATA | {"args": "{'nms': True}"})
    assert judged("metadata", version).value == "end2end"


@pytest.mark.parametrize(
    ("word", "value"), [("names", ("dark", "bright")), ("stride", 16), ("task", "segment"), ("channels", 1)]
)
def test_a_parent_that_is_another_model_fails(version: Fetched, tmp_path: Path, word: str, value: object) -> None:
    found = judged("metadata", version, parent=a_version(tmp_path / "3", version="3", **{word: value}))
    assert (found.passed, found.value) == (False, word)
    assert "version 3" in found.why


def test_a_parent_that_is_the_same_model_passes(version: Fetched, tmp_path: Path) -> None:
    found = judged("metadata", version, parent=a_version(tmp_path / "3", version="3"))
    assert (found.passed, found.why) == (True, "")


def test_a_parent_of_another_input_size_passes_and_is_named(version: Fetched, tmp_path: Path) -> None:
    found = judged("metadata", version, parent=a_version(tmp_path / "3", version="3", imgsz=(64, 64)))
    assert found.passed
    assert "32x64" in found.why
    assert "64x64" in found.why


def test_a_parent_that_cannot_be_read_is_said(version: Fetched) -> None:
    found = judged("metadata", version, parent_note="version 3 does not exist.")
    assert found.passed
    assert "version 3 does not exist" in found.why


def test_the_size_is_that_of_the_file_and_may_be_the_limit(version: Fetched) -> None:
    n_bytes = (version.folder / "model.onnx").stat().st_size
    assert size(evidence(version), Limits()).limit == "no limit set"
    assert size(evidence(version), Limits()).passed
    assert size(evidence(version), Limits(size_mb=n_bytes / 1e6)).passed
    found = size(evidence(version), Limits(size_mb=(n_bytes - 1) / 1e6))
    assert not found.passed
    assert "size_mb" in found.why
