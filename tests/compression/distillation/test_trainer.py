"""Real trainings with a teacher, of one to three epochs on tiny data; what they write stays Ultralytics' own."""

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

from mlflow_yolo.compression.distillation.criterion import DistillationCriterion
from mlflow_yolo.compression.distillation.settings import Distillation
from mlflow_yolo.compression.distillation.trainer import distilling
from mlflow_yolo.compression.pruning.trainer import keeping_modules
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.checkpoint import scan
from tests.compression.distillation.networks import checkpoint, model_yaml
from tests.training.task_data import SIDE, task_data

slow = pytest.mark.slow

DENSE = ("response", "localisation", "fitnets", "attention", "cwd", "rkd")
LOSSES = {"detect": DENSE, "segment": DENSE, "classify": ("response", "fitnets", "attention", "cwd", "rkd")}
KINDS = [
    ("detect", "yolov8n"),
    ("detect", "yolo11n"),
    ("detect", "yolo26n"),
    ("segment", "yolo11n"),
    ("classify", "yolo11n"),
]


@dataclass(frozen=True)
class Bench:
    """The data of a task, a narrow student of one version and a teacher twice as wide."""

    task: str
    version: str
    data: Path
    folder: Path

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(load_dataset(str(self.data), task=self.task).names)

    @property
    def teacher(self) -> Path:
        return checkpoint(self.folder, self.version, self.task, width=0.125, names=self.names)

    def settings(self, *losses: str, weight: float = 1.0, **more: Any) -> Distillation:
        return Distillation(str(self.teacher), dict.fromkeys(losses or LOSSES[self.task], weight), **more)

    def train(self, name: str, settings: Distillation | None = None, **arguments: Any) -> Any:
        """Return the trainer of a student after its training, without a teacher or with one."""
        student = YOLO(model_yaml(self.folder, self.version, self.task, width=0.0625, names=self.names), task=self.task)
        return self.train_on(student, name, settings, **arguments)

    def train_on(self, network: YOLO, name: str, settings: Distillation | None, **arguments: Any) -> Any:
        base = network.task_map[self.task]["trainer"]
        usual = {
            "data": str(self.data),
            "epochs": 1,
            "imgsz": SIDE,
            "batch": 4,
            "nbs": 4,
            "workers": 0,
            "device": "cpu",
            "optimizer": "AdamW",
            "lr0": 0.01,
            "warmup_epochs": 0.0,
            "seed": 1,
            "plots": False,
            "verbose": False,
            "save_dir": str(self.folder / name),
        }
        network.train(trainer=distilling(base, settings) if settings else None, **usual | arguments)
        return network.trainer


def make_bench(factory: pytest.TempPathFactory, task: str, version: str) -> Bench:
    folder = factory.mktemp(f"{task}-{version}")
    if task == "classify":  # at 32 pixels the head's only map would be one pixel
        data = generate("digits-cls", cache_dir=folder / "data", imgsz=SIDE, n_train=10, n_val=10, n_test=10)
    else:
        data = task_data(task, folder / "data")
    return Bench(task, version, data, folder)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory, *request.param)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory, "detect", "yolo11n")


def weights(file: Path) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in YOLO(file).model.state_dict().items()}


def losses_of(trainer: Any) -> pd.DataFrame:
    return pd.read_csv(trainer.csv, skipinitialspace=True)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def plain(bench: Bench) -> Any:
    """Return the trainer of a student without a teacher."""
    return bench.train("plain")


@slow
def test_student_learns_from_the_teacher_and_its_checkpoint_is_an_ordinary_one(bench: Bench, plain: Any) -> None:
    distilled = bench.train("distilled", bench.settings())
    table = losses_of(distilled)
    for loss in LOSSES[bench.task]:
        assert table[f"train/kd_{loss}"].item() > 0
    assert not [column for column in table if column.startswith("val/kd_")]
    assert type(distilled.model.criterion) is DistillationCriterion
    for name in ("last.pt", "best.pt"):
        scan(distilled.wdir / name)
        assert not equal(weights(plain.wdir / name), weights(distilled.wdir / name))
    assert {file.name for file in distilled.wdir.iterdir()} == {file.name for file in plain.wdir.iterdir()}
    stored = [torch.load(trainer.last, weights_only=False) for trainer in (plain, distilled)]
    assert stored[0].keys() == stored[1].keys()
    assert abs(distilled.last.stat().st_size - plain.last.stat().st_size) < 5000  # no teacher in it


