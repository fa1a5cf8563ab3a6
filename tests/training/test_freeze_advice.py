import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_yolo.blocks import read_blocks
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.exceptions import DatasetError
from mlflow_yolo.models import checkpoint
from mlflow_yolo.training.block_need import BlockAdvice
from mlflow_yolo.training.freeze_advice import FreezeAdvice, _batch_size, advise

ADVICE = FreezeAdvice(
    blocks=(
        BlockAdvice(0, "00-Conv", "backbone", 1.0, 0.5, 4.0, 0.1, 0.01, 1.0),
        BlockAdvice(1, "01-Concat", "neck"),
        BlockAdvice(2, "02-C3k2", "neck", 8.0, 0.5, 4.0, None, None, 16.0),
        BlockAdvice(3, "03-Detect", "head", 1.0, 0.5, 4.0, None, None, 2.0),
    ),
    depth=1,
    reasons=("One.", "Two."),
    data="cells",
    source="digits",
    n_batches=8,
    n_images=128,
)


def test_an_advice_survives_a_file() -> None:
    assert FreezeAdvice.from_json(json.loads(json.dumps(ADVICE.to_json(), allow_nan=False))) == ADVICE


def test_scores_are_those_of_its_blocks() -> None:
    assert ADVICE.scores == (0.0, 3.25, 3.25, 3.25 - 11.75)  # little is (1 + 16) / 2 / 2


@pytest.mark.parametrize(
    ("batch", "n_batches", "expected"), [(4, 2, 4), (16, 4, 2), (4, 8, 1), (4, 100, 1), (64, 0, 1)]
)
def test_a_small_split_gives_all_batches_with_fewer_images_each(
    small_data: Path, batch: int, n_batches: int, expected: int
) -> None:
    data = load_dataset(small_data, task="detect")  # 8 images
    if n_batches:
        assert _batch_size(data, batch, n_batches) == expected
    else:
        train = replace(data.splits["train"], images=data.splits["train"].images * 100)
        assert _batch_size(replace(data, splits={"train": train}), batch, 8) == 16


@pytest.mark.slow
def test_the_advisor_measures_every_block_and_holds_it_against_the_source(
    start: Path, small_data: Path, tmp_path: Path
) -> None:
    data, told = load_dataset(small_data, task="detect"), []
    blocks = read_blocks(checkpoint.load(str(start)).model.yaml)

    found = advise(
        str(start),
        blocks,
        data,
        imgsz=64,
        batch=4,
        device="cpu",
        directory=tmp_path,
        n_batches=2,
        source=data,
        progress=lambda done, total: told.append((done, total)),
    )
    assert [row.index for row in found.blocks] == list(range(24))
    assert (found.n_batches, found.n_images, found.source) == (2, 8, data.name)
    needs = [row.need for row in found.blocks if row.need is not None]
    assert needs == pytest.approx([1.0] * len(needs))  # its own training data ask for nothing new
    assert found.depth == 23
    assert told == [(done, 8) for done in range(1, 9)]


@pytest.mark.slow
def test_without_source_data_noise_is_the_yardstick_and_the_same_seed_says_the_same(
    start: Path, small_data: Path, tmp_path: Path
) -> None:
    data = load_dataset(small_data, task="detect")
    blocks = read_blocks(checkpoint.load(str(start)).model.yaml)

    def ask(n_batches: int) -> FreezeAdvice:
        return advise(
            str(start), blocks, data, imgsz=64, batch=4, device="cpu", directory=tmp_path, n_batches=n_batches
        )

    first = ask(4)
    assert first == ask(4)
    assert all(row.need == pytest.approx(row.gsnr**0.5) for row in first.blocks if row.gsnr is not None)
    assert first.source is None
    single = ask(1)
    assert (single.depth, {row.need for row in single.blocks}) == (0, {None})


@pytest.mark.slow
def test_source_data_without_the_models_classes_are_refused(start: Path, small_data: Path, tmp_path: Path) -> None:
    data = load_dataset(small_data, task="detect")
    with pytest.raises(DatasetError):
        advise(
            str(start),
            [],
            replace(data, splits={**data.splits, "train": replace(data.splits["train"], images=())}),
            imgsz=64,
            batch=4,
            device="cpu",
            directory=tmp_path,
        )
