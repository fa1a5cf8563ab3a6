import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics.activations import ActivationProbe, ActivationResult
from mlflow_yolo.statistics.outputs import AXES

SILU_OFF = -4.0825594
BASIC = ("mean", "std", "channel_variance", "intra_channel_variance", "off_fraction", "linear_fraction")


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


def images(n: int = 6, side: int = 8) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def reference(model: nn.Sequential, x: Tensor) -> dict[int, dict[str, float]]:
    """Return statistics in numpy from clones of the tensors, computed module by module."""
    result = {}
    with torch.no_grad():
        for index in (0, 2):
            block = model[index]
            assert isinstance(block, ConvBlock)
            z = block.bn(block.conv(x)).clone()
            x = z * torch.sigmoid(z)
            a = x.double().numpy()
            flat = a.transpose(1, 0, 2, 3).reshape(a.shape[1], -1)
            norms = np.linalg.norm(flat, axis=1)
            cosines = np.abs(flat @ flat.T / np.outer(norms, norms))
            spectrum = np.linalg.eigvalsh(np.cov(flat, bias=True))
            shares = spectrum / spectrum.sum()
            result[index] = {
                "mean": a.mean(),
                "std": a.std(),
                "channel_variance": a.mean(axis=(0, 2, 3)).var(),
                "intra_channel_variance": a.var(axis=(0, 2, 3)).mean(),
                "variance_images": a.var(axis=0, ddof=1).mean(),
                "variance_channels": a.var(axis=1, ddof=1).mean(),
                "variance_rows": a.var(axis=2, ddof=1).mean(),
                "variance_columns": a.var(axis=3, ddof=1).mean(),
                "redundancy": (cosines.sum() - len(norms)) / (len(norms) * (len(norms) - 1)),
                "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
                "off_fraction": (z.numpy() < SILU_OFF).mean(),
                "nonlinear_fraction": (np.abs(z.numpy()) < -SILU_OFF).mean(),
                "linear_fraction": (z.numpy() > -SILU_OFF).mean(),
            }
    return result


def probed(model: nn.Sequential, *batches: Tensor) -> dict[int, dict[str, float]]:
    return dict(probe_result(model, *batches).blocks)


def probe_result(model: nn.Sequential, *batches: Tensor, max_batches: int | None = 4) -> ActivationResult:
    with ActivationProbe(blocks_of(model), max_batches=max_batches) as probe, torch.inference_mode():
        for batch in batches:
            model(batch)
    return probe.result()


