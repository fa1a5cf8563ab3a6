import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_yolo.exceptions import ArgumentError, CheckpointError, StoreError
from mlflow_yolo.registry.candidates import Candidate, find_candidates
from mlflow_yolo.registry.fetching import fetch
from mlflow_yolo.registry.logged_model import TAG_IDENTITY, identity
from mlflow_yolo.registry.record import read_record, write_record
from mlflow_yolo.registry.registration import register, run_register
from mlflow_yolo.registry.store import open_registry
from mlflow_yolo.registry.version_description import PLOT, plot_link
from mlflow_yolo.tracking.stores.target import resolve_target
from mlflow_yolo.variant import digest, read_variant
from tests.registry.measured import change_byte, write_output

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output folder with fp32-onnx and the int8-onnx that was made from it."""
    return write_output(tmp_path / "c")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Return an output folder with one variant, for tests that need no parent."""
    return write_output(tmp_path / "one", (("fp32-onnx", 10.0, "m.pt"),))


def versions(client: "MlflowClient", name: str = "cells") -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"]))


def models(client: "MlflowClient") -> list[Any]:
    return list(client.search_logged_models(["0"]))


def test_every_variant_becomes_a_version_that_links_to_its_parent(client: "MlflowClient", output: Path) -> None:
    found = register(client, name="cells", variants=output)
    assert [(v.version, v.variant, v.parent_version, v.is_new) for v in found] == [
        ("1", "fp32-onnx", "", True),
        ("2", "int8-onnx", "1", True),
    ]
    first, second = versions(client)
    tags = second.tags
    sha256 = digest(output / "variants" / "int8-onnx" / "model.onnx")
    assert (tags["parent_version"], tags["model.sha256"], tags["variant.kind"]) == ("1", sha256, "int8-onnx")
    assert tags["op.conf"] == "0.25", "the operating point of variant.json, not that of the day of the benchmark"
    assert json.loads(tags["op.per_class"]) == {"bright": 0.3}
    assert (tags["acc.mAP50-95"], tags["bench.p50_ms"]) == ("0.500000", "5")
    assert first.tags["parity.score_max"] == "1e-06"
    assert "parent_version" not in first.tags
    assert tags["lineage.run_id"] == second.run_id
    assert "fp32-onnx" in second.description
    assert client.get_registered_model("cells").tags["mlflow_yolo.history"]
    assert "int8-onnx" in client.get_registered_model("cells").description


def test_the_bytes_and_the_benchmark_come_back(client: "MlflowClient", output: Path, tmp_path: Path) -> None:
    register(client, name="cells", variants=output)
    found = fetch("models:/cells/2", client=client, cache=tmp_path / "cache")
    assert found.sha256 == digest(output / "variants" / "int8-onnx" / "model.onnx")
    assert (found.folder / "model.onnx").read_bytes() == b"int8-onnx"
    assert (found.benchmark / "predictions.npz").read_bytes() == b"predictions of int8-onnx"
    assert (found.benchmark / PLOT).read_bytes().startswith(b"\x89PNG")
    record = read_record(found.benchmark)
    assert record.run_id == found.run_id
    assert "folder" not in record.about, "where it lay on the machine that measured it is nobody's business"
    assert record.variant.cost.latency_p50_ms == 5.0


def test_numbers_are_metrics_of_the_logged_model_with_their_data(client: "MlflowClient", one: Path) -> None:
    register(client, name="cells", variants=one)
    (model,) = models(client)
    assert str(model.status) == "READY"
    metrics = {metric.key: metric for metric in model.metrics}
    assert metrics["latency_p50_ms"].value == 10.0
    assert metrics["agreement"].value == 0.9
    score = metrics["test/mAP50-95"]
    assert (score.value, score.dataset_name, score.dataset_digest) == (0.5, "shapes", "f00d")
    assert [found.model_id for found in client.search_logged_models(["0"], "metrics.latency_p50_ms < 11")] == [
        model.model_id
    ]
    (version,) = versions(client)
    run = client.get_run(version.run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert run.data.metrics["latency_p50_ms"] == 10.0
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "cells", "version": "1"}]
    assert plot_link(model.model_id) in version.description


