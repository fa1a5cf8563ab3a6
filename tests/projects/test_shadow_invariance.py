"""The worked project: its converter, its recall in shadow and in light, its entry points, and one run of the whole."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.detection.matching import match
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import ArgumentError, DatasetError, InputError
from mlflow_yolo.training.plan import default_arguments

PROJECT = Path(__file__).resolve().parents[2] / "projects" / "shadow_invariance"
sys.path.insert(0, str(PROJECT))  # as `python compare.py` has it

import compare  # noqa: E402
import convert  # noqa: E402
from analysis import LOGCHROMA, SRGB, bootstrap  # noqa: E402
from photographs import decode_16_bit, encode, encode_16_bit, is_colourless, read_photograph, write_image  # noqa: E402
from recall import count, found_objects, measures, shadow_fractions  # noqa: E402

MLPROJECT: dict[str, Any] = yaml.safe_load((PROJECT / "MLproject").read_text())


# Photographs and log-chromaticity images


def test_the_code_of_a_colour_is_the_closed_form() -> None:
    # Linear light by hand: 255 is 1, 188 is ((188/255 + .055) / 1.055)^2.4; the ratio is (1 + .002) / (x + .002).
    x = ((188 / 255 + 0.055) / 1.055) ** 2.4
    ratio = np.log(1.002) - np.log(x + 0.002)
    photograph = np.array([[[255, 188, 188], [188, 188, 255], [90, 90, 90]]], dtype=np.uint8)
    steps = round(127 * ratio / 2)
    half = round(127 * ratio / 4)
    expected = [[128 + steps, 128, 128 + half], [128, 128 + steps, 128 + half], [128, 128, 128]]
    np.testing.assert_array_equal(encode(photograph, "png")[0], expected)


def test_the_high_byte_of_16_bits_is_the_8_bit_image() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(encode(photograph, "tiff") >> 8, encode(photograph, "png"))


def test_16_bits_give_back_the_log_ratios_and_clip_beyond_two() -> None:
    ratios = np.random.default_rng(1).uniform(-2, 2, (500, 2))
    assert np.abs(decode_16_bit(encode_16_bit(ratios)) - ratios).max() <= 2 / 127 / 256 + 1e-12
    np.testing.assert_allclose(decode_16_bit(encode_16_bit(np.array([[-9.0, 9.0], [0.0, 0.0]]))), [[-2, 2], [0, 0]])


def test_a_neutral_shadow_does_not_change_the_image() -> None:
    """Four times less light of the same colour; only the epsilon leaves a rest."""
    light = np.random.default_rng(2).uniform(0.2, 1.0, (30, 30, 3))

    def srgb_16_bit(linear: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint16]]:
        return np.rint(65535 * (1.055 * linear ** (1 / 2.4) - 0.055)).astype(np.uint16)

    bright, dark = (decode_16_bit(encode(srgb_16_bit(linear), "tiff")) for linear in (light, light / 4))
    # log((R/4 + e) / (G/4 + e)) = log((R + 4e) / (G + 4e)), which changes with 4e by at most 1/.2 - 1/1 = 4.
    assert np.abs(bright - dark).max() < 3 * 0.002 * 4 + 0.001
    assert np.ptp(bright) > 1, "the colours themselves differ far more"


def test_what_is_written_is_read_back_in_rgb_order(tmp_path: Path) -> None:
    for name, kind in (("a.png", np.uint8), ("a.tiff", np.uint16), ("b.png", np.uint16)):
        pixels = np.random.default_rng(3).integers(0, np.iinfo(kind).max + 1, (12, 17, 3)).astype(kind)
        write_image(tmp_path / name, pixels)
        np.testing.assert_array_equal(read_photograph(tmp_path / name), pixels)
        assert read_photograph(tmp_path / name).dtype == kind


def test_a_file_of_floats_is_refused_by_name(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "float.tiff"), np.ones((12, 12, 3), dtype=np.float32))
    with pytest.raises(DatasetError, match=r"float\.tiff holds float32"):
        read_photograph(tmp_path / "float.tiff")


def test_only_equal_channels_are_colourless() -> None:
    grey = np.full((4, 4, 3), 77, dtype=np.uint8)
    assert is_colourless(grey)
    grey[0, 0, 2] += 1
    assert not is_colourless(grey)


# The converter


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the data.yaml of a tiny embedded data set by name; the same scenes for every name."""
    folder = tmp_path_factory.mktemp("scenes")
    return lambda name: generate(name, cache_dir=folder, n_train=6, n_val=4, n_test=4)


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_a_converted_data_set_is_the_embedded_one(format: str, scenes: Callable[[str], Path], tmp_path: Path) -> None:
    """Pixels as Ultralytics reads them, labels, splits and the domain that switches colour augmentation off."""
    from ultralytics.utils.patches import imread

    done = convert.convert(str(scenes("digits-shadow")), tmp_path / "converted", format=format)
    ours, embedded = load_dataset(done.place), load_dataset(scenes("digits-logchroma"))
    assert done.n_images == 14
    for split in ("train", "val", "test"):
        for mine, theirs in zip(ours.splits[split].images, embedded.splits[split].images, strict=True):
            np.testing.assert_array_equal(imread(mine), imread(theirs))
        assert [p and p.read_bytes() for p in ours.splits[split].labels] == [
            p and p.read_bytes() for p in embedded.splits[split].labels
        ]
    assert default_arguments(ours) == {"hsv_h": 0.0, "hsv_s": 0.0}
    compare.check_same_scenes(load_dataset(scenes("digits-shadow")), ours)


