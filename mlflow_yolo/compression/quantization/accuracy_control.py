"""Quantization to a target: methods are tried, then the layers that lose most are left in float until it holds."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path

import onnx
import pandas as pd

from mlflow_yolo.compression.quantization.calibration import CalibrationSet, batches
from mlflow_yolo.compression.quantization.errors import tensor_errors, worst_layers
from mlflow_yolo.compression.quantization.graph import layers as nodes_by_layer
from mlflow_yolo.compression.quantization.observers import METHODS
from mlflow_yolo.compression.quantization.static import Observed, observe_calibration, prepared, write_int8
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.variant import Variant, read_variant, write_variant

COLUMNS = ("method", "keep_head", "n_layers_in_float", "layers_in_float", "accuracy", "drop", "holds")

N_ERROR_IMAGES = 16
"""Images that the table of errors is measured on."""

_ROUNDING = 1e-9

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Trial:
    """One version that was made and scored."""

    folder: Path
    observed: Observed
    keep_head: bool
    layers: tuple[str, ...]
    accuracy: float
    drop: float


def quantize_to_target(
    source: Path,
    directory: Path,
    *,
    evaluate: Callable[[Path], float],
    max_drop: float,
    calibration: CalibrationSet,
    methods: Sequence[str] = METHODS,
    symmetric: bool = False,
    progress: Progress | None = None,
) -> tuple[Variant, pd.DataFrame]:
    """Write the fastest int8 version that was found to lose at most `max_drop`.

    Every method is tried until one holds. Where none does, the best of them goes on: with its whole head in float, then
    with the 1, 2, 4, ... layers in float that add most noise (`tensor_errors`).

    Args:
        source: Folder of the `fp32-onnx` variant.
        directory: An existing empty folder; `model.onnx` and `variant.json` are written there.
        evaluate: Accuracy of a variant's folder, for example mAP50-95 on `val`; larger is better. Not on the images of
            the calibration, nor on those that the result is published for.
        max_drop: Largest accepted loss, in the unit of `evaluate`.
        calibration: Images that the ranges come from.
        methods: Ways to choose the ranges, in the order to try them.
        symmetric: Choose ranges of activations around 0.
        progress: Told in words what is being tried.

    Returns:
        The variant, and a table of what was tried, in order: `method`, `keep_head`, `n_layers_in_float`,
        `layers_in_float`, `accuracy`, `drop`, `holds`. Where nothing held, the variant is the one with the smallest
        drop, and `sources["accuracy_control"]["holds"]` is False.

    Raises:
        ArgumentError: `max_drop` is negative, a method is unknown, or there are no methods.
        CheckpointError: The source cannot be read.
    """
    _check(methods, max_drop)
    say = progress or (lambda words: None)
    say("scoring float32")
    reference = evaluate(source)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
        search = _Search(source, Path(scratch), evaluate, reference, say)
        for trial in search.run(calibration, methods, symmetric=symmetric):
            if _holds(trial, max_drop):
                break
        else:
            trial = search.best
        return _keep(trial, directory, reference=reference, max_drop=max_drop), _table(search.trials, max_drop)


@dataclass(frozen=True)
class _Search:
    """Makes and scores one version after another, the fastest first."""

    source: Path
    scratch: Path
    evaluate: Callable[[Path], float]
    reference: float
    say: Progress
    trials: list[_Trial] = field(default_factory=list)

    def run(self, calibration: CalibrationSet, methods: Sequence[str], *, symmetric: bool) -> Iterator[_Trial]:
        for method in methods:
            self.say(f"calibrating by {method}")
            yield self.score(observe_calibration(self.source, calibration, method=method, symmetric=symmetric))
        yield self.score(self.best.observed, keep_head=True)
        start = self.best
        ranking, nodes = self.rank(start)
        n = 1
        while n <= len(ranking) // 2:
            names = [name for layer in ranking[:n] for name in nodes[layer]]
            yield self.score(start.observed, keep_head=start.keep_head, layers=ranking[:n], nodes=names)
            n *= 2

    @property
    def best(self) -> _Trial:
        """The version that lost least so far, the earliest among equals."""
        return min(self.trials, key=lambda trial: trial.drop)

    def score(
        self, observed: Observed, *, keep_head: bool = False, layers: Sequence[str] = (), nodes: Sequence[str] = ()
    ) -> _Trial:
        """Make a version and score it; a score that is not a number counts as a total loss."""
        folder = self.scratch / str(len(self.trials))
        folder.mkdir()
        self.say(f"scoring {observed.method}" + (", head in float" if keep_head else "") + _n_layers(layers))
        write_int8(self.source, folder, observed, exclude=nodes, keep_head=keep_head)
        accuracy = self.evaluate(folder)
        drop = self.reference - accuracy
        trial = _Trial(folder, observed, keep_head, tuple(layers), accuracy, float("inf") if isnan(drop) else drop)
        self.trials.append(trial)
        return trial

    def rank(self, trial: _Trial) -> tuple[list[str], Mapping[str, tuple[str, ...]]]:
        """Return the layers that add noise to a version, the noisiest first, and the nodes of each."""
        self.say("measuring which layers lose most")
        pipeline = open_pipeline(self.source, threads=1)
        files = trial.observed.calibration.files[:N_ERROR_IMAGES]
        errors = tensor_errors(self.source, trial.folder, batches(pipeline, files))
        with prepared(self.source, read_variant(self.source)) as file:
            nodes = nodes_by_layer(node.name for node in onnx.load(str(file)).graph.node)
        return worst_layers(errors[errors["added_noise"] > 0]), nodes


def _n_layers(layers: Sequence[str]) -> str:
    return f", {len(layers)} layer{'s' if len(layers) > 1 else ''} in float" if layers else ""


def _check(methods: Sequence[str], max_drop: float) -> None:
    if not max_drop >= 0:
        raise ArgumentError(f"max_drop={max_drop} is no loss. Use 0 or more, such as 0.005 for half a point.")
    if not methods:
        raise ArgumentError(f"methods is empty. Name one or more of {', '.join(METHODS)}.")
    unknown = next((method for method in methods if method not in METHODS), None)
    if unknown is not None:
        raise ArgumentError(f"calibration method={unknown} is unknown. Use one of {', '.join(METHODS)}.")


def _keep(trial: _Trial, directory: Path, *, reference: float, max_drop: float) -> Variant:
    """Copy a version to its place, with what was asked for and reached."""
    variant = read_variant(trial.folder)
    shutil.copyfile(trial.folder / variant.file, directory / variant.file)
    control = {
        "max_drop": max_drop,
        "reference": reference,
        "accuracy": trial.accuracy,
        "holds": _holds(trial, max_drop),
        "layers_in_float": list(trial.layers),
    }
    return write_variant(directory, replace(variant, sources={**variant.sources, "accuracy_control": control}))


def _holds(trial: _Trial, max_drop: float) -> bool:
    return trial.drop <= max_drop + _ROUNDING


def _table(trials: Sequence[_Trial], max_drop: float) -> pd.DataFrame:
    rows = [
        (
            trial.observed.method,
            trial.keep_head,
            len(trial.layers),
            ", ".join(trial.layers),
            trial.accuracy,
            trial.drop,
            _holds(trial, max_drop),
        )
        for trial in trials
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
