"""Maps while training: the same images in every run, nothing of the training changed, and never in its way."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pytest
import torch

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.events.callbacks import TrainingCallbacks, attach
from mlflow_yolo.tracking.events.earlier import EarlierAttempts
from mlflow_yolo.tracking.maps import training_maps
from mlflow_yolo.tracking.maps.training_maps import TrainingMaps
from tests.training.task_data import narrow_model, task_data

if TYPE_CHECKING:
    from tests.conftest import RecordedRun

slow = pytest.mark.slow
Train = Callable[..., Any]

KEYS = ["cam/01-hardest", "cam/02-median", "cam/03-easiest", "cam/04-bright", "cam/05-dark"]


@pytest.fixture
def train(small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path) -> Train:
    """Train the small model with these callbacks and return the trainer."""

    def train_one(callbacks: TrainingCallbacks, folder: str = "train", **changed: Any) -> Any:
        from ultralytics import YOLO

        network = YOLO(small_model)
        attach(network, callbacks)
        network.train(**{**small_arguments, "save_dir": str(tmp_path / folder), **changed})
        return network.trainer

    return train_one


def maps_of(run: "RecordedRun") -> list[tuple[str, int]]:
    return [(key, step) for key, step in run.images if key.startswith("cam/")]


# ------------------------------------------------------------------------------------------------ nothing is changed


@dataclass(frozen=True)
class Pair:
    """The same training twice: by Ultralytics alone, and with maps before and after every epoch and nothing else."""

    plain: Any
    watched: Any
    run: "RecordedRun"


@pytest.fixture(scope="module")
def pair(
    small_model: Path,
    small_arguments: Mapping[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    recorded_run_type: type["RecordedRun"],
) -> Pair:
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("pair")
    run, trainers = recorded_run_type(folder / "run"), {}
    for name in ("plain", "watched"):
        network = YOLO(small_model)
        if name == "watched":
            attach(network, TrainingCallbacks(run, statistics="off", maps=1))
        network.train(**{**small_arguments, "save_dir": str(folder / name)})
        trainers[name] = network.trainer
    return Pair(**trainers, run=run)


@slow
def test_weights_are_the_same_to_the_last_bit_with_maps_and_without(pair: Pair) -> None:
    for one, two in ((pair.plain.model, pair.watched.model), (pair.plain.ema.ema, pair.watched.ema.ema)):
        other = two.state_dict()
        assert [name for name, value in one.state_dict().items() if not torch.equal(value, other[name])] == []
    assert len(maps_of(pair.run)) == 15


@slow
def test_models_are_given_back_without_a_trace(pair: Pair) -> None:
    saved = torch.load(pair.watched.best, weights_only=False)["model"]

    for model in (pair.watched.model, pair.watched.ema.ema, saved):
        assert [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks] == []
    assert not any(p.requires_grad or p.grad is not None for p in pair.watched.ema.ema.parameters())
    assert "mlflow_yolo.statistics" not in pair.run.tags


@slow
def test_the_start_and_every_epoch_have_the_same_keys_and_say_how_much_of_the_maps_is_on_the_objects(
    pair: Pair,
) -> None:
    assert maps_of(pair.run) == [(key, step) for step in (0, 1, 2) for key in KEYS]
    assert maps_of(pair.run) == [image for image in pair.run.images if not image[0].startswith("stats/")]
    inside, uniform = (
        [pair.run.value(f"val/map_energy_{what}", step=step) for step in (0, 1, 2)] for what in ("inside", "uniform")
    )
    assert all(0 < value < 1 for value in inside)
    assert len(set(uniform)) == 1  # it follows from the labels
    assert [step for step, values in pair.run.metrics if "train/box_loss" in values] == [1, 2]


@slow
def test_the_metric_that_decides_is_logged_before_those_of_maps_that_were_made_before_it(pair: Pair) -> None:
    steps = [step for step, _ in pair.run.metrics]

    assert next(iter(pair.run.metrics[0][1])) == "metrics/mAP50-95B"
    assert steps[:3] == [1, 0, 1]  # the first epoch, then the values of the start, then those of its own maps


@slow
def test_the_first_maps_are_of_the_weights_that_the_training_begins_with(
    small_model: Path,
    small_arguments: Mapping[str, Any],
    tmp_path: Path,
    recorded_run: "RecordedRun",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ultralytics import YOLO

    def weights(model: Any) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in model.state_dict().items()}

    begun: list[dict[str, torch.Tensor]] = []
    seen: list[dict[str, torch.Tensor]] = []
    explain = training_maps.explain_objects
    monkeypatch.setattr(training_maps, "explain_objects", lambda *of: seen.append(weights(of[0])) or explain(*of))
    network = YOLO(small_model)
    attach(network, TrainingCallbacks(recorded_run, statistics="off", maps=9))
    network.add_callback("on_pretrain_routine_end", lambda trainer: begun.append(weights(trainer.model)))
    network.train(**{**small_arguments, "epochs": 1, "save_dir": str(tmp_path / "train")})

    changed = [[name for name, value in begun[0].items() if not torch.equal(value, of[name])] for of in seen]
    assert len(changed) == 2
    assert changed[0] == []
    assert changed[1] != []


@slow
def test_another_model_seed_and_batch_show_the_same_pictures_under_the_same_keys(
    train: Train, recorded_run_type: type["RecordedRun"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    draw = training_maps.draw_objects

    def note(one: Any, names: Any) -> Any:
        shown[-1][one.watched.chosen.key] = (one.watched.input.name, one.watched.input.picture, one.watched.boxes)
        return draw(one, names)

    monkeypatch.setattr(training_maps, "draw_objects", note)
    for folder, changed in (("one", {}), ("two", {"seed": 7, "batch": 2, "freeze": None, "lr0": 0.001})):
        shown.append({})
        train(TrainingCallbacks(recorded_run_type(tmp_path / folder), statistics="off"), folder, epochs=1, **changed)

    first, second = shown
    assert list(first) == list(second) == KEYS
    for key in KEYS:
        assert first[key][0] == second[key][0]
        assert all(np.array_equal(a, b) for a, b in zip(first[key][1:], second[key][1:], strict=True))


# ------------------------------------------------------------------------------------------------- nothing is stopped


@slow
@pytest.mark.parametrize(
    ("broken", "statistics"),
    [("explain_objects", "default"), ("read_watched", "off"), ("read_layers", "off"), ("draw_objects", "off")],
)
def test_a_failure_is_said_once_and_tagged_and_everything_else_goes_on(
    broken: str,
    statistics: str,
    train: Train,
    recorded_run: "RecordedRun",
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def fail(*_: Any) -> Any:
        calls.append(broken)
        raise torch.OutOfMemoryError("no memory for maps today")

    monkeypatch.setattr(training_maps, broken, fail)
    callbacks = TrainingCallbacks(recorded_run, maps=1, statistics=statistics)
    with caplog.at_level(logging.WARNING, logger="mlflow_yolo"):
        trainer = train(callbacks)

    what = "pictures of maps" if broken == "draw_objects" else "maps"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"mlflow_yolo: {what} failed, training goes on: OutOfMemoryError: no memory for maps today"
    assert recorded_run.tags["mlflow_yolo.statistics.cause"] == f"{what}: no memory for maps today"
    assert len(calls) == (3 if broken == "draw_objects" else 1)  # what failed on the device is not tried again
    assert maps_of(recorded_run) == []
    assert trainer.epoch == 1
    assert callbacks.final is not None
    gradients = [step for step, values in recorded_run.metrics if "stats/gradient_norm" in values]
    assert gradients == ([1, 2] if statistics == "default" else [])


@slow
def test_a_failure_while_a_model_is_looked_into_leaves_it_as_it_was(
    train: Train, recorded_run: "RecordedRun", monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no memory for gradients")

    monkeypatch.setattr(torch.autograd, "grad", fail)
    trainer = train(TrainingCallbacks(recorded_run, statistics="off"))

    assert "no memory for gradients" in recorded_run.tags["mlflow_yolo.statistics.cause"]
    other = pair.plain.model.state_dict()
    assert [name for name, value in trainer.model.state_dict().items() if not torch.equal(value, other[name])] == []
    assert not [name for name, m in trainer.ema.ema.named_modules() if m._forward_hooks]


@slow
def test_a_model_without_class_logits_has_no_maps_and_that_is_no_failure(
    train: Train, recorded_run: "RecordedRun", caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ArgumentError("Thing has no class logits for its anchors.")

    monkeypatch.setattr(training_maps, "explain_objects", refuse)
    callbacks = TrainingCallbacks(recorded_run, statistics="off")
    with caplog.at_level(logging.INFO, logger="mlflow_yolo"):
        train(callbacks)

    ours = [record for record in caplog.records if record.name.startswith("mlflow_yolo")]
    assert [(record.levelname, record.getMessage()) for record in ours] == [
        ("INFO", "mlflow_yolo: no maps of this training: Thing has no class logits for its anchors.")
    ]
    assert recorded_run.tags == {}


# ---------------------------------------------------------------------------------------------------- when, and where


class Counted(TrainingMaps):
    """Counts the sets that are made, each of which takes some seconds of a clock of its own."""

    def __init__(self, run: Any, *, cost_s: float, **given: Any) -> None:
        self.made: list[int] = []
        self.now = 0.0
        super().__init__(run, report=lambda what, error: None, clock=lambda: self.now, **given)
        self._cost_s = cost_s

    def _prepared(self, trainer: Any, network: Any) -> Any:
        return SimpleNamespace(images=(1,)), None

    def _make(self, network: Any, layers: Any, watched: Any, *, device: Any, epoch: int) -> None:
        self.made.append(epoch)
        self.now += self._cost_s


@pytest.mark.parametrize(
    ("n_epochs", "cost_s", "every", "epochs"),
    [
        (3, 0.22, None, [0, 1, 2, 3]),  # 4 x 0.22 s of 3 % of 3 x 10 s
        (3, 0.3, None, [0, 2, 3]),  # 3 x 0.3 s
        (3, 0.31, None, [0, 3]),
        (3, 9.0, None, [0, 3]),  # the start and the last in any case
        (8, 0.5, None, [0, 4, 8]),  # four would be possible, and 0, 2, 4, 6, 8 are five
        (15, 0.0, None, [*range(16)]),
        (16, 0.0, None, [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (5, 9.0, 2, [0, 2, 4, 5]),  # as asked for, whatever it costs
        (1, 9.0, None, [0, 1]),
    ],
)
def test_sets_are_made_within_the_budget_or_as_often_as_asked_for(
    recorded_run: "RecordedRun", n_epochs: int, cost_s: float, every: int | None, epochs: list[int]
) -> None:
    maps = Counted(recorded_run, cost_s=cost_s, every_n_epochs=every)
    trainer = SimpleNamespace(ema=None, model=None, device="cpu", test_loader=())
    maps.start(trainer)
    for epoch in range(1, n_epochs + 1):
        maps.end_epoch(trainer, epoch=epoch, n_epochs=n_epochs, seconds=10.0, is_last=epoch == n_epochs)

    assert maps.made == epochs


@pytest.mark.parametrize("without", [{}, {"test_loader": None}], ids=str)
def test_where_nothing_is_validated_there_are_no_maps_and_that_is_no_failure(
    recorded_run: "RecordedRun", without: Mapping[str, Any]
) -> None:
    maps = Counted(recorded_run, cost_s=1.0)

    assert maps.start(SimpleNamespace(ema=None, model=None, device="cpu", **without))
    assert maps.made == []


@slow
def test_a_training_that_ends_in_its_first_epoch_keeps_the_values_of_its_start(
    train: Train, recorded_run: "RecordedRun"
) -> None:
    class Interrupted(TrainingCallbacks):
        def on_train_batch_end(self, trainer: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(recorded_run, statistics="off"))

    assert maps_of(recorded_run) == [(key, 0) for key in KEYS]
    assert 0 < recorded_run.value("val/map_energy_inside", step=0) < 1


@slow
@pytest.mark.parametrize("off", [{"maps": 0}, {"log_images": False}, {"log_images": False, "maps": 1}], ids=str)
def test_maps_can_be_switched_off(off: Mapping[str, Any], train: Train, recorded_run: "RecordedRun") -> None:
    train(TrainingCallbacks(recorded_run, statistics="off", **off), epochs=1)

    assert recorded_run.images == []
    assert not [key for _, values in recorded_run.metrics for key in values if "map_energy" in key]


@slow
def test_two_stages_are_one_training_whose_last_epoch_is_that_of_the_second(
    train: Train, recorded_run: "RecordedRun"
) -> None:
    given = {"statistics": "off", "maps": 9, "n_epochs": 4}
    first = TrainingCallbacks(recorded_run, is_final=False, **given)
    train(first, "one")
    train(TrainingCallbacks(recorded_run, epoch_offset=2, continues=first, **given), "two")

    assert maps_of(recorded_run) == [(key, step) for step in (0, 4) for key in KEYS]


@slow
def test_the_last_epoch_is_the_one_in_which_a_training_stops(
    small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path, recorded_run: "RecordedRun"
) -> None:
    from ultralytics import YOLO

    def stop(trainer: Any) -> None:
        trainer.stop = trainer.epoch == 1

    network = YOLO(small_model)
    attach(network, TrainingCallbacks(recorded_run, statistics="off", maps=50))
    network.add_callback("on_train_epoch_end", stop)
    network.train(**{**small_arguments, "epochs": 9, "save_dir": str(tmp_path / "train")})

    assert {step for _, step in maps_of(recorded_run)} == {0, 2}


def test_callbacks_travel_without_maps(recorded_run: "RecordedRun", tmp_path: Path) -> None:
    callbacks = TrainingCallbacks(recorded_run, maps=3)
    assert callbacks._maps is not None
    callbacks._maps._later(lambda: None)  # a thread cannot be pickled

    state = callbacks.__getstate__()

    assert cloudpickle.loads(cloudpickle.dumps((state["_maps"], state["_maps_every"]))) == (None, 3)
    callbacks._maps.stop()


@slow
@pytest.mark.parametrize("n_attempts", [1, 0])  # 0: nothing is known of the attempt before
def test_a_resumed_training_shows_the_same_images_and_goes_on_with_the_epochs(
    n_attempts: int,
    small_model: Path,
    small_arguments: Mapping[str, Any],
    tmp_path: Path,
    recorded_run_type: type["RecordedRun"],
) -> None:
    from ultralytics import YOLO

    def interrupt(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    runs = [recorded_run_type(tmp_path / name) for name in ("first", "second")]
    network = YOLO(small_model)
    attach(network, TrainingCallbacks(runs[0], statistics="off", maps=1))
    network.add_callback("on_train_epoch_start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        network.train(**{**small_arguments, "epochs": 3, "save_dir": str(tmp_path / "train")})
    network = YOLO(tmp_path / "train" / "weights" / "last.pt")
    attach(network, TrainingCallbacks(runs[1], statistics="off", maps=1, earlier=EarlierAttempts(n_attempts)))
    network.train(resume=True)

    assert maps_of(runs[0]) == [(key, step) for step in (0, 1) for key in KEYS]
    assert maps_of(runs[1]) == [(key, step) for step in (2, 3) for key in KEYS]


@slow
@pytest.mark.parametrize(
    ("task", "keys", "measured"),
    [
        ("detect", {"cam/01-hardest", "cam/02-median", "cam/03-easiest"}, True),
        ("segment", {"cam/01-hardest", "cam/02-median", "cam/03-easiest"}, True),
        ("pose", {"cam/01-hardest", "cam/02-median", "cam/03-easiest", "cam/04-bar"}, True),
        ("obb", {"cam/01-hardest", "cam/02-median", "cam/03-easiest", "cam/04-bar"}, True),
        ("classify", {f"cam/{digit + 1:02}-{digit}" for digit in range(10)}, False),
    ],
)
def test_every_task_has_maps(
    task: str, keys: set[str], measured: bool, tmp_path: Path, recorded_run: "RecordedRun"
) -> None:
    from ultralytics import YOLO

    data = task_data(task, tmp_path / "data")
    network = YOLO(narrow_model("yolo26n", task, data, tmp_path), task=task)
    attach(network, TrainingCallbacks(recorded_run, statistics="off"))
    given = {"epochs": 1, "imgsz": 32 if task == "classify" else 64, "batch": 4, "workers": 0, "device": "cpu"}
    network.train(data=str(data), plots=False, verbose=False, save_dir=str(tmp_path / "train"), **given)

    shown = maps_of(recorded_run)
    found = {key for key, _ in shown}
    assert sorted(shown) == [(key, step) for key in sorted(found) for step in (0, 1)]
    assert found >= keys
    assert len(found) <= 12
    assert recorded_run.tags == {}
    assert any("val/map_energy_inside" in values for _, values in recorded_run.metrics) == measured