def test_a_folder_keeps_its_structure_and_grey_photographs_are_named(tmp_path: Path) -> None:
    (tmp_path / "photos" / "night").mkdir(parents=True)
    write_image(tmp_path / "photos" / "night" / "grey.png", np.full((12, 12, 3), 40, dtype=np.uint8))
    colours = np.random.default_rng(4).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    write_image(tmp_path / "photos" / "day.png", colours)
    done = convert.convert(str(tmp_path / "photos"), tmp_path / "out", format="tiff")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["day.tiff", "night/grey.tiff"]
    assert "grey.png" in done.text


def _broken(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"no image")


def _namesakes(folder: Path) -> None:
    for suffix in (".png", ".tiff"):
        write_image((folder / "a").with_suffix(suffix), np.zeros((12, 12, 3), dtype=np.uint8))


def _with_yaml(folder: Path) -> None:
    (folder / "data.yaml").write_text("names: [a]")


@pytest.mark.parametrize(
    ("prepare", "named"),
    [(_broken, "broken.jpg"), (_namesakes, "a.tiff"), (_with_yaml, "data.yaml"), (lambda _: None, "no images")],
)
def test_a_folder_that_cannot_be_converted_leaves_nothing(
    prepare: Callable[[Path], None], named: str, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    prepare(tmp_path / "photos")
    with pytest.raises(DatasetError, match=named):
        convert.convert(str(tmp_path / "photos"), tmp_path / "out", format="png")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_an_output_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "a.png", np.zeros((12, 12, 3), dtype=np.uint8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="out exists already"):
        convert.convert(str(tmp_path / "photos"), tmp_path / "out", format="png")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_bad_input_on_the_command_line_is_one_line_and_exit_2(tmp_path: Path) -> None:
    command = [sys.executable, "convert.py", "--source", "/no/such", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n"), "/no/such" in done.stderr) == (2, 1, True)


# Recall


def _sample(gt: Sequence[Sequence[float]], found: Sequence[Sequence[float]], name: str = "a.png") -> Sample:
    """Return a sample of rows (class, x1, y1, x2, y2) and (class, x1, y1, x2, y2, score)."""
    true, boxes = np.array(gt, dtype=float).reshape(-1, 5), np.array(found, dtype=float).reshape(-1, 6)
    return Sample(
        image=name,
        height=100,
        width=100,
        gt_boxes=true[:, 1:],
        gt_classes=true[:, 0].astype(np.int64),
        boxes=boxes[:, 1:5],
        scores=boxes[:, 5],
        classes=boxes[:, 0].astype(np.int64),
    )


def test_objects_are_found_by_class_overlap_and_confidence_once_each() -> None:
    sample = _sample(
        gt=[(0, 0, 0, 10, 10), (1, 20, 0, 30, 10), (2, 40, 0, 50, 10), (3, 60, 0, 70, 10)],
        found=[
            (0, 0, 0, 10, 10, 0.9),  # finds object 0
            (0, 0, 0, 10, 9, 0.8),  # a second one finds nothing more
            (0, 20, 0, 30, 10, 0.9),  # the wrong class
            (2, 40, 0, 50, 4, 0.9),  # IoU .4
            (3, 60, 0, 70, 10, 0.3),  # below the confidence
        ],
    )
    assert found_objects(sample, conf=0.5).tolist() == [True, False, False, False]
    assert found_objects(sample, conf=0.3).tolist() == [True, False, False, True]
    assert found_objects(_sample([], [(0, 0, 0, 10, 10, 0.9)]), conf=0.5).tolist() == []
    assert found_objects(_sample([(0, 0, 0, 10, 10)], []), conf=0.5).tolist() == [False]


def test_the_higher_score_chooses_first_and_the_next_takes_what_is_left() -> None:
    # The second detection overlaps the first object most, but that one is taken; IoU with the other is 8/12.
    sample = _sample(
        gt=[(0, 0, 0, 10, 10), (0, 4, 0, 14, 10)],
        found=[(0, 0, 0, 10, 10, 0.9), (0, 2, 0, 12, 10, 0.8)],
    )
    assert found_objects(sample, conf=0.0).tolist() == [True, True]


def test_found_objects_are_as_many_as_coco_matches() -> None:
    rng = np.random.default_rng(5)

    def boxes(n: int, extra: int) -> list[list[float]]:
        corner, side = rng.uniform(0, 40, (n, 2)), rng.uniform(8, 30, (n, 2))
        rows = np.hstack([rng.integers(0, 2, (n, 1)), corner, corner + side, rng.uniform(0, 1, (n, extra))])
        return [list(row) for row in rows]

    samples = [_sample(boxes(6, 0), boxes(15, 1), f"{index}.png") for index in range(40)]
    matches = match(samples, n_classes=2, max_det=100)
    for conf in (0.0, 0.4, 0.8):
        ours = sum(int(found_objects(sample, conf=conf).sum()) for sample in samples)
        assert ours == int((matches.tp[0, :, 0] & (matches.score >= conf)).sum())


def test_recall_in_shadow_and_light_by_hand() -> None:
    gt = [(0, 0, 0, 10, 10), (0, 20, 0, 30, 10), (0, 40, 0, 50, 10), (0, 60, 0, 70, 10), (0, 80, 0, 90, 10)]
    hits = [(*gt[i], 0.9) for i in (0, 1, 4)]
    sample = _sample(gt, [*hits, (1, 0, 0, 10, 10, 0.9)])
    counts = count([sample], conf=0.5, shadows=[np.array([0.0, 0.05, 0.3, 0.5, 1.0])])
    found = {name: float(value[0]) for name, value in measures(counts).items()}
    # Light: both of two. Shadow: one of two. The object on the edge counts among all five only.
    assert found == {
        "precision": 0.75,
        "recall": 0.6,
        "recall in light": 1.0,
        "recall in shadow": 0.5,
        "shadow minus light": -0.5,
    }


def test_without_shadow_fractions_or_objects_nothing_is_said_of_them() -> None:
    assert set(measures(count([_sample([], [])], conf=0.5, shadows=None))) == {"precision", "recall"}
    empty = measures(count([_sample([], [])], conf=0.5, shadows=[np.zeros(0)]))
    assert all(np.isnan(value[0]) for value in empty.values())


def test_shadow_fractions_follow_the_boxes_whatever_their_order(scenes: Callable[[str], Path]) -> None:
    root = scenes("digits-shadow").parent
    rows = [line.split(",") for line in (root / "objects" / "test.csv").read_text().splitlines()[1:]]
    first = [row for row in rows if row[0] == rows[0][0]]
    gt = [[float(value) for value in row[2:7]] for row in first]
    (given,) = shadow_fractions(root, "test", [_sample(gt, [], first[0][0])]) or []
    (turned,) = shadow_fractions(root, "test", [_sample(gt[::-1], [], "images/test/" + first[0][0])]) or []
    assert given.tolist() == [float(row[7]) for row in first] == turned.tolist()[::-1]
    with pytest.raises(DatasetError, match="test-00000"):
        shadow_fractions(root, "test", [_sample(gt[1:], [], first[0][0])])
    assert shadow_fractions(root / "images", "test", []) is None


def test_the_bootstrap_difference_is_exact_and_paired() -> None:
    """Found objects: sRGB 1 of 2 in every image, log-chromaticity 2 of 2 in every image; no resample can differ."""
    base = {"detections": np.full(9, 2.0), "objects": np.full(9, 2.0), "found": np.full(9, 1.0)}
    better = {**base, "found": np.full(9, 2.0)}
    result = bootstrap({SRGB: [base, base], LOGCHROMA: [better, base]}, n_resamples=99)["recall"]
    assert (result.difference, result.low, result.high, result.p) == (0.25, 0.25, 0.25, 2 / 100)
    same = bootstrap({SRGB: [base], LOGCHROMA: [base]}, n_resamples=99)["recall"]
    assert (same.difference, same.p) == (0.0, 1.0)


# The comparison's input, and its entry points


def test_data_sets_of_other_scenes_are_refused(scenes: Callable[[str], Path], small_data: Path) -> None:
    srgb = load_dataset(scenes("digits-shadow"))
    compare.check_same_scenes(srgb, load_dataset(scenes("digits-logchroma")))
    with pytest.raises(DatasetError, match="lacks 'mlflow_yolo_domain"):
        compare.check_same_scenes(srgb, load_dataset(scenes("digits")))  # the same layouts, but grey
    with pytest.raises(DatasetError, match="has 'mlflow_yolo_domain"):
        compare.check_same_scenes(*[load_dataset(scenes("digits-logchroma"))] * 2)
    with pytest.raises(DatasetError, match="differ in classes"):
        compare.check_same_scenes(load_dataset(small_data), load_dataset(scenes("digits-logchroma")))
    other = generate("digits-logchroma", cache_dir=scenes("digits-shadow").parents[1], n_train=6, n_val=4, n_test=5)
    with pytest.raises(DatasetError, match="test-00004"):
        compare.check_same_scenes(srgb, load_dataset(other))


def test_arguments_that_ultralytics_lacks_are_refused_before_training(scenes: Callable[[str], Path]) -> None:
    given = {"srgb": str(scenes("digits-shadow")), "logchroma": str(scenes("digits-logchroma"))}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    result = CliRunner().invoke(compare.command, [*words, "--hsvv", "0"])
    assert isinstance(result.exception, InputError)
    assert "hsv_v" in str(result.exception)


@pytest.mark.parametrize("entry_point", MLPROJECT["entry_points"])
def test_an_entry_point_calls_a_command_that_accepts_its_defaults(entry_point: str) -> None:
    from mlflow_yolo.cli import cli

    spec = MLPROJECT["entry_points"][entry_point]
    values = {name: parameter["default"] for name, parameter in spec["parameters"].items()}
    words = shlex.split(spec["command"].format(**values))
    commands = {"compare.py": compare.command, "convert.py": convert.command, "-m": cli.commands["freeze-ablation"]}
    command = commands[words[1]]
    context = command.make_context(entry_point, words[4:] if words[1] == "-m" else words[2:])
    assert not context.args, "options that the command does not know"
    for name in values:
        assert f"--{name} {{{name}}}" in spec["command"]
        assert shlex.quote(str(values[name])) == str(values[name]), "MLflow would log it quoted"


@pytest.mark.slow
def test_the_comparison_from_end_to_end(scenes: Callable[[str], Path], store: str, tmp_path: Path) -> None:
    """Two seeds of one epoch: a parent, four children, and a table that equals a reading of the children."""
    import pandas as pd
    from mlflow import MlflowClient

    words = ["--srgb", str(scenes("digits-shadow")), "--logchroma", str(scenes("digits-logchroma")), "--seeds", "0,1"]
    words += ["--epochs", "1", "--imgsz", "64", "--device", "cpu", "--study", "s", "--output", str(tmp_path / "runs")]
    command = [sys.executable, "compare.py", *words, "--tracking-uri", store]
    for _ in range(2):  # the second time shows the same and trains nothing
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "recall in shadow" in done.stdout
    client = MlflowClient(store)
    runs = client.search_runs(["0"])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(runs) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sorted((run.data.params["domain"], run.data.params["seed"]) for run in children) == [
        (domain, seed) for domain in (LOGCHROMA, SRGB) for seed in "01"
    ]
    assert "recall in shadow" in parent.data.tags["mlflow.note.content"]
    table = pd.read_csv(client.download_artifacts(parent.info.run_id, "table.csv", str(tmp_path))).set_index("measure")
    for domain in (SRGB, LOGCHROMA):
        own = [run.data.metrics["test/mAP50-95"] for run in children if run.data.params["domain"] == domain]
        assert table.loc["mAP50-95", domain] == pytest.approx(sum(own) / 2, abs=1e-12)
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "figures")] == ["figures/recall.png"]
    assert client.get_metric_history(parent.info.run_id, "difference/recall")[1:] == [], "logged once"
