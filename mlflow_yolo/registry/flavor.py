"""MLflow's flavor `yolo`: a variant logged, saved and loaded by MLflow's own conventions.

    info = mlflow_yolo.log_model("out/variants/int8-onnx", name="cells", registered_model_name="cells")
    mlflow_yolo.load_model("models:/cells@champion-cpu")                    a `Detector`
    mlflow.pyfunc.load_model("models:/cells@champion-cpu").predict(table)   a table of detections

The model's file and its `variant.json` are copied byte for byte, never opened and written anew (`mlflow.onnx` does
that, after which no digest holds), nothing is pickled, and the MLmodel holds the digest. Whoever loads the model
compares the bytes with it.

Requirements are stated, never inferred: this package, MLflow, NumPy, and the one runtime that the file needs. Loading
and predicting import neither torch nor Ultralytics. An environment that MLflow builds from them (`--env-manager uv`)
installs this package from your package index, and what it depends on with it; where it is on none, name a wheel
(`pip_requirements=["dist/mlflow_yolo-….whl", …]`) or use `--env-manager local`. It is not copied into the model: code
from an artifact would run on loading, and would go stale beside the installed package.

Source: the conventions are those of `mlflow.onnx` (MLflow 3.17); code ours.
"""

import shutil
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME, ModelInfo
from mlflow.models.utils import _save_example
from mlflow.tracking.artifact_utils import _download_artifact_from_uri
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array
from mlflow.utils.environment import (
    _CONDA_ENV_FILE_NAME,
    _CONSTRAINTS_FILE_NAME,
    _PYTHON_ENV_FILE_NAME,
    _REQUIREMENTS_FILE_NAME,
    _mlflow_conda_env,
    _process_conda_env,
    _process_pip_requirements,
    _PythonEnv,
    _validate_env_arguments,
)
from mlflow.utils.file_utils import get_total_file_size
from mlflow.utils.model_utils import (
    _add_code_from_conf_to_system_path,
    _validate_and_copy_code_paths,
    _validate_and_prepare_target_save_path,
)
from mlflow.utils.requirements_utils import _get_pinned_requirement

import mlflow_yolo
from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.registry.artifact import BENCHMARK_FOLDER, FLAVOR_NAME, VARIANT_FOLDER, check_artifact, read_flavor
from mlflow_yolo.registry.inputs import IMAGE_COLUMN
from mlflow_yolo.registry.predictor import BOX_COLUMNS, POLYGONS, Predictor
from mlflow_yolo.runtime.description import describe
from mlflow_yolo.runtime.detector import Detector
from mlflow_yolo.variant import VARIANT_FILE, Variant, is_variant, read_variant, write_variant

_READ_IMAGES = ("opencv-python", "opencv-python-headless")


def get_default_pip_requirements(kind: str = "fp32-onnx") -> list[str]:
    """Return what an environment needs to load a variant of this kind, in the versions installed here.

    Args:
        kind: One of `variant.KINDS`.
    """
    runtime = "openvino" if kind.endswith("openvino") else "onnxruntime"
    names = ["numpy", runtime, *(name for name in _READ_IMAGES if _is_installed(name))]
    return [f"mlflow-yolo=={mlflow_yolo.__version__}", *(_get_pinned_requirement(name) for name in names)]


def get_default_conda_env(kind: str = "fp32-onnx") -> dict[str, Any]:
    """Return the same as a Conda environment, with MLflow and Python."""
    environment: dict[str, Any] = _mlflow_conda_env(additional_pip_deps=get_default_pip_requirements(kind))
    return environment


def default_signature(variant: Variant) -> ModelSignature:
    """Return what goes into a model and comes out of it.

    The params' defaults are None, which stands for the operating point: its scores for single classes cannot be said
    in one number.
    """
    double, long = DataType.double, DataType.long
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(long, "image"),
        ColSpec(long, "class_id"),
        ColSpec(DataType.string, "name"),
    ]
    columns.append(ColSpec(double, "score"))
    if variant.task != "classify":
        columns += [ColSpec(double, side) for side in BOX_COLUMNS]
    if variant.task == "segment":
        columns.append(ColSpec(Array(Array(Array(double))), POLYGONS))
    params = [ParamSpec("conf", double, None), ParamSpec("iou", double, None), ParamSpec("max_det", long, None)]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, IMAGE_COLUMN)]), outputs=Schema(columns), params=ParamSchema(params)
    )


