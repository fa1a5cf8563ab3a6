from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format

from mlflow_yolo.deployment.targets.pbtxt import Word, to_pbtxt
from mlflow_yolo.deployment.targets.static import generate, triton_config
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.tensors import Tensor, Tensors
from mlflow_yolo.variant import Variant, read_variant
from tests.deployment.tiny_variants import tiny_openvino_variant, tiny_variant
from tests.deployment.triton_schema import parse

VARIANT = Variant("fp32-onnx", "model.onnx", "detect", ("a",), (32, 64), dynamic=True, sha256="0" * 64)


def test_the_schema_of_these_tests_refuses_what_triton_does_not_know() -> None:
    for text in ("colour: 1", 'name: "a" name: "b"', "max_batch_size: large", "instance_group { kind: KIND_TPU }"):
        with pytest.raises(text_format.ParseError):
            parse(text)


def test_a_free_batch_is_batched_by_triton_and_left_out_of_the_shapes(tmp_path: Path) -> None:
    folder = tiny_variant(tmp_path / "variant", operating_point={"conf": 0.4})
    config, model = generate("triton", "cells", str(folder), {"output": str(tmp_path / "repository")})
    assert model.read_bytes() == (folder / "model.onnx").read_bytes()
    assert model == tmp_path / "repository" / "cells" / "1" / "model.onnx"
    found = parse(config.read_text())
    assert (found.name, found.backend, found.max_batch_size) == ("cells", "onnxruntime", 8)
    assert [(one.name, one.data_type, list(one.dims)) for one in found.input] == [("images", 11, [3, 32, 32])]
    assert [(one.name, one.data_type, list(one.dims)) for one in found.output] == [("output0", 11, [7, 16])]
    assert found.HasField("dynamic_batching")
    assert found.version_policy.latest.num_versions == 1
    (warmup,) = found.model_warmup
    assert (warmup.inputs[0].key, list(warmup.inputs[0].value.dims)) == ("images", [3, 32, 32])
    assert warmup.inputs[0].value.zero_data
    values = {one.key: one.value.string_value for one in found.parameters}
    assert values["sha256"] == read_variant(folder).sha256
    assert (values["operating_point.conf"], values["names"]) == ("0.4", "red,green,blue")


def test_a_fixed_batch_is_not_batched_and_its_shapes_are_whole(tmp_path: Path) -> None:
    folder = tiny_variant(tmp_path / "variant", batch=1)
    config, _ = generate("triton", "cells", str(folder), {"output": str(tmp_path / "repository")})
    found = parse(config.read_text())
    assert (found.max_batch_size, found.HasField("dynamic_batching")) == (0, False)
    assert list(found.input[0].dims) == [1, 3, 32, 32]
    assert list(found.model_warmup[0].inputs[0].value.dims) == [1, 3, 32, 32]


