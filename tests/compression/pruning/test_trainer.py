import json
import subprocess
import sys
from types import SimpleNamespace

import onnx
import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer

from mlflow_yolo.compression.pruning.settings import PruningSettings
from mlflow_yolo.compression.pruning.size import count_parameters
from mlflow_yolo.compression.pruning.sparse import sparsify, sparsity
from mlflow_yolo.compression.pruning.structured import prune, prune_network
from mlflow_yolo.compression.pruning.trainer import is_pruned, keeping_modules, keeping_zeros
from mlflow_yolo.exceptions import ArgumentError, DatasetError, WorkError

STOCK = """
import json
import sys
sys.modules["mlflow_yolo"] = None  # importing it, or unpickling a class of it, fails
import torch
from ultralytics import YOLO

path, data = sys.argv[1:]
network = YOLO(path).model
print("parameters", sum(p.numel() for p in network.parameters()))
shapes = {name: list(p.shape) for name, p in network.fuse(verbose=False).named_parameters() if p.ndim == 4}
print("shapes", json.dumps(shapes))
score = YOLO(path).val(data=data, imgsz=64, workers=0, plots=False, verbose=False, project="val").box.map
print("map", score)
print("onnx", YOLO(path).export(format="onnx", imgsz=64, verbose=False))
"""


def trainer_on(names, dropout=0.0):
    """What `get_model` reads of a trainer."""
    return SimpleNamespace(data={"names": dict(enumerate(names)), "channels": 3}, args=SimpleNamespace(dropout=dropout))


@pytest.fixture
def parent(small_model, write_checkpoint, tmp_path):
    """A checkpoint of the small model for two classes, untrained."""
    network = YOLO(small_model).model
    network.names = {0: "bright", 1: "dark"}
    network.args = {}
    return write_checkpoint(network, tmp_path / "parent.pt")


@pytest.mark.parametrize(
    ("name", "base"),
    [("yolo26n", DetectionTrainer), ("yolo11n-cls", ClassificationTrainer)],
    ids=["detect", "classify"],
)
def test_the_loaded_network_itself_is_trained(name, base, network_of):
    network = network_of(name).half()
    prune_network(network.float(), PruningSettings(0.3))
    network.requires_grad_(False)
    trainer = trainer_on(network.names.values(), dropout=0.2)
    kept = keeping_modules(base).get_model(trainer, cfg=network.yaml, weights=network)
    assert kept is not network
    assert trainer.n_parameters == count_parameters(network) == count_parameters(kept)
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in kept.parameters())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    state = network.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in kept.state_dict().items())
    dropouts = [module.p for module in kept.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts == ([0.2] if name.endswith("cls") else [])


def test_a_model_without_weights_is_refused():
    with pytest.raises(ArgumentError, match="pretrained=False"):
        keeping_modules(DetectionTrainer).get_model(trainer_on(["a"]), cfg="yolo11n.yaml", weights=None)


@pytest.mark.parametrize("names", [["class0"], ["class0", "class2", "class1"], ["a", "b", "c"]])
def test_data_of_other_classes_is_refused(names, network_of):
    with pytest.raises(DatasetError, match=names[0]) as error:
        keeping_modules(DetectionTrainer).get_model(trainer_on(names), weights=network_of("yolov8n"))
    assert "\n" not in str(error.value)


def test_pruned_networks_are_recognised(network_of):
    network = network_of("yolo11n")
    assert not is_pruned(network)
    prune_network(network, PruningSettings(0.3))
    assert is_pruned(network)


@pytest.mark.slow
def test_pruned_checkpoint_keeps_its_parameters_through_training_resuming_and_export_without_this_package(
    parent, small_data, small_arguments, tmp_path
):
    record = prune(parent, tmp_path / "pruned.pt", PruningSettings(0.3), imgsz=64)
    assert record.parameters_after < 0.7 * record.parameters_before
    arguments = {**small_arguments, "project": str(tmp_path), "name": "tune"}
    kind = keeping_modules(DetectionTrainer)
    model = YOLO(tmp_path / "pruned.pt")

    def stop(trainer):
        raise KeyboardInterrupt

    model.add_callback("on_model_save", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(trainer=kind, **arguments)
    last = tmp_path / "tune" / "weights" / "last.pt"
    resumed = YOLO(last)
    resumed.train(trainer=kind, resume=True)
    assert resumed.trainer.epoch == 1
    assert isinstance(resumed.trainer, kind)
    best = last.with_name("best.pt")
    script = tmp_path / "stock.py"
    script.write_text(STOCK)
    words = [sys.executable, "-I", str(script), str(best), str(small_data)]
    environment = {"YOLO_OFFLINE": "1", "ULTRALYTICS_SAFE_LOAD": "1", "YOLO_CONFIG_DIR": str(tmp_path), "PATH": ""}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.split()[0:1] != [])
    assert int(found["parameters"]) == record.parameters_after
    assert float(found["map"]) >= 0
    weights = {one.name: list(one.dims) for one in onnx.load(found["onnx"]).graph.initializer}
    expected = json.loads(found["shapes"])  # exporting shares biases that are equal, so weights only
    assert len(expected) > 60
    assert {name: weights.get(name) for name in expected} == expected


@pytest.mark.slow
def test_ultralytics_own_trainer_gives_the_removed_channels_back(parent, small_arguments, tmp_path):
    """Why the documents say: train with `keeping_modules`."""
    record = prune(parent, tmp_path / "pruned.pt", PruningSettings(0.3), imgsz=64)
    model = YOLO(tmp_path / "pruned.pt")
    model.train(**{**small_arguments, "epochs": 1, "project": str(tmp_path), "name": "stock"})
    assert count_parameters(model.model) == record.parameters_before


@pytest.mark.slow
def test_a_network_that_was_rebuilt_during_training_is_an_error(parent, small_arguments, tmp_path):
    kind = keeping_modules(DetectionTrainer)
    model = YOLO(parent)
    model.add_callback("on_train_start", lambda trainer: setattr(trainer, "n_parameters", 1))
    with pytest.raises(WorkError, match="rebuilt"):
        model.train(trainer=kind, **{**small_arguments, "epochs": 1, "project": str(tmp_path), "name": "other"})


@pytest.mark.slow
def test_zeros_stay_zeros_only_with_the_trainer_that_keeps_them(parent, small_arguments, tmp_path):
    record = sparsify(parent, tmp_path / "sparse.pt", 0.5, imgsz=64)
    found = {}
    for name, kind in {"kept": keeping_zeros(DetectionTrainer), "plain": DetectionTrainer}.items():
        model = YOLO(tmp_path / "sparse.pt")
        before = model.model.model[4].cv1.conv.weight.clone()
        model.train(trainer=kind, **{**small_arguments, "epochs": 1, "project": str(tmp_path), "name": name})
        found[name] = sparsity(model.model)
        assert not torch.equal(model.model.model[4].cv1.conv.weight.float(), before.float())  # it did learn
    assert found["kept"] >= record.ratio_reached - 1e-4
    assert found["plain"] < 0.4