def save_model(
    model: str | Path,
    path: str | Path,
    conda_env: dict[str, Any] | str | None = None,
    code_paths: list[str] | None = None,
    mlflow_model: Model | None = None,
    signature: ModelSignature | None = None,
    input_example: Any = None,
    pip_requirements: list[str] | str | None = None,
    extra_pip_requirements: list[str] | str | None = None,
    metadata: dict[str, Any] | None = None,
    benchmark: str | Path | None = None,
) -> None:
    """Save a variant as an MLflow model.

    Args:
        model: A variant's folder, or an export of Ultralytics itself (see `Detector`), for which a `variant.json` is
            written.
        path: A folder that does not exist yet or is empty.
        conda_env: Instead of `get_default_conda_env()`.
        code_paths: Python files to put on the path before loading.
        mlflow_model: The description that this flavor is added to.
        signature: Instead of `default_signature()`.
        input_example: Stored beside it; MLflow then runs the model once.
        pip_requirements: Instead of `get_default_pip_requirements()`.
        extra_pip_requirements: Besides them.
        metadata: Kept in the MLmodel.
        benchmark: A folder to keep with it, see `registry.record`.

    Raises:
        CheckpointError: There is no such model, it is damaged, or its bytes have changed since it was made.
        MlflowException: `path` is not empty, or the environment's arguments contradict one another.
    """
    _validate_env_arguments(conda_env, pip_requirements, extra_pip_requirements)
    file, variant = describe(Path(model))
    root = Path(path).absolute()
    _validate_and_prepare_target_save_path(str(root))
    code = _validate_and_copy_code_paths(code_paths, str(root))
    described = mlflow_model if mlflow_model is not None else Model()
    described.signature = signature if signature is not None else default_signature(variant)
    if input_example is not None:
        _save_example(described, input_example, str(root))
    if metadata is not None:
        described.metadata = metadata
    _copy_variant(file, variant, root / VARIANT_FOLDER)
    if benchmark is not None:
        _copy_benchmark(Path(benchmark), root / BENCHMARK_FOLDER)
    _import_pyfunc().add_to_model(
        described,
        loader_module=__name__,
        data=VARIANT_FOLDER,
        conda_env=_CONDA_ENV_FILE_NAME,
        python_env=_PYTHON_ENV_FILE_NAME,
        code=code,
    )
    described.add_flavor(
        FLAVOR_NAME,
        data=VARIANT_FOLDER,
        file=variant.file,
        kind=variant.kind,
        task=variant.task,
        sha256=variant.sha256,
        mlflow_yolo_version=mlflow_yolo.__version__,
        code=code,
    )
    described.model_size_bytes = get_total_file_size(str(root))
    described.save(str(root / MLMODEL_FILE_NAME))
    check_artifact(root, remedy="Save it again.")
    _write_environment(root, variant.kind, conda_env, pip_requirements, extra_pip_requirements)


def log_model(
    model: str | Path,
    artifact_path: str | None = None,
    conda_env: dict[str, Any] | str | None = None,
    code_paths: list[str] | None = None,
    registered_model_name: str | None = None,
    signature: ModelSignature | None = None,
    input_example: Any = None,
    await_registration_for: int | None = 300,
    pip_requirements: list[str] | str | None = None,
    extra_pip_requirements: list[str] | str | None = None,
    metadata: dict[str, Any] | None = None,
    benchmark: str | Path | None = None,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    model_type: str | None = None,
    step: int = 0,
    model_id: str | None = None,
    run_id: str | None = None,
) -> ModelInfo:
    """Log a variant as an MLflow model of the active run (of `run_id`, or of none), and return what MLflow says of it.

    Args:
        model: See `save_model`, as for all that is not named here.
        artifact_path: Deprecated by MLflow; use `name`.
        conda_env: See `save_model`.
        code_paths: See `save_model`.
        registered_model_name: Make it a version of this registered model at once. It has no benchmark then, and no gate
            lets it pass; `mlflow-yolo register` makes versions that can be promoted.
        signature: See `save_model`.
        input_example: See `save_model`.
        await_registration_for: Seconds to wait until MLflow has made the version.
        pip_requirements: See `save_model`.
        extra_pip_requirements: See `save_model`.
        metadata: See `save_model`.
        benchmark: See `save_model`.
        name: Name of the logged model.
        params: Params of the logged model.
        tags: Tags of the logged model.
        model_type: Its type, a word of yours.
        step: The run's step that it belongs to.
        model_id: A logged model that exists already.
        run_id: The run that it belongs to.

    Raises:
        CheckpointError: See `save_model`.
    """
    info: ModelInfo = Model.log(
        artifact_path=artifact_path,
        name=name,
        flavor=sys.modules[__name__],
        model=model,
        conda_env=conda_env,
        code_paths=code_paths,
        registered_model_name=registered_model_name,
        signature=signature,
        input_example=input_example,
        await_registration_for=await_registration_for,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        metadata=metadata,
        benchmark=benchmark,
        params=params,
        tags=tags,
        model_type=model_type,
        step=step,
        model_id=model_id,
        run_id=run_id,
    )
    return info


