"""The flavor `yolo`: exact bytes in, the same bytes out, by MLflow's own ways of loading and serving."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from mlflow.models import Model
from PIL import Image

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.registry.flavor import (
    get_default_conda_env,
    get_default_pip_requirements,
    load_model,
    log_model,
    save_model,
)
from mlflow_yolo.variant import KINDS, digest
from tests.registry.known_models import make_graph, make_variant

GREY = np.full((64, 64, 3), 204, np.uint8)
"""The model says: a cat of score 0.8 at 22, 27, 42, 37 and a dog of 0.6."""


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    return make_variant(tmp_path / "fp32-onnx", operating_point={"conf": 0.7})


@pytest.fixture
def saved(variant: Path, tmp_path: Path) -> Path:
    save_model(variant, tmp_path / "saved")
    return tmp_path / "saved"


def load_pyfunc(uri: str | Path) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(uri))


def flavors(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((root / "MLmodel").read_text())["flavors"]
    return content


def test_the_bytes_are_copied_and_nothing_else_is(variant: Path, tmp_path: Path) -> None:
    (variant / "tried.csv").write_text("not of the model")
    save_model(variant, tmp_path / "saved")
    for name in ("model.onnx", "variant.json"):
        assert (tmp_path / "saved" / "variant" / name).read_bytes() == (variant / name).read_bytes()
    files = sorted(
        str(file.relative_to(tmp_path / "saved")) for file in (tmp_path / "saved").rglob("*") if file.is_file()
    )
    assert files == [
        "MLmodel",
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "variant/model.onnx",
        "variant/variant.json",
    ]


def test_the_mlmodel_says_what_it_is_and_by_what_digest_it_is_known(saved: Path, variant: Path) -> None:
    found = flavors(saved)
    assert set(found) == {"yolo", "python_function"}
    assert found["yolo"]["sha256"] == digest(variant / "model.onnx")
    assert (found["yolo"]["kind"], found["yolo"]["task"], found["yolo"]["data"]) == ("fp32-onnx", "detect", "variant")
    assert found["python_function"]["loader_module"] == "mlflow_yolo.registry.flavor"


@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("detect", ["x1", "y1", "x2", "y2"]),
        ("segment", ["x1", "y1", "x2", "y2", "polygons"]),
        ("classify", []),
    ],
)
def test_the_signature_is_what_goes_in_and_comes_out(tmp_path: Path, task: str, more: list[str]) -> None:
    save_model(make_variant(tmp_path / "variant", task), tmp_path / "saved")
    signature = Model.load(str(tmp_path / "saved")).signature
    assert signature is not None
    assert [(one.name, str(one.type)) for one in signature.inputs] == [("image", "DataType.binary")]
    assert signature.outputs.input_names() == ["image", "class_id", "name", "score", *more]
    assert {one.name: one.default for one in signature.params} == {"conf": None, "iou": None, "max_det": None}
    table = load_pyfunc(tmp_path / "saved").predict(pd.DataFrame({"image": [png()]}))
    assert list(table.columns) == signature.outputs.input_names()


@pytest.mark.parametrize("kind", KINDS)
def test_requirements_name_the_one_runtime_that_the_file_needs(kind: str) -> None:
    names = {line.split("==")[0] for line in get_default_pip_requirements(kind)}
    assert all("==" in line for line in get_default_pip_requirements(kind))
    assert {"mlflow-yolo", "numpy"} < names
    assert names & {"onnxruntime", "openvino"} == {"openvino" if kind.endswith("openvino") else "onnxruntime"}
    assert not names & {"torch", "ultralytics", "onnx"}
    dependencies = get_default_conda_env(kind)["dependencies"][-1]["pip"]
    assert {line.split("==")[0] for line in dependencies} == {"mlflow", *names}


def test_the_environment_may_be_given(variant: Path, tmp_path: Path) -> None:
    save_model(variant, tmp_path / "more", extra_pip_requirements=["requests"])
    assert "requests" in (tmp_path / "more" / "requirements.txt").read_text().split("\n")
    save_model(variant, tmp_path / "own", pip_requirements=["mlflow-yolo", "onnxruntime"])
    assert "numpy" not in (tmp_path / "own" / "requirements.txt").read_text()
    conda = {"name": "mine", "dependencies": ["python=3.11", {"pip": ["mlflow-yolo", "onnxruntime"]}]}
    save_model(variant, tmp_path / "conda", conda_env=conda)
    assert yaml.safe_load((tmp_path / "conda" / "conda.yaml").read_text())["name"] == "mine"


def test_metadata_and_what_was_measured_are_kept(variant: Path, tmp_path: Path) -> None:
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "record.json").write_text("{}")
    save_model(variant, tmp_path / "saved", metadata={"camera": "left"}, benchmark=tmp_path / "measured")
    assert (tmp_path / "saved" / "benchmark" / "record.json").read_text() == "{}"
    assert Model.load(str(tmp_path / "saved")).metadata == {"camera": "left"}
    with pytest.raises(CheckpointError, match="benchmark="):
        save_model(variant, tmp_path / "again", benchmark=tmp_path / "missing")


def test_it_loads_as_a_detector_and_as_a_python_function(saved: Path) -> None:
    assert load_model(saved)(GREY).to_frame()["name"].tolist() == ["cat"]
    table = load_pyfunc(saved).predict(pd.DataFrame({"image": [png()]}))
    assert table.loc[0, ["image", "class_id", "name", "x1", "y1", "x2", "y2"]].tolist() == [0, 0, "cat", 22, 27, 42, 37]
    assert len(table) == 1


def test_mlflow_hands_on_every_form_of_an_image(saved: Path, tmp_path: Path) -> None:
    model, file = load_pyfunc(saved), tmp_path / "picture.png"
    file.write_bytes(png())
    for cell in (png(), base64.b64encode(png()).decode(), GREY, file, str(file)):
        cells: Any = [cell, cell]
        for data in (pd.DataFrame({"image": cells}), pd.Series(cells, name="image"), [{"image": one} for one in cells]):
            assert model.predict(data)["image"].tolist() == [0, 1]
    assert model.predict(pd.DataFrame({"image": [png()]}), params={"conf": 0.4})["name"].tolist() == ["cat", "dog"]
    assert model.predict(pd.DataFrame({"image": [png()]}), params={"conf": 0.4, "max_det": 1})["name"].tolist() == [
        "cat"
    ]


@pytest.mark.parametrize("what", ["variant/model.onnx", "MLmodel", "variant/variant.json"])
def test_a_changed_byte_does_not_load_and_both_digests_are_named(saved: Path, what: str) -> None:
    right = digest(saved / "variant" / "model.onnx")
    if what == "variant/model.onnx":
        content = bytearray((saved / what).read_bytes())
        content[-1] ^= 1
        (saved / what).write_bytes(content)
        other = digest(saved / what)
    else:
        other = right[:-1] + ("0" if right[-1] != "0" else "1")
        (saved / what).write_text((saved / what).read_text().replace(right, other))
    for load in (load_model, load_pyfunc):
        with pytest.raises(CheckpointError) as error:
            load(saved)
        assert right in str(error.value)
        assert other in str(error.value)


def test_a_variant_whose_bytes_changed_is_not_saved(variant: Path, tmp_path: Path) -> None:
    (variant / "model.onnx").write_bytes((variant / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="has changed since it was made"):
        save_model(variant, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_another_flavor_is_not_loaded(saved: Path) -> None:
    content = yaml.safe_load((saved / "MLmodel").read_text())
    content["flavors"] = {"sklearn": {"pickled_model": "model.pkl"}}
    (saved / "MLmodel").write_text(yaml.safe_dump(content))
    with pytest.raises(CheckpointError, match="no flavor 'yolo', only sklearn"):
        load_model(saved)


def test_an_export_of_ultralytics_itself_is_described_and_kept_as_it_is(tmp_path: Path) -> None:
    metadata = {"task": "detect", "names": "{0: 'cat', 1: 'dog'}", "imgsz": "[64, 64]", "stride": "32", "args": "{}"}
    onnx.save(make_graph(metadata=metadata), tmp_path / "yolo.onnx")
    save_model(tmp_path / "yolo.onnx", tmp_path / "saved")
    assert (tmp_path / "saved" / "variant" / "yolo.onnx").read_bytes() == (tmp_path / "yolo.onnx").read_bytes()
    assert load_model(tmp_path / "saved").names == ("cat", "dog")


def test_it_is_logged_registered_and_loaded_by_alias(variant: Path, store: str) -> None:
    import mlflow

    with mlflow.start_run() as run:
        info = log_model(variant, name="cells", registered_model_name="cells", tags={"line": "3"}, step=2)
    client = mlflow.MlflowClient(tracking_uri=store)
    client.set_registered_model_alias("cells", "champion-cpu", info.registered_model_version)
    assert client.get_model_version("cells", "1").run_id == run.info.run_id
    assert client.get_logged_model(info.model_id).tags["line"] == "3"
    for uri in ("models:/cells@champion-cpu", "models:/cells/1", info.model_uri, f"runs:/{run.info.run_id}/cells"):
        assert load_model(uri)(GREY).to_frame()["name"].tolist() == ["cat"]
    assert len(load_pyfunc("models:/cells@champion-cpu").predict(pd.DataFrame({"image": [png()]}))) == 1
    client._tracking_client.store.engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fp32-onnx", "fp32-openvino"])
def test_loading_and_predicting_import_neither_torch_nor_ultralytics(tmp_path: Path, kind: str) -> None:
    folder = make_variant(tmp_path / "variant")
    if kind == "fp32-openvino":
        openvino = pytest.importorskip("openvino")
        openvino.save_model(openvino.convert_model(folder / "model.onnx"), tmp_path / "ov" / "model.xml")
        folder = _openvino_variant(tmp_path)
    save_model(folder, tmp_path / "saved")
    (tmp_path / "picture.png").write_bytes(png())
    script = """
