import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO

from mlflow_yolo.compression.pruning.sparse import clear_smallest, sparsify, sparsity
from mlflow_yolo.exceptions import ArgumentError


def weights_of(network):
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = [layer for name, layer in network.named_modules() if isinstance(layer, kinds) and "dfl" not in name]
    return np.concatenate([layer.weight.detach().flatten().numpy() for layer in layers])


def test_the_smallest_weights_of_the_whole_network_become_zero(network_of):
    network = network_of("yolov8n-seg")
    before = weights_of(network)
    clear_smallest(network, 0.4)
    after, n = weights_of(network), round(0.4 * len(before))
    smallest = np.argsort(np.abs(before), kind="stable")[:n]
    expected = before.copy()
    expected[smallest] = 0
    np.testing.assert_array_equal(after, expected)
    assert sparsity(network) == pytest.approx(0.4, abs=1e-5)


def test_everything_but_weights_stays(network_of):
    network, parent = network_of("yolo11n"), network_of("yolo11n")
    clear_smallest(network, 0.9)
    state = parent.state_dict()
    kept = [name for name in state if not name.endswith("weight") or ".bn." in name or ".dfl." in name]
    assert all(torch.equal(network.state_dict()[name], state[name]) for name in kept)
    assert network.state_dict().keys() == state.keys()  # no masks, no copies of weights


def test_result_is_a_stock_checkpoint_and_the_record_is_honest(network_of, write_checkpoint, tmp_path):
    source = write_checkpoint(network_of("yolo26n-cls"), tmp_path / "parent.pt")
    record = sparsify(source, tmp_path / "sparse.pt", 0.5, imgsz=64)
    assert sparsity(YOLO(tmp_path / "sparse.pt", verbose=False).model) == pytest.approx(0.5, abs=1e-3)
    assert (record.method, record.ratio) == ("unstructured", 0.5)
    assert record.ratio_reached == pytest.approx(0.5, abs=1e-3)
    assert record.macs_after == record.macs_before
    assert record.parameters_after == record.parameters_before
    assert "faster" in record.note
    assert record.size_mb_after == pytest.approx(record.size_mb_before, rel=0.02)


@pytest.mark.parametrize("amount", [0, 1, -0.5, float("nan")])
def test_an_amount_out_of_range_is_refused(amount, tmp_path):
    with pytest.raises(ArgumentError, match="amount="):
        sparsify(tmp_path / "none.pt", tmp_path / "sparse.pt", amount, imgsz=64)