def assert_same(found: dict[int, dict[str, float]], expected: dict[int, dict[str, float]], rel: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for block, values in expected.items():
        assert {name: found[block][name] for name in values} == pytest.approx(values, rel=rel), block


def of_all_passes(blocks: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """Return the statistics without the variances along axes, which are of the first pass."""
    return {b: {name: v for name, v in values.items() if name not in AXES} for b, values in blocks.items()}


@pytest.mark.parametrize("inplace", [False, True])
def test_statistics_equal_numpy_with_a_shared_and_with_an_in_place_activation(inplace: bool) -> None:
    expected = reference(make_model(), images())
    assert 0.05 < expected[0]["off_fraction"] < 0.95
    assert expected[0]["off_fraction"] != pytest.approx(expected[2]["off_fraction"], rel=0.05)
    assert_same(probed(make_model(inplace=inplace), images()), expected)


def test_the_way_images_are_split_into_batches_does_not_matter() -> None:
    model = make_model()
    x = images()
    assert_same(probed(model, x[:1], x[1:3], x[3:]), of_all_passes(probed(model, x)), rel=1e-5)


def test_bfloat16_model_gives_nearly_the_same() -> None:
    found = probed(make_model().bfloat16(), images().bfloat16())
    expected = reference(make_model(), images())
    for name in ("std", "redundancy", "effective_rank", "off_fraction"):
        assert found[0][name] == pytest.approx(expected[0][name], rel=0.02), name


def test_autocast_does_not_reach_into_the_measuring() -> None:
    model, x = make_model(), images()
    with ActivationProbe(blocks_of(model)) as probe, torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
        model(x)
    expected = reference(model, x)
    assert probe.result().blocks[0]["effective_rank"] == pytest.approx(expected[0]["effective_rank"], rel=0.01)
    assert probe.result().blocks[0]["redundancy"] == pytest.approx(expected[0]["redundancy"], rel=0.01)


def test_heads_and_copies_are_skipped_and_a_head_keeps_its_off_fraction() -> None:
    class ConvHead(Head):
        def __init__(self) -> None:
            super().__init__()
            self.stem = ConvBlock(3, 2, nn.SiLU())

        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return super().forward(self.stem(x))

    model = nn.Sequential(Upsample(), ConvHead())
    found = probed(model, images())
    fractions = {"off_fraction", "nonlinear_fraction", "linear_fraction", "dead_fraction", "near_dead_fraction"}
    assert {block: set(values) for block, values in found.items()} == {1: fractions}


def test_only_the_first_forward_passes_are_measured() -> None:
    model, x = make_model(), images()
    with ActivationProbe(blocks_of(model), max_batches=2) as probe:
        for i in range(4):
            model(x[i : i + 1])
    assert probe.n_batches == 2
    assert_same(dict(probe.result().blocks), of_all_passes(probed(model, x[:2])), rel=1e-5)


def test_no_forward_pass_and_no_blocks_give_nothing() -> None:
    assert probed(make_model()) == {}
    with ActivationProbe([]) as probe:
        pass
    result = probe.result()
    assert (result.blocks, len(result.channels), result.densities, result.n_images) == ({}, 0, {}, 0)
    assert probe.drain() == ()


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


def test_a_probe_that_cannot_be_attached_leaves_no_hook() -> None:
    class Sealed(nn.Identity):
        def register_forward_hook(self, *_: object, **__: object) -> None:  # type: ignore[override]
            raise RuntimeError("sealed")

    model = make_model()
    with pytest.raises(RuntimeError, match="sealed"), ActivationProbe([*blocks_of(model), (9, Sealed())]):
        pass
    assert n_hooks(model) == 0


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
            return x.to_sparse()  # has no strides

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


def test_few_passes_and_all_passes_agree_on_the_same_images() -> None:
    model, x = make_model(), images()
    few, every = probe_result(model, x).blocks, probe_result(model, x, max_batches=None).blocks
    for block in (0, 2):
        for name in BASIC[:4]:
            assert every[block][name] == pytest.approx(few[block][name], rel=1e-6)
        for name in (*BASIC[4:], "redundancy"):
            assert every[block][name] == pytest.approx(few[block][name], abs=0.05)


def stuck_model() -> nn.Sequential:
    """Return one block: channel 0 is stuck at SiLU's minimum, 1 is off, 2 nearly, the others are alive."""
    model = nn.Sequential(ConvBlock(3, 6, nn.SiLU()))
    norm = model[0].bn
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([-1.2785, -30.0, -5.5, 0.0, 1.0, -1.0]))
        norm.weight.copy_(torch.tensor([0.05, 1.0, 0.5, 1.0, 2.0, 1.0]))
    return model.train()


def test_a_channel_stuck_at_silus_minimum_is_dead_though_nothing_is_zero() -> None:
    x = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    model = stuck_model()
    assert (model(x)[:, 0] < -0.2).all()
    result = probe_result(model, x[:128], x[128:])
    assert result.enough_images
    assert result.channels.status.tolist() == ["dead", "dead", "near-dead", "alive", "alive", "alive"]
    assert result.channels.openness[0] == pytest.approx(0.0088, abs=1e-3)
    assert result.channels.spread[0] == pytest.approx(0.0004, abs=1e-4)
    assert result.channels.off_fraction[2] > 0.95
    assert result.blocks[0]["dead_fraction"] == pytest.approx(2 / 6)
    assert result.blocks[0]["near_dead_fraction"] == pytest.approx(1 / 6)
    # In training mode the batch norm does exactly what its weights say, so data and closed form agree.
    np.testing.assert_allclose(result.channels.bn_openness, result.channels.openness, atol=0.02)
    np.testing.assert_allclose(result.channels.bn_off_fraction, result.channels.off_fraction, atol=0.02)
    assert set(result.channels.layer) == {"model.0"}


def test_too_few_images_are_said() -> None:
    result = probe_result(stuck_model(), images())
    assert result.n_images == result.channels.n_images == 6
    assert not result.enough_images


def test_densities_are_histograms_of_the_pre_activations() -> None:
    model, x = make_model(), images()
    density = probe_result(model, x).densities[0]
    with torch.no_grad():
        z = model[0].bn(model[0].conv(x)).numpy()
    expected, _ = np.histogram(z, np.linspace(-6, 6, 97), density=True)
    inside = ((z >= -6) & (z < 6)).mean()
    assert density.layers == ("model.0",)
    assert density.activations == ("SiLU",)
    np.testing.assert_allclose(density.per_unit()[0], expected * inside, rtol=1e-9)
    assert (density.below[0], density.above[0]) == ((z < -6).sum(), (z >= 6).sum())


def test_each_step_gives_a_row_and_several_passes_may_belong_to_one() -> None:
    model, x = make_model(), images()
    with ActivationProbe(blocks_of(model), max_batches=None) as probe:
        model(x[:1])
        model(x[1:4])
        probe.end_step(7)
        probe.end_step(8)  # no forward pass: no row
        model(x[4:])
        probe.end_step(9)
    outputs, fractions = probe.drain()
    assert probe.drain() == ()
    for grid, names in ((outputs, BASIC[:4]), (fractions, BASIC[4:])):
        assert (grid.kind, grid.steps.tolist(), grid.blocks.tolist()) == ("activations", [7, 9], [0, 2])
        assert grid.measured.all()
        assert grid.counted.all()
        for row, part in enumerate((x[:4], x[4:])):
            expected = reference(model, part)
            for column, block in enumerate((0, 2)):
                for name in names:
                    tolerance = {"rel": 1e-4} if grid is outputs else {"abs": 0.05}
                    assert grid.values[name][row, column] == pytest.approx(expected[block][name], **tolerance), name
    total = probe.result().blocks
    assert total[0]["std"] == pytest.approx(reference(model, x)[0]["std"], rel=1e-4)


def test_rows_may_be_drained_at_any_time_and_the_result_holds_all_steps() -> None:
    model, x = make_model(), images()
    grids = []
    with ActivationProbe(blocks_of(model), max_batches=None) as probe:
        for step in range(6):
            model(x[step : step + 1])
            probe.end_step(step)
            if step % 2:
                grids += probe.drain()
    assert [grid.steps.tolist() for grid in grids] == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5], [4, 5]]
    means = np.concatenate([grid.values["mean"][:, 0] for grid in grids if "mean" in grid.values])
    assert means.mean() == pytest.approx(probe.result().blocks[0]["mean"], rel=1e-5)
    assert (probe.n_batches, probe.result().n_images) == (6, 6)