def load_model(model_uri: str | Path, dst_path: str | Path | None = None) -> Detector:
    """Return the detector of a logged or registered model, at its operating point.

    Args:
        model_uri: Whatever MLflow resolves: `models:/<name>@<alias>`, `models:/<name>/<version>`, `models:/m-…`,
            `runs:/<run>/<name>`, a folder.
        dst_path: An existing folder to download it to.

    Raises:
        CheckpointError: A byte differs from what was logged (both digests are named), or it is no model of this
            flavor.
        MlflowException: MLflow does not find it.
    """
    root = Path(
        _download_artifact_from_uri(
            artifact_uri=str(model_uri), output_path=None if dst_path is None else str(dst_path)
        )
    )
    check_artifact(root, remedy="Log it again.")
    _add_code_from_conf_to_system_path(str(root), read_flavor(root))
    return Detector(root / VARIANT_FOLDER)


def _load_pyfunc(path: str) -> Predictor:
    """Return what `mlflow.pyfunc` predicts with; MLflow calls it with the variant's folder."""
    folder = Path(path)
    check_artifact(folder.parent, remedy="Log it again.")
    return Predictor(folder)


def _import_pyfunc() -> Any:
    """Return the module without the warning that MLflow 3.17 gives about a class of its own while it is imported."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*inferred as AnyType", category=UserWarning)
        import mlflow.pyfunc
    return mlflow.pyfunc


def _copy_variant(file: Path, variant: Variant, folder: Path) -> None:
    """Copy the file, and its `variant.json` where it has one; what else lies beside them stays behind."""
    folder.mkdir()
    if file.is_dir():
        shutil.copytree(file, folder / variant.file)
    else:
        shutil.copyfile(file, folder / variant.file)
    if is_variant(file.parent) and read_variant(file.parent, check=False).file == file.name:
        shutil.copyfile(file.parent / VARIANT_FILE, folder / VARIANT_FILE)
    else:
        write_variant(folder, variant)


def _copy_benchmark(benchmark: Path, folder: Path) -> None:
    if not benchmark.is_dir():
        raise CheckpointError(f"benchmark={benchmark} is no folder. Name the one that `compress` or `benchmark` left.")
    shutil.copytree(benchmark, folder)


def _write_environment(
    root: Path,
    kind: str,
    conda_env: dict[str, Any] | str | None,
    pip_requirements: list[str] | str | None,
    extra_pip_requirements: list[str] | str | None,
) -> None:
    if conda_env is None:
        default = get_default_pip_requirements(kind) if pip_requirements is None else None
        environment, requirements, constraints = _process_pip_requirements(
            default, pip_requirements, extra_pip_requirements
        )
    else:
        environment, requirements, constraints = _process_conda_env(conda_env)
    (root / _CONDA_ENV_FILE_NAME).write_text(yaml.safe_dump(environment, default_flow_style=False), encoding="utf-8")
    if constraints:
        (root / _CONSTRAINTS_FILE_NAME).write_text("\n".join(constraints), encoding="utf-8")
    (root / _REQUIREMENTS_FILE_NAME).write_text("\n".join(requirements), encoding="utf-8")
    _PythonEnv.current().to_yaml(str(root / _PYTHON_ENV_FILE_NAME))


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
