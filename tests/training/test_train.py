"""What one real, short training leaves in MLflow and on disk, against Ultralytics alone and against hand counts."""

import csv
import io
import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.detection.samples import load_samples
from mlflow_yolo.keys import MAX_METRIC_KEYS
from mlflow_yolo.tracking.events.final_values import FinalValues
from mlflow_yolo.training.train import _speed_of_learning

if TYPE_CHECKING:
    from mlflow.entities import Run

    from tests.conftest import PlainlyTrained, Trained

slow = pytest.mark.slow
HEADLINE = "metrics/mAP50-95B"
EPOCHS = 2


def run_of(trained: "Trained") -> "Run":
    return trained.client.get_run(trained.run_id)


def artifacts(trained: "Trained", folder: str = "") -> list[str]:
    return [Path(file.path).name for file in trained.client.list_artifacts(trained.run_id, folder)]


def artifact(trained: "Trained", name: str, folder: Path) -> Path:
    return Path(trained.client.download_artifacts(trained.run_id, name, str(folder)))


def checkpoint_model(file: Path) -> nn.Module:
    return torch.load(file, weights_only=False)["model"]


# ---------------------------------------------------------------------------------------------- nothing is changed


@slow
@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_a_tracked_child_has_the_weights_that_ultralytics_alone_gives(
    trained: "Trained", plainly_trained: "PlainlyTrained", name: str
) -> None:
    ours = checkpoint_model(trained.directory / "train" / "weights" / name).state_dict()
    plain = checkpoint_model(plainly_trained.save_dir / "weights" / name).state_dict()
    shipped = checkpoint_model(Path(trained.plan.model)).state_dict()

    assert ours.keys() == plain.keys()
    assert [key for key in plain if not torch.equal(ours[key], plain[key])] == []
    assert [key for key in plain if not torch.equal(shipped[key], plain[key])] != []  # something was learned


@slow
def test_a_tracked_child_has_the_losses_that_ultralytics_alone_gives(
    trained: "Trained", plainly_trained: "PlainlyTrained"
) -> None:
    ours = pd.read_csv(trained.directory / "train" / "results.csv").drop(columns="time")
    plain = pd.read_csv(plainly_trained.save_dir / "results.csv").drop(columns="time")

    pd.testing.assert_frame_equal(ours, plain, check_exact=True)
    assert plain["train/box_loss"].nunique() == EPOCHS


# ------------------------------------------------------------------------------------------------- values in MLflow


@slow
def test_a_finished_child_says_so(trained: "Trained") -> None:
    run = run_of(trained)

    assert (trained.exit_code, trained.result["status"], run.info.status) == (0, "finished", "FINISHED")
    assert run.data.params.items() >= {"freeze": "3", "seed": "3", "lr0": "0.001"}.items()
    assert "mlflow_yolo.statistics" not in run.data.tags


@slow
def test_every_epoch_is_one_step_and_the_best_values_are_none(trained: "Trained") -> None:
    written = pd.read_csv(trained.directory / "train" / "results.csv")

    for column in written.columns.drop(["epoch", "time"]):
        key = column.replace("(B)", "B")
        points = trained.client.get_metric_history(trained.run_id, key)
        assert {point.step: point.value for point in points} == pytest.approx(
            dict(zip(range(1, EPOCHS + 1), written[column], strict=True)), abs=1e-5
        ), key
    assert max(written[f"metrics/{name}(B)"].max() for name in ("mAP50", "mAP50-95")) > 0.3


@slow
def test_no_metric_has_a_step_after_the_last_epoch_nor_two_values_of_one_step(trained: "Trained") -> None:
    for key in run_of(trained).data.metrics:
        steps = [point.step for point in trained.client.get_metric_history(trained.run_id, key)]
        if key.startswith("val/map_energy"):  # also of the weights it began with, and not of every epoch
            assert steps == sorted({*steps, 0, EPOCHS})
            continue
        once = key.startswith(("final/", "test/")) or steps == [0]
        assert steps == ([0] if once else list(range(1, EPOCHS + 1))), key


