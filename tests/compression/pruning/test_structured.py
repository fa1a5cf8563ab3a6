from types import SimpleNamespace

import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import Conv
from ultralytics.nn.modules.block import Proto

from mlflow_yolo.blocks import read_blocks
from mlflow_yolo.compression.pruning.settings import PruningSettings
from mlflow_yolo.compression.pruning.structured import kept_channels, prune, prune_network
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.checkpoint import read_model

NETWORKS = [f"yolo{version}n{task}" for version in ("v8", "11", "26") for task in ("", "-seg", "-cls")]
RATIO = 0.3


def raw(network, images):
    """The outputs before decoding by name; an end-to-end head sorts what it decodes, and ties may swap."""
    with torch.no_grad():
        return dict(walk(network(images)[1], ""))


def walk(outputs, name):
    if isinstance(outputs, dict):
        for key, part in outputs.items():
            if key != "feats":
                yield from walk(part, f"{name}.{key}")
    else:
        yield name, outputs


def kept(n):
    return round(n * (1 - RATIO))


def silence(network):
    """Let the first channels of every layer, of both halves of a split one, put out 0: as many as pruning removes."""
    for name, layer in network.named_modules():
        if isinstance(layer, Conv):
            width = layer.bn.num_features
            half = getattr(network.get_submodule(name.rpartition(".")[0]), "c", width)
            half = half if name.endswith(".cv1") else width
            rows = [start + row for start in range(0, width, half) for row in range(half - kept(half))]
            for tensor in (layer.conv.weight, layer.bn.weight, layer.bn.bias):
                tensor.data[rows] = 0
        elif isinstance(layer, Proto):
            n = layer.upsample.out_channels - kept(layer.upsample.out_channels)
            layer.upsample.weight.data[:, :n] = 0
            layer.upsample.bias.data[:n] = 0


@pytest.fixture(scope="module", params=NETWORKS)
def pruned(request, network_of, write_checkpoint, tmp_path_factory):
    """A network whose superfluous channels put out nothing, and what pruning by the batch norms' scale made of it."""
    folder = tmp_path_factory.mktemp("pruned")
    parent = network_of(request.param)
    silence(parent)
    parent = parent.half().float()
    source = write_checkpoint(parent, folder / "parent.pt")
    record = prune(source, folder / "pruned.pt", PruningSettings(RATIO, importance="bn"), imgsz=64)
    result = YOLO(folder / "pruned.pt", verbose=False)
    return SimpleNamespace(
        name=request.param, parent=parent, source=source, path=folder / "pruned.pt", record=record, result=result
    )


def test_removing_channels_that_put_out_nothing_changes_no_output(pruned, images):
    expected, found = raw(pruned.parent, images), raw(pruned.result.model.eval(), images)
    assert found.keys() == expected.keys()
    assert max(float(values.std()) for values in expected.values()) > 0
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-4 * float(values.abs().max()))


