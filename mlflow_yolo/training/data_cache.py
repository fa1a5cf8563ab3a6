"""Ultralytics' label caches, written once before several trainings read them.

Two trainings that start together would both write `labels/train.cache`, and one may read the other's half: Ultralytics
writes it in place. One scan beforehand, in the driver, avoids that.
"""

import contextlib
import io
import logging
from types import SimpleNamespace

from mlflow_yolo.datasets.dataset import Dataset


def warm_label_caches(dataset: Dataset) -> None:
    """Let Ultralytics scan every split of a dataset and keep what it found; a read-only folder is left as it is."""
    from ultralytics.data.dataset import ClassificationDataset, YOLODataset
    from ultralytics.data.utils import check_cls_dataset, check_det_dataset
    from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if dataset.task == "classify":
                found = check_cls_dataset(str(dataset.yaml))
                arguments = SimpleNamespace(**{**DEFAULT_CFG_DICT, "imgsz": 64})
                for split in dataset.splits:
                    ClassificationDataset(str(found[split]), args=arguments)
            else:
                found = check_det_dataset(str(dataset.yaml))
                for split in dataset.splits:
                    YOLODataset(img_path=found[split], data=found, task=dataset.task, augment=False)
    finally:
        LOGGER.setLevel(level)
