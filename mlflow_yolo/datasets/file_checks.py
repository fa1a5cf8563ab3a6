"""All files of a data set, checked at once by a pool of threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlflow_yolo.datasets.images import ImageCheck, check_image
from mlflow_yolo.datasets.labels import LabelCheck, LabelRules, check_labels
from mlflow_yolo.exceptions import DatasetError

Progress = Callable[[int, int], None]
"""Called with (files checked, files in all); from one thread, at most once a file."""

_MAX_THREADS = 16


def check_all_images(images: Sequence[Path], *, progress: Progress | None) -> dict[Path, ImageCheck]:
    """Return what `check_image` finds in every image, if it finds nothing wrong.

    Raises:
        DatasetError: Images cannot be used: the first by name and cause, and how many more.
    """
    checks: dict[Path, ImageCheck] = {}
    with ThreadPoolExecutor(_n_threads()) as pool:
        for done, (image, check) in enumerate(zip(images, pool.map(check_image, images), strict=True), 1):
            checks[image] = check
            if progress is not None:
                progress(done, len(images))
    bad = [image for image in images if checks[image].problem]
    if bad:
        more = f", and {len(bad) - 1} more of {len(images)} images" if len(bad) > 1 else ""
        raise DatasetError(
            f"Image cannot be used: {bad[0]} ({checks[bad[0]].problem}){more}. Replace or remove what is broken."
        )
    return checks


def check_all_labels(labels: Sequence[Path], rules: LabelRules) -> dict[Path, LabelCheck]:
    """Return what `check_labels` finds in every label file, if it finds nothing wrong.

    Raises:
        DatasetError: Rows cannot be used: the first by file, line and value, and how many more files.
    """
    with ThreadPoolExecutor(_n_threads()) as pool:
        checks = dict(zip(labels, pool.map(lambda label: check_labels(label, rules), labels), strict=True))
    bad = [check for check in checks.values() if check.problem]
    if bad:
        more = f" ({len(bad) - 1} more label files have problems.)" if len(bad) > 1 else ""
        raise DatasetError(bad[0].problem + more)
    return checks


def _n_threads() -> int:
    return min(_MAX_THREADS, 2 * (os.cpu_count() or 1))
