"""The embedded data: scikit-learn's 1,797 handwritten digits, composed into scenes; no download, the same everywhere.

| name             | task     | what it shows                                                              |
|------------------|----------|----------------------------------------------------------------------------|
| digits           | detect   | grey ink on grey paper, dark on light or light on dark                     |
| digits-seg       | segment  | the same images, outlines instead of boxes                                 |
| digits-cls       | classify | one digit an image, one folder a class                                     |
| digits-shadow    | detect   | coloured ink on coloured paper under soft cast shadows, sRGB               |
| digits-logchroma | detect   | exactly the images of digits-shadow, as log-chromaticity; the same labels  |

Deterministic: every scene has its own PCG64 stream of (seed, split, index), pixels are rounded to 8 bits once, and the
PNG bytes depend on the pixels alone. Train, val and test draw from disjoint scans, whatever the seed and sizes are.
Beside the images lies `objects/<split>.csv`: image, object, class, x1, y1, x2, y2 (pixels), shadow_fraction,
chromaticity_distance; row by row in the order of the label files.

Source of the scans: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (test part, as
bundled with scikit-learn). Writers are not named there, so splits share writers.
"""

import contextlib
import csv
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from mlflow_yolo.datasets.log_chromaticity import log_chromaticity
from mlflow_yolo.datasets.outline import trace_outline
from mlflow_yolo.datasets.png import encode_png
from mlflow_yolo.datasets.scenes import Glyph, Layout, Scene, compose_layout, render_grey, render_shadow
from mlflow_yolo.exceptions import DatasetError

EMBEDDED = ("digits", "digits-seg", "digits-cls", "digits-shadow", "digits-logchroma")
NAMES = tuple("0123456789")

DEFAULT_FINGERPRINTS: Mapping[str, str] = {
    "digits": "7fb0f7e610d3cbef",
    "digits-seg": "41158e89e87d35df",
    "digits-cls": "a622f6de170baf1c",
    "digits-shadow": "edfd3dd225c24835",
    "digits-logchroma": "08d83797e025b2d3",
}
"""Fingerprint of each name at its default sizes."""

GENERATOR_VERSION = 1
"""Part of the folder's name; raised when the pixels or labels of a scene change."""

_SPLITS = ("train", "val", "test")
_SPLIT_FRACTIONS = (0.6, 0.2, 0.2)
_COLOUR = ("digits-shadow", "digits-logchroma")
_SINGLE_SIDE_FRACTIONS = (0.45, 0.75)
_STALE_S = 3600


@dataclass(frozen=True)
class SceneObject:
    """One line of `objects/<split>.csv`.

    Attributes:
        image: File name of the image.
        object: Row of the object in the image's label file, from 0.
        class_id: 0 to 9.
        box: xyxy, pixels.
        shadow_fraction: Mean shadow over the box, 0 in light, 1 in the umbra.
        chromaticity_distance: Distance of ink and paper in (log R/G, log B/G); 0 in grey scenes.
    """

    image: str
    object: int
    class_id: int
    box: tuple[int, int, int, int]
    shadow_fraction: float
    chromaticity_distance: float


