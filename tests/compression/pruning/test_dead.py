import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.modules import Conv
from ultralytics.nn.modules.block import Attention

from mlflow_yolo.compression.pruning.dead import dead_channels, prune_dead, remove_dead
from mlflow_yolo.compression.pruning.outputs import output_change, raw_outputs
from mlflow_yolo.compression.pruning.size import layer_widths
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.statistics.activations import ActivationProbe
from mlflow_yolo.statistics.channels import ChannelHealth

STUCK = -1.2784645  # where SiLU is lowest, -0.2784645, and flat


def stick(network, layer, channels, at=STUCK):
    """Let channels of a convolution have the same pre-activation whatever comes in."""
    norm = network.get_submodule(layer).bn
    norm.weight.data[channels] = 0
    norm.bias.data[channels] = at


def mask(network, layer, channels):
    dead = np.zeros(layer_widths(network)[layer], dtype=bool)
    dead[channels] = True
    return {layer: dead}


def distance(first, second, images):
    with torch.no_grad():
        ours, theirs = raw_outputs(first, images), raw_outputs(second, images)
    return max(float((values - theirs[name]).abs().max()) for name, values in ours.items())


def health_of(rows, n_images=300):
    block, layer, channel, openness, status = zip(*rows, strict=True)
    unknown = np.full(len(rows), np.nan)
    return ChannelHealth(
        block=np.array(block),
        layer=np.array(layer, dtype=object),
        activation=np.array(["SiLU"] * len(rows), dtype=object),
        channel=np.array(channel),
        openness=np.array(openness),
        spread=unknown,
        off_fraction=unknown,
        bn_openness=unknown,
        bn_off_fraction=unknown,
        status=np.array(status, dtype=object),
        n_images=n_images,
    )


def test_a_channel_stuck_away_from_zero_is_replaced_by_what_it_put_out(network_of, images, batches):
    network = network_of("yolov8n")
    stick(network, "model.1", [2, 5])
    parent, width = network_of("yolov8n"), layer_widths(network)["model.1"]
    stick(parent, "model.1", [2, 5])
    remove_dead(network, mask(network, "model.1", [2, 5]), batches)
    assert layer_widths(network)["model.1"] == width - 2
    assert distance(network, parent, images) < 1e-4  # model.2.cv1 reads it pixel by pixel: there is no border
    assert output_change(network, parent, batches).score < 1e-4


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n-seg", "yolov8n-cls"])
def test_removing_every_third_channel_that_is_always_zero_changes_no_output(name, network_of, images, batches):
    network, parent, dead = network_of(name), network_of(name), {}
    attention = tuple(layer for layer, module in network.named_modules() if isinstance(module, Attention))
    for layer, conv in network.named_modules():
        if isinstance(conv, Conv) and not layer.startswith(attention or "-"):
            channels = list(range(0, conv.bn.num_features, 3))
            stick(network, layer, channels, at=0.0)
            stick(parent, layer, channels, at=0.0)
            dead |= mask(network, layer, channels)
    before = layer_widths(network)
    remove_dead(network, dead, batches)
    after = layer_widths(network)
    assert after["model.0"] == before["model.0"] - len(range(0, before["model.0"], 3))
    assert sum(after.values()) < 0.85 * sum(before.values())
    with torch.no_grad():
        scale = max(float(values.abs().max()) for values in raw_outputs(parent, images).values())
    assert distance(network, parent, images) < 1e-4 * scale


def test_a_sum_loses_a_channel_only_when_it_is_dead_in_every_summand(network_of, batches):
    network = network_of("yolov8n")
    c = network.model[2].c
    dead = mask(network, "model.2.cv1", [c, c + 1, 0]) | mask(network, "model.2.m.0.cv2", [0])
    remove_dead(network, dead, batches)
    # of cv1's second half channel 0 is dead in the bottleneck's output too, channel 1 is not
    assert layer_widths(network)["model.2.m.0.cv2"] == c - 1
    assert network.model[2].c == c - 1


def test_both_halves_lose_as_many_as_the_one_with_fewer(network_of, batches):
    network = network_of("yolov8n-cls")
    c = network.model[2].c
    dead = mask(network, "model.2.cv1", [0, 1, 2, c]) | mask(network, "model.2.m.0.cv2", [0])
    remove_dead(network, dead, batches)
    assert layer_widths(network)["model.2.cv1"] == 2 * (c - 1)