def test_a_block_that_is_not_run_at_a_step_is_not_measured_there() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = ConvBlock(3, 4, nn.SiLU()), ConvBlock(4, 4, nn.ReLU())

        def forward(self, x: Tensor, *, deep: bool) -> Tensor:
            x = self.first(x)
            return self.second(x) if deep else x

    model = Sometimes()
    with ActivationProbe([(4, model.second), (1, model.first)], max_batches=None) as probe:
        for step in range(3):
            model(images(), deep=step == 1)
            probe.end_step(step)
    outputs, fractions = probe.drain()
    for grid in (outputs, fractions):
        assert grid.blocks.tolist() == [1, 4]
        assert grid.measured.tolist() == [[True, False], [True, True], [True, False]]
    assert np.isfinite(outputs.values["mean"][:, 0]).all()


@pytest.mark.parametrize("stepping", [True, False])
def test_what_is_kept_does_not_grow_with_the_number_of_passes(stepping: bool) -> None:
    def kept(probe: ActivationProbe) -> int:
        size = io.BytesIO()
        state = (vars(probe._outputs), vars(probe._pre_activations))
        torch.save(
            [vars(part) if hasattr(part, "__dict__") else part for table in state for part in table.values()], size
        )
        return size.tell()

    model, x = make_model(), images()
    sizes = []
    with ActivationProbe(blocks_of(model), max_batches=None) as probe:
        for step in range(40):
            model(x)
            if stepping:
                probe.end_step(step)
                probe.drain()
            sizes.append(kept(probe))
    assert sizes[-1] <= sizes[3] * 1.02