import sys
for name in ("torch", "ultralytics", "torchvision"):
    sys.modules[name] = None
import mlflow.pyfunc, pandas
import mlflow_yolo
found = mlflow.pyfunc.load_model("saved").predict(pandas.DataFrame({"image": [open("picture.png", "rb").read()]}))
assert found["name"].tolist() == ["cat", "dog"], found
assert len(mlflow_yolo.load_model("saved")("picture.png")) == 2
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)


def _openvino_variant(tmp_path: Path) -> Path:
    from mlflow_yolo.variant import Variant, write_variant

    folder = tmp_path / "openvino-variant"
    folder.mkdir()
    (tmp_path / "ov").rename(folder / "model_openvino")
    write_variant(folder, Variant("fp32-openvino", "model_openvino", "detect", ("cat", "dog"), (64, 64)))
    return folder


@pytest.fixture
def served(variant: Path, store: str, tmp_path: Path) -> Any:
    """Yield the address of MLflow's own scoring server of a registered version."""
    log_model(variant, name="cells", registered_model_name="cells")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "mlflow", "models", "serve", "-m", "models:/cells/1", "--env-manager", "local", "-p", str(port)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # it calls uvicorn
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait(process, port, tmp_path / "server.log")
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(log.read_text())


@pytest.mark.slow
def test_mlflow_serves_it_and_opens_no_path_of_a_request(served: str, tmp_path: Path) -> None:
    import requests

    picture, encoded = tmp_path / "picture.png", base64.b64encode(png()).decode()
    picture.write_bytes(png())
    taken = [
        {"dataframe_split": {"columns": ["image"], "data": [[encoded]]}},
        {"dataframe_records": [{"image": encoded}]},
        {"inputs": {"image": [encoded]}},
        {"instances": [{"image": encoded}]},
    ]
    for body in taken:
        (row,) = requests.post(served, json=body, timeout=60).json()["predictions"]
        assert (row["image"], row["name"], row["x1"], row["y2"]) == (0, "cat", 22, 37)
    both = requests.post(served, json={**taken[0], "params": {"conf": 0.4}}, timeout=60).json()["predictions"]
    assert [row["name"] for row in both] == ["cat", "dog"]
    stream = io.BytesIO()
    pd.DataFrame({"image": [png()]}).to_parquet(stream)
    parquet = {"Content-Type": "application/vnd.apache.parquet"}
    assert requests.post(served, data=stream.getvalue(), headers=parquet, timeout=60).status_code == 200

    refused = [
        requests.post(served, json={**taken[0], "params": {"conf": 2}}, timeout=60),
        requests.post(served, json={"inputs": {"image": [str(picture)]}}, timeout=60),
        requests.post(served, json={"dataframe_split": {"columns": ["image"], "data": [[str(picture)]]}}, timeout=60),
        requests.post(served, data=f"image\n{picture}\n", headers={"Content-Type": "text/csv"}, timeout=60),
    ]
    stream = io.BytesIO()
    pd.DataFrame({"image": [str(picture)]}).to_parquet(stream)
    refused.append(requests.post(served, data=stream.getvalue(), headers=parquet, timeout=60))
    assert [answer.status_code for answer in refused] == [400] * 5
    assert "conf=2.0 is not in [0, 1]" in refused[0].json()["message"]
    for answer in (refused[3], refused[4]):  # both arrive as text that could be a path
        assert "is not base64" in answer.json()["message"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")  # MLflow 3.17 with pandas 3
def test_mlflow_predicts_with_it_in_a_process_of_its_own(saved: Path, tmp_path: Path) -> None:
    import mlflow.models

    data = pd.DataFrame({"image": [png(), png()]})
    output = tmp_path / "found.json"
    mlflow.models.predict(str(saved), input_data=data, env_manager="local", output_path=str(output))
    assert [row["image"] for row in json.loads(output.read_text())["predictions"]] == [0, 1]
