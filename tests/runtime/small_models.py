"""Small models of every version and task whose untrained weights find much, and Ultralytics' own export of them."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

SUFFIXES = {"detect": "", "segment": "-seg", "classify": "-cls"}
VERSIONS = ("yolov8n", "yolo11n", "yolo26n")
IMGSZ = (96, 128)
N_CLASSES = 4


@dataclass(frozen=True)
class SmallModel:
    """A checkpoint and its export."""

    checkpoint: Path
    onnx: Path
    task: str


def make_model(version: str, task: str, folder: Path, **export: Any) -> SmallModel:
    """Return a model of a sixteenth of the width with four classes, saved and exported into `folder`.

    Args:
        version: One of VERSIONS.
        task: One of SUFFIXES.
        folder: An existing folder.
        export: Further arguments of Ultralytics' export.
    """
    checkpoint = make_checkpoint(version, task, folder)
    imgsz = (64, 64) if task == "classify" else IMGSZ
    return SmallModel(checkpoint, export_model(checkpoint, imgsz=imgsz, **export), task)


def make_checkpoint(version: str, task: str, folder: Path) -> Path:
    """Return the checkpoint alone; see `make_model`."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import yaml_model_load

    name = f"{version}{SUFFIXES[task]}"
    content = yaml_model_load(f"{name}.yaml") | {"nc": N_CLASSES, "scales": {"n": [0.33, 0.0625, 256]}, "scale": "n"}
    content.pop("yaml_file", None)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    torch.manual_seed(0)
    model = YOLO(file, task=task, verbose=False)
    _stir(model.model)
    model.model.names = {0: "one", 1: "two", 2: "three", 3: "four"}
    checkpoint = folder / f"{name}.pt"
    model.save(checkpoint)
    return checkpoint


def export_model(checkpoint: Path, **arguments: Any) -> Path:
    """Return Ultralytics' own export of a checkpoint, beside it; an ONNX file unless told otherwise."""
    from ultralytics import YOLO

    given = {"format": "onnx", "device": "cpu", "verbose": False, **arguments}
    if given["format"] == "onnx":
        given["simplify"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, of shapes that become constants
        return Path(YOLO(checkpoint, verbose=False).export(**given))


def _stir(network: Any) -> None:
    """Spread the outputs: an untrained head says the same everywhere, so that an error in order would not be seen."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    head = network.model[-1]
    for name in ("cv2", "cv3", "cv4", "one2one_cv2", "one2one_cv3", "one2one_cv4"):
        for branch in getattr(head, name, None) or []:
            torch.nn.init.normal_(branch[-1].weight, std=0.7)
            torch.nn.init.constant_(branch[-1].bias, -2.0 if "cv3" in name else 0.0)
    if hasattr(head, "linear"):
        torch.nn.init.normal_(head.linear.weight, std=0.5)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 128, 128))
    network.eval()