def test_the_run_that_measured_it_is_the_run_of_its_version(client: "MlflowClient", one: Path) -> None:
    experiment = client.create_experiment("elsewhere")
    run_id = client.create_run(experiment).info.run_id
    folder = one / "benchmark" / "records" / "fp32-onnx"
    write_record(folder, replace(read_record(folder), run_id=run_id))
    register(client, name="cells", variants=one)
    (version,) = versions(client)
    assert version.run_id == run_id
    assert len(client.search_logged_models([experiment])) == 1


def test_a_run_that_this_store_does_not_hold_is_replaced_in_the_named_experiment(
    client: "MlflowClient", store: str, one: Path
) -> None:
    folder = one / "benchmark" / "records" / "fp32-onnx"
    write_record(folder, replace(read_record(folder), run_id="0" * 32))
    target = resolve_target(tracking_uri=store, experiment="cells of blood", environment={})
    register(client, name="cells", variants=one, tracking=target)
    run = client.get_run(versions(client)[0].run_id)
    assert run.info.experiment_id == client.get_experiment_by_name("cells of blood").experiment_id
    assert (run.info.run_name, run.info.status, run.data.tags["bench.id"]) == ("fp32-onnx", "FINISHED", "b1")


def test_a_run_id_that_arrived_after_the_record_is_found(client: "MlflowClient", one: Path) -> None:
    run_id = client.create_run("0").info.run_id
    place = one / "runs" / "fp32-onnx"
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps({"uid": "u", "run_id": run_id, "tracking_uri": "sqlite:///x"}))
    register(client, name="cells", variants=one)
    assert versions(client)[0].run_id == run_id


def test_registering_again_changes_nothing(client: "MlflowClient", output: Path) -> None:
    register(client, name="cells", variants=output)
    before = [(v.version, v.last_updated_timestamp, v.tags) for v in versions(client)]
    n_runs = len(client.search_runs(["0"]))
    again = register(client, name="cells", variants=[output, output / "variants" / "int8-onnx"])
    assert [(v.version, v.is_new) for v in again] == [("1", False), ("2", False)]
    assert [(v.version, v.last_updated_timestamp, v.tags) for v in versions(client)] == before
    assert (len(models(client)), len(client.search_runs(["0"]))) == (2, n_runs)


def test_another_benchmark_or_operating_point_is_another_version_of_the_same_bytes(one: Path) -> None:
    (candidate,), _ = find_candidates([one])
    cost = candidate.record.variant.cost

    def measured(**changes: Any) -> Candidate:
        mine = replace(candidate.record.variant, cost=replace(cost, **changes))
        return replace(candidate, record=replace(candidate.record, variant=mine))

    moved = replace(candidate, variant=replace(candidate.variant, operating_point={"conf": 0.3}))
    different = {identity(one) for one in (candidate, measured(benchmark="b2"), moved)}
    assert len(different) == 3
    same = measured(hardware=replace(cost.hardware, load1=7.0), latency_mean_ms=1.0)
    assert identity(same) == identity(candidate)


def test_thresholds_join_the_variant_that_they_were_found_for(client: "MlflowClient", output: Path) -> None:
    sha256 = read_variant(output / "variants" / "int8-onnx").sha256
    point = output / "operating_point.json"
    point.write_text(json.dumps({"conf": 0.123, "iou": 0.6, "per_class": {}, "model_sha256": sha256}))
    before = (output / "variants" / "int8-onnx" / "variant.json").read_text()
    run_register(client, name="cells", variants=[output], operating_point=point)
    first, second = versions(client)
    assert (first.tags["op.conf"], second.tags["op.conf"]) == ("0.25", "0.123")
    assert "op.per_class" not in second.tags
    assert read_variant(fetch("models:/cells/2", client=client).folder).operating_point["conf"] == 0.123
    assert (output / "variants" / "int8-onnx" / "variant.json").read_text() == before


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_sha256": "123"}'])
def test_thresholds_of_another_model_are_refused(client: "MlflowClient", one: Path, content: str) -> None:
    point = one / "operating_point.json"
    point.write_text(content)
    with pytest.raises(ArgumentError, match="operating_point="):
        run_register(client, name="cells", variants=[one], operating_point=point)
    assert client.search_registered_models() == []


def test_nothing_is_written_where_one_of_the_variants_cannot_be_registered(
    client: "MlflowClient", output: Path
) -> None:
    change_byte(output / "variants" / "int8-onnx")
    with pytest.raises(CheckpointError):
        register(client, name="cells", variants=output)
    assert (client.search_registered_models(), models(client)) == ([], [])


