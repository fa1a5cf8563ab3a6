from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.attribution.cam import METHODS, Method
from mlflow_yolo.attribution.class_maps import watch_classifier
from mlflow_yolo.attribution.layers import read_layers
from mlflow_yolo.attribution.maps import TargetMap, combine, map_targets
from mlflow_yolo.attribution.targets import (
    BoxSide,
    ClassInImage,
    ClassLogit,
    Contrast,
    ImageLogit,
    Object,
    PredictedMask,
    Target,
    Terms,
)
from mlflow_yolo.exceptions import ArgumentError

Build = Callable[..., nn.Module]
Pictures = Callable[..., Tensor]

# Of a 64 pixel input: 64 anchors of stride 8, 16 of stride 16, 4 of stride 32.
FINE, MIDDLE, COARSE = 27, 64 + 5, 80 + 1
BLOCK_OF = {FINE: 4, MIDDLE: 6, COARSE: 8}
MODELS = [
    *((name + task, None) for name in ("yolov8n", "yolo11n") for task in ("", "-seg", "-pose", "-obb", "-cls")),
    *(("yolo26n" + task, one) for task in ("", "-seg", "-pose", "-obb") for one in (False, True)),
    ("yolo26n-cls", None),
]


def maps_of(
    network: nn.Module, images: Tensor, targets: Sequence[Sequence[Target]], method: str = "layercam", **options: Any
) -> list[list[TargetMap]]:
    layers = read_layers(network)
    return map_targets(network, images, lambda o, d: targets, method=METHODS[method], layers=layers, **options)


def normalised(values: Tensor) -> Tensor:
    return values / values.abs().max()


def targets_of(name: str) -> list[Target]:
    """Return a target of every kind that a model has."""
    if name.endswith("-cls"):
        return [ImageLogit(2), ImageLogit(0, against=1)]
    targets = [
        *(ClassLogit(anchor, 1) for anchor in BLOCK_OF),
        Contrast(FINE, 2, 0),
        Object((10.0, 12.0, 40.0, 50.0), 1),
        *(BoxSide(MIDDLE, side) for side in ("left", "top", "right", "bottom")),
        ClassInImage(0),
        ClassInImage(1, (FINE, MIDDLE, FINE + 1)),
    ]
    return [*targets, PredictedMask(FINE)] if name.endswith("-seg") else targets


@pytest.mark.parametrize(("name", "end_to_end"), MODELS)
def test_every_target_of_every_model_has_one_map_fused_or_not(
    name: str, end_to_end: bool | None, build: Build, pictures: Pictures
) -> None:
    # In double precision: with random weights rounding grows a thousandfold from block to block.
    plain: Any = build(name, end_to_end=end_to_end).double()
    images, targets = pictures(1).double(), [targets_of(name)]
    (made,) = maps_of(plain, images, targets)
    (fused,) = maps_of(plain.fuse(verbose=False), images, targets)
    for target, first, second in zip(targets[0], made, fused, strict=True):
        assert first.target is target
        assert first.values.dtype == torch.float32
        assert bool(first.values.isfinite().all()), target
        assert float(first.values.max()) > 0, target
        torch.testing.assert_close(normalised(first.values), normalised(second.values), atol=1e-4, rtol=0)
        assert first.score == pytest.approx(second.score, rel=1e-6)
        assert first.blocks == second.blocks


