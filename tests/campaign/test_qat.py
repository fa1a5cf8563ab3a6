"""One real epoch of quantization-aware training on the embedded data, and the int8 ONNX file of its checkpoint."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import mlflow_yolo
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.variant import read_variant

pytestmark = [
    pytest.mark.slow,
    pytest.mark.campaign,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("modelopt", "huggingface_hub")),
        reason="nvidia-modelopt is missing. Install it: pip install 'mlflow-yolo[qat]'.",
    ),
]

TRAIN = """
import sys
from pathlib import Path
from ultralytics import YOLO, settings
from mlflow_yolo.compression.quantization.aware import export_aware

data, checkpoint, folder = sys.argv[1:]
settings.update({"mlflow": False})
YOLO(checkpoint).train(
    data=data, epochs=1, imgsz=128, batch=16, quantize=8, fraction=0.1, device="cpu", workers=0, plots=False,
    optimizer="SGD", lr0=1e-4, warmup_epochs=0, project=folder, name="qat",
)
Path(folder, "int8").mkdir()
print("EXPORT", flush=True)
export_aware(Path(folder, "qat", "weights", "best.pt"), Path(folder, "int8"), imgsz=128)
"""


def test_an_epoch_with_fake_quantizers_gives_an_int8_onnx_file_that_still_finds_digits(tmp_path: Path) -> None:
    dataset = mlflow_yolo.load_dataset("digits")
    checkpoint = Path(mlflow_yolo.__file__).parent / "checkpoints" / "digits.pt"
    run = subprocess.run(
        [sys.executable, "-c", TRAIN, str(dataset.yaml), str(checkpoint), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.rpartition("EXPORT\n")[2] == ""  # our own maker says nothing

    variant = read_variant(tmp_path / "int8")
    assert variant.kind == "int8-qat-onnx"
    operations = [node.op_type for node in onnx.load(str(tmp_path / "int8" / "model.onnx")).graph.node]
    n_quantized = operations.count("QuantizeLinear")
    assert n_quantized == operations.count("DequantizeLinear") == variant.sources["quantization"]["n_quantize_linear"]
    assert n_quantized > operations.count("Conv")  # activations and weights of most convolutions
    pipeline = open_pipeline(tmp_path / "int8", threads=1)
    from mlflow_yolo.detection.evaluation import evaluate
    from mlflow_yolo.runtime.scoring import samples_of

    scores = evaluate(samples_of(pipeline, dataset, "val"), n_classes=len(dataset.names))
    # The checkpoint has .9 or so; random ranges or a lost calibration leave nothing.
    assert np.isfinite(scores.map50)
    assert scores.map50 > 0.5