@slow
def test_weights_of_zero_train_bit_for_bit_as_without_a_teacher(bench: Bench, plain: Any) -> None:
    measured = bench.train("measured", bench.settings(weight=0.0))
    assert equal(weights(plain.last), weights(measured.last))
    tables = [losses_of(trainer).drop(columns=["time"]) for trainer in (plain, measured)]
    pd.testing.assert_frame_equal(tables[0], tables[1][tables[0].columns], check_exact=True)
    assert (tables[1].filter(like="train/kd_") > 0).all(axis=None)


@slow
def test_projectors_and_steps_go_on_after_an_interruption(detector: Bench) -> None:
    settings = detector.settings("fitnets", "response", warmup_epochs=2.0)
    network = YOLO(model_yaml(detector.folder, "yolo11n", "detect", width=0.0625, names=detector.names))
    saved: dict[str, Any] = {}

    def interrupt(trainer: Any) -> None:
        saved["projectors"] = copy.deepcopy(trainer._projectors.state_dict())
        saved["step"] = trainer._step
        raise KeyboardInterrupt

    network.add_callback("on_model_save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        detector.train_on(network, "interrupted", settings, epochs=3)
    last = detector.folder / "interrupted" / "weights" / "last.pt"
    scan(last)  # already while it trains
    resumed = YOLO(last)
    seen: dict[str, Any] = {}

    def look(trainer: Any) -> None:
        seen["projectors"] = copy.deepcopy(trainer._projectors.state_dict())
        seen["step"], seen["epoch"] = trainer._step, trainer.start_epoch

    resumed.add_callback("on_train_start", look)
    resumed.train(resume=True, trainer=distilling(DetectionTrainer, settings))
    torch.testing.assert_close(seen["projectors"], saved["projectors"], rtol=0, atol=0)
    assert (seen["step"], seen["epoch"]) == (saved["step"], 1)
    table = losses_of(resumed.trainer)
    assert list(table["epoch"]) == [1, 2, 3]
    assert (table.filter(like="train/kd_") > 0).all(axis=None)
    assert not (last.parent / "projectors.pt").exists()


@slow
def test_weights_rise_over_the_warm_up_and_are_whole_in_the_last_epoch(detector: Bench) -> None:
    network = YOLO(model_yaml(detector.folder, "yolo11n", "detect", width=0.0625, names=detector.names))
    factors: list[float] = []

    def look(trainer: Any) -> None:
        criterion = trainer.model.criterion
        ramp = criterion._ramp
        criterion._ramp = lambda: factors.append(ramp()) or factors[-1]

    network.add_callback("on_train_start", look)
    detector.train_on(network, "warm-up", detector.settings("response", warmup_epochs=5.0), epochs=3)
    n_batches = len(factors) // 3
    assert factors == pytest.approx([min((step + 1) / (2 * n_batches), 1.0) for step in range(3 * n_batches)])


@slow
@pytest.mark.parametrize("version", ["yolo11n", "yolo26n"])
def test_ultralytics_own_distillation_composes(tmp_path_factory: pytest.TempPathFactory, version: str) -> None:
    bench = make_bench(tmp_path_factory, "detect", version)
    trainer = bench.train("native", bench.settings("native", "response", "fitnets", weight=0.5))
    row = losses_of(trainer).iloc[0]
    assert trainer.args.dis == 0.5
    assert row["train/dis_loss"] > 0
    assert row["train/kd_response"] > 0
    assert row["train/kd_fitnets"] > 0
    for file in (trainer.last, trainer.best):
        scan(file)


@slow
def test_a_pruned_student_stays_pruned(detector: Bench) -> None:
    """The student's last block is narrower than its yaml says, so that Ultralytics' own trainer would widen it."""
    path = checkpoint(detector.folder, "yolo11n", "detect", width=0.0625, names=detector.names)
    network = YOLO(path)
    narrow_last_hidden_layer(network.model)
    n_parameters = sum(parameter.numel() for parameter in network.model.parameters())
    trainer_class = distilling(keeping_modules(DetectionTrainer), detector.settings())
    network.train(
        trainer=trainer_class,
        data=str(detector.data),
        epochs=1,
        imgsz=SIDE,
        batch=4,
        workers=0,
        device="cpu",
        optimizer="SGD",
        plots=False,
        save_dir=str(detector.folder / "pruned"),
    )
    trained = YOLO(network.trainer.last).model
    assert sum(parameter.numel() for parameter in trained.parameters()) == n_parameters
    scan(network.trainer.last)
    assert losses_of(network.trainer)["train/kd_cwd"].item() > 0


def narrow_last_hidden_layer(model: Any) -> None:
    """Take half of the channels between the last two layers of the first box branch of the head."""
    branch = model.model[-1].cv2[0]
    kept = branch[1].conv.out_channels // 2
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(branch[1].bn, name)[:kept]
        setattr(branch[1].bn, name, torch.nn.Parameter(value) if name in ("weight", "bias") else value)
    branch[1].bn.num_features = branch[1].conv.out_channels = branch[2].in_channels = kept
    branch[1].conv.weight = torch.nn.Parameter(branch[1].conv.weight[:kept])
    branch[2].weight = torch.nn.Parameter(branch[2].weight[:, :kept])


@slow
@pytest.mark.parametrize("optimizer", ["SGD", "MuSGD"])
def test_projectors_learn_with_every_optimizer_and_their_gradients_are_clipped(detector: Bench, optimizer: str) -> None:
    network = YOLO(model_yaml(detector.folder, "yolo11n", "detect", width=0.0625, names=detector.names))
    norms: list[float] = []
    before: list[torch.Tensor] = []

    def look(trainer: Any) -> None:
        before.extend(parameter.detach().clone() for parameter in trainer._projectors.parameters())
        group = trainer.optimizer.param_groups[-1]
        assert group["param_group"] == "projectors"
        assert (group["initial_lr"], group["weight_decay"]) == (0.01, 0.0)

        def measure(*_: Any) -> None:
            gradients = torch.stack([parameter.grad.norm() for parameter in trainer._projectors.parameters()])
            norms.append(gradients.norm().item())

        trainer.optimizer.register_step_post_hook(measure)

    network.add_callback("on_train_start", look)
    settings = detector.settings("fitnets", weight=1e6, warmup_epochs=0.0)
    trainer = detector.train_on(network, optimizer, settings, optimizer=optimizer)
    assert norms
    assert max(norms) == pytest.approx(10, rel=1e-3)
    assert not any(torch.equal(a, b) for a, b in zip(before, trainer._projectors.parameters(), strict=True))


@slow
def test_a_training_that_lost_its_numbers_recovers_with_its_projectors_and_no_teacher_in_the_average(
    detector: Bench,
) -> None:
    network = YOLO(model_yaml(detector.folder, "yolo11n", "detect", width=0.0625, names=detector.names))
    broken: list[int] = []

    def spoil(trainer: Any) -> None:
        if trainer.epoch == 1 and not broken:
            broken.append(trainer.epoch)
            for parameter in trainer._projectors.parameters():
                parameter.data.fill_(float("nan"))

    network.add_callback("on_train_epoch_start", spoil)
    trainer = detector.train_on(network, "recovered", detector.settings("fitnets", "response"), epochs=2)
    assert broken == [1]
    assert trainer.nan_recovery_attempts == 0
    assert all(torch.isfinite(parameter).all() for parameter in trainer._projectors.parameters())
    assert type(getattr(trainer.ema.ema, "criterion", None)) is not DistillationCriterion
    scan(trainer.last)


@slow
def test_a_teacher_that_does_not_fit_stops_the_training_before_it_begins(detector: Bench) -> None:
    other = checkpoint(detector.folder, "yolo11n", "detect", names=("one", "two"))
    settings = Distillation(str(other), {"response": 1.0})
    with pytest.raises(ArgumentError, match="2 classes"):
        detector.train("refused", settings)
    assert not list((detector.folder / "refused").rglob("*.pt"))
    shutil.rmtree(detector.folder / "refused")
    with pytest.raises(ArgumentError, match=r"teacher=.*nowhere\.pt"):
        detector.train("refused", Distillation("nowhere.pt", {"native": 1.0}))
    assert not (detector.folder / "refused").exists()
