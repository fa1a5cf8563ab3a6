from dataclasses import replace

from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.registry.markdown import MOST_CHARACTERS
from mlflow_yolo.registry.record import Record
from mlflow_yolo.registry.version_description import plot_link, version_figure, version_text
from tests.registry.measured import CHECKPOINT, measured

MINE = measured("int8-onnx", "int8-onnx", "b" * 64, ms=5.0, score=0.496, size_mb=3.0)
RECORD = Record(MINE, CHECKPOINT, 0.9, about={"machine": "Test CPU, 1 thread", "data": "shapes"})
TAGS = {
    "bench.imgsz": "320",
    "lineage.checkpoint": "m.pt",
    "quant.method": "minmax",
    "quant.calib_n": "200",
    "quant.calib_split": "train",
    "parent.speedup": "4.00x [3.90, 4.10]",
    "parent.change_points": "-0.40 [-0.80, +0.10]",
    "op.conf": "0.25",
    "op.iou": "0.7",
    "op.split": "val",
    "op.objective": "f1",
}


def test_two_sentences_say_what_it_is_and_how_it_stands_against_its_parent() -> None:
    text = version_text(RECORD, TAGS, name="cells", parent_version="7")
    assert text.startswith(
        "int8-onnx of m.pt at 320 px, quantized (minmax on 200 images of train). One image takes 5.0 ms"
    )
    assert "(p95 6.0 ms); it is 3.0 MB and scores mAP50-95 0.4960 on test" in text
    assert "against m.pt ([version 7](#/models/cells/versions/7))" in text
    assert "4.00x [3.90, 4.10] as fast and -0.40 [-0.80, +0.10] points of mAP50-95." in text


def test_the_table_holds_both_and_classes_that_occur_the_worst_first() -> None:
    text = version_text(RECORD, TAGS, name="cells").replace("\N{NO-BREAK SPACE}", "")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    cells = {row[0].replace("\\", ""): row[1:] for row in rows}
    assert cells["latency p50 / p95 / p99 [ms]"] == ["5.0 / 6.0 / 7.0", "20.0 / 21.0 / 22.0"]
    assert cells["size [MB]"] == ["3.0", "5.0"]
    assert cells["mAP50-95"] == ["0.4960", "0.5000"]
    assert cells["agreement with the parent"][0] == "0.9000"
    classes = [name for name in cells if name.startswith("AP50-95 of")]
    assert classes == ["AP50-95 of dark", "AP50-95 of bright"]


def test_it_says_where_it_serves_and_where_it_was_measured() -> None:
    text = version_text(RECORD, TAGS, name="cells")
    assert "It serves at conf 0.25, iou 0.7 (f1 on val)." in text
    assert "4 runs in 2 interleaved rounds on Test CPU, 1 thread, 20 images of shapes test, 2026-01-02" in text


def test_a_pruned_and_distilled_one_says_so() -> None:
    tags = {"prune.ratio_reached": "0.246", "prune.method": "structured", "kd.teacher": "big*.pt"}
    text = version_text(RECORD, tags, name="cells")
    assert "pruned (structured, 25%), distilled from big\\*.pt." in text


def test_one_without_parent_or_scores_is_described() -> None:
    alone = replace(RECORD, parent=None, variant=replace(MINE, scores=None))
    text = version_text(alone, {}, name="cells")
    assert "scores no score." in text
    assert "parent" not in text
    assert png_bytes(version_figure(alone)).startswith(b"\x89PNG")


def test_the_plot_is_shown_by_the_address_of_the_logged_model() -> None:
    text = version_text(RECORD, TAGS, name="cells", plot=plot_link("m-123"))
    assert "](ajax-api/2.0/mlflow/logged-models/m-123/artifacts/files?artifact_file_path=benchmark%2F" in text


def test_the_plot_draws_latency_score_size_and_memory_of_both() -> None:
    figure = version_figure(RECORD)
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    assert widths == [[5.0, 20.0], [0.496, 0.5], [3.0, 5.0], [100.0, 100.0]]


def test_names_of_any_length_fit() -> None:
    scores = MINE.scores
    assert scores is not None
    many = replace(scores, per_class={f"{index} " + "x" * 900: 0.5 for index in range(100)})
    text = version_text(replace(RECORD, variant=replace(MINE, scores=many)), TAGS, name="cells")
    assert len(text) <= MOST_CHARACTERS
    assert text.startswith("int8-onnx of")
