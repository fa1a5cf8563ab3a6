"""The shipped checkpoint, made again: `python -m mlflow_yolo.training.pretrain --output digits.pt`.

A YOLO11 of width 0.125 is trained from scratch on the embedded `digits` (more scenes than the default data set, of
the same training scans; the test scans are never seen), on one thread of a CPU, in about five minutes. Beside the
checkpoint lies its record, a .json with the same stem: sha256, command, versions, and scores on the default test split.
"""

import argparse
import copy
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_yolo.datasets.digits import generate

SEED = 0
N_TRAIN = 4096
EPOCHS = 8
IMGSZ = 128
SCALE = (0.5, 0.125, 1024)
"""Depth, width, most channels: 0.81 million parameters, 1.8 MB in half precision."""

TRAINING: Mapping[str, Any] = {
    "epochs": EPOCHS,
    "imgsz": IMGSZ,
    "batch": 16,
    "optimizer": "AdamW",
    "lr0": 0.003,
    "lrf": 0.01,
    "cos_lr": True,
    "weight_decay": 0.0005,
    "warmup_epochs": 0.5,
    "mosaic": 0.0,  # scenes are already composed; unseen scenes teach more per second than collages of seen ones
    "fliplr": 0.0,  # a mirrored digit is no digit
    "scale": 0.3,
    "seed": SEED,
    "deterministic": True,
    "workers": 0,
    "device": "cpu",
    "amp": False,
    "plots": False,
}

_PATH_ARGUMENTS = ("model", "data", "project", "name", "save_dir", "cfg", "tracker", "pretrained")
_KEPT = ("epoch", "model", "train_args", "version", "license", "docs")


def build_model() -> Any:
    """Return an untrained YOLO11 detector of `SCALE` for ten classes, built from Ultralytics' own yolo11.yaml."""
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    config = copy.deepcopy(yaml_model_load("yolo11.yaml"))
    config |= {"nc": 10, "scale": "p", "scales": {"p": list(SCALE)}, "yaml_file": "yolo11p.yaml"}
    return DetectionModel(config, nc=10, ch=3, verbose=False)


def train(*, data: Path, save_dir: Path) -> Path:
    """Return the best checkpoint, as Ultralytics wrote it, of one training on `data`."""
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils.torch_utils import init_seeds

    torch.set_num_threads(1)
    trainer = DetectionTrainer(
        overrides={**TRAINING, "model": "yolo11.yaml", "data": str(data), "save_dir": str(save_dir), "exist_ok": True}
    )
    for event in trainer.callbacks:
        trainer.callbacks[event] = []  # no MLflow, no TensorBoard: the checkpoint depends on the data alone
    init_seeds(SEED, deterministic=True)
    trainer.model = build_model()
    trainer.train()
    return Path(trainer.best)


def strip(checkpoint: Path, output: Path) -> None:
    """Write the weights of a training checkpoint in half precision, without optimizer, date, paths and git state."""
    import torch
    from ultralytics.utils import DEFAULT_CFG_DICT
    from ultralytics.utils.patches import torch_load

    content = torch_load(checkpoint, map_location="cpu")
    model = content.get("ema") or content["model"]
    arguments = {key: value for key, value in content["train_args"].items() if key in DEFAULT_CFG_DICT}
    arguments |= {key: DEFAULT_CFG_DICT.get(key) for key in _PATH_ARGUMENTS if key in arguments}
    arguments |= {"model": "digits.pt", "data": "digits"}
    model.args = dict(arguments)
    model.criterion = None
    model.pt_path = None
    model.half()
    for parameter in model.parameters():
        parameter.requires_grad = False
    stripped = {**content, "epoch": -1, "model": model, "train_args": arguments}
    torch.save({key: stripped[key] for key in _KEPT}, output)


def evaluate(checkpoint: Path, *, data: Path, split: str = "test") -> dict[str, float]:
    """Return Ultralytics' mAP50 and mAP50-95 of a checkpoint on one split, on one thread of a CPU."""
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        metrics = YOLO(str(checkpoint)).val(
            data=str(data),
            split=split,
            imgsz=IMGSZ,
            batch=32,
            device="cpu",
            workers=0,
            plots=False,
            verbose=False,
            project=scratch,
            name="val",
        )
    return {"mAP50": round(float(metrics.box.map50), 4), "mAP50-95": round(float(metrics.box.map), 4)}


def describe(
    checkpoint: Path, *, scores: Mapping[str, float], command: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Return the record of a checkpoint: what it is, how it was made, what it scores."""
    import numpy
    import torch
    import ultralytics

    content = checkpoint.read_bytes()
    model = build_model()
    return {
        "name": checkpoint.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "task": "detect",
        "classes": list("0123456789"),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "imgsz": IMGSZ,
        "test": {"data": "digits", "split": "test", **scores},
        "command": shlex.join(command),
        "training": {**TRAINING, "data": "digits", "n_train": N_TRAIN, "seconds": round(seconds)},
        "versions": {
            "python": platform.python_version(),
            "ultralytics": ultralytics.__version__,
            "torch": torch.__version__.split("+")[0],
            "numpy": numpy.__version__,
        },
        "license": "AGPL-3.0: trained with Ultralytics and of its model classes",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, strip, measure and describe the checkpoint; return 0."""
    parser = argparse.ArgumentParser(prog="python -m mlflow_yolo.training.pretrain", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the .pt file; its record is the .json beside it")
    options = parser.parse_args(arguments)
    output: Path = options.output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        data = generate("digits", cache_dir=Path(scratch), n_train=N_TRAIN, seed=SEED)
        start = time.monotonic()
        best = train(data=data, save_dir=Path(scratch) / "run")
        seconds = time.monotonic() - start
        temporary = output.with_name(f".{output.stem}.{os.getpid()}.pt")
        strip(best, temporary)
        shutil.move(temporary, output)
    command = ("python", "-m", "mlflow_yolo.training.pretrain", "--output", output.name)
    record = describe(output, scores=evaluate(output, data=generate("digits")), command=command, seconds=seconds)
    output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record["test"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