def test_a_layer_that_is_dead_as_a_whole_keeps_a_channel(network_of, batches):
    network = network_of("yolov8n-cls")
    remove_dead(network, mask(network, "model.0", slice(None)), batches)
    assert layer_widths(network)["model.0"] == 1


def test_the_record_holds_the_proof(network_of, write_checkpoint, batches, tmp_path):
    network = network_of("yolo11n-cls")
    stick(network, "model.1", [1], at=STUCK)
    source = write_checkpoint(network, tmp_path / "parent.pt")
    dead = mask(network, "model.1", [1])
    record = prune_dead(source, tmp_path / "pruned.pt", dead, imgsz=64, batches=lambda: batches, tolerance=1e-3)
    assert (record.method, record.ratio, record.n_images) == ("dead-channels", None, 4)
    assert 0 <= record.score_change < 1e-3
    assert record.output_change >= 0
    widths = {width.layer: (width.before, width.after) for width in record.widths if width.before != width.after}
    assert widths == {"model.1": (16, 15)}
    result = YOLO(tmp_path / "pruned.pt", verbose=False).model
    assert sum(parameter.numel() for parameter in result.parameters()) == record.parameters_after


def test_living_channels_are_found_out_and_nothing_is_written(network_of, write_checkpoint, batches, tmp_path):
    source = write_checkpoint(network_of("yolo11n-cls"), tmp_path / "parent.pt")
    dead = mask(network_of("yolo11n-cls"), "model.1", list(range(12)))
    with pytest.raises(WorkError, match="tolerance=1e-09") as error:
        prune_dead(source, tmp_path / "pruned.pt", dead, imgsz=64, batches=lambda: batches, tolerance=1e-9)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["parent.pt"]


def test_without_dead_channels_nothing_changes(network_of, write_checkpoint, batches, tmp_path):
    source = write_checkpoint(network_of("yolo11n-cls"), tmp_path / "parent.pt")
    record = prune_dead(source, tmp_path / "pruned.pt", {}, imgsz=64, batches=lambda: batches)
    assert record.ratio_reached == 0
    assert (record.output_change, record.score_change) == (0, 0)


@pytest.mark.parametrize(("layer", "n"), [("model.77", 16), ("model.1", 15)])
def test_masks_that_do_not_fit_the_model_are_refused(layer, n, network_of, batches):
    with pytest.raises(ArgumentError, match=layer) as error:
        remove_dead(network_of("yolov8n-cls"), {layer: [True] * n}, batches)
    assert "\n" not in str(error.value)


def test_dead_channels_of_a_health_table():
    rows = [
        (0, "model.0", 1, 0.005, "dead"),
        (0, "model.0", 0, 0.5, "alive"),
        (2, "model.2.cv1", 0, 0.03, "near-dead"),
        (2, "model.2.cv1", 1, 0.6, "dead"),
    ]
    found = dead_channels(health_of(rows))
    assert {layer: dead.tolist() for layer, dead in found.items()} == {
        "model.0": [False, True],
        "model.2.cv1": [False, True],
    }
    wider = dead_channels(health_of(rows), openness=0.05)
    assert wider["model.2.cv1"].tolist() == [True, True]
    with pytest.raises(ArgumentError, match="openness=2"):
        dead_channels(health_of(rows), openness=2)


def test_what_the_statistics_call_dead_can_be_removed(network_of, images, batches):
    network, parent = network_of("yolo11n"), network_of("yolo11n")
    for one in (network, parent):
        stick(one, "model.1", [3], at=-30.0)
        stick(one, "model.23.cv2.0.0", [4, 6], at=-30.0)
    with ActivationProbe(list(enumerate(parent.model))) as collector, torch.no_grad():
        parent(images)
    dead = dead_channels(collector.result().channels)
    assert dead["model.1"].nonzero()[0].tolist() == [3]
    before = layer_widths(network)
    remove_dead(network, dead, batches)
    after = layer_widths(network)
    assert before["model.1"] - after["model.1"] == 1
    assert before["model.23.cv2.0.0"] - after["model.23.cv2.0.0"] == 2
    assert output_change(network, parent, batches).score < 1e-4