def test_every_width_is_the_share_that_was_asked_for_or_untouched(pruned):
    changed = [width for width in pruned.record.widths if width.after != width.before]
    assert len(changed) > 0.7 * len(pruned.record.widths)
    halved = {f"model.{i}.cv1" for i, block in enumerate(pruned.parent.model) if hasattr(block, "c")}
    for width in changed:
        expected = 2 * kept(width.before // 2) if width.layer in halved else kept(width.before)
        assert width.after == expected, width.layer
    untouched = {width.block for width in pruned.record.widths} - {width.block for width in changed}
    assert untouched == set()


def test_record_agrees_with_the_files(pruned):
    record = pruned.record
    before, after = pruned.parent, YOLO(pruned.path, verbose=False).model
    assert record.parameters_before == sum(parameter.numel() for parameter in before.parameters())
    assert record.parameters_after == sum(parameter.numel() for parameter in after.parameters())
    assert record.size_mb_before == pruned.source.stat().st_size / 1e6
    assert record.size_mb_after == pruned.path.stat().st_size / 1e6
    assert record.macs_ratio < 0.62
    gone, there = sum(w.before - w.after for w in record.widths), sum(w.before for w in record.widths)
    assert record.ratio_reached == pytest.approx(gone / there)
    assert 0.15 < record.ratio_reached < 0.3


def test_result_is_a_stock_checkpoint(pruned):
    model = read_model(str(pruned.path))  # scans it: no class but PyTorch's and Ultralytics'
    assert model.task == pruned.result.task
    assert model.blocks == read_blocks(pruned.parent.yaml)
    assert [type(block) for block in pruned.result.model.model] == [type(block) for block in pruned.parent.model]
    assert pruned.result.names == pruned.parent.names
    assert pruned.result.ckpt["train_args"]["box"] == 7.0
    assert not hasattr(torch.load(pruned.path, weights_only=False)["model"], "pt_path")


def test_result_has_a_loss_whose_gradient_reaches_every_layer(pruned, batches):
    network = YOLO(pruned.path, verbose=False).model.train().requires_grad_(True)
    network.args = get_cfg()
    batch = batches[0] if "cls" not in pruned.name else {"img": batches[0]["img"], "cls": torch.tensor([0, 2])}
    network.loss(batch)[0].sum().backward()
    still = [name for name, parameter in network.named_parameters() if parameter.grad is None and ".dfl" not in name]
    assert still == []


def test_nothing_else_lies_beside_the_result(pruned):
    assert sorted(file.name for file in pruned.path.parent.iterdir()) == ["parent.pt", "pruned.pt"]


def test_parts_have_ratios_of_their_own(network_of):
    network = network_of("yolo11n")
    prune_network(network, PruningSettings(0.5, parts={"head": 0, "backbone": 0.25}))
    stock = network_of("yolo11n")
    width = {name: conv.out_channels for name, conv in network.named_modules() if isinstance(conv, torch.nn.Conv2d)}
    before = {name: conv.out_channels for name, conv in stock.named_modules() if isinstance(conv, torch.nn.Conv2d)}
    assert width["model.0.conv"] == 0.75 * before["model.0.conv"]
    assert width["model.13.cv2.conv"] == 0.5 * before["model.13.cv2.conv"]
    assert width["model.23.cv2.0.0.conv"] == before["model.23.cv2.0.0.conv"]
    assert (
        width["model.23.cv3.0.0.0.conv"] == 0.5 * before["model.23.cv3.0.0.0.conv"]
    )  # it belongs to the neck's output


def test_widths_are_multiples_of_round_to(network_of, images):
    network, stock = network_of("yolov8n"), network_of("yolov8n")
    prune_network(network, PruningSettings(0.4, round_to=8))
    for (name, layer), before in zip(network.named_modules(), stock.modules(), strict=True):
        if isinstance(layer, Conv) and layer.conv.out_channels != before.conv.out_channels:
            assert layer.conv.out_channels % 8 == 0, name
    assert raw(network, images).keys() == raw(stock, images).keys()


@pytest.mark.parametrize(
    ("n", "ratio", "round_to", "expected"),
    [
        (64, 0.3, 1, 45),  # 44.8
        (64, 0.3, 8, 48),  # 44.8 lies nearer to 48 than to 40
        (64, 0.4, 8, 40),  # 38.4
        (16, 0.9, 8, 8),  # 1.6 would be no multiple at all
        (4, 0.3, 8, 4),  # narrower than a multiple
        (12, 0.1, 8, 8),  # 10.8, and 16 would be more than there are
        (12, 0.0, 8, 12),
    ],
)
def test_channels_that_stay(n, ratio, round_to, expected):
    assert kept_channels(n, ratio, PruningSettings(0.5, round_to=round_to)) == expected


def test_several_steps_end_at_the_widths_of_one(network_of):
    told = []
    once, often = network_of("yolo26n-cls"), network_of("yolo26n-cls")
    prune_network(once, PruningSettings(0.5))
    prune_network(often, PruningSettings(0.5, steps=3), progress=lambda done, total: told.append((done, total)))
    assert [p.shape for p in once.parameters()] == [p.shape for p in often.parameters()]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_pruning_twice_gives_the_same_network(network_of, batches):
    first, second = network_of("yolov8n"), network_of("yolov8n")
    for network in (first, second):
        prune_network(network, PruningSettings(0.3, importance="taylor"), batches=lambda: batches)
    state = second.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ratio": 0.99}, "ratio=0.99 leaves nothing of model.0, which has 8 channels"),
        ({"ratio": 0.3, "parts": {"neck": 0.2}}, "neck"),
        ({"ratio": 0.3, "parts": {"backbone": 0, "head": 0}}, "nothing would be pruned"),
        ({"ratio": 0.3, "importance": "taylor"}, "taylor"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_one_line_and_write_nothing(
    settings, named, network_of, write_checkpoint, tmp_path
):
    source = write_checkpoint(network_of("yolo11n-cls"), tmp_path / "parent.pt")
    with pytest.raises(ArgumentError, match=named) as error:
        prune(source, tmp_path / "pruned.pt", PruningSettings(**settings), imgsz=64)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["parent.pt"]


@pytest.mark.parametrize(
    "settings",
    [
        {"ratio": 0},
        {"ratio": 1},
        {"ratio": -0.1},
        {"ratio": float("nan")},
        {"ratio": 0.3, "parts": {"tail": 0.2}},
        {"ratio": 0.3, "parts": {"neck": 1.0}},
        {"ratio": 0.3, "importance": "l3"},
        {"ratio": 0.3, "round_to": 0},
        {"ratio": 0.3, "steps": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ArgumentError) as error:
        PruningSettings(**settings)
    assert "\n" not in str(error.value)


def test_rounds_multiply_to_the_ratio_that_was_asked_for():
    one = PruningSettings(0.36, parts={"neck": 0.19, "head": 0}).rounds(2)
    assert one.ratio == pytest.approx(0.2)  # 0.8 x 0.8 = 0.64
    assert one.parts == {"neck": pytest.approx(0.1), "head": 0}


def test_what_is_no_model_to_prune_is_refused(network_of, write_checkpoint, tmp_path):
    settings, target = PruningSettings(0.3), tmp_path / "pruned.pt"
    text = tmp_path / "text.pt"
    text.write_text("no checkpoint")
    pose = tmp_path / "pose.pt"
    torch.save({"model": YOLO("yolo11n-pose.yaml").model, "train_args": {}}, pose)
    other = tmp_path / "other.pt"
    torch.save({"model": YOLO("yolo12n-cls.yaml").model, "train_args": {}}, other)
    fused = write_checkpoint(network_of("yolov8n-cls").fuse(verbose=False), tmp_path / "fused.pt")
    for source, named in (
        (tmp_path / "none.pt", "does not exist"),
        (text, "text.pt"),
        (pose, "pose"),
        (other, "A2C2f"),
        (fused, "fused"),
    ):
        with pytest.raises(CheckpointError, match=named) as error:
            prune(source, target, settings, imgsz=64)
        assert "\n" not in str(error.value)
    assert not target.exists()
