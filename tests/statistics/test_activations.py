import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics.activations import ActivationProbe, channel_statistics, channel_sums, off_count

SILU_OFF = -4.0825594


class ConvBlock(nn.Module):
    def __init__(self, c1: int, c2: int, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(c1, c2, 3, padding=1), nn.BatchNorm2d(c2), act
        nn.init.uniform_(self.bn.bias, -9, 3)
        nn.init.uniform_(self.bn.weight, 0.5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Head(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return x, {"scores": x}


class Upsample(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def make_model(*, inplace: bool = False) -> nn.Sequential:
    """Return two blocks that share one activation, as all Conv blocks of an Ultralytics model do, and a head."""
    torch.manual_seed(0)
    act = nn.SiLU(inplace=inplace)
    return nn.Sequential(ConvBlock(3, 4, act), Upsample(), ConvBlock(4, 6, act), Head()).eval()


def blocks_of(model: nn.Sequential) -> list[tuple[int, nn.Module]]:
    return list(enumerate(model))


def images(n: int = 6, side: int = 16) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def reference(model: nn.Sequential, x: Tensor) -> dict[int, dict[str, float]]:
    """Return mean, std, off fraction and channel variances in numpy from tensors computed module by module."""
    result = {}
    with torch.no_grad():
        for index in (0, 2):
            block = model[index]
            assert isinstance(block, ConvBlock)
            z = block.bn(block.conv(x)).clone()
            x = z * torch.sigmoid(z)
            a = x.double().numpy()
            result[index] = {
                "mean": a.mean(),
                "std": a.std(),
                "channel_variance": a.mean(axis=(0, 2, 3)).var(),
                "intra_channel_variance": a.var(axis=(0, 2, 3)).mean(),
                "off_fraction": (z.numpy() < SILU_OFF).mean(),
            }
    return result


def probed(model: nn.Sequential, *batches: Tensor) -> dict[int, dict[str, float]]:
    with ActivationProbe(blocks_of(model)) as probe, torch.inference_mode():
        for batch in batches:
            model(batch)
    return probe.result()


def assert_same(found: dict[int, dict[str, float]], expected: dict[int, dict[str, float]], rel: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for block, values in expected.items():
        assert found[block] == pytest.approx(values, rel=rel), block


@pytest.mark.parametrize("inplace", [False, True])
def test_statistics_equal_numpy_with_a_shared_and_with_an_in_place_activation(inplace: bool) -> None:
    expected = reference(make_model(), images())
    assert 0.05 < expected[0]["off_fraction"] < 0.95
    assert expected[0]["off_fraction"] != pytest.approx(expected[2]["off_fraction"], rel=0.05)
    assert_same(probed(make_model(inplace=inplace), images()), expected)


def test_the_way_images_are_split_into_batches_does_not_matter() -> None:
    model = make_model()
    x = images()
    assert_same(probed(model, x[:1], x[1:3], x[3:]), probed(model, x), rel=1e-5)


def test_half_precision_is_summed_in_single_precision() -> None:
    maps = torch.full((2, 3, 64, 64), 100.0, dtype=torch.float16)  # the sum, 409600, is beyond float16
    sums = channel_sums(maps)
    assert sums.dtype == torch.float32
    assert channel_statistics(sums.double().numpy(), 2 * 64 * 64) == pytest.approx(
        {"mean": 100.0, "std": 0.0, "channel_variance": 0.0, "intra_channel_variance": 0.0}, abs=1e-2
    )


def test_bfloat16_model_gives_nearly_the_same() -> None:
    found = probed(make_model().bfloat16(), images().bfloat16())
    assert found[0]["std"] == pytest.approx(reference(make_model(), images())[0]["std"], rel=0.02)


def test_channel_variance_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 3.0]], [[10.0, 10.0]]]])  # channel means 2 and 10, variances 1 and 0
    found = channel_statistics(channel_sums(maps).double().numpy(), 2)
    assert found == pytest.approx(
        {"mean": 6.0, "std": np.sqrt(16.5), "channel_variance": 16.0, "intra_channel_variance": 0.5}
    )


