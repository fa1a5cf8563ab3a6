"""How a registered version lies on disk, and whether its bytes are the ones that were benchmarked.

MLmodel  conda.yaml  python_env.yaml  requirements.txt
variant/variant.json  variant/<file>
benchmark/
"""

from pathlib import Path
from typing import Any

import yaml

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.variant import Variant, digest, read_variant

FLAVOR_NAME = "yolo"
MODEL_FILE = "MLmodel"
VARIANT_FOLDER = "variant"
BENCHMARK_FOLDER = "benchmark"


def check_artifact(model: Path, *, sha256: str = "", remedy: str = "Register it again.") -> Variant:
    """Return the variant of a logged model whose bytes are the ones that all of its descriptions name.

    Args:
        model: The folder with `MLmodel`.
        sha256: What the registry says besides, empty for nothing.
        remedy: What to do about bytes that differ, a sentence.

    Raises:
        CheckpointError: It is no model of this flavor, its file is neither ONNX nor OpenVINO, or a digest differs; both
            digests are named.
    """
    flavor = read_flavor(model)
    folder = model / VARIANT_FOLDER
    variant = read_variant(folder, check=False)
    file = folder / variant.file
    _check_format(file)
    found = digest(file)
    said = {
        f"{VARIANT_FOLDER}/variant.json": variant.sha256,
        MODEL_FILE: str(flavor.get("sha256", "")),
        "the registry": sha256 or found,
    }
    for where, expected in said.items():
        if found != expected:
            raise CheckpointError(
                f"{file} is not the file that was benchmarked: its sha256 is {found}, {where} says "
                f"{expected or 'nothing'}. It is not loaded. {remedy}"
            )
    return variant


def read_flavor(model: Path) -> dict[str, Any]:
    """Return what the MLmodel says under this flavor.

    Raises:
        CheckpointError: It cannot be read, or has no such flavor.
    """
    try:
        flavors = yaml.safe_load((model / MODEL_FILE).read_text(encoding="utf-8"))["flavors"]
    except FileNotFoundError:
        raise CheckpointError(f"model={model} holds no {MODEL_FILE}. Name a model that mlflow-yolo logged.") from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{model / MODEL_FILE} cannot be read: {reason}. Log the model again.") from error
    if not isinstance(flavors, dict) or not isinstance(flavors.get(FLAVOR_NAME), dict):
        known = ", ".join(map(str, flavors)) if isinstance(flavors, dict) else "nothing"
        raise CheckpointError(
            f"model={model} has no flavor {FLAVOR_NAME!r}, only {known}. "
            "Nothing but ONNX and OpenVINO files that mlflow-yolo logged is loaded."
        )
    return dict(flavors[FLAVOR_NAME])


def _check_format(file: Path) -> None:
    if file.suffix == ".onnx" and file.is_file():
        return
    if file.is_dir() and {one.suffix for one in file.iterdir()} >= {".xml", ".bin"}:
        return
    raise CheckpointError(f"model={file} is neither an .onnx file nor an OpenVINO folder. Nothing else is loaded.")
