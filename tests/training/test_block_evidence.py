"""Gradients and drift of real networks against plain PyTorch, and a planted block that alone must change."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from mlflow_yolo.blocks import Block
from mlflow_yolo.compression.batches import training_batches
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.models import checkpoint
from mlflow_yolo.training.block_evidence import Evidence, gradient_signals, measure_blocks, start_network
from mlflow_yolo.training.block_need import best_depth, block_rows


class Branches(nn.Module):
    """Three blocks in a row that add something of their own to the image; the loss is the distance to a target."""

    task = "detect"

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Conv2d(1, 1, 1) for _ in range(3)]
        for index, block in enumerate(blocks):
            block.i = index  # type: ignore[assignment]
        self.model = nn.ModuleList(blocks)

    def loss(self, batch: dict[str, Any]) -> tuple[torch.Tensor, None]:
        found = [block(batch["img"][:, i : i + 1]) for i, block in enumerate(self.model)]
        return sum((f - t).square().mean() * len(f) for f, t in zip(found, batch["targets"], strict=True)), None


def planted(change: int | None) -> list[dict[str, Any]]:
    """Return batches on which the blocks are right but for noise, except one that should give twice as much."""
    torch.manual_seed(0)
    images = [torch.randn(4, 3, 8, 8) for _ in range(8)]
    return [
        {
            "img": image,
            "targets": [
                image[:, i : i + 1] * (2.0 if i == change else 1.0) + 0.3 * torch.randn(4, 1, 8, 8) for i in range(3)
            ],
        }
        for image in images
    ]


@pytest.mark.parametrize(("change", "depth"), [(0, 0), (1, 1)])
def test_a_planted_block_that_needs_change_is_found_and_those_before_it_are_frozen(change: int, depth: int) -> None:
    network = Branches()
    with torch.no_grad():
        for block in network.model:
            block.weight.fill_(1.0)
            block.bias.zero_()
    signals = gradient_signals(network, planted(change), told=lambda _done: None)  # type: ignore[arg-type]
    blocks = [Block(0, "Conv", "backbone"), Block(1, "Conv", "backbone"), Block(2, "Conv", "head")]
    rows = block_rows(blocks, Evidence(signals, {}, 8, 32), None)

    assert max(signals, key=lambda index: signals[index].gsnr) == change
    assert signals[change].gsnr > 100 > 20 > max(s.gsnr for index, s in signals.items() if index != change)
    assert best_depth(rows) == depth


@pytest.fixture(scope="module")
def data(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return the small data under the names that the small model has: 0 and 1."""
    content = yaml.safe_load(small_data.read_text()) | {"names": ["0", "1"]}
    file = tmp_path_factory.mktemp("numbered") / "data.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_dataset(file, task="detect")


def measured(model: Path | str, data: Dataset, directory: Path, **arguments: Any) -> Evidence:
    return measure_blocks(
        str(model),
        data,
        imgsz=64,
        batch=2,
        n_batches=4,
        seed=0,
        device=torch.device("cpu"),
        directory=directory,
        arguments=arguments,
        progress=lambda _done, _total: None,
    )


@pytest.mark.slow
def test_gradients_are_those_of_the_loss_with_the_batch_norms_as_they_are(
    start: Path, data: Dataset, tmp_path: Path
) -> None:
    from ultralytics.cfg import get_cfg

    found = measured(start, data, tmp_path)

    network = checkpoint.load(str(start)).model.float().requires_grad_(True).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    network.args = get_cfg()
    batches = list(training_batches(start, data, imgsz=64, batch=2, n=4))
    sum(network.loss(batch)[0].sum() / 2 / 4 for batch in batches).backward()
    for index in (0, 5, 16, 23):
        named = [(name, p) for name, p in network.model[index].named_parameters() if "dfl" not in name]
        gradient = torch.cat([p.grad.flatten() for _, p in named if p.grad is not None]).norm()
        weights = torch.cat([p.detach().flatten() for _, p in named])
        assert found.signals[index].relative == pytest.approx(float(gradient / weights.norm()), rel=1e-4)
    assert (found.n_batches, found.n_images, found.new_head) == (4, 8, False)
    assert set(found.signals) == {block.i for block in network.model if list(block.parameters())}


@pytest.mark.slow
def test_the_gain_of_a_loss_scales_its_gradient(start: Path, data: Dataset, tmp_path: Path) -> None:
    gains = {"box": 7.5, "cls": 0.5, "dfl": 1.5}
    once, thrice = (measured(start, data, tmp_path, **{k: v * n for k, v in gains.items()}) for n in (1, 3))

    assert thrice.signals[4].relative == pytest.approx(3 * once.signals[4].relative, rel=1e-3)
    assert thrice.signals[4].gsnr == pytest.approx(once.signals[4].gsnr, rel=1e-3)


@pytest.mark.slow
def test_measuring_leaves_weights_buffers_and_modes_as_they_were(start: Path, data: Dataset) -> None:
    from ultralytics.cfg import get_cfg

    from mlflow_yolo.training.block_evidence import batch_norm_drift

    network = checkpoint.load(str(start)).model.float().requires_grad_(True)
    network.args = get_cfg()
    network.model[3].train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    batches = training_batches(start, data, imgsz=64, batch=4, n=2)
    gradient_signals(network, batches, told=lambda _done: None)
    drift = batch_norm_drift(network, batches, told=lambda _done: None)

    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert set(drift) == {
        block.i for block in network.model if any(isinstance(m, nn.BatchNorm2d) for m in block.modules())
    }


@pytest.mark.slow
def test_other_classes_get_a_new_head_on_the_same_body(start: Path, data: Dataset, tmp_path: Path) -> None:
    network = checkpoint.load(str(start)).model
    assert start_network(network, data) is network

    network.names = {0: "bright", 1: "dark"}
    other = start_network(network, replace(data, names=("dark", "grey", "white")))
    assert other.model[-1].nc == 3
    assert dict(other.names) == {0: "dark", 1: "grey", 2: "white"}
    same = [name for name, tensor in other.state_dict().items() if torch.equal(tensor, network.state_dict()[name])]
    body = [name for name in network.state_dict() if not name.startswith("model.23.")]
    assert set(body) <= set(same)
    row = other.state_dict()["model.23.cv3.0.2.weight"]  # "dark" is the second class of the old head, the first here
    assert torch.equal(row[0], network.state_dict()["model.23.cv3.0.2.weight"][1])


@pytest.mark.slow
def test_data_with_other_classes_are_measured_with_a_new_head_and_leave_no_file(
    start: Path, small_data: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(small_data.read_text()) | {"names": ["bright", "dark", "grey"]}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))

    found = measured(start, load_dataset(tmp_path / "other.yaml", task="detect"), tmp_path)
    assert found.new_head
    assert not measured(start, load_dataset(small_data, task="detect"), tmp_path).new_head  # as many, other names
    assert all(torch.isfinite(torch.tensor(signal.relative)) for signal in found.signals.values())
    assert [file.name for file in tmp_path.iterdir()] == ["other.yaml"]
