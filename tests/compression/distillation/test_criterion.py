"""The criterion that Ultralytics calls: what is added, what is only measured, and what it leaves as it was."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics import YOLO

from mlflow_yolo.compression.distillation.criterion import DistillationCriterion
from mlflow_yolo.compression.distillation.distances import feature_distances, output_distances
from mlflow_yolo.compression.distillation.feature_maps import HeadInput, Projectors, head_widths
from mlflow_yolo.compression.distillation.settings import Distillation
from tests.compression.distillation.networks import checkpoint

ALL = {"response": 2.0, "localisation": 0.5, "fitnets": 1.0, "attention": 0.0, "cwd": 1.0, "rkd": 3.0}
SHARES = {"one2many": 0.7, "one2one": 0.3}


class OwnCriterion:
    """Stands for Ultralytics' criterion of an end-to-end head."""

    o2m, o2o = SHARES["one2many"], SHARES["one2one"]

    def __init__(self) -> None:
        self.updates = 0

    def __call__(self, preds: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.tensor([1.0, 2.0]), {"box_loss": torch.tensor(1.0)}

    def update(self) -> None:
        self.updates += 1


class Pair:
    """A student and a wider teacher, and the criterion between them."""

    def __init__(self, folder: Path, version: str, weights: dict[str, float], *, ramp: float = 1.0) -> None:
        torch.manual_seed(0)
        self.student = YOLO(checkpoint(folder, version, "detect", width=0.0625)).model.train()
        self.teacher = YOLO(checkpoint(folder, version, "detect", width=0.125)).model.eval().requires_grad_(False)
        for network in (self.student, self.teacher):
            for parameter in network.model[-1].parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)  # an untrained head sees nothing anywhere
        self.settings = Distillation("t.pt", weights)
        self.projectors = Projectors(head_widths(self.student), head_widths(self.teacher))
        self.maps = HeadInput()
        self.own = OwnCriterion()
        self.criterion = DistillationCriterion(
            self.own,
            self.settings,
            teacher=self.teacher,
            projectors=self.projectors,
            maps=self.maps,
            ramp=lambda: ramp,
        )
        self.batch = {"img": torch.rand(3, 3, 64, 64)}

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        self.maps.watch(self.student)
        self.preds = self.student(self.batch["img"])
        return self.criterion(self.preds, self.batch)

    def expected(self) -> dict[str, Tensor]:
        """Return the distances of the last predictions."""
        teacher = self.teacher(self.batch["img"])[1]
        features = (preds.get("one2many", preds)["feats"] for preds in (self.preds, teacher))
        student_maps, teacher_maps = (list(maps) for maps in features)
        outputs = output_distances(self.preds, teacher, self.settings, shares=SHARES)
        return outputs | feature_distances(student_maps, self.projectors(student_maps), teacher_maps, self.settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(params=["yolov8n", "yolo26n"])
def pair(request: pytest.FixtureRequest, folder: Path) -> Pair:
    return Pair(folder, request.param, ALL, ramp=0.25)


def test_distances_are_added_by_weight_warm_up_and_batch_size(pair: Pair) -> None:
    loss, items = pair.loss()
    distances = pair.expected()
    assert distances.keys() == ALL.keys()
    added = sum(ALL[name] * distance for name, distance in distances.items())
    torch.testing.assert_close(loss, torch.stack([torch.tensor(1.0), torch.tensor(2.0), 0.25 * 3 * added]))
    assert items["box_loss"].item() == 1
    for name, distance in distances.items():
        torch.testing.assert_close(items[f"kd_{name}"], distance.detach())
        assert items[f"kd_{name}"].item() > 0
        assert not items[f"kd_{name}"].requires_grad


def test_student_and_projectors_learn_and_the_teacher_does_not(pair: Pair) -> None:
    before = copy.deepcopy(pair.teacher.state_dict())
    pair.loss()[0].sum().backward()
    assert all(parameter.grad is not None for parameter in pair.projectors.parameters())
    assert pair.student.model[0].conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())
    torch.testing.assert_close(pair.teacher.state_dict(), before, rtol=0, atol=0)


def test_losses_of_weight_zero_are_measured_but_give_no_gradient(folder: Path) -> None:
    pair = Pair(folder, "yolo11n", dict.fromkeys(ALL, 0.0))
    loss, items = pair.loss()
    assert loss.tolist() == [1, 2, 0]
    assert not loss.requires_grad
    assert all(items[f"kd_{name}"].item() > 0 for name in ALL)


def test_no_hook_stays_and_no_feature_is_kept(pair: Pair) -> None:
    pair.loss()
    for network in (pair.student, pair.teacher):
        assert not network.model[-1]._forward_pre_hooks
    assert pair.maps.take() == []


def test_a_pass_that_never_came_leaves_no_second_hook(pair: Pair) -> None:
    pair.maps.watch(pair.student)
    pair.maps.watch(pair.student)
    assert len(pair.student.model[-1]._forward_pre_hooks) == 1


def test_validation_predictions_get_the_own_loss_only(pair: Pair) -> None:
    preds = pair.student.eval()(pair.batch["img"])
    loss, items = pair.criterion(preds, pair.batch)
    assert loss.tolist() == [1, 2]
    assert items.keys() == {"box_loss"}


def test_distances_are_of_single_precision_under_autocast(pair: Pair) -> None:
    _, full = pair.loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, mixed = pair.loss()
        assert pair.preds.get("one2many", pair.preds)["scores"].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    for name in (f"kd_{name}" for name in ALL):
        assert mixed[name].dtype == torch.float32
        assert mixed[name].item() == pytest.approx(full[name].item(), rel=0.1)


def test_a_copy_is_one_of_the_own_criterion(pair: Pair) -> None:
    pair.student.criterion = pair.criterion
    copied = copy.deepcopy(pair.student)
    assert type(copied.criterion) is OwnCriterion
    assert copied.criterion is not pair.own


def test_the_own_criterion_is_updated_through_it(pair: Pair) -> None:
    pair.criterion.update()
    assert pair.own.updates == pair.criterion.updates == 1
    with pytest.raises(AttributeError):
        _ = pair.criterion.nonsense


def test_classifiers_losses_are_not_multiplied_by_the_batch(folder: Path) -> None:
    student = YOLO(checkpoint(folder, "yolo11n", "classify", width=0.0625)).model.train()
    teacher = YOLO(checkpoint(folder, "yolo11n", "classify")).model.eval()
    settings = Distillation("t.pt", {"response": 2.0})
    criterion = DistillationCriterion(
        lambda preds, batch: (torch.tensor(4.0), {}),
        settings,
        teacher=teacher,
        projectors=None,
        maps=HeadInput(),
        ramp=lambda: 0.5,
    )
    images = torch.rand(3, 3, 64, 64)
    preds = student(images)
    loss, items = criterion(preds, {"img": images})
    torch.testing.assert_close(loss, torch.stack([torch.tensor(4.0), items["kd_response"]]))
    expected = output_distances(preds, teacher(images)[1], settings, shares={})["response"]
    torch.testing.assert_close(items["kd_response"], expected.detach())


def test_levels_of_the_same_width_are_not_projected_and_no_random_number_is_drawn() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    projectors = Projectors([4, 8], [4, 16])
    assert torch.rand(1) == expected
    maps = [torch.rand(2, 4, 3, 3), torch.rand(2, 8, 2, 2)]
    same, wider = projectors(maps)
    assert same is maps[0]
    assert wider.shape == (2, 16, 2, 2)
    assert isinstance(projectors.levels[0], nn.Identity)