def cache_directory() -> Path:
    """Return the folder for generated data: $MLFLOW_YOLO_CACHE, else mlflow_yolo in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("MLFLOW_YOLO_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "mlflow_yolo"


def generate(
    name: str,
    *,
    cache_dir: Path | None = None,
    imgsz: int | None = None,
    n_train: int = 256,
    n_val: int = 128,
    n_test: int = 128,
    seed: int = 0,
) -> Path:
    """Return the data.yaml (for digits-cls the folder) of an embedded data set, generating it if it is not there.

    It is written under a temporary name and renamed into place: a kill leaves nothing half-written, and two processes
    may generate at once.

    Args:
        name: One of EMBEDDED.
        cache_dir: Where it lies; None means `cache_directory()`.
        imgsz: Side of the images in pixels; None means 128, for digits-cls 64. Digits measure 11 to
            45 % of it (digits-cls: 45 to 75 %).
        n_train: Images in train.
        n_val: Images in val.
        n_test: Images in test.
        seed: Another seed composes other scenes from the same scans.

    Raises:
        DatasetError: The name or a size cannot be used, or the folder cannot be written.
    """
    if name not in EMBEDDED:
        raise DatasetError(f"{name!r} is no embedded data set. Use one of {', '.join(EMBEDDED)}.")
    imgsz = imgsz if imgsz is not None else (64 if name == "digits-cls" else 128)
    sizes = dict(zip(_SPLITS, (n_train, n_val, n_test), strict=True))
    if imgsz < 32 or min(sizes.values()) < 1 or seed < 0:
        raise DatasetError(
            f"{name}: imgsz={imgsz}, sizes={tuple(sizes.values())}, seed={seed} cannot be used. "
            "imgsz is at least 32, every split at least 1 image, the seed not negative."
        )
    cache = cache_dir if cache_dir is not None else cache_directory()
    folder = cache / f"{name}-v{GENERATOR_VERSION}-{imgsz}px-{n_train}-{n_val}-{n_test}-seed{seed}"
    if not folder.is_dir():
        try:
            _write_into_place(folder, name=name, imgsz=imgsz, sizes=sizes, seed=seed)
        except OSError as error:
            raise DatasetError(
                f"{name} cannot be written to {cache} ({error.strerror or error}). "
                "Set MLFLOW_YOLO_CACHE to a folder with space that you may write to."
            ) from error
    return folder if name == "digits-cls" else folder / "data.yaml"


def read_objects(root: Path, split: str) -> tuple[SceneObject, ...]:
    """Return the objects of one split of an embedded data set, in the order of images and label rows.

    Args:
        root: The folder `generate` made (`Dataset.root`).
        split: 'train', 'val' or 'test'.

    Raises:
        DatasetError: The folder has no such table: it is not an embedded data set.
    """
    file = root / "objects" / f"{split}.csv"
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return tuple(
                SceneObject(
                    image=row["image"],
                    object=int(row["object"]),
                    class_id=int(row["class"]),
                    box=(int(row["x1"]), int(row["y1"]), int(row["x2"]), int(row["y2"])),
                    shadow_fraction=float(row["shadow_fraction"]),
                    chromaticity_distance=float(row["chromaticity_distance"]),
                )
                for row in csv.DictReader(lines)
            )
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error.strerror}). Only embedded data sets have it.") from error


@functools.cache
def split_scans() -> Mapping[str, NDArray[np.int64]]:
    """Return the indices of the scans that each split draws from: disjoint, fixed, together all 1,797."""
    n = len(_load_scans()[1])
    order = np.random.Generator(np.random.PCG64(20240611)).permutation(n)
    ends = np.cumsum([round(fraction * n) for fraction in _SPLIT_FRACTIONS[:-1]])
    return dict(zip(_SPLITS, np.split(order, ends), strict=True))


def compose_scene(name: str, split: str, index: int, *, imgsz: int, seed: int = 0) -> tuple[Scene, tuple[int, ...]]:
    """Return a scene of an embedded data set and the scans it was drawn from (those drawn and left out included).

    digits-logchroma gives its sRGB scene; digits-cls the digit of class index modulo 10.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, _SPLITS.index(split), index])))
    images, targets = _load_scans()
    pool = split_scans()[split]
    single = name == "digits-cls"
    if single:
        pool = pool[targets[pool] == index % len(NAMES)]
    drawn: list[int] = []

    def draw_scan(generator: np.random.Generator) -> tuple[int, NDArray[np.float64]]:
        scan = int(pool[generator.integers(len(pool))])
        drawn.append(scan)
        return int(targets[scan]), images[scan]

    layout: Layout = (
        compose_layout(rng, draw_scan, imgsz=imgsz, n_digits=(1, 1), side_fractions=_SINGLE_SIDE_FRACTIONS)
        if single
        else compose_layout(rng, draw_scan, imgsz=imgsz)
    )
    render = render_shadow if name in _COLOUR else render_grey
    return render(layout, rng), tuple(drawn)


@functools.cache
def _load_scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.float64), bunch.target.astype(np.int64)


def _write_into_place(folder: Path, *, name: str, imgsz: int, sizes: Mapping[str, int], seed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        for split, n in sizes.items():
            _write_split(temporary, name, split, n, imgsz=imgsz, seed=seed)
        if name != "digits-cls":
            (temporary / "data.yaml").write_text(_data_yaml(name), encoding="utf-8")
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first, with the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    """Remove what a killed process left behind, if it is an hour old."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)


def _write_split(root: Path, name: str, split: str, n: int, *, imgsz: int, seed: int) -> None:
    (root / "objects").mkdir(exist_ok=True)
    with (root / "objects" / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image", "object", "class", "x1", "y1", "x2", "y2", "shadow_fraction", "chromaticity_distance"))
        for index in range(n):
            scene, _ = compose_scene(name, split, index, imgsz=imgsz, seed=seed)
            image = _write_image(root, name, split, f"{split}-{index:05d}", scene, imgsz)
            for row, (glyph, shadow, distance) in enumerate(
                zip(scene.glyphs, scene.shadow_fractions, scene.chromaticity_distances, strict=True)
            ):
                table.writerow((image.name, row, glyph.class_id, *glyph.box, f"{shadow:.4f}", f"{distance:.4f}"))


def _write_image(root: Path, name: str, split: str, stem: str, scene: Scene, imgsz: int) -> Path:
    pixels = log_chromaticity(scene.image) if name == "digits-logchroma" else scene.image
    folder = root / split / NAMES[scene.glyphs[0].class_id] if name == "digits-cls" else root / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{stem}.png"
    image.write_bytes(encode_png(pixels))
    if name != "digits-cls":
        labels = root / "labels" / split
        labels.mkdir(parents=True, exist_ok=True)
        describe = _polygon_row if name == "digits-seg" else _box_row
        text = "".join(describe(glyph, imgsz) for glyph in scene.glyphs)
        (labels / f"{stem}.txt").write_text(text, encoding="utf-8")
    return image


def _box_row(glyph: Glyph, imgsz: int) -> str:
    x1, y1, x2, y2 = (value / imgsz for value in glyph.box)
    return f"{glyph.class_id} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n"


def _polygon_row(glyph: Glyph, imgsz: int) -> str:
    origin = np.array([glyph.box[0] - 1, glyph.box[1] - 1])
    corners = (trace_outline(glyph.mask) + origin) / imgsz
    return " ".join([str(glyph.class_id), *(f"{value:.6f}" for value in corners.ravel())]) + "\n"


def _data_yaml(name: str) -> str:
    content: dict[str, object] = {split: f"images/{split}" for split in _SPLITS}
    content["names"] = dict(enumerate(NAMES))
    if name == "digits-logchroma":
        content["mlflow_yolo_domain"] = "log-chromaticity"
    return yaml.safe_dump(content, sort_keys=False)
