"""How much faster a checkpoint's variants are than its own fp32 ONNX file, and what they lose.

    python -m benchmarks.variants --data bccd.yaml --model yolo11n-bccd.pt   # leave the machine alone meanwhile
    python -m benchmarks.variants                                            # embedded data: informational
    python -m benchmarks.variants --quick                                    # exercises the code, judges nothing

The chain is that of `mlflow-yolo compress` without pruning unless `--ratio` says otherwise: every kind of file is made,
then all are timed on one thread in interleaved rounds, each turn in a process of its own, and scored by one evaluator.
Every variant is in the figures, those that got slower too. The ratio is the speed of the fastest variant that loses at
most one point.

Targets, for data of one's own: a variant at least 2 times as fast as fp32 ONNX with at most 1.0 point of mAP50-95 or
top1 lost where the processor has AMX, 1.5 times elsewhere; and an int8 ONNX file that is 1.2 times as fast at the lower
end of its interval with at most 0.5 points lost.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.outcome import Outcome, Target, finish, machine
from mlflow_yolo.tracking.stores.target import resolve_target
from mlflow_yolo.variants.comparison import Comparison, Effort, Row
from mlflow_yolo.variants.compress import Chain, Compressed, default_kinds, run_compress
from mlflow_yolo.variants.fine_tuning import FineTuning
from mlflow_yolo.variants.pruning_order import order_pruning
from mlflow_yolo.variants.table import best_row, frame

INT8 = "int8-onnx"


def main() -> int:
    """Make, measure, print, and return the exit code."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        made = _compress(given, Path(folder))
    print(made.text)
    comparison = made.comparison
    rows = frame(comparison).drop(columns=["error", "sha256"]).to_dict("records")
    figures = {"machine": machine(), "data": given.data, "quick": given.quick, "variants": rows}
    own_data = given.data is not None and not given.quick
    promised = _targets(comparison) if own_data else []
    best = best_row(comparison)
    ratio = best.speed.value if best is not None and best.speed is not None else None
    return finish(Outcome("variants", ratio, promised[0].limit if promised else None, promised, figures))


def _compress(given: argparse.Namespace, folder: Path) -> Compressed:
    order = order_pruning(ratio=given.ratio) if given.ratio else None
    kinds = ("fp32-onnx", INT8) if given.quick else default_kinds()
    method = "minmax" if given.quick else "auto"
    return run_compress(
        data=given.data or "digits",
        model=given.model or "digits",
        chain=Chain(kinds, order, FineTuning(given.epochs), calibration=16 if given.quick else 200, method=method),
        split="auto",
        imgsz=None,
        trust=False,
        effort=Effort(runs=4, rounds=2) if given.quick else Effort(runs=given.runs, rounds=given.rounds),
        tracking=resolve_target(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", environment={}),
        output=str(folder / "compress"),
    )


def _targets(comparison: Comparison) -> list[Target]:
    has_amx = comparison.rows[0].cost.hardware.isa == "amx"
    best = best_row(comparison, points=1.0)
    int8 = next((row for row in comparison.rows if row.entry.name == INT8), None)
    return [
        Target(
            f"speed of the fastest variant with at most 1.0 point lost, {'with' if has_amx else 'without'} AMX",
            best.speed.value if best is not None and best.speed is not None else None,
            2.0 if has_amx else 1.5,
            at_least=True,
        ),
        Target(f"speed of {INT8}, lower end", int8.speed.low if int8 and int8.speed else None, 1.2, at_least=True),
        Target(f"points lost by {INT8}", _lost(int8), 0.5),
    ]


def _lost(row: Row | None) -> float | None:
    return -100 * row.change.difference if row is not None and row.change is not None else None


def _arguments(argv: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="data.yaml [the embedded digits, without judgement]")
    parser.add_argument("--model", help="checkpoint trained on it [digits]")
    parser.add_argument("--ratio", type=float, default=0.0, help="prune as well [0: do not]")
    parser.add_argument("--epochs", type=int, default=10, help="fine-tuning of the pruned model")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="exercise the code, judge nothing")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
