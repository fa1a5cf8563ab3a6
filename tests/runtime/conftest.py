"""Exports that many tests look at, and pictures of odd sizes."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.runtime.small_models import SmallModel, make_model

SIZES = [(96, 128), (128, 96), (37, 211), (3, 200), (250, 333), (64, 64), (129, 127)]
"""Height and width of the pictures: the input's own, turned, flat, very flat, larger, square, odd."""


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], SmallModel]:
    """Return a function (version, task) that makes a model once a session."""
    made: dict[tuple[str, str], SmallModel] = {}

    def get(version: str, task: str) -> SmallModel:
        if (version, task) not in made:
            made[version, task] = make_model(version, task, tmp_path_factory.mktemp(f"{version}-{task}"))
        return made[version, task]

    return get


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return PNG files of blurred noise in `SIZES`."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    files = []
    for index, (height, width) in enumerate(SIZES):
        noise = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        files.append(folder / f"{index}.png")
        cv2.imwrite(str(files[-1]), cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))
    return files
