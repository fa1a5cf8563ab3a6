"""A training under `autolog` that notes its epochs until it is killed: training_victim.py MODEL DATA FOLDER LEDGER.

Every line of the ledger is [time, epoch, metrics], synced to the disk after the epoch's callbacks have returned.
"""

import json
import os
import sys
import time
from typing import Any

from ultralytics import YOLO

import mlflow_yolo


def main(model: str, data: str, folder: str, ledger: str) -> None:
    """Train until somebody ends it."""
    mlflow_yolo.autolog()
    network = YOLO(model, task="detect")
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(trainer: Any) -> None:  # runs after the callbacks of `autolog`, in the next epoch at the latest
        values = {key: float(value) for key, value in trainer.metrics.items()}
        os.write(descriptor, (json.dumps([time.monotonic(), trainer.epoch + 1, values]) + "\n").encode())
        os.fsync(descriptor)

    network.add_callback("on_fit_epoch_end", note)
    arguments = {"epochs": 500, "imgsz": 64, "batch": 4, "workers": 0, "device": "cpu", "plots": False}
    network.train(data=data, project=folder, name="train", exist_ok=True, verbose=False, **arguments)


if __name__ == "__main__":
    main(*sys.argv[1:5])
