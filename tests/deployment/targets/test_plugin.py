import base64
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pandas as pd
import psutil
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.deployments.interface import plugin_store
from mlflow.exceptions import MlflowException

from mlflow_yolo.deployment.targets import deployments, plugin, processes
from mlflow_yolo.variant import read_variant
from tests.deployment.targets.test_processes import FAKE
from tests.deployment.tiny_variants import picture, tiny_variant


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep deployments apart from those of the machine."""
    monkeypatch.setenv("MLFLOW_YOLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(processes.TOKEN, raising=False)


@pytest.fixture
def client() -> Any:
    return get_deploy_client("yolo")


@pytest.fixture
def variant(tmp_path: Path) -> str:
    return str(tiny_variant(tmp_path / "variant"))


def test_mlflow_finds_the_target_with_all_it_asks_of_one() -> None:
    assert plugin_store["yolo"] is plugin
    assert isinstance(get_deploy_client("yolo"), plugin.YoloDeploymentClient)
    assert "-C backend=ray" in plugin.target_help()


def test_errors_are_mlflows_and_ones_that_its_command_prints_as_a_line(client: Any) -> None:
    with pytest.raises(MlflowException, match="there is no deployment 'cells'") as caught:
        client.get_deployment("cells")
    assert isinstance(caught.value, click.ClickException)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_there_is_nothing_to_list_and_nothing_to_delete_at_first(client: Any) -> None:
    assert client.list_deployments() == []
    client.delete_deployment("cells")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flavor": "onnx"}, "flavor=onnx"),
        ({"endpoint": "e"}, "endpoint=e"),
        ({"config": {"backend": "magic"}}, "backend=magic"),
        ({"config": {"backend": "triton"}}, "output=DIR"),
        ({"config": {"port": "high"}}, "port=high"),
        ({"name": "a/b"}, "name='a/b'"),
        ({"model_uri": "models:/cells@latest"}, "latest"),
    ],
)
def test_what_cannot_be_deployed_is_said_in_one_line(given: dict[str, Any], said: str, client: Any) -> None:
    with pytest.raises(MlflowException, match=said) as caught:
        client.create_deployment(**{"name": "cells", "model_uri": "models:/cells@champion-cpu", **given})
    assert "\n" not in str(caught.value)
    assert client.list_deployments() == []


def test_a_triton_repository_is_written_and_not_listed(client: Any, variant: str, tmp_path: Path) -> None:
    config = {"backend": "triton", "output": str(tmp_path / "out"), "max_batch": 4}
    made = client.create_deployment("cells", variant, config=config)
    assert (made["name"], made["flavor"], made["status"]) == ("cells", "yolo", "written, not run")
    assert all(Path(file).is_file() for file in made["files"])
    assert client.list_deployments() == []


def fake_ray(calls: list[Any]) -> ModuleType:
    """Return a module that remembers what Ray Serve would be asked."""
    module = ModuleType("ray_serve")

    def remember(what: str, answer: Any) -> Any:
        def call(*given: Any) -> Any:
            calls.append((what, *given))
            return answer

        return call

    module.create = remember("create", {"address": "auto", "app": "cells"})  # type: ignore[attr-defined]
    module.update = remember("update", {"address": "auto", "app": "cells 2"})  # type: ignore[attr-defined]
    module.get = remember("get", {"status": "RUNNING"})  # type: ignore[attr-defined]
    module.predict = remember("predict", [{"score": 1.0}])  # type: ignore[attr-defined]
    module.delete = remember("delete", None)  # type: ignore[attr-defined]
    return module


def test_ray_is_given_its_deployment_and_what_it_said_before(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    import mlflow_yolo.deployment.targets as package

    fake = fake_ray(calls)
    monkeypatch.setitem(sys.modules, "mlflow_yolo.deployment.targets.ray_serve", fake)
    monkeypatch.setattr(package, "ray_serve", fake, raising=False)
    uri = "models:/cells@champion-cpu"
    client.create_deployment("cells", uri, config={"backend": "ray", "replicas": 2, "tracking_uri": "sqlite:////a.db"})
    with pytest.raises(MlflowException, match="exists already"):
        client.create_deployment("cells", uri, config={"backend": "ray"})
    assert client.get_deployment("cells")["status"] == "RUNNING"
    assert client.predict("cells", [b"x"]) == {"predictions": [{"score": 1.0}]}
    client.update_deployment("cells", "models:/cells/8", config={"replicas": 3})
    with pytest.raises(MlflowException, match="is on ray"):
        client.update_deployment("cells", config={"backend": "process"})
    assert deployments.known("cells").details["app"] == "cells 2"
    client.delete_deployment("cells")
    assert client.list_deployments() == []
    told = {call[0]: call[1:] for call in calls}
    assert told["create"] == ("cells", uri, {"replicas": "2", "tracking_uri": "sqlite:////a.db"})
    assert told["update"][:2] == ("cells", "models:/cells/8")
    assert told["predict"][2] == {"address": "auto", "app": "cells"}
    assert told["delete"] == ("cells", {"address": "auto", "app": "cells 2"})


@pytest.mark.slow
def test_a_deployment_through_mlflows_interface(
    client: Any, variant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(processes.TOKEN, "secret")
    monkeypatch.setitem(processes.create.__kwdefaults__, "program", FAKE)
    made = client.create_deployment("cells", variant, config={"threads": 1})
    assert (made["flavor"], made["status"], made["config"]) == ("yolo", "running", {"threads": "1"})
    assert [one["name"] for one in client.list_deployments()] == ["cells"]
    answer = client.predict("cells", pd.DataFrame({"image": [b"x"]}))
    assert answer["predictions"][0]["asked"]["dataframe_split"]["data"] == [["eA=="]]
    assert "secret" not in "".join(file.read_text() for file in (tmp_path / "cache").rglob("*") if file.is_file())
    with pytest.raises(MlflowException, match=r"refuses \(400\): no image"):
        client.predict("cells", {"inputs": ["wrong"]})
    monkeypatch.setenv(processes.TOKEN, "guess")
    with pytest.raises(MlflowException, match=r"refuses \(401\).*MLFLOW_YOLO_TOKEN"):
        client.predict("cells", [b"x"])
    process = processes.process_of(deployments.known("cells"))
    assert process is not None
    process.kill()
    process.wait(10)
    with pytest.raises(MlflowException, match="does not answer"):
        client.predict("cells", [b"x"])
    client.delete_deployment("cells")


def mlflow(*words: str) -> Any:
    """Return what MLflow's command line answers, asked in this process."""
    from click.testing import CliRunner
    from mlflow.deployments.cli import commands

    return CliRunner().invoke(commands, [*words, "-t", "yolo"])