@pytest.mark.parametrize("anchor", BLOCK_OF)
def test_the_default_block_is_that_of_the_level(anchor: int, build: Build, pictures: Pictures) -> None:
    ((made,),) = maps_of(build("yolo11n"), pictures(1, size=64), [[ClassLogit(anchor, 0)]])
    assert made.blocks == (BLOCK_OF[anchor],)
    stride = {4: 8, 6: 16, 8: 32}[BLOCK_OF[anchor]]
    assert made.values.shape == (64 // stride, 64 // stride)


@pytest.mark.parametrize("branch", ["one2many", "one2one"])
def test_branches_of_an_end_to_end_model_have_maps_of_their_own(branch: str, build: Build, pictures: Pictures) -> None:
    target = [[ClassLogit(FINE, 0), PredictedMask(FINE)]]
    found = {}
    for one in (False, True):
        network = build("yolo26n-seg", end_to_end=one)
        found[one] = maps_of(network, pictures(1), target, branch=branch)[0]
        automatic = maps_of(network, pictures(1), target)[0]
        is_same = torch.allclose(automatic[0].values, found[one][0].values)
        assert is_same == (one == (branch == "one2one"))
    for first, second in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(normalised(first.values), normalised(second.values), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo26n-seg"])
@pytest.mark.parametrize("end_to_end", [False, True])
def test_a_mask_rests_on_its_prototypes_too(name: str, end_to_end: bool, build: Build, pictures: Pictures) -> None:
    network: Any = build(name, end_to_end=end_to_end if "26" in name else None)
    # Constant coefficients: what influence is left goes through the prototypes, which one2one predictions detach.
    heads = [module for part, module in network.model[-1].named_children() if part.endswith("cv4")]
    for head in (one for heads_of in heads for one in heads_of):
        nn.init.zeros_(head[-1].weight)
    ((made,),) = maps_of(network, pictures(1), [[PredictedMask(FINE)]])
    assert float(made.values.max()) > 0


@pytest.mark.parametrize(("block", "anchor"), [(22, FINE), (22, MIDDLE), (19, FINE), (-2, FINE)])
def test_a_block_that_cannot_see_a_level_is_an_error_that_names_one_that_can(
    block: int, anchor: int, build: Build, pictures: Pictures
) -> None:
    network, targets = build("yolo11n"), [[ClassLogit(anchor, 0)]]
    with pytest.raises(ArgumentError, match=rf"block={block % 24}\b.*Use block={BLOCK_OF[anchor]}\."):
        maps_of(network, pictures(1), targets, blocks=[block])
    with pytest.raises(ArgumentError, match=rf"Use block={BLOCK_OF[anchor]}\."):
        maps_of(network, pictures(1), targets, blocks=[4, block])  # one of two is no better
    ((blank,),) = maps_of(network, pictures(1), targets, blocks=[block], strict=False)
    assert not bool(blank.values.any())
    assert blank.score != 0
    ((seen,),) = maps_of(network, pictures(1), [[ClassLogit(COARSE, 0)]], blocks=[22])
    assert bool(seen.values.any())


def test_eigen_cam_needs_no_gradient_and_knows_no_target(build: Build, pictures: Pictures) -> None:
    network = build("yolo11n")
    (made,) = maps_of(network, pictures(1), [[ClassLogit(FINE, 0), ClassLogit(FINE + 9, 2)]], "eigencam", blocks=[22])
    assert bool(made[0].values.any())
    torch.testing.assert_close(made[0].values, made[1].values, rtol=0, atol=0)
    assert made[0].score != made[1].score


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_uneven_targets_is_every_target_alone(method: str, build: Build, pictures: Pictures) -> None:
    network, images = build("yolo11n").double(), pictures(3).double()
    targets: list[list[Target]] = [
        [ClassLogit(COARSE, 0), ClassInImage(1, (COARSE, FINE)), ClassLogit(FINE, 2)],
        [],
        [ClassLogit(MIDDLE, 1), ClassLogit(FINE + 1, 1)],
    ]
    together = maps_of(network, images, targets, method)
    assert [[made.target for made in of] for of in together] == targets
    for image, of in enumerate(targets):
        for target, made in zip(of, together[image], strict=True):
            ((alone,),) = maps_of(network, images[image : image + 1], [[target]], method)
            torch.testing.assert_close(made.values, alone.values, rtol=1e-5, atol=1e-5 * float(alone.values.max()))
            assert made.score == pytest.approx(alone.score)
            assert made.blocks == alone.blocks


def test_one_backward_pass_serves_a_target_of_every_image(build: Build, pictures: Pictures) -> None:
    batches: list[int] = []

    def make(activations: Tensor, gradients: Tensor) -> Tensor:
        batches.append(len(activations))
        return gradients.abs().sum(1)

    network = build("yolo11n")
    targets = [[ClassLogit(FINE + k, 0) for k in range(n)] for n in (3, 1, 2)]
    counting = Method("counting", make)
    made = map_targets(network, pictures(3), lambda o, d: targets, method=counting, layers=read_layers(network))
    assert batches == [3, 2, 1]
    assert [len(of) for of in made] == [3, 1, 2]


def test_maps_of_several_levels_count_alike_on_the_finest_grid(build: Build, pictures: Pictures) -> None:
    network, images = build("yolo11n"), pictures(1)
    both, fine, coarse = maps_of(
        network, images, [[ClassInImage(1, (FINE, COARSE)), ClassLogit(FINE, 1), ClassLogit(COARSE, 1)]]
    )[0]
    enlarged = cv2.resize(coarse.values.numpy(), (8, 8), interpolation=cv2.INTER_LINEAR)
    expected = fine.values.numpy() / fine.values.numpy().max() + enlarged / coarse.values.numpy().max()
    np.testing.assert_allclose(both.values, expected, rtol=1e-3, atol=1e-5)
    assert both.blocks == (4, 8)
    assert both.score == pytest.approx(fine.score + coarse.score, rel=1e-5)


def test_signed_maps_of_several_levels_keep_their_sum(build: Build, pictures: Pictures) -> None:
    targets: list[Target] = [ClassInImage(1, (FINE, COARSE)), ClassLogit(FINE, 1), ClassLogit(COARSE, 1)]
    both, fine, coarse = maps_of(build("yolo11n"), pictures(1), [targets], "hirescam")[0]
    assert both.values.shape == fine.values.shape
    assert float(both.values.sum()) == pytest.approx(float(fine.values.sum() + coarse.values.sum()), rel=1e-3)


def test_combining_by_hand() -> None:
    coarse, fine = torch.tensor([[4.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert combine([coarse, fine], is_signed=False).tolist() == [[2.0, 1.0], [1.0, 1.5]]
    assert combine([coarse, fine], is_signed=True).tolist() == [[3.0, 1.0], [1.0, 2.0]]
    assert combine([torch.zeros(1, 1), fine], is_signed=False).tolist() == [[1.0, 0.0], [0.0, 0.5]]
    assert combine([coarse], is_signed=False) is coarse  # one alone keeps its unit


def test_a_contrast_is_the_difference_of_two_classes(build: Build, pictures: Pictures) -> None:
    targets: list[Target] = [Contrast(FINE, 2, 0), ClassLogit(FINE, 2), ClassLogit(FINE, 0)]
    difference, first, second = maps_of(build("yolo11n").double(), pictures(1).double(), [targets], "hirescam")[0]
    torch.testing.assert_close(difference.values, first.values - second.values, rtol=1e-4, atol=1e-4)
    assert difference.score == pytest.approx(first.score - second.score, rel=1e-5)


def test_a_map_shows_what_the_target_depends_on(build: Build, pictures: Pictures) -> None:
    network, images = build("yolo11n").double(), pictures(1, size=128).double()
    ((made,),) = maps_of(network, images, [[ClassLogit(16 * 8 + 8, 0)]], "hirescam", blocks=[16])
    rows, columns = made.values.nonzero().T
    # At a level's own input to the head two 3 x 3 convolutions see 5 x 5 cells around the anchor, here (8, 8).
    assert {int(rows.min()), int(columns.min())} == {6}
    assert {int(rows.max()), int(columns.max())} == {10}


@pytest.mark.parametrize("name", ["yolov8n-cls", "yolo11n-cls", "yolo26n-cls"])
def test_a_classifier_is_explained_at_its_last_block(name: str, build: Build, pictures: Pictures) -> None:
    network = build(name)
    (made,) = maps_of(network, pictures(1, size=128), [[ImageLogit(1), ImageLogit(1, against=2)]], "hirescam")
    assert made[0].blocks == (read_layers(network).by_level[0],)
    assert made[0].values.shape == (4, 4)
    (tiny,) = maps_of(network, pictures(1, size=32), [[ImageLogit(1)]])
    assert tiny[0].values.shape == (1, 1)
    with watch_classifier(network) as seen, torch.no_grad():
        network(pictures(1, size=128))
    assert seen.maps().shape == (1, 3, 4, 4)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", ["yolov8n", "yolo26n-seg", "yolo11n-cls"])
def test_pictures_of_other_channels_have_maps(name: str, channels: int, build: Build, pictures: Pictures) -> None:
    network = build(name, channels=channels)
    (made,) = maps_of(network, pictures(1, channels=channels), [targets_of(name)])
    assert all(bool(one.values.any()) for one in made)


def test_a_half_precision_model_in_inference_mode_has_maps(build: Build, pictures: Pictures) -> None:
    with torch.inference_mode():
        network = build("yolo26n-seg").half()
        (made,) = maps_of(network, pictures(1).half(), [targets_of("yolo26n-seg")])
    assert all(bool(one.values.any()) and one.values.dtype == torch.float32 for one in made)


def test_a_picture_that_is_not_square_has_a_map_of_its_shape(build: Build) -> None:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    made = maps_of(build("yolo11n"), images, [[ClassLogit(0, 0)], [ClassLogit(96, 0)]])
    assert [of[0].values.shape for of in made] == [(8, 12), (4, 6)]


def test_without_targets_there_are_no_maps(build: Build, pictures: Pictures) -> None:
    for method in ("layercam", "eigencam"):
        assert maps_of(build("yolo11n"), pictures(2), [[], []], method) == [[], []]


def test_a_target_without_a_term_has_a_blank_map(build: Build, pictures: Pictures) -> None:
    class Nothing:
        def terms(self, outputs: Any, image: int) -> Terms:
            return Terms(outputs.logits[image, 0, :0], outputs.levels[:0])

    made = maps_of(build("yolo11n"), pictures(2), [[Nothing(), ClassLogit(FINE, 0)], [Nothing()]])
    for blank in (made[0][0], made[1][0]):
        assert blank.values.tolist() == torch.zeros(8, 8).tolist()
        assert (blank.blocks, blank.score) == ((), 0.0)
    assert bool(made[0][1].values.any())


def test_choosing_sees_outputs_and_decoded_predictions(build: Build, pictures: Pictures) -> None:
    network = build("yolo11n")

    def choose(outputs: Any, decoded: Tensor) -> list[list[Target]]:
        assert decoded.shape == (2, 4 + 3, 84)
        return [[ClassLogit(int(scores.argmax()) % 84, 0)] for scores in outputs.logits[:, 0]]

    made = map_targets(network, pictures(2), choose, method=METHODS["layercam"], layers=read_layers(network))
    with torch.no_grad():
        logits = network(pictures(2))[1]["scores"]
    assert [of[0].score for of in made] == pytest.approx(logits[:, 0].amax(1).tolist(), rel=1e-4)


def test_a_model_whose_weights_are_not_finite_is_an_error(build: Build, pictures: Pictures) -> None:
    network: Any = build("yolo11n")
    nn.init.constant_(network.model[0].conv.weight, torch.nan)
    with pytest.raises(ArgumentError, match="nan"):
        maps_of(network, pictures(1), [[ClassLogit(FINE, 0)]])


@pytest.mark.parametrize(("target", "named"), [(ClassLogit(84, 0), "anchor 84"), (ImageLogit(0), "detector")])
def test_a_target_that_the_model_has_not_is_an_error(
    target: Target, named: str, build: Build, pictures: Pictures
) -> None:
    with pytest.raises(ArgumentError, match=named):
        maps_of(build("yolo11n"), pictures(1), [[target]])


def test_a_map_owns_its_values(build: Build, pictures: Pictures) -> None:
    (made,) = maps_of(build("yolo11n"), pictures(1), [[ClassLogit(FINE, 0), ClassLogit(FINE, 0)]], "eigencam")
    made[0].values.zero_()
    assert bool(made[1].values.any())
    assert made[1].values.untyped_storage().nbytes() == 8 * 8 * 4  # pickling it takes no other map along