@slow
def test_final_values_are_those_of_ultralytics_own_validation_of_the_best_weights(trained: "Trained") -> None:
    from ultralytics import YOLO

    metrics = YOLO(trained.directory / "train" / "weights" / "best.pt").val(
        data=trained.plan.data, split="val", imgsz=128, batch=8, device="cpu", workers=0, plots=False, verbose=False
    )
    found = run_of(trained).data.metrics

    expected = {"mAP50": metrics.box.map50, "mAP50-95": metrics.box.map, "precision": metrics.box.mp}
    expected |= {"recall": metrics.box.mr, "F1": float(np.mean(metrics.box.f1))}
    assert {name: found[f"final/{name}"] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert expected["mAP50-95"] > 0.3
    per_class = {metrics.names[c]: metrics.box.maps[c] for c in metrics.box.ap_class_index}
    logged = {key.rpartition("/")[2]: value for key, value in found.items() if key.startswith("final/AP50-95/")}
    assert logged == pytest.approx(per_class, abs=1e-6)


@slow
def test_test_values_are_those_of_ultralytics_own_validation_on_test(trained: "Trained") -> None:
    from ultralytics import YOLO

    metrics = YOLO(trained.directory / "train" / "weights" / "best.pt").val(
        data=trained.plan.data, split="test", imgsz=128, batch=4, device="cpu", workers=0, plots=False, verbose=False
    )
    found = run_of(trained).data.metrics

    assert found["test/mAP50-95"] == pytest.approx(metrics.box.map, abs=1e-6)
    assert found["test/mAP50"] == pytest.approx(metrics.box.map50, abs=1e-6)
    assert trained.result["measured"]["test"]["n_images"] == 6


@slow
def test_sizes_that_occur_are_measured_and_absent_ones_are_not_logged(trained: "Trained") -> None:
    dataset = load_dataset(trained.plan.data)
    sides = [
        float(line.split()[3]) * float(line.split()[4]) * 128 * 128
        for label in dataset.splits["val"].labels
        for line in label.read_text().splitlines()
    ]
    occurring = {
        f"final/AP-{name}"
        for name, (low, high) in {"small": (0, 1024), "medium": (1024, 9216), "large": (9216, 1e9)}.items()
        if any(low <= area < high for area in sides)
    }

    logged = {key for key in run_of(trained).data.metrics if key.startswith("final/AP-")}
    assert logged == occurring
    assert occurring == {"final/AP-small", "final/AP-medium"}


@slow
def test_the_overfit_gap_is_that_of_the_first_evenly_spaced_training_images(trained: "Trained", tmp_path: Path) -> None:
    from ultralytics import YOLO

    dataset = load_dataset(trained.plan.data)
    seen = [str(dataset.splits["train"].images[i]) for i in range(0, 16, 2)]  # as many as val has: 8 of 16
    (tmp_path / "seen.txt").write_text("\n".join(seen))
    content = {"path": str(tmp_path), "train": "seen.txt", "val": "seen.txt", "names": list(dataset.names)}
    (tmp_path / "seen.yaml").write_text(yaml.safe_dump(content))
    weights = trained.directory / "train" / "weights" / "best.pt"
    metrics = YOLO(weights).val(
        data=str(tmp_path / "seen.yaml"), imgsz=128, batch=4, device="cpu", workers=0, plots=False, verbose=False
    )

    found = run_of(trained).data.metrics
    assert found["overfit_gap"] == pytest.approx(metrics.box.map - found["final/mAP50-95"], abs=1e-6)
    assert abs(found["overfit_gap"]) > 1e-4


@slow
def test_epochs_to_90_follow_from_the_logged_curve(trained: "Trained") -> None:
    found = run_of(trained).data.metrics
    curve = [point.value for point in trained.client.get_metric_history(trained.run_id, HEADLINE)]
    seconds = [point.value for point in trained.client.get_metric_history(trained.run_id, "seconds_per_epoch")]

    expected = 1 + next(i for i, value in enumerate(curve) if value >= 0.9 * found["final/mAP50-95"])
    assert found["epochs_to_90"] == expected
    assert found["time_to_90_s"] == pytest.approx(sum(seconds[:expected]))


def curve_of(*values: float) -> Any:
    """Stand in for the callbacks: a curve whose epochs take 2 seconds each."""
    return SimpleNamespace(headline_curve=lambda: [(value, 2.0 * (i + 1)) for i, value in enumerate(values)])


@pytest.mark.parametrize(
    ("curve", "final", "epochs"),
    [((0.1, 0.44, 0.45, 0.5), 0.5, 3), ((0.5, 0.4), 0.5, 1), ((0.0, 0.45), 0.5, 2), ((0.1, 0.9, 0.2), 1.0, 2)],
)
def test_epochs_to_90_count_from_one_to_the_first_epoch_at_90_percent(
    curve: tuple[float, ...], final: float, epochs: int
) -> None:
    found = _speed_of_learning(curve_of(*curve), FinalValues({"mAP50-95": final}, {}))

    assert found == {"epochs_to_90": epochs, "time_to_90_s": 2.0 * epochs}


@pytest.mark.parametrize(("curve", "final"), [((0.0, 0.0), 0.0), ((0.1, 0.2), 0.5), ((), 0.5), ((math.nan,), 0.5)])
def test_epochs_to_90_are_absent_where_the_final_value_is_zero_or_never_approached(
    curve: tuple[float, ...], final: float
) -> None:
    assert _speed_of_learning(curve_of(*curve), FinalValues({"mAP50-95": final}, {})) == {}


@slow
def test_parameters_and_batch_norm_are_counted_as_by_hand(trained: "Trained") -> None:
    model = checkpoint_model(trained.directory / "train" / "weights" / "last.pt").model
    everything = sum(p.numel() for p in model.parameters())
    # Ultralytics always freezes the fixed convolution of the distribution focal loss.
    frozen = sum(p.numel() for block in model[:3] for p in block.parameters()) + model[-1].dfl.conv.weight.numel()
    norms = [[isinstance(m, nn.BatchNorm2d) for m in block.modules()].count(True) for block in model]

    found = run_of(trained).data.metrics
    assert (found["parameters_trainable"], found["parameters_frozen"]) == (everything - frozen, frozen)
    assert (found["bn_total"], found["bn_eval"], found["bn_train"]) == (sum(norms), sum(norms[:3]), sum(norms[3:]))
    assert sum(norms[:3]) > 0


@slow
def test_costs_are_plausible_and_the_time_is_that_of_the_epochs(trained: "Trained") -> None:
    found = run_of(trained).data.metrics
    seconds = [point.value for point in trained.client.get_metric_history(trained.run_id, "seconds_per_epoch")]

    assert found["train_s"] == pytest.approx(sum(seconds))
    assert 0 < found["step_ms"] < 1000 * max(seconds)
    assert found["peak_memory_mb"] > 50


@slow
def test_a_run_stays_below_the_bound_of_metric_keys(trained: "Trained") -> None:
    assert len(run_of(trained).data.metrics) <= MAX_METRIC_KEYS


@slow
def test_only_arguments_that_differ_become_params_and_all_are_in_args_yaml(trained: "Trained", tmp_path: Path) -> None:
    params = {key: value for key, value in run_of(trained).data.params.items() if key.startswith("args/")}
    written = yaml.safe_load(artifact(trained, "args.yaml", tmp_path).read_text())

    expected = {"epochs": "2", "imgsz": "128", "batch": "4", "optimizer": "AdamW", "warmup_epochs": "0.5", "nbs": "4"}
    assert params == {f"args/{name}": value for name, value in {**expected, "device": "cpu"}.items()}
    assert (written["freeze"], written["lr0"], written["seed"], len(written) > 100) == ([0, 1, 2], 0.001, 3, True)


# ------------------------------------------------------------------------------------------------------- artifacts


@slow
def test_artifacts_are_where_a_reader_expects_them(trained: "Trained") -> None:
    expected = {"args.yaml", "results.csv", "blocks.csv", "per_class.csv", "weights", "plots", "statistics", "images"}

    assert expected <= set(artifacts(trained))
    assert artifacts(trained, "weights") == ["best.pt"]
    assert {"results.png", "confusion_matrix.png", "BoxPR_curve.png"} <= set(artifacts(trained, "plots"))
    assert set(artifacts(trained, "statistics")) == {
        "layers.parquet",
        "histograms.npz",
        "channels.parquet",
        "report.html",
    }


@slow
def test_artifacts_are_the_files_themselves(trained: "Trained", tmp_path: Path) -> None:
    for name, file in {"weights/best.pt": "weights/best.pt", "results.csv": "results.csv"}.items():
        assert artifact(trained, name, tmp_path).read_bytes() == (trained.directory / "train" / file).read_bytes()


@slow
def test_the_grid_shows_every_statistics_figure_at_the_last_epoch(trained: "Trained") -> None:
    names = [name for name in artifacts(trained, "images") if name.endswith(".png")]
    shown = {(*name.split("+step+")[0].split("~"), name.split("+")[2]) for name in names}

    by_epoch = {"gradient_l2", "update_ratio", "off_fraction", "weight_histograms", "activation_functions"}
    by_step = {"gradient_l2_steps", "update_ratio_steps"}
    assert {found for found in shown if found[0] == "stats"} == {("stats", name, "2") for name in by_epoch | by_step}
    assert {step for series, _, step in shown if series == "cam"} >= {"0", "2"}
    assert run_of(trained).data.tags["mlflow.loggedImages"] == "true"


@slow
def test_the_dataset_is_an_input_with_its_fingerprint(trained: "Trained") -> None:
    (entry,) = run_of(trained).inputs.dataset_inputs
    dataset = load_dataset(trained.plan.data)

    assert entry.dataset.digest == dataset.fingerprint
    assert '"images": 16' in entry.dataset.profile
    assert [tag.value for tag in entry.tags if tag.key == "mlflow.data.context"] == ["training"]


@slow
def test_the_block_table_has_every_block_and_all_parameters(trained: "Trained", tmp_path: Path) -> None:
    table = pd.read_csv(artifact(trained, "blocks.csv", tmp_path))
    model = checkpoint_model(trained.directory / "train" / "weights" / "best.pt").model

    assert list(table["block"]) == [f"{i:02d}-{type(block).__name__}" for i, block in enumerate(model)]
    assert table["parameters"].sum() == sum(p.numel() for p in model.parameters())


@slow
def test_the_table_of_classes_agrees_with_the_metrics(trained: "Trained", tmp_path: Path) -> None:
    table = pd.read_csv(artifact(trained, "per_class.csv", tmp_path), dtype={"class": str})
    found = run_of(trained).data.metrics

    assert set(table["split"]) == {"val", "test"}
    for split, prefix in (("val", "final"), ("test", "test")):
        own = table[table["split"] == split]
        logged = {key: value for key, value in found.items() if key.startswith(f"{prefix}/AP50-95/")}
        expected = {f"{prefix}/AP50-95/{row['class']}": row["AP50-95"] for _, row in own.iterrows()}
        assert logged == pytest.approx(expected, abs=1e-6)
        assert own["AP50-95"].mean() == pytest.approx(found[f"{prefix}/mAP50-95"], abs=1e-6)


@slow
@pytest.mark.parametrize("split", ["val", "test"])
def test_kept_predictions_score_what_ultralytics_says(trained: "Trained", split: str) -> None:
    samples = load_samples(trained.directory / trained.result["predictions"][split])
    values = trained.result["measured"][split]["values"]

    found = evaluate(samples, n_classes=10)
    assert len(samples) == trained.result["measured"][split]["n_images"]
    assert found.map50_95 == pytest.approx(values["mAP50-95"], abs=0.02)
    assert found.map50 == pytest.approx(values["mAP50"], abs=0.02)


@slow
def test_kept_ground_truth_is_that_of_the_label_files(trained: "Trained") -> None:
    dataset = load_dataset(trained.plan.data)
    samples = load_samples(trained.directory / trained.result["predictions"]["test"])

    assert [sample.image for sample in samples] == [
        str(image.relative_to(dataset.root)) for image in dataset.splits["test"].images
    ]
    for sample, label in zip(samples, dataset.splits["test"].labels, strict=True):
        rows = np.array([line.split() for line in label.read_text().splitlines()], dtype=float)
        centre, size = rows[:, 1:3] * 128, rows[:, 3:5] * 128
        assert list(sample.gt_classes) == list(rows[:, 0].astype(int))
        np.testing.assert_allclose(sample.gt_boxes, np.hstack([centre - size / 2, centre + size / 2]), atol=0.01)


@slow
def test_the_operating_confidence_is_where_mean_f1_peaks_on_val(trained: "Trained") -> None:
    samples = load_samples(trained.directory / trained.result["predictions"]["val"])

    assert trained.result["operating_conf"] == evaluate(samples, n_classes=10).conf
    assert 0 < trained.result["operating_conf"] < 1


# ------------------------------------------------------------------------------------------------ block statistics


def by_block(arrays: dict[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Return all values of each block in one vector: `model.4.cv1.conv.weight` belongs to block 4."""
    blocks = defaultdict(list)
    for name, array in arrays.items():
        blocks[int(name.split(".")[1])].append(array.ravel())
    return {block: np.concatenate(parts) for block, parts in blocks.items()}


def table_of(trained: "Trained", kind: str, statistic: str) -> dict[tuple[int, int, int], float]:
    frame = pd.read_parquet(trained.directory / "statistics" / "layers.parquet")
    own = frame[(frame["kind"] == kind) & (frame["statistic"] == statistic)]
    keys = zip(own["epoch"], own["step"], own["block"], strict=True)
    return {tuple(map(int, key)): float(value) for key, value in zip(keys, own["value"], strict=True)}


@slow
@pytest.mark.parametrize(
    ("statistic", "measure"),
    [
        ("l1", lambda g: np.abs(g).sum()),
        ("l2", lambda g: math.sqrt((g**2).sum())),
        ("max_abs", lambda g: np.abs(g).max()),
        ("mean_abs", lambda g: np.abs(g).mean()),
    ],
)
def test_gradients_of_blocks_are_those_an_independent_reader_saw_before_clipping(
    trained: "Trained", plainly_trained: "PlainlyTrained", statistic: str, measure: Any
) -> None:
    expected = {
        (step["epoch"], index % 4, block): float(measure(vector))
        for index, step in enumerate(plainly_trained.steps)
        for block, vector in by_block(step["gradients"]).items()
    }

    found = table_of(trained, "gradients", statistic)
    assert len(plainly_trained.steps) == 4 * EPOCHS
    assert found == pytest.approx(expected, rel=1e-4)


@slow
def test_the_norm_of_all_gradients_is_read_before_clipping(
    trained: "Trained", plainly_trained: "PlainlyTrained"
) -> None:
    norms = [math.sqrt(sum((g**2).sum() for g in step["gradients"].values())) for step in plainly_trained.steps]

    found = table_of(trained, "global", "gradient_norm")
    assert list(found.values()) == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 10  # clipping at 10 took place, so a norm read after it would differ
    clipped = table_of(trained, "global", "clip_coefficient")
    assert list(clipped.values()) == pytest.approx([min(1.0, 10 / (norm + 1e-6)) for norm in norms], rel=1e-4)


@slow
def test_update_ratios_are_those_of_the_weights_themselves(
    trained: "Trained", plainly_trained: "PlainlyTrained"
) -> None:
    expected = {}
    for index, step in enumerate(plainly_trained.steps):
        before, after = by_block(step["before"]), by_block(step["after"])
        for block, weights in before.items():
            ratio = np.linalg.norm(after[block] - weights) / np.linalg.norm(weights)
            expected[step["epoch"], index % 4, block] = float(ratio)

    # Weights outside the loss have no gradient and are left out of ours; there are none in a detector but the dfl.
    assert table_of(trained, "weights", "update_ratio") == pytest.approx(expected, rel=1e-3)


@slow
def test_block_metrics_are_means_over_the_steps_of_an_epoch(trained: "Trained") -> None:
    found = table_of(trained, "gradients", "l2")
    names = {int(key.rpartition("/")[2][:2]): key for key in run_of(trained).data.metrics if "gradient_l2/" in key}

    assert set(names) == {block for _, _, block in found}
    for block, key in names.items():
        for point in trained.client.get_metric_history(trained.run_id, key):
            own = [value for (epoch, _, b), value in found.items() if (epoch, b) == (point.step, block)]
            assert point.value == pytest.approx(np.mean(own), rel=1e-6)


@slow
@pytest.mark.parametrize(("kind", "statistic"), [("gradients", "l2"), ("weights", "update_ratio")])
def test_frozen_blocks_and_blocks_without_weights_are_absent(trained: "Trained", kind: str, statistic: str) -> None:
    model = checkpoint_model(trained.directory / "train" / "weights" / "best.pt").model
    learning = {i for i, block in enumerate(model) if i >= 3 and any(True for _ in block.parameters())}

    assert {block for _, _, block in table_of(trained, kind, statistic)} == learning


@slow
def test_activations_are_measured_of_frozen_blocks_too_once_an_epoch(trained: "Trained") -> None:
    found = table_of(trained, "activations", "off_fraction")

    assert {(epoch, block) for epoch, _, block in found} >= {(1, 0), (2, 0), (1, 22), (2, 22)}
    assert all(0 <= value <= 1 for value in found.values())
    assert max(found.values()) > 0.05


@slow
def test_weight_histograms_count_every_trainable_weight(trained: "Trained") -> None:
    model = checkpoint_model(trained.directory / "train" / "weights" / "best.pt").model
    with np.load(trained.directory / "statistics" / "histograms.npz") as arrays:
        counts = arrays["weights"].sum(axis=(2, 3)) + arrays["weights_zeros"]
        blocks = list(arrays["blocks"])
        epochs = list(arrays["epochs"])

    assert epochs == [1, 2]
    fixed = model[-1].dfl.conv.weight.numel()
    for block, counted in zip(blocks, counts.T, strict=True):
        sizes = sum(p.numel() for p in model[block].parameters()) - (fixed if block == len(model) - 1 else 0)
        assert list(counted) == [0 if block < 3 else sizes] * EPOCHS


@slow
def test_reports_tell_every_epoch_and_the_headline(trained: "Trained") -> None:
    curve = [point.value for point in trained.client.get_metric_history(trained.run_id, HEADLINE)]

    assert [{**report} for report in trained.reports] == [
        {"epoch": epoch, "epochs": EPOCHS, "metric": HEADLINE, "value": pytest.approx(value)}
        for epoch, value in enumerate(curve, start=1)
    ]


@slow
def test_curves_in_the_result_are_those_of_results_csv(trained: "Trained") -> None:
    rows = list(csv.DictReader(io.StringIO((trained.directory / "train" / "results.csv").read_text())))

    assert trained.result["curves"][HEADLINE] == pytest.approx(
        [float(row["metrics/mAP50-95(B)"]) for row in rows], abs=1e-5
    )
    assert {len(curve) for curve in trained.result["curves"].values()} == {EPOCHS}