def test_openvino_is_another_backend_with_two_files(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = tiny_openvino_variant(tmp_path / "variant")
    config, xml, weights = generate("triton", "cells", str(folder), {"output": str(tmp_path / "repository")})
    found = parse(config.read_text())
    assert (found.backend, list(found.output[0].dims)) == ("openvino", [7, 16])
    assert (xml.name, weights.name) == ("model.xml", "model.bin")
    assert weights.read_bytes() == next((folder / "model_openvino").glob("*.bin")).read_bytes()


def test_free_sides_are_free_and_the_warm_up_has_the_models_own() -> None:
    sides = Tensors(
        (Tensor("images", "float16", (None, 3, None, None)),), (Tensor("output0", "int64", (None, None, 6)),)
    )
    found = parse(to_pbtxt(triton_config("m", VARIANT, sides, max_batch=4, instances=2)))
    assert (list(found.input[0].dims), list(found.output[0].dims)) == ([3, -1, -1], [-1, 6])
    assert list(found.model_warmup[0].inputs[0].value.dims) == [3, 32, 64]
    assert (found.input[0].data_type, found.output[0].data_type) == (10, 9)
    assert (found.max_batch_size, found.instance_group[0].count) == (4, 2)


def test_batching_can_be_left_out() -> None:
    sides = Tensors((Tensor("images", "float32", (None, 3, 32, 64)),), ())
    found = parse(to_pbtxt(triton_config("m", VARIANT, sides, max_batch=0)))
    assert (found.max_batch_size, list(found.input[0].dims)) == (0, [-1, 3, 32, 64])


def test_a_type_that_triton_does_not_have_is_refused() -> None:
    with pytest.raises(ArgumentError, match="complex64"):
        triton_config("m", VARIANT, Tensors((Tensor("images", "complex64", (1,)),), ()))


@pytest.mark.parametrize("runtime", ["triton", "mlflow"])
def test_kserve_gets_a_service_that_names_its_model(runtime: str, tmp_path: Path) -> None:
    folder = tiny_variant(tmp_path / "variant")
    wishes = {"runtime": runtime, "storage_uri": "s3://models/cells", "canary_percent": "10", "namespace": "vision"}
    (file,) = generate("kserve", "cells", str(folder), {"output": str(tmp_path / "out"), **wishes})
    service = yaml.safe_load(file.read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("cells", "vision")
    assert service["metadata"]["annotations"]["mlflow-yolo/sha256"] == read_variant(folder).sha256
    predictor = service["spec"]["predictor"]
    assert predictor["canaryTrafficPercent"] == 10
    assert predictor["model"]["modelFormat"] == {"name": runtime}
    assert (predictor["model"]["storageUri"], predictor["model"]["protocolVersion"]) == ("s3://models/cells", "v2")


def test_kserve_without_settings_splits_no_traffic(tmp_path: Path) -> None:
    (file,) = generate("kserve", "cells", str(tiny_variant(tmp_path / "v")), {"output": str(tmp_path / "out")})
    predictor = yaml.safe_load(file.read_text())["spec"]["predictor"]
    assert (sorted(predictor), predictor["model"]["storageUri"]) == (["model"], "pvc://models/cells/1")


@pytest.mark.parametrize("backend", ["triton", "kserve"])
def test_every_file_says_in_its_head_that_it_was_not_run(backend: str, tmp_path: Path) -> None:
    file, *_ = generate(backend, "cells", str(tiny_variant(tmp_path / "v")), {"output": str(tmp_path / "out")})
    first = file.read_text().splitlines()[0]
    assert first.startswith("# Generated by mlflow-yolo")
    assert first.endswith("it was not run here.")


@pytest.mark.parametrize(
    ("backend", "name", "config", "said"),
    [
        ("triton", "cells", {}, "output"),
        ("triton", "cells", {"output": "out", "colour": "red"}, "colour"),
        ("triton", "cells", {"output": "out", "max_batch": "-1"}, "max_batch=-1"),
        ("triton", "cells", {"output": "out", "instances": "0"}, "instances=0"),
        ("triton", "cells", {"output": "full"}, "not empty"),
        ("kserve", "Cells", {"output": "out"}, "name=Cells"),
        ("kserve", "cells", {"output": "out", "namespace": "a_b"}, "namespace=a_b"),
        ("kserve", "cells", {"output": "out", "runtime": "torch"}, "runtime=torch"),
        ("kserve", "cells", {"output": "out", "canary_percent": "101"}, "canary_percent=101"),
        ("kserve", "cells", {"output": "out", "canary_percent": "ten"}, "canary_percent=ten"),
        ("kserve", "cells", {"output": "out", "storage_uri": "/local"}, "storage_uri=/local"),
    ],
)
def test_a_wrong_setting_leaves_nothing(
    backend: str, name: str, config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = tiny_variant(tmp_path / "variant")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    given = {key: str(tmp_path / value) if key == "output" else value for key, value in config.items()}
    with pytest.raises(ArgumentError, match=said):
        generate(backend, name, str(folder), given)
    assert sorted(one.name for one in tmp_path.iterdir() if one.name != "mlflow.db") == ["full", "variant"]


def test_texts_are_written_so_that_protobuf_reads_them_back() -> None:
    for text in ("plain", 'with "quotes"', "back\\slash", "zwei\nZeilen\tTab", "Zellhäufchen 細胞", "\x00"):
        assert parse(to_pbtxt({"name": text})).name == text


def test_words_numbers_and_lists_are_written_as_such() -> None:
    group = {"count": 2, "kind": Word("KIND_CPU")}
    text = to_pbtxt({"dims": [-1, 3], "flag": True, "group": [group]})
    assert " ".join(text.split()) == "dims: [-1, 3] flag: true group { count: 2 kind: KIND_CPU }"