def test_training_is_the_same_to_the_bit_with_the_probe_on_every_pass() -> None:
    def train(*, watched: bool) -> tuple[list[Tensor], Tensor]:
        torch.manual_seed(0)
        model = make_model(inplace=True).train()
        model.insert(2, nn.Dropout(0.3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        probe = ActivationProbe(blocks_of(model) if watched else [], max_batches=None)
        with probe:
            for step in range(4):
                for _ in range(2):  # two passes accumulate their gradients
                    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step % 2 == 1):
                        loss = model(images())[0].square().mean()
                    loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                probe.end_step(step)
        assert probe.n_batches == (8 if watched else 0)
        probe.result()
        return [*model.parameters(), *model.buffers()], torch.rand(4)

    (with_probe, random), (without, other) = train(watched=True), train(watched=False)
    assert all(torch.equal(one, two) for one, two in zip(with_probe, without, strict=True))
    assert torch.equal(random, other)


def test_passes_in_and_out_of_inference_mode_may_follow_one_another() -> None:
    model, x = make_model(), images()
    with ActivationProbe(blocks_of(model), max_batches=None) as probe:
        for mode in (True, False, True):
            with torch.inference_mode(mode):
                model(x)
            probe.end_step(int(mode))
    assert_same(
        {b: {n: v[n] for n in BASIC[:4]} for b, v in probe.result().blocks.items()},
        {b: {n: v[n] for n in BASIC[:4]} for b, v in reference(model, x).items()},
    )


def test_image_sizes_may_change_from_pass_to_pass() -> None:
    model = make_model()
    result = probe_result(model, images(side=16), images(side=8), images(side=40), max_batches=None)
    assert result.n_images == 18
    assert 0 < result.blocks[0]["off_fraction"] < 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_not_measured_and_runs_unbroken() -> None:
    model, x = make_model(), images()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with ActivationProbe(blocks_of(model), max_batches=None) as probe, torch.no_grad():
        torch.testing.assert_close(compiled(x)[0], model(x)[0])
        n_after_the_plain_one = probe.n_batches
        compiled(x)
    assert n_after_the_plain_one == probe.n_batches == 1
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_traced_keeps_nothing_of_the_probe() -> None:
    model, x = make_model(), images()
    model[3] = Upsample()
    plain = str(torch.jit.trace(model, x, check_trace=False).inlined_graph)
    with ActivationProbe(blocks_of(model)) as probe:
        watched = str(torch.jit.trace(model, x, check_trace=False).inlined_graph)
    assert watched.count("aten::") == plain.count("aten::")
    assert probe.n_batches == 0


def test_a_copy_or_saved_model_is_not_measured_and_loads_without_this_package() -> None:
    model, x = make_model(), images()
    with ActivationProbe(blocks_of(model)) as probe:
        twin = copy.deepcopy(model)
        saved = pickle.dumps(model.state_dict), pickle.dumps(model[0].bn._forward_hooks)
        twin(x)
    assert probe.n_batches == 0
    assert b"mlflow_yolo" not in saved[1]
    (hook,) = pickle.loads(saved[1]).values()
    assert hook(model, (), x) is None


def test_a_block_under_two_indices_counts_one_pass_and_both_see_all_its_runs() -> None:
    block = ConvBlock(3, 3, nn.SiLU()).eval()
    model = nn.Sequential(block, block)
    with ActivationProbe(blocks_of(model)) as probe:
        model(images())
        model(images())
    result = probe.result()
    assert (probe.n_batches, result.n_images) == (2, 12)
    assert result.blocks[0] == result.blocks[1]


def test_a_fused_model_says_the_same_from_its_convolutions() -> None:
    model, x = make_model(), images()
    fused = copy.deepcopy(model)
    for block in (fused[0], fused[2]):
        block.conv = torch.nn.utils.fuse_conv_bn_eval(block.conv, block.bn)
        del block.bn
        block.bn = nn.Identity()
        del block._modules["bn"]
        block.forward = lambda y, b=block: b.act(b.conv(y))  # type: ignore[method-assign]
    one, other = probe_result(model, x), probe_result(fused, x)
    for block in (0, 2):
        assert other.blocks[block] == pytest.approx(dict(one.blocks[block]), rel=1e-3)
    assert np.isnan(other.channels.bn_openness).all()
    assert np.isfinite(one.channels.bn_openness).all()


def test_not_a_number_stays_in_its_block_and_does_not_fail() -> None:
    model, x = make_model(), images()
    with torch.no_grad():
        model[2].bn.bias[0] = torch.nan
    result = probe_result(model, x)
    assert np.isnan(result.blocks[2]["mean"])
    assert "effective_rank" not in result.blocks[2]
    assert result.blocks[0]["mean"] == pytest.approx(reference(make_model(), x)[0]["mean"], rel=1e-4)


def test_a_loaded_checkpoint_with_in_place_activations_equals_a_reference_from_clones() -> None:
    from ultralytics import YOLO

    from mlflow_yolo import checkpoints

    network = YOLO(str(checkpoints.path())).model.eval()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    clones: dict[int, list[Tensor]] = {}
    handles, decoded = [], []
    handles.append(network.model[-1].register_forward_hook(lambda _m, _i, output: decoded.append(output[0].clone())))
    for index, block in enumerate(network.model):
        for conv in block.modules():
            if isinstance(getattr(conv, "act", None), nn.SiLU):
                assert conv.act.inplace
                keep = clones.setdefault(index, []).append
                handles.append(conv.bn.register_forward_hook(lambda _m, _i, z, keep=keep: keep(z.clone())))
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    with ActivationProbe(list(enumerate(network.model))) as probe, torch.no_grad():
        network(x)
    result = probe.result()
    best = decoded[0][:, 4:].amax(1)  # the class confidences that Ultralytics made itself
    found = result.blocks[len(network.model) - 1]["confident_fraction"]
    assert found == pytest.approx(float((best > 0.95).float().mean()), abs=1e-9)
    assert sum(len(density.layers) for density in result.densities.values()) == sum(map(len, clones.values())) > 70
    for index, tensors in clones.items():
        z = torch.cat([tensor.flatten() for tensor in tensors])
        found = result.blocks[index]
        whole = all(tensor.numel() <= 8192 for tensor in tensors)
        tolerance = 1e-6 if whole else 0.02
        assert found["off_fraction"] == pytest.approx(float((z < SILU_OFF).float().mean()), abs=tolerance), index
        assert found["linear_fraction"] == pytest.approx(float((z > -SILU_OFF).float().mean()), abs=tolerance), index
