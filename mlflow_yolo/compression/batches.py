"""Training batches as Ultralytics' trainer gives them to the loss, without augmentation and without touching the data.

Ultralytics scans a whole split and writes what it found into the folder of the labels. Here only the chosen images are
read, and nothing is written.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from PIL import Image
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import classify_transforms
from ultralytics.data.dataset import ClassificationDataset, YOLODataset
from ultralytics.data.utils import verify_image_label

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.exceptions import CheckpointError, DatasetError
from mlflow_yolo.models import checkpoint as models

Batch = dict[str, Any]


class TrainingBatches(Sequence[Batch]):
    """Batches that are read afresh at every access, so that only one is in memory.

    Each is what a trainer passes to `model.loss`: `img` (B, C, H, W) float in [0, 1], `cls`, and for detection
    `batch_idx`, `bboxes` (xywh, relative to the input) and maybe `masks`; `im_file` names the images.
    """

    def __init__(self, images: "YOLODataset | _LabelledImages", batch: int) -> None:
        """Divide images into batches of one size; what is left over is dropped unless there is nothing else."""
        self._images, self._batch = images, min(batch, len(images))

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._images) // self._batch

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        """Return a batch, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = range(len(self))[index] * self._batch
        batch: Batch = self._images.collate_fn([self._images[i] for i in range(start, start + self._batch)])
        image = batch["img"]
        return {**batch, "img": image.float() / 255 if image.dtype == torch.uint8 else image}

    @property
    def n_images(self) -> int:
        """Number of images in all batches together."""
        return len(self) * self._batch


def training_batches(
    checkpoint: Path | str,
    dataset: Dataset,
    *,
    imgsz: int,
    batch: int = 16,
    n: int = 8,
    seed: int = 0,
    split: str = "train",
) -> TrainingBatches:
    """Return batches of images drawn at random from a split, letterboxed to imgsz x imgsz, without augmentation.

    Args:
        checkpoint: The model they are for, a scanned .pt: its task, its class order, its channels.
        dataset: The data.
        imgsz: Input size, pixels.
        batch: Images a batch; a split with fewer gives one smaller batch.
        n: Number of batches; fewer where the split has not enough images.
        seed: Decides which.
        split: Which split; calibration and gradients belong on `train`.

    Raises:
        CheckpointError: The model cannot be loaded, or is made for another task than the data.
        DatasetError: The split is empty, or its classes are not the model's.
    """
    loaded = models.load(str(checkpoint))
    if loaded.task != dataset.task:
        raise CheckpointError(f"model={checkpoint} is made for {loaded.task}, the data for {dataset.task}.")
    names = list(loaded.model.names.values())
    if sorted(names) != sorted(dataset.names) or (dataset.task != "classify" and names != list(dataset.names)):
        raise DatasetError(
            f"the data's classes ({', '.join(dataset.names[:5])}) are not the model's ({', '.join(names[:5])}). "
            f"Use the data the model was trained on."
        )
    if split not in dataset.splits or not dataset.splits[split].images:
        raise DatasetError(f"the split {split} of {dataset.name} has no images. Use a data set with one.")
    found = dataset.splits[split].images
    chosen = sorted(random.Random(seed).sample(found, min(n * batch, len(found))))
    random.Random(seed + 1).shuffle(chosen)  # sorted by class or by scene, one batch would see one kind only
    if dataset.task == "classify":
        return TrainingBatches(_LabelledImages(chosen, names, imgsz), batch)
    data = {"names": dict(enumerate(names)), "channels": _channels(loaded.model), **_keypoints(dataset)}
    images = _ChosenImages([str(path) for path in chosen], data=data, task=dataset.task, imgsz=imgsz, augment=False)
    return TrainingBatches(images, batch)


class _ChosenImages(YOLODataset):  # type: ignore[misc]
    """Ultralytics' dataset over a list of images: no folder is searched, no cache is read or written."""

    def __init__(self, images: list[str], *, imgsz: int, **arguments: Any) -> None:
        super().__init__(images, imgsz=imgsz, hyp=get_cfg(overrides={"imgsz": imgsz}), **arguments)

    im_files: list[str]

    def get_img_files(self, img_path: Any) -> list[str]:
        """Return the chosen images."""
        return list(img_path)

    def get_labels(self) -> list[dict[str, Any]]:
        """Return the labels of those that are sound, as Ultralytics checks them."""
        self.get_label_files()
        _, each = self.verify_args()
        labels = [label for label, *_ in (self.result_to_label(verify_image_label(one)) for one in each) if label]
        if not labels:
            raise DatasetError(f"none of {len(self.im_files)} images can be read, {self.im_files[0]} among them.")
        self.im_files = [label["im_file"] for label in labels]
        self.verify_labels(labels, Path("labels"))
        return labels


class _LabelledImages:
    """Images of a classification folder with the class of each, prepared as validation prepares them."""

    def __init__(self, images: Sequence[Path], names: Sequence[str], imgsz: int) -> None:
        self._images, self._names = images, names
        self._prepare = classify_transforms(size=imgsz)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        path = self._images[index]
        pixels = ClassificationDataset.imread(str(path))
        image = self._prepare(Image.fromarray(pixels[..., ::-1]))
        return {"img": image, "cls": self._names.index(path.parent.name), "im_file": str(path)}

    @staticmethod
    def collate_fn(samples: Sequence[Mapping[str, Any]]) -> Batch:
        """Return samples as one batch."""
        images: list[Tensor] = [sample["img"] for sample in samples]
        return {
            "img": torch.stack(images),
            "cls": torch.tensor([sample["cls"] for sample in samples]),
            "im_file": [sample["im_file"] for sample in samples],
        }


def _channels(network: nn.Module) -> int:
    return int(next(parameter.shape[1] for parameter in network.parameters() if parameter.ndim == 4))


def _keypoints(dataset: Dataset) -> Mapping[str, Any]:
    shape = getattr(dataset.description, "kpt_shape", None)
    return {"kpt_shape": shape} if shape else {}
