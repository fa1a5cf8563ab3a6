import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, SegmentationModel

from mlflow_yolo.compression.batches import training_batches
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.exceptions import CheckpointError, DatasetError

KINDS = {"detect": DetectionModel, "segment": SegmentationModel, "classify": ClassificationModel}
YAMLS = {"detect": "yolo11n.yaml", "segment": "yolo11n-seg.yaml", "classify": "yolo11n-cls.yaml"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small data of every task."""
    folder = tmp_path_factory.mktemp("digits")
    words = {"detect": "digits", "segment": "digits-seg", "classify": "digits-cls"}
    sizes = {"detect": {"n_train": 10, "n_val": 2, "n_test": 2}, "segment": {"n_train": 10, "n_val": 2, "n_test": 2}}
    paths = {task: generate(word, cache_dir=folder, **sizes.get(task, {})) for task, word in words.items()}
    return {task: load_dataset(path, task=task) for task, path in paths.items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A function that writes an untrained checkpoint for a task and class names."""

    def write(task, names):
        network = KINDS[task](YAMLS[task], nc=len(names), verbose=False)
        network.names, network.task, network.args = dict(enumerate(names)), task, {}
        path = tmp_path_factory.mktemp("checkpoint") / f"{task}.pt"
        torch.save({"model": network, "train_args": {"task": task}}, path)
        return path

    return write


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_batches_are_those_of_ultralytics_without_augmentation(task, data, checkpoint):
    dataset = data[task]
    before = {file: file.stat().st_mtime_ns for file in dataset.root.rglob("*")}
    batches = training_batches(checkpoint(task, dataset.names), dataset, imgsz=96, batch=4, n=2, seed=3)
    assert len(batches) == 2
    assert batches.n_images == 8
    found = [{key: batch[key] for key in batch} for batch in batches]
    assert {file: file.stat().st_mtime_ns for file in dataset.root.rglob("*")} == before  # no cache was written
    theirs = build_yolo_dataset(
        get_cfg(overrides={"imgsz": 96, "task": task}),
        check_det_dataset(str(dataset.yaml))["train"],
        4,
        check_det_dataset(str(dataset.yaml)),
        mode="val",
    )
    place = {label["im_file"]: i for i, label in enumerate(theirs.labels)}
    for batch in found:
        expected = theirs.collate_fn([theirs[place[file]] for file in batch["im_file"]])
        torch.testing.assert_close(batch["img"], expected["img"].float() / 255)
        for key in ("cls", "bboxes", "batch_idx", *(("masks",) if task == "segment" else ())):
            assert torch.equal(batch[key], expected[key]), key
    files = [file for batch in found for file in batch["im_file"]]
    assert len(set(files)) == 8


def test_classification_batches_have_the_classes_in_the_models_order(data, checkpoint):
    dataset = data["classify"]
    names = list(reversed(dataset.names))
    batches = training_batches(checkpoint("classify", names), dataset, imgsz=32, batch=6, n=2)
    theirs = ClassificationDataset(str(dataset.root / "train"), args=get_cfg(overrides={"imgsz": 32}))
    place = {sample[0]: i for i, sample in enumerate(theirs.samples)}
    for batch in batches:
        assert batch["img"].shape == (6, 3, 32, 32)
        for image, index, path in zip(batch["img"], batch["cls"].tolist(), batch["im_file"], strict=True):
            sample = theirs[place[path]]
            torch.testing.assert_close(image, sample["img"])
            assert names[index] == dataset.names[sample["cls"]]


def test_seed_decides_which_images(data, checkpoint):
    path = checkpoint("detect", data["detect"].names)

    def files(seed):
        batches = training_batches(path, data["detect"], imgsz=64, batch=4, n=1, seed=seed)
        return batches[0]["im_file"]

    assert files(0) == files(0)
    assert len({tuple(files(seed)) for seed in range(5)}) > 1


def test_what_does_not_fill_a_batch_is_left_out_unless_it_is_all_there_is(data, checkpoint):
    path = checkpoint("detect", data["detect"].names)
    few = training_batches(path, data["detect"], imgsz=64, batch=4, n=100)  # 10 images
    assert [len(batch["img"]) for batch in few] == [4, 4]
    one = training_batches(path, data["detect"], imgsz=64, batch=100, n=1)
    assert [len(batch["img"]) for batch in one] == [10]
    assert [len(batch["img"]) for batch in few[:1]] == [4]
    with pytest.raises(IndexError):
        few[2]


def test_batches_have_a_loss(data, checkpoint):
    for task, dataset in data.items():
        path = checkpoint(task, dataset.names)
        network = torch.load(path, weights_only=False)["model"].train()
        network.args = get_cfg()
        batch = training_batches(path, dataset, imgsz=64, batch=2, n=1)[0]
        loss = network.loss(batch)[0].sum()
        assert torch.isfinite(loss)
        assert batch["img"].dtype == torch.float32
        assert 0.5 < float(batch["img"].max()) <= 1


def test_a_model_of_another_task_or_of_other_classes_is_refused(data, checkpoint):
    dataset = data["detect"]
    with pytest.raises(CheckpointError, match="segment"):
        training_batches(checkpoint("segment", dataset.names), dataset, imgsz=64)
    swapped = [dataset.names[1], dataset.names[0], *dataset.names[2:]]
    for names in (swapped, ["other"]):
        with pytest.raises(DatasetError, match=names[0]) as error:
            training_batches(checkpoint("detect", names), dataset, imgsz=64)
        assert "\n" not in str(error.value)
    with pytest.raises(DatasetError, match="calibration"):
        training_batches(checkpoint("detect", dataset.names), dataset, imgsz=64, split="calibration")


def test_pixels_are_rgb(data, checkpoint):
    from PIL import Image

    dataset = data["classify"]
    path = dataset.splits["train"].images[0]
    batches = training_batches(checkpoint("classify", dataset.names), dataset, imgsz=32, batch=4096, n=1)
    position = batches[0]["im_file"].index(str(path))
    mean = np.asarray(Image.open(path).convert("RGB"), dtype=float).reshape(-1, 3).mean(0) / 255
    np.testing.assert_allclose(batches[0]["img"][position].mean((1, 2)).numpy(), mean, atol=0.03)
