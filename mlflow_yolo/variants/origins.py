"""What a variant was made from, as tags: `quant.*`, `prune.*`, `kd.*`, `lineage.*`, and the size of its network."""

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mlflow_yolo.compression.distillation.settings import Distillation
from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.onnx_header import ir_version
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.variant import Variant, digest
from mlflow_yolo.variants.comparison import Entry

_MOST_PARENTS = 4
"""Ultralytics writes `<run>/train/weights/best.pt`; the run's own file lies three folders above."""


def origin_tags(variant: Variant) -> dict[str, str]:
    """Return what `variant.json` says of where its file comes from; what does not apply is left out."""
    sources = variant.sources
    quantization, calibration = _part(sources, "quantization"), _part(sources, "calibration")
    excluded = [*quantization.get("excluded", ()), *quantization.get("float_layers", ())]
    control = _part(sources, "accuracy_control")
    found = {
        "quant.method": quantization.get("method"),
        "quant.activation": quantization.get("activation"),
        "quant.weight": quantization.get("weight"),
        "quant.isa": quantization.get("isa"),
        "quant.excluded": excluded or ("none" if quantization else None),
        "quant.holds": control.get("holds"),
        "quant.calib_sha": calibration.get("sha256"),
        "quant.calib_n": calibration.get("n"),
        "quant.calib_split": calibration.get("split"),
        **_part(sources, "pruning"),
        **_part(sources, "distillation"),
        "lineage.checkpoint": sources.get("checkpoint"),
        "lineage.checkpoint_sha256": sources.get("checkpoint_sha256"),
        "lineage.made_from_sha256": sources.get("fp32_sha256") or sources.get("onnx_sha256"),
        "lineage.data": sources.get("data"),
    }
    return {name: text(value) for name, value in found.items() if value is not None and value != ""}


def further_tags(entries: Sequence[Entry], checkpoints: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Return, by entry, what only its files tell: format, parameters, GFLOPs, and the run that trained its checkpoint.

    Args:
        entries: What is measured.
        checkpoints: Checkpoints at hand; of a variant that was made from another one nothing of this is known.
    """
    by_digest = {digest(path): path for path in checkpoints}
    known: dict[tuple[Path, int], dict[str, str]] = {}
    found = {}
    for entry in entries:
        checkpoint, network = _checkpoint(entry, by_digest), {}
        if checkpoint is not None:
            size = (checkpoint, max(entry.size))
            network = known[size] = known.get(size) or _network(*size)
        found[entry.name] = {**_file_tags(entry), **network}
    return found


def teacher_tags(distillation: Distillation) -> dict[str, str]:
    """Return what a student learned from: `kd.teacher`, its digest, and the weight of each loss."""
    teacher = Path(distillation.teacher)
    known = {"kd.teacher_sha": digest(teacher)} if teacher.is_file() else {}
    weights = {f"kd.{name}": f"{weight:g}" for name, weight in distillation.weights.items()}
    return {"kd.teacher": teacher.name, **known, **weights}


def operating_tags(point: Mapping[str, Any]) -> dict[str, str]:
    """Return an operating point as tags: `op.conf`, `op.iou`, `op.max_det`, `op.per_class`, ...; empty parts not."""
    return {f"op.{name}": text(value) for name, value in point.items() if value not in (None, "", {}, [])}


def text(value: object) -> str:
    """Return a value as a tag holds it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _file_tags(entry: Entry) -> dict[str, str]:
    """Return in which version of its format an entry's file is written, where it is ONNX."""
    if entry.variant is None or not entry.kind.endswith("onnx"):
        return {}
    try:
        version = ir_version(entry.path / entry.variant.file)
    except CheckpointError:  # it is a row of the table with its error
        return {}
    return {"model.ir": str(version), "model.onnx_version": metadata.version("onnx")}


def _checkpoint(entry: Entry, by_digest: Mapping[str, Path]) -> Path | None:
    if entry.variant is None:
        return entry.path
    return by_digest.get(str(entry.variant.sources.get("checkpoint_sha256")))


def _network(checkpoint: Path, imgsz: int) -> dict[str, str]:
    from mlflow_yolo.compression.pruning.size import count_macs, count_parameters
    from mlflow_yolo.models.checkpoint import load

    network: Any = load(str(checkpoint)).model
    trained = next(filter(None, map(read_run_file, list(checkpoint.absolute().parents)[:_MOST_PARENTS])), None)
    found = {
        "model.params": str(count_parameters(network)),
        "model.gflops": f"{2 * count_macs(network, imgsz) / 1e9:.3f}",
        "lineage.training_run_id": trained.run_id if trained else None,
        "lineage.study": trained.study if trained else None,
    }
    return {name: value for name, value in found.items() if value}


def _part(sources: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = sources.get(name)
    return part if isinstance(part, Mapping) else {}