def fail(error: BaseException) -> Callable[..., Any]:
    def call(*words: Any, **given: Any) -> Any:
        raise error

    return call


DISK_FULL = MlflowException("the disk is full")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("log_model_artifacts", DISK_FULL),
        ("log_metric", KeyboardInterrupt()),
        ("finalize_logged_model", DISK_FULL),
        ("create_model_version", DISK_FULL),
    ],
)
def test_a_failure_half_way_leaves_neither_version_nor_model(
    client: "MlflowClient", one: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    with monkeypatch.context() as patch:
        if step == "finalize_logged_model":  # once: the removal needs it, too
            calls = iter([fail(error)])
            real = client.finalize_logged_model
            patch.setattr(client, step, lambda *given: next(calls, real)(*given))
        else:
            patch.setattr(client, step, fail(error))
        with pytest.raises(StoreError if isinstance(error, MlflowException) else KeyboardInterrupt):
            register(client, name="cells", variants=one)
    assert (versions(client), models(client)) == ([], [])
    assert [one.version for one in register(client, name="cells", variants=one)] == ["1"]
    assert len(models(client)) == 1


def test_an_answer_that_is_lost_does_not_lose_the_version(
    client: "MlflowClient", one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client.create_model_version

    def made_but_not_heard_of(*words: Any, **given: Any) -> Any:
        real(*words, **given)
        raise MlflowException("timeout")

    with monkeypatch.context() as patch:
        patch.setattr(client, "create_model_version", made_but_not_heard_of)
        with pytest.raises(StoreError):
            register(client, name="cells", variants=one)
    assert [str(model.status) for model in models(client)] == ["READY"]
    assert [(v.version, v.is_new) for v in register(client, name="cells", variants=one)] == [("1", False)]
    assert fetch("models:/cells/1", client=client).sha256


def test_what_a_killed_process_left_is_removed(client: "MlflowClient", one: Path) -> None:
    (candidate,), _ = find_candidates([one])
    run_id = client.create_run("0").info.run_id
    folder = one / "benchmark" / "records" / "fp32-onnx"
    write_record(folder, replace(candidate.record, run_id=run_id))
    left = client.create_logged_model("0", name="fp32-onnx", tags={TAG_IDENTITY: identity(candidate)})
    other = client.create_logged_model("0", name="other", tags={TAG_IDENTITY: "f" * 16})
    register(client, name="cells", variants=one)
    ids = {model.model_id for model in models(client)}
    assert left.model_id not in ids
    assert other.model_id in ids
    assert len(ids) == 2


def _register_in_another_process(store: str, folder: str) -> None:
    register(open_registry(store), name="cells", variants=Path(folder))


@pytest.mark.slow
def test_three_processes_register_each_variant_once(client: "MlflowClient", store: str, output: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_register_in_another_process, args=(store, str(output))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [v.tags["variant.name"] for v in versions(client)] == ["fp32-onnx", "int8-onnx"]
    assert len(models(client)) == 2


def test_an_openvino_folder_and_an_odd_name_are_registered(client: "MlflowClient", tmp_path: Path) -> None:
    output = write_output(tmp_path / "c", (("v1.5-int8-openvino", 8.0, "m.pt"),))
    register(client, name="cells", variants=output)
    found = fetch("models:/cells/1", client=client)
    assert sorted(file.name for file in (found.folder / "model_openvino").iterdir()) == ["model.bin", "model.xml"]
    assert found.tags["variant.name"] == "v1.5-int8-openvino"


def test_a_name_that_mlflow_does_not_take_is_one_line(client: "MlflowClient", one: Path) -> None:
    with pytest.raises((ArgumentError, StoreError)) as caught:
        register(client, name="a/b", variants=one)
    assert "\n" not in str(caught.value)
    assert models(client) == []


def test_what_register_prints(client: "MlflowClient", tmp_path: Path) -> None:
    output = write_output(tmp_path / "c", (("fp32-onnx", 10.0, "m.pt"), ("int8-onnx", -1.0, "fp32-onnx")))
    text = run_register(client, name="o'neill", variants=[output])
    assert "fp32-onnx" in text
    assert "new" in text
    assert "int8-onnx is not registered, it could not be measured: no kernel." in text
    assert "was there" in run_register(client, name="o'neill", variants=[output])
