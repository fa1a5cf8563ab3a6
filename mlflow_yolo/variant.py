"""A variant: a deployable file made from a checkpoint, in a folder of its own with `variant.json`.

    with making(Path("out/fp32-onnx")) as folder:
        (folder / "model.onnx").write_bytes(...)
        write_variant(folder, Variant(kind="fp32-onnx", file="model.onnx", ...))
    variant = read_variant(Path("out/fp32-onnx"))

`variant.json` says what the file is, by what digest it is recognised and what it was made from, so that nothing has to
be guessed from a file name, and nothing but JSON has to be read before the bytes are known to be the right ones.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import ArgumentError, CheckpointError

VARIANT_FILE = "variant.json"

KINDS = (
    "fp32-onnx",
    "fp16-onnx",
    "int8-onnx",
    "dynamic-int8-onnx",
    "int8-qat-onnx",
    "fp32-openvino",
    "bf16-openvino",
    "int8-openvino",
)
"""Precision and runtime of every kind of file that is made."""

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Variant:
    """A deployable file and what must be known to run it.

    Attributes:
        kind: One of `KINDS`.
        file: Name of the file, or folder, beside `variant.json`.
        task: `detect`, `segment` or `classify`.
        names: Class names by id.
        imgsz: (height, width) of the input, pixels.
        stride: Largest stride of the model, pixels.
        channels: Channels of the input.
        end2end: Whether the model's output is final, without non-maximum suppression.
        opset: ONNX operator set, None where the format has none.
        dynamic: Whether height and width of the input are free.
        sha256: Digest of the file, or of the folder's files and names; see `digest`.
        sources: What it was made from: checkpoint and its digest, pruning, teacher, calibration.
        operating_point: `conf`, `iou`, `max_det`, `per_class`; empty where none was chosen.
        runtime: Options its session needs, by the runtime's own names.
        transform: A classifier's preprocessing: `size`, `crop`, `interpolation`, `mean`, `std`; else empty.
    """

    kind: str
    file: str
    task: str
    names: tuple[str, ...]
    imgsz: tuple[int, int]
    stride: int = 32
    channels: int = 3
    end2end: bool = False
    opset: int | None = None
    dynamic: bool = False
    sha256: str = ""
    sources: Mapping[str, Any] = field(default_factory=dict)
    operating_point: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, str] = field(default_factory=dict)
    transform: Mapping[str, Any] = field(default_factory=dict)


def write_variant(directory: Path, variant: Variant) -> Variant:
    """Write `directory/variant.json` for the file that already lies there, and return the variant with its digest.

    Raises:
        CheckpointError: The file that it names is missing.
    """
    complete = replace(variant, sha256=digest(_file_of(directory, variant)))
    unfinished = directory / f".{VARIANT_FILE}.{os.getpid()}"
    unfinished.write_text(json.dumps(asdict(complete), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(directory / VARIANT_FILE)
    return complete


def read_variant(path: Path, *, check: bool = True) -> Variant:
    """Return the variant of a folder.

    Args:
        path: The folder, or its `variant.json`.
        check: Compare the file's bytes with the digest.

    Raises:
        CheckpointError: There is no variant, it cannot be read, or its bytes have changed (both digests are named).
    """
    directory = path.parent if path.name == VARIANT_FILE else path
    try:
        content = json.loads((directory / VARIANT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{directory} holds no {VARIANT_FILE}. Name a variant's folder.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory / VARIANT_FILE} cannot be read: {error}. Make the variant again.") from error
    variant = _parse(content, directory)
    file = _file_of(directory, variant)
    if check and (found := digest(file)) != variant.sha256:
        raise CheckpointError(
            f"{file} has changed since it was made: sha256 {found}, {VARIANT_FILE} says {variant.sha256}. "
            "Make the variant again."
        )
    return variant


def is_variant(path: Path) -> bool:
    """Return whether `path` is a variant's folder or its `variant.json`."""
    return path.name == VARIANT_FILE or (path / VARIANT_FILE).is_file()


@contextmanager
def making(directory: Path) -> Iterator[Path]:
    """Make the folder `directory` whole or not at all.

    Yields:
        An empty folder beside it, which takes its name at the end and is removed after an error.

    Raises:
        ArgumentError: `directory` holds something already, or cannot be written.
    """
    directory = directory.absolute()
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise ArgumentError(f"output={directory} is not empty. Name a new folder, or remove it.")
    unfinished = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise ArgumentError(
            f"output={directory} cannot be written: {error.strerror or error}. Choose another folder."
        ) from error
    try:
        yield unfinished
        if directory.is_dir():
            directory.rmdir()
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of its files' digests and relative names, in order."""
    total = hashlib.sha256()
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            total.update(f"{digest(file)}  {file.relative_to(path).as_posix()}\n".encode())
        return total.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK_BYTES):
            total.update(block)
    return total.hexdigest()


def size_mb(path: Path) -> float:
    """Return the size of a file, or of all files of a folder, in 10^6 bytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def _file_of(directory: Path, variant: Variant) -> Path:
    """Return the variant's file; a name that leads out of the folder is none."""
    file = directory / variant.file
    if not variant.file or Path(variant.file).name != variant.file or not file.exists():
        raise CheckpointError(
            f"{directory} has no file {variant.file!r}, which {VARIANT_FILE} names. Make the variant again."
        )
    return file


def _parse(content: Any, directory: Path) -> Variant:
    known = {one.name for one in fields(Variant)}
    try:
        values = {name: value for name, value in content.items() if name in known}
        height, width = (int(side) for side in values["imgsz"])
        variant = Variant(**{**values, "names": tuple(str(name) for name in values["names"]), "imgsz": (height, width)})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{directory / VARIANT_FILE} is no description of a variant ({error}). Make the variant again."
        ) from error
    if variant.kind not in KINDS:
        raise CheckpointError(f"{directory}: kind={variant.kind} is unknown. Use one of {', '.join(KINDS)}.")
    return variant