@pytest.mark.slow
def test_mlflows_command_line_serves_the_embedded_digits_from_create_to_delete(tmp_path: Path) -> None:
    from mlflow_yolo import checkpoints
    from mlflow_yolo.compression.export import export_onnx

    variant = tmp_path / "fp32-onnx"
    variant.mkdir()
    export_onnx(checkpoints.path(), variant, imgsz=128)
    image = picture((0, 0, "red"), width=128, height=128)
    table = {"columns": ["image"], "data": [[base64.b64encode(image).decode()]]}
    body = {"dataframe_split": table, "params": {"conf": 0.0001}}
    (tmp_path / "request.json").write_text(json.dumps(body))

    words = ["create", "-t", "yolo", "--name", "digits", "-m", str(variant), "-C", "threads=1", "-C", "workers=1"]
    made = subprocess.run([sys.executable, "-m", "mlflow", "deployments", *words], capture_output=True, text=True)
    try:
        assert (made.returncode, "yolo deployment digits is created" in made.stdout) == (0, True), made.stderr
        known = deployments.known("digits")
        server = psutil.Process(known.pid)  # it has outlived the command
        told = mlflow("get", "--name", "digits").stdout
        assert f"address: {known.address}" in told
        assert f"sha256: {read_variant(variant).sha256}" in told
        answer = mlflow("predict", "--name", "digits", "-I", str(tmp_path / "request.json"))
        assert len(json.loads(answer.stdout)["predictions"]) > 0
        again = mlflow("create", "--name", "digits", "-m", str(variant))
        assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
        assert again.stderr.startswith("Error: deployment 'digits' exists already")
    finally:
        ended = mlflow("delete", "--name", "digits")
    assert ended.exit_code == 0
    assert not server.is_running()
    assert mlflow("list").stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_model_that_cannot_be_served_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    made = mlflow("create", "--name", "cells", "-m", str(tmp_path / "empty"))
    assert (made.exit_code, made.stderr.count("\n"), "empty" in made.stderr) == (1, 1, True)
    assert not (tmp_path / "cache" / "deployments" / "cells").exists()
