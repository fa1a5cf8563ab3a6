import math
from dataclasses import replace

import numpy as np
import pytest

from mlflow_yolo.variants import table
from tests.variants.made import a_comparison, a_row, three_rows


def test_the_fastest_variant_within_the_allowed_loss_is_named_with_its_numbers() -> None:
    assert table.answer(three_rows()) == [
        "Fastest with at most 1 point of mAP50-95 lost: int8-onnx, 2.00x [1.90, 2.10] as fast as fp32-onnx, "
        "-0.40 [-0.80, +0.10] points, 5.0 ms, 3.0 MB.",
        "Measured on Test CPU, avx2, 1 thread: 4 runs each in interleaved rounds; mAP50-95 on shapes test (20 images).",
    ]


def test_a_faster_variant_that_loses_too_much_is_not_the_choice() -> None:
    rows = [
        *three_rows().rows,
        a_row("fp16-onnx", ms=2.0, score=0.48, speed=(5.0, 4.9, 5.1), change=(-0.02, -0.03, 0.0)),
    ]
    best = table.best_row(a_comparison(*rows))
    assert best is not None
    assert best.entry.name == "int8-onnx"
    looser = table.best_row(a_comparison(*rows), points=2.5)
    assert looser is not None
    assert looser.entry.name == "fp16-onnx"


def test_a_variant_whose_interval_reaches_the_reference_is_not_called_faster() -> None:
    rows = [*three_rows().rows[:2], a_row("int8-onnx", speed=(1.2, 0.95, 1.4), change=(0.0, 0.0, 0.0))]
    assert table.best_row(a_comparison(*rows)) is None
    assert table.answer(a_comparison(*rows))[0] == (
        "No variant is faster than fp32-onnx with at most 1 point of mAP50-95 lost (3 measured)."
    )


def test_a_faster_checkpoint_is_no_choice_for_it_is_no_file_to_deploy() -> None:
    rows = [a_row("m.pt", speed=(2.0, 1.9, 2.1), change=(0.0, 0.0, 0.0)), a_row("fp32-onnx", speed=(1.0, 1.0, 1.0))]
    assert table.best_row(a_comparison(*rows)) is None


def test_among_checkpoints_alone_the_last_is_the_result_and_is_compared_with_the_reference() -> None:
    rows = [
        a_row("m.pt", speed=(0.9, 0.8, 1.0), change=(0.01, 0.0, 0.02)),
        a_row("control.pt", speed=(1.0, 1.0, 1.0)),
        a_row("pruned.pt", ms=6.0, speed=(1.6, 1.5, 1.7), change=(-0.02, -0.03, 0.0), size_mb=2.5),
    ]
    assert table.answer(a_comparison(*rows, reference="control.pt"))[0] == (
        "pruned.pt: 1.60x [1.50, 1.70] as fast as control.pt, -2.00 [-3.00, +0.00] points of mAP50-95, 6.0 ms, 2.5 MB."
    )
    alone = a_comparison(a_row("m.pt", speed=(1.0, 1.0, 1.0)), reference="m.pt")
    assert table.answer(alone)[0] == "m.pt: 10.0 ms, 5.0 MB."


def test_slower_variants_and_failed_ones_are_said() -> None:
    rows = [
        *three_rows().rows,
        a_row("dynamic-int8-onnx", ms=40.0, speed=(0.25, 0.2, 0.3), change=(0.0, 0.0, 0.0)),
        a_row("fp16-onnx", error="model=x cannot be opened: no kernel. Make it again."),
    ]
    assert table.answer(a_comparison(*rows))[1:3] == [
        "Slower than fp32-onnx here: dynamic-int8-onnx.",
        "fp16-onnx could not be measured: model=x cannot be opened: no kernel. Make it again.",
    ]


def test_nothing_that_could_be_measured_is_said_without_a_choice() -> None:
    lines = table.answer(a_comparison(a_row("m.pt", error="RuntimeError: no")))
    assert lines[0].startswith("No variant is faster")
    assert "(0 measured)" in lines[0]
    assert lines[1] == "m.pt could not be measured: RuntimeError: no."


def test_the_shown_table_has_a_line_for_every_row_failed_ones_too() -> None:
    rows = [*three_rows().rows, a_row("fp16-onnx", size_mb=1.25, error="x" * 100)]
    shown = table.shown(a_comparison(*rows))
    assert shown.columns[4:7] == ["speed vs fp32-onnx", "test mAP50-95", "change in points"]
    assert list(shown.rows[2]) == [
        "int8-onnx", "3.0", "5.0", "6.0", "2.00x [1.90, 2.10]", "0.4960", "-0.40 [-0.80, +0.10]", "dark 0.400", "0.900",
    ]  # fmt: skip
    assert shown.rows[1][6] == ""  # the reference has no change
    assert list(shown.rows[3]) == ["fp16-onnx", "1.2", None, None, f"failed: {'x' * 60}", None, None, None, None]


def test_the_frame_has_every_number_in_plain_units() -> None:
    frame = table.frame(a_comparison(*three_rows().rows, a_row("fp16-onnx", error="broken"))).set_index("variant")
    int8 = frame.loc["int8-onnx"]
    assert (int8["latency_p50_ms"], int8["latency_p95_ms"], int8["latency_p99_ms"]) == (5.0, 6.0, 7.0)
    assert (int8["speedup"], int8["speedup_low"], int8["speedup_high"]) == (2.0, 1.9, 2.1)
    assert (int8["change"], int8["change_low"], int8["change_high"]) == (-0.004, -0.008, 0.001)
    assert (int8["throughput_1"], int8["throughput_4"]) == (200.0, 220.0)
    assert (int8["test/mAP50-95"], int8["worst_class"], int8["worst_class_score"]) == (0.496, "dark", 0.4)
    assert (int8["imgsz"], int8["sha256"]) == ("128x128", "c" * 64)
    assert (frame.loc["fp32-onnx", "change"], frame.loc["m.pt", "kind"]) == (0.0, "pt")
    failed = frame.loc["fp16-onnx"]
    assert failed["error"] == "broken"
    assert failed[["latency_p50_ms", "test/mAP50-95", "change", "speedup", "agreement"]].isna().all()


def test_a_class_that_does_not_occur_is_not_the_worst() -> None:
    row = a_row("m.pt")
    assert row.accuracy is not None
    row.accuracy.per_class["dark"] = math.nan
    assert row.accuracy.worst_class == ("bright", 0.6)
    row.accuracy.per_class["bright"] = math.nan
    name, score = row.accuracy.worst_class
    assert name == ""
    assert np.isnan(score)


@pytest.mark.parametrize(("threads", "said"), [(1, "1 thread"), (4, "4 threads")])
def test_the_machine_names_its_threads(threads: int, said: str) -> None:
    row = three_rows().rows[0]
    hardware = replace(row.cost.hardware, threads=threads)
    comparison = a_comparison(replace(row, cost=replace(row.cost, hardware=hardware)))
    assert table.machine(comparison) == f"Test CPU, avx2, {said}"
