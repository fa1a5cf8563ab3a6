"""What can be looked into, and that it is left as it was found."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO

from mlflow_yolo import checkpoints
from mlflow_yolo.attribution.targets import ClassLogit
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.explanation.network import open_model, predicting_with


@pytest.fixture(scope="module")
def digits() -> YOLO:
    return YOLO(str(checkpoints.path()))


@pytest.mark.parametrize("form", ["word", "text", "path", "object", "network"])
def test_every_form_of_a_checkpoint_is_the_same_model(digits: YOLO, form: str) -> None:
    path = checkpoints.path()
    given = {"word": "digits", "text": str(path), "path": path, "object": digits, "network": digits.model}[form]
    model = open_model(given, device="cpu" if form in ("word", "text", "path") else "auto")

    assert (model.task, model.imgsz, model.stride, model.channels) == ("detect", 128, 32, 3)
    assert model.names == tuple("0123456789")
    assert model.layers.by_level == (4, 6, 8)
    assert not model.end_to_end
    assert (model.network is digits.model) == (form in ("object", "network"))


@pytest.mark.parametrize(
    ("name", "task", "imgsz"),
    [("yolo11n-cls.yaml", "classify", 640), ("yolo11n-obb.yaml", "obb", 640), ("yolo26n-seg.yaml", "segment", 640)],
)
def test_every_task_is_told_from_an_object_and_from_its_bare_network(name: str, task: str, imgsz: int) -> None:
    model = YOLO(name)
    assert open_model(model).task == task
    bare = model.model
    for attribute in ("task", "args"):
        if attribute in vars(bare):
            delattr(bare, attribute)
    found = open_model(bare)
    assert found.task == task
    assert found.imgsz == (224 if task == "classify" else imgsz)


def _state(network: nn.Module) -> dict[str, Any]:
    """Return all that explaining could change: modes, gradients, hooks, attributes of the head and every tensor."""
    head: Any = network.model[-1]  # type: ignore[index]
    return {
        "modes": [module.training for module in network.modules()],
        "learns": [parameter.requires_grad for parameter in network.parameters()],
        "gradients": [
            parameter.grad if parameter.grad is None else parameter.grad.clone() for parameter in network.parameters()
        ],
        "hooks": [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in network.modules()],
        "head": {name: value for name, value in vars(head).items() if not name.startswith("_") or name == "_end2end"},
        "tensors": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "random": torch.random.get_rng_state(),
        "grad_mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def assert_untouched(network: nn.Module, before: dict[str, Any]) -> None:
    after = _state(network)
    for name in ("modes", "learns", "hooks", "grad_mode"):
        assert after[name] == before[name], name
    assert torch.equal(after["random"], before["random"])
    assert after["head"].keys() == before["head"].keys()
    for name, value in before["head"].items():
        same = after["head"][name]
        assert same is value or (torch.equal(same, value) if isinstance(value, torch.Tensor) else same == value), name
    for first, second in zip(before["gradients"], after["gradients"], strict=True):
        assert (first is None) == (second is None)
        assert first is None or torch.equal(first, second)
    for name, tensor in before["tensors"].items():
        assert torch.equal(tensor, after["tensors"][name]), name


@pytest.fixture(params=["fresh", "training", "validated", "frozen"])
def live(request: pytest.FixtureRequest, digits: YOLO) -> nn.Module:
    """Return a network in one of the states that a user or a training can leave it in."""
    network = deepcopy(digits.model).train()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    if request.param == "training":
        network(torch.rand(2, 3, 64, 64))["scores"].sum().backward()
    if request.param == "validated":
        with torch.inference_mode():
            network.eval()(torch.rand(1, 3, 64, 64))
    if request.param == "frozen":
        for parameter in network.model[:5].parameters():
            parameter.requires_grad_(False)
        network.model[3].eval()
    return network


def test_opening_leaves_a_live_network_as_it_was(live: nn.Module) -> None:
    before = _state(live)
    with predicting_with(open_model(live), "auto"):
        pass
    assert_untouched(live, before)


def test_explaining_leaves_a_live_network_as_it_was(live: nn.Module) -> None:
    from mlflow_yolo import explain

    picture = (torch.rand(64, 96, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    before = _state(live)
    for inference in (False, True):
        with torch.inference_mode(inference):
            assert explain(live, picture, target="classes", classes=[3], imgsz=96)
            explain(live, picture, target="boxes", conf=0.01, imgsz=96, max_det=2)
    assert_untouched(live, before)


def test_a_training_goes_on_bit_by_bit_as_without_maps(digits: YOLO) -> None:
    from mlflow_yolo import explain

    picture = (torch.rand(64, 96, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    ends = []
    for explained in (False, True):
        torch.manual_seed(1)
        network = deepcopy(digits.model).train()
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        for _ in range(2):
            network(torch.rand(2, 3, 64, 64))["scores"].square().mean().backward()
            if explained:
                explain(network, picture, target="classes", classes=[1], imgsz=64)
            optimizer.step()
            optimizer.zero_grad()
        ends.append(network.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_an_error_while_explaining_leaves_the_network_too(live: nn.Module) -> None:
    from mlflow_yolo import explain

    before = _state(live)
    with pytest.raises(ArgumentError, match=r"block=22 has no influence.*Use block=4"):
        explain(live, torch.zeros(64, 64, 3).byte().numpy(), target=[[ClassLogit(0, 0)]], block=22)
    assert_untouched(live, before)


def test_the_branch_is_chosen_for_as_long_as_it_is_needed() -> None:
    model = YOLO("yolo26n.yaml")
    before = dict(vars(model.model.model[-1]))
    opened = open_model(model)
    with predicting_with(opened, "one2one") as single:
        assert single.end_to_end
        assert model.model.end2end
    assert not model.model.end2end
    assert vars(model.model.model[-1]).keys() == before.keys()
    with predicting_with(opened, "one2many") as many:
        assert many is opened


@pytest.mark.parametrize(("branch", "message"), [("one2one", "branch=one2one"), ("both", "branch=both")])
def test_a_branch_that_is_not_there_is_named(digits: YOLO, branch: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message), predicting_with(open_model(digits), branch):
        pass


def test_a_class_is_found_by_id_and_by_name() -> None:
    model = open_model("digits", device="cpu")
    assert (model.class_id(7), model.class_id("7")) == (7, 7)
    for unknown in (10, -1, "seven"):
        with pytest.raises(ArgumentError, match=f"class {unknown} does not exist.*0 to 9"):
            model.class_id(unknown)


@pytest.mark.parametrize("name", ["best.onnx", "best.engine", "best.torchscript", "best_openvino_model/"])
def test_an_exported_model_is_refused_in_one_line_that_names_the_checkpoint(tmp_path: Path, name: str) -> None:
    export = tmp_path / name
    export.mkdir() if name.endswith("/") else export.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is exported: it has no gradients.*Use the \.pt"):
        open_model(export)
    (tmp_path / "best.pt").touch()
    with pytest.raises(CheckpointError, match=rf"Use {tmp_path / 'best.pt'}\.$") as caught:
        open_model(str(export))
    assert "\n" not in str(caught.value)


def test_an_object_of_an_exported_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"best\.onnx is exported"):
        open_model(YOLO(tmp_path / "best.onnx", task="detect"))


def test_a_loaded_model_is_not_moved(digits: YOLO) -> None:
    assert open_model(digits, device="cpu").device == torch.device("cpu")
    with pytest.raises(ArgumentError, match="device=cuda:7"):
        open_model(digits, device="cuda:7")


@pytest.mark.parametrize("given", [None, 3, nn.Linear(2, 2)])
def test_what_is_no_model_is_named(given: Any) -> None:
    with pytest.raises((ArgumentError, CheckpointError), match=r"NoneType|int|Linear"):
        open_model(given)