def test_permuting_channels_or_images_changes_nothing() -> None:
    maps = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(2))
    once = channel_statistics(channel_sums(maps).double().numpy(), 48)
    assert channel_statistics(channel_sums(maps.flip(0, 1)).double().numpy(), 48) == pytest.approx(once, rel=1e-5)


def test_vectors_and_sequences_are_measured_per_channel_too() -> None:
    vectors = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    found = channel_statistics(channel_sums(vectors).double().numpy(), 8)
    assert found["channel_variance"] == pytest.approx(vectors.double().numpy().mean(0).var(), rel=1e-4)


def test_large_maps_are_subsampled_evenly_and_small_ones_are_not() -> None:
    rows = torch.arange(64.0).reshape(1, 1, 64, 1).expand(2, 3, 64, 64)
    count, n = off_count(rows, 15.5)  # the first quarter of the rows
    assert (float(count) / n, n) == (0.25, 2 * 3 * 16 * 16)
    assert off_count(rows[..., :16], 15.5)[1] == 2 * 3 * 64 * 16


def test_heads_and_copies_are_skipped_and_a_head_keeps_its_off_fraction() -> None:
    class ConvHead(Head):
        def __init__(self) -> None:
            super().__init__()
            self.stem = ConvBlock(3, 2, nn.SiLU())

        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return super().forward(self.stem(x))

    model = nn.Sequential(Upsample(), ConvHead())
    found = probed(model, images())
    assert {block: set(values) for block, values in found.items()} == {1: {"off_fraction"}}


def test_only_the_first_forward_passes_are_measured() -> None:
    model, x = make_model(), images()
    with ActivationProbe(blocks_of(model), max_batches=2) as probe:
        for i in range(4):
            model(x[i : i + 1])
    assert probe.n_batches == 2
    assert_same(probe.result(), probed(model, x[:2]), rel=1e-5)


def test_no_forward_pass_and_no_blocks_give_nothing() -> None:
    assert probed(make_model()) == {}
    with ActivationProbe([]) as probe:
        pass
    assert probe.result() == {}


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_are_removed_even_after_an_error() -> None:
    model = make_model()
    seen = []
    model.append(nn.Identity()).register_forward_hook(lambda *_: seen.append(n_hooks(model)))
    with pytest.raises(RuntimeError, match="channels"), ActivationProbe(blocks_of(model)):
        model(torch.zeros(1, 5, 8, 8))
    assert n_hooks(model) == 1
    with ActivationProbe(blocks_of(model)):
        model(images())
    assert seen[0] > 1
    assert n_hooks(model) == 1  # the caller's own


def test_the_model_and_its_outputs_are_left_as_they_were() -> None:
    model, x = make_model(inplace=True).train(), images()
    twin = copy.deepcopy(model)
    with ActivationProbe(blocks_of(model)):
        output = model(x)[0]
        output.sum().backward()
    other = twin(x)[0]
    other.sum().backward()
    assert torch.equal(output, other)
    assert model.training
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(p.grad is not None and q.grad is not None and torch.equal(p.grad, q.grad) for p, q in pairs)


def test_a_failure_while_measuring_reaches_the_result_and_not_the_model() -> None:
    class Unreadable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.to_sparse()  # has no vector_norm over dimensions

    model = nn.Sequential(Unreadable())
    with ActivationProbe(blocks_of(model)) as probe:
        assert model(images()).is_sparse
    with pytest.raises(WorkError, match="activation statistics failed"):
        probe.result()


def test_layers_weigh_by_their_elements_whether_subsampled_or_not() -> None:
    class TwoLayers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU())
            self.small = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU(), nn.MaxPool2d(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.large(x).sum() + self.small(-x[..., :16, :16])  # the large map is off, the small one on

    model = nn.Sequential(TwoLayers()).eval()
    found = probed(model, -torch.ones(1, 1, 64, 64))
    assert found[0]["off_fraction"] == pytest.approx(64 * 64 / (64 * 64 + 16 * 16))
