import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from mlflow_yolo import keys
from mlflow_yolo.tracking.events.command_run import command_run
from mlflow_yolo.tracking.stores.target import resolve_target
from mlflow_yolo.variants import results
from tests.variants.made import a_comparison, a_row, three_rows


def test_metrics_are_named_by_split_and_leave_out_what_is_nan() -> None:
    comparison = three_rows()
    found = results.metrics(comparison.row("int8-onnx"), comparison)
    assert found["test/mAP50-95"] == 0.496
    assert found["test/AP50-95/dark"] == 0.4
    assert found["test/worst_class"] == 0.4
    assert (found["speedup"], found["change_low"], found["agreement"]) == (2.0, -0.008, 0.9)
    assert (found["latency_p50_ms"], found["throughput_ips/batch_4"], found["size_mb"]) == (5.0, 220.0, 3.0)
    assert "change" not in results.metrics(comparison.row("fp32-onnx"), comparison)
    failed = a_row("fp16-onnx", error="broken", size_mb=2.0)
    assert results.metrics(failed, comparison) == {"size_mb": 2.0}


def test_many_classes_are_no_metrics_but_a_file() -> None:
    comparison = three_rows()
    row = comparison.row("int8-onnx")
    assert row.accuracy is not None
    row.accuracy.per_class.update({f"class {index}": 0.5 for index in range(keys.MAX_CLASSES_AS_METRICS)})
    assert not [name for name in results.metrics(row, comparison) if name.startswith("test/AP50-95/")]
    assert "acc.per_class" not in results.tags(row, comparison)


def test_tags_say_what_it_is_where_it_was_measured_and_what_it_scored() -> None:
    comparison = a_comparison(
        a_row(
            "int8-onnx",
            change=(-0.004, -0.008, 0.001),
            opset=17,
            operating_point={"conf": 0.25, "iou": 0.7},
            sources={"checkpoint": "m.pt", "calibration": {"n": 8, "files": ["a.jpg"] * 5000}},
        )
    )
    found = results.tags(comparison.rows[0], comparison)
    assert found["variant.kind"] == "int8-onnx"
    assert (found["model.sha256"], found["model.task"], found["model.opset"]) == ("c" * 64, "detect", "17")
    assert (found["op.conf"], found["lineage.checkpoint"], found["quant.calib_n"]) == ("0.25", "m.pt", "8")
    assert found["bench.precision"] == "int8"
    assert (found["bench.cpu_model"], found["bench.p50_ms"], found["bench.imgsz"]) == ("Test CPU", "10", "128")
    assert (found["acc.split"], found["acc.n_images"], found["acc.dataset"]) == ("test", "20", "f00d")
    assert found["acc.change_points"] == "-0.40 [-0.80, +0.10]"
    assert found["acc.worst_class"] == "dark 0.4000"
    assert all(isinstance(value, str) and value for value in found.values())


def test_tags_of_a_failed_candidate_say_why() -> None:
    comparison = a_comparison(a_row("fp16-onnx", error="no kernel"))
    found = results.tags(comparison.rows[0], comparison)
    assert found["bench.error"] == "no kernel"
    assert not [name for name in found if name.startswith("acc.") or name == "bench.p50_ms"]


def test_files_hold_what_the_note_names(tmp_path: Path) -> None:
    comparison = a_comparison(*three_rows().rows, a_row("fp16-onnx", error="broken"))
    folder = results.write_results(comparison, tmp_path)

    note = results.note(comparison)
    for name in ("pareto.html", "pareto.png", "latency_rounds.png", "table.csv"):
        assert f"`{results.FOLDER}/{name}`" in note
        assert (folder / name).stat().st_size > 0
    assert "| int8-onnx" in note
    assert pd.read_csv(folder / "table.csv")["variant"].tolist() == ["m.pt", "fp32-onnx", "int8-onnx", "fp16-onnx"]
    assert (folder / "summary.txt").read_text().startswith("Fastest with at most 1 point")
    assert "int8-onnx" in (folder / "pareto.html").read_text()


def test_every_candidate_is_a_child_run_and_the_same_command_continues_it(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    made = tmp_path / "int8-onnx"
    made.mkdir()
    for name in ("model.onnx", "variant.json"):
        (made / name).write_text(name)
    comparison = three_rows()
    int8 = comparison.rows[2]
    rows = (comparison.rows[0], replace(int8, entry=replace(int8.entry, path=made)), a_row("fp16-onnx.pt", error="bad"))
    comparison = replace(comparison, rows=rows)
    target = resolve_target(tracking_uri=store)
    uid = None
    for _ in range(2):
        with command_run(target, tmp_path / "out", uid=uid) as run:
            uid = run.uid
            folder = results.write_results(comparison, tmp_path / "out")
            (folder / "records").mkdir(exist_ok=True)
            results.log_results(run, comparison, folder, target, lineage={"int8-onnx": {"prune.ratio": "0.3"}})

    runs = {run.info.run_name: run for run in client.search_runs(["0"])}
    assert sorted(runs) == ["fp16-onnx.pt", "int8-onnx", "m.pt", "out"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parent, child = runs["out"], runs["int8-onnx"]
    assert parent.data.tags["variants.best"] == "int8-onnx"
    assert parent.data.metrics["variants/best_speedup"] == 2.0
    assert parent.data.tags["mlflow.note.content"] == results.note(comparison)
    assert {one.path for one in client.list_artifacts(parent.info.run_id)} == {"benchmark"}
    shown = {one.path.removeprefix("benchmark/") for one in client.list_artifacts(parent.info.run_id, "benchmark")}
    assert shown == set(results.FILES), "records hold every prediction: they go with the models, not with the run"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["prune.ratio"] == "0.3"
    assert child.data.params == {"variant": "int8-onnx", "kind": "int8-onnx", "imgsz": "128"}
    assert child.data.metrics["latency_p50_ms"] == 5.0
    assert not math.isnan(child.data.metrics["change"])
    files = {one.path for one in client.list_artifacts(child.info.run_id, "variant")}
    assert files == {"variant/model.onnx", "variant/variant.json"}
