"""Make log-chromaticity images of photographs: of a folder, or of a whole YOLO data set with its labels.

    python convert.py --source /photos/data.yaml --output /photos-logchroma --format png

The result appears whole or not at all: it is made under a temporary name and renamed.
"""

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import yaml
from photographs import FORMATS, encode, is_colourless, read_photograph, write_image
from tqdm import tqdm

from mlflow_yolo.cli import cli, main
from mlflow_yolo.cli.options import option
from mlflow_yolo.datasets.data_yaml import DOMAIN_KEY
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.datasets.digits import EMBEDDED
from mlflow_yolo.datasets.images import find_images
from mlflow_yolo.exceptions import ArgumentError, DatasetError

_KEPT = ("names", "kpt_shape", "flip_idx")
"""What of a data.yaml is still true of the converted images."""


@dataclass(frozen=True)
class Conversion:
    """One photograph and what becomes of it.

    Attributes:
        photograph: Where it lies.
        image: Where its log-chromaticity image goes, below the output.
        label: Its label file, if it has one.
    """

    photograph: Path
    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class Converted:
    """What a conversion made.

    Attributes:
        n_images: Number of images.
        place: The data.yaml, or the folder of a folder.
        colourless: Photographs without any colour, whose log-chromaticity is one even grey.
    """

    n_images: int
    place: Path
    colourless: tuple[Path, ...]

    @property
    def text(self) -> str:
        """What the terminal shows."""
        lines = [f"{self.n_images} log-chromaticity images: {self.place}"]
        if self.colourless:
            lines.append(
                f"note: {len(self.colourless)} photographs hold no colour and became one even grey, "
                f"first {self.colourless[0]}."
            )
        return "\n".join(lines)


def convert(source: str, output: Path, *, format: str) -> Converted:
    """Convert a folder of photographs, or a YOLO data set together with its labels.

    Args:
        source: A folder, which keeps its structure; a data.yaml; or an embedded data set.
        output: A folder that does not exist yet, or is empty.
        format: `png` or `tiff` (see `photographs`).

    Raises:
        InputError: The source or a photograph cannot be read, or the output cannot be written; nothing is left there.
    """
    if Path(source).is_dir():
        dataset, plan = None, _plan_folder(Path(source), FORMATS[format])
    else:
        dataset = load_dataset(source)
        plan = _plan_dataset(dataset, FORMATS[format])
    _check_unique(plan)
    colourless = []
    with _appearing(output.expanduser().absolute()) as folder:
        for item in tqdm(plan, desc="log-chromaticity", unit="image", file=sys.stderr, disable=None):
            photograph = read_photograph(item.photograph)
            if is_colourless(photograph):
                colourless.append(item.photograph)
            (folder / item.image).parent.mkdir(parents=True, exist_ok=True)
            write_image(folder / item.image, encode(photograph, format))
            if item.label:
                _copy_label(item.label, folder / "labels" / item.image.relative_to("images").with_suffix(".txt"))
        if dataset:
            (folder / "data.yaml").write_text(_data_yaml(dataset), encoding="utf-8")
    return Converted(len(plan), output / "data.yaml" if dataset else output, tuple(colourless))


def _plan_folder(source: Path, suffix: str) -> list[Conversion]:
    """Return what becomes of every image below a folder."""
    if (source / "data.yaml").exists():
        raise DatasetError(f"{source} holds a data.yaml. Name it, source={source / 'data.yaml'}, to keep the labels.")
    images = find_images(source)
    if not images:
        raise DatasetError(f"no images in {source}. Name a folder with photographs, or a data.yaml.")
    return [Conversion(image, image.relative_to(source).with_suffix(suffix)) for image in images]


def _plan_dataset(dataset: Dataset, suffix: str) -> list[Conversion]:
    """Return what becomes of every image of a data set, by split."""
    if dataset.description is None:
        raise DatasetError(f"{dataset.root} is no data.yaml. Name the folder itself to convert all images below it.")
    return [
        Conversion(image, Path("images", split.name, image.stem + suffix), label)
        for split in dataset.splits.values()
        for image, label in zip(split.images, split.labels, strict=True)
    ]


def _check_unique(plan: Sequence[Conversion]) -> None:
    """Raise DatasetError where two photographs would become one file, such as a.jpg and a.png."""
    image, count = Counter(item.image for item in plan).most_common(1)[0]
    if count > 1:
        first, second = [item.photograph for item in plan if item.image == image][:2]
        raise DatasetError(f"{first} and {second} would both become {image}. Rename one of them and its label.")


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `output` when the block ends well, and vanishes when it does not."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ArgumentError(f"output={output} exists already. Name a new folder, or remove that one.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise _cannot_write(output, error) from error
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's 0700 would hide the images from other users
        os.replace(folder, output)
    except OSError as error:
        raise _cannot_write(output, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cannot_write(output: Path, error: OSError) -> ArgumentError:
    return ArgumentError(f"output={output} cannot be written: {error.strerror or error}. Choose another folder.")


def _copy_label(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _data_yaml(dataset: Dataset) -> str:
    """Return the data.yaml of the converted images, marked so that colour augmentation defaults to none."""
    assert dataset.description is not None
    content = {split: f"images/{split}" for split in dataset.splits}
    content |= {key: value for key, value in dataset.description.content.items() if key in _KEPT}
    content.setdefault("names", dict(enumerate(dataset.names)))  # type: ignore[arg-type]
    return yaml.safe_dump(content | {DOMAIN_KEY: "log-chromaticity"}, sort_keys=False, allow_unicode=True)


@click.command("convert")
@option("source", required=True, help="Folder of photographs, data.yaml of a YOLO data set, or an embedded data set.")
@option("output", required=True, type=click.Path(path_type=Path), help="New folder to write.")
@option("format", type=click.Choice(list(FORMATS)), default="png", help="png: 8 bits a channel; tiff: 16 bits.")
@option("debug", is_flag=True, help="Show the traceback of an error.")
def command(source: str, output: Path, format: str, debug: bool) -> None:
    """Make log-chromaticity images of photographs; labels come along."""
    if not Path(source).expanduser().exists() and source not in EMBEDDED:
        raise DatasetError(f"source={source} does not exist. Name a folder of photographs or a data.yaml.")
    click.echo(convert(str(Path(source).expanduser()), output, format=format).text)


if __name__ == "__main__":
    cli.add_command(command)
    main(["convert", *sys.argv[1:]])
