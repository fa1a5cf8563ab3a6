"""Configuration for servers that are not ours: a Triton model repository, a KServe InferenceService.

Both are written from what the model file says of itself, and neither was ever run here: there is no Triton and no
cluster on the machine that tests this package. Each file says so in its head. Both serve tensors: letterbox, scaling
and suppression are left to the client (`mlflow_yolo.runtime`), and the operating point stands in the parameters.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlflow_yolo import __version__
from mlflow_yolo.deployment.targets.pbtxt import Message, Word, to_pbtxt
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.registry.address import is_model_uri
from mlflow_yolo.runtime.description import describe
from mlflow_yolo.runtime.openvino_session import model_file
from mlflow_yolo.runtime.tensors import Tensor, Tensors, tensors
from mlflow_yolo.tracking.stores.target import resolve_uri
from mlflow_yolo.variant import Variant, making

MAX_BATCH = 8
BATCH_DELAY_US = 2000

_TYPES = {
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
    "bool": "TYPE_BOOL",
    **{f"int{bits}": f"TYPE_INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"TYPE_UINT{bits}" for bits in (8, 16, 32, 64)},
}
_TRITON = ("output", "max_batch", "instances")
_KSERVE = ("output", "runtime", "storage_uri", "canary_percent", "namespace")
_RUNTIMES = ("mlflow", "triton")
_KUBERNETES = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_STORAGE = re.compile(r"(s3|gs|pvc|hdfs|webhdfs|https?|hf|oci|abfss?|wasbs?)://\S+")


def generate(
    backend: str, name: str, model_uri: str, config: Mapping[str, str], *, tracking_uri: str | None = None
) -> list[Path]:
    """Write configuration into the folder `config["output"]`, whole or not at all.

    Args:
        backend: `triton` or `kserve`.
        name: Name of the model there.
        model_uri: `models:/…` or a variant's folder.
        config: `output`, and for triton `max_batch` and `instances`; for kserve `runtime` (triton or mlflow),
            `storage_uri`, `canary_percent` and `namespace`.
        tracking_uri: Where `models:/…` is looked up; None for `MLFLOW_TRACKING_URI`.

    Returns:
        The files, the configuration first.

    Raises:
        ArgumentError: A setting is missing, unknown or wrong, or the folder is not empty.
        InputError: There is no such model.
    """
    known = _TRITON if backend == "triton" else _KSERVE
    if unknown := [key for key in config if key not in known]:
        raise ArgumentError(f"{unknown[0]} is no setting of backend={backend}. Use {', '.join(known)}.")
    if not config.get("output"):
        raise ArgumentError(f"backend={backend} writes files: name a new folder, -C output=DIR.")
    path, version, source = _opened(model_uri, tracking_uri)
    file, variant = describe(path)
    output = Path(config["output"]).expanduser().absolute()
    with making(output) as folder:
        if backend == "triton":
            written = _write_triton(folder, name, file, variant, version, source, config)
        else:
            written = _write_kserve(folder, name, variant, version, source, config)
        relative = [one.relative_to(folder) for one in written]
    return [output / one for one in relative]


def triton_config(
    name: str, variant: Variant, sides: Tensors, *, max_batch: int = MAX_BATCH, instances: int = 1
) -> Message:
    """Return Triton's `ModelConfig` of a variant.

    A model whose batch is free is batched by Triton, which then leaves the batch out of every shape. One that is fixed
    to a batch, or has an output that is not per image, is not batched, and its shapes are whole.

    Args:
        name: The model's name: that of its folder.
        variant: What the file is.
        sides: Its inputs and outputs.
        max_batch: Images that Triton computes at once at most, where it batches.
        instances: Copies that compute at the same time.

    Source: triton-inference-server/common, protobuf/model_config.proto.
    """
    batched = all(one.shape[:1] == (None,) for one in (*sides.inputs, *sides.outputs)) and max_batch > 0
    config: dict[str, Any] = {
        "name": name,
        "backend": "onnxruntime" if variant.file.endswith(".onnx") else "openvino",
        "max_batch_size": max_batch if batched else 0,
        "input": [_tensor(one, batched) for one in sides.inputs],
        "output": [_tensor(one, batched) for one in sides.outputs],
        "instance_group": [{"count": instances, "kind": Word("KIND_CPU")}],
        "version_policy": {"latest": {"num_versions": 1}},
        "model_warmup": [_warm_up(sides.inputs, variant, batched)],
    }
    if batched:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": BATCH_DELAY_US}
    config["parameters"] = [
        {"key": key, "value": {"string_value": value}} for key, value in _parameters(variant).items()
    ]
    return config


def kserve_service(
    name: str,
    variant: Variant,
    *,
    storage_uri: str,
    runtime: str = "triton",
    canary_percent: int | None = None,
    namespace: str | None = None,
) -> dict[str, Any]:
    """Return a KServe InferenceService (serving.kserve.io/v1beta1).

    Args:
        name: Name of the service.
        variant: What is served.
        storage_uri: Where KServe finds the model: a Triton repository, or an MLflow model's folder.
        runtime: `triton`, or `mlflow` (MLServer, whose image needs this package installed).
        canary_percent: Share of the traffic for this revision, beside the one that served last; None for all. Only
            KServe's serverless mode splits traffic.
        namespace: Of the service; None leaves it to kubectl.
    """
    model = {"modelFormat": {"name": runtime}, "protocolVersion": "v2", "storageUri": storage_uri}
    if runtime == "mlflow":
        model["runtime"] = "kserve-mlserver"
    metadata: dict[str, Any] = {
        "name": name,
        "annotations": {f"mlflow-yolo/{key}": value for key, value in _parameters(variant).items()},
    }
    if namespace is not None:
        metadata["namespace"] = namespace
    predictor: dict[str, Any] = {"model": model}
    if canary_percent is not None:
        predictor["canaryTrafficPercent"] = canary_percent
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def _write_triton(
    folder: Path, name: str, file: Path, variant: Variant, version: str, source: str, config: Mapping[str, str]
) -> list[Path]:
    sides = tensors(file)
    home = folder / name / version
    home.mkdir(parents=True)
    if file.suffix == ".onnx":
        shutil.copyfile(file, home / "model.onnx")
        copied = [home / "model.onnx"]
    else:
        xml = model_file(file)
        copied = [home / "model.xml", home / "model.bin"]
        shutil.copyfile(xml, copied[0])
        shutil.copyfile(xml.with_suffix(".bin"), copied[1])
    message = triton_config(
        name,
        variant,
        sides,
        max_batch=_whole(config, "max_batch", MAX_BATCH, least=0),
        instances=_whole(config, "instances", 1, least=1),
    )
    target = folder / name / "config.pbtxt"
    head = _head(source, _TENSORS, "Run: tritonserver --model-repository <this folder's parent>")
    target.write_text(head + to_pbtxt(message), encoding="utf-8")
    return [target, *copied]


def _write_kserve(
    folder: Path, name: str, variant: Variant, version: str, source: str, config: Mapping[str, str]
) -> list[Path]:
    for key, value in (("name", name), ("namespace", config.get("namespace", "default"))):
        if not _KUBERNETES.fullmatch(value):
            raise ArgumentError(f"{key}={value} is no Kubernetes name. Use lower-case letters, digits and -.")
    runtime = config.get("runtime", "triton")
    if runtime not in _RUNTIMES:
        raise ArgumentError(f"runtime={runtime} is not written. Use {' or '.join(_RUNTIMES)}.")
    storage = config.get("storage_uri")
    if storage is not None and not _STORAGE.fullmatch(storage):
        raise ArgumentError(f"storage_uri={storage} is not read by KServe. Use for example s3://bucket/path.")
    percent = _whole(config, "canary_percent", 100, least=0) if "canary_percent" in config else None
    if percent is not None and percent > 100:
        raise ArgumentError(f"canary_percent={percent} is no share. Use 0 to 100.")
    service = kserve_service(
        name,
        variant,
        storage_uri=storage or f"pvc://models/{name}/{version}",
        runtime=runtime,
        canary_percent=percent,
        namespace=config.get("namespace"),
    )
    needs = {
        "triton": (_TENSORS, "storageUri has to hold the Triton repository that backend=triton writes."),
        "mlflow": (
            "It answers MLflow's protocol; the image of the runtime has to have mlflow-yolo installed.",
            "storageUri has to hold the folder with the model's MLmodel.",
        ),
    }[runtime]
    head = _head(source, *needs, f"Run: kubectl apply -f {name}.yaml")
    target = folder / f"{name}.yaml"
    target.write_text(head + yaml.safe_dump(service, sort_keys=False), encoding="utf-8")
    return [target]


def _opened(model_uri: str, tracking_uri: str | None) -> tuple[Path, str, str]:
    """Return the variant's folder, the version's number (1 for a local variant), and what it is in words."""
    if not is_model_uri(model_uri):
        path = Path(model_uri).expanduser()
        return path, "1", f"the variant {path.name}"
    from mlflow_yolo.registry.fetching import fetch

    found = fetch(model_uri, tracking_uri=resolve_uri(tracking_uri))
    return found.folder, found.version, found.uri


_TENSORS = "It serves tensors: letterbox and scaling before, suppression after are the client's."


def _head(source: str, *lines: str) -> str:
    said = (f"Generated by mlflow-yolo {__version__} from {source}; it was not run here.", *lines)
    return "".join(f"# {line}\n" for line in said)


def _tensor(one: Tensor, batched: bool) -> Message:
    if one.dtype not in _TYPES:
        raise ArgumentError(f"{one.name} has type {one.dtype}, which Triton does not have. Export the model as fp32.")
    dims = one.shape[1:] if batched else one.shape
    return {"name": one.name, "data_type": Word(_TYPES[one.dtype]), "dims": [-1 if n is None else n for n in dims]}


def _warm_up(inputs: Sequence[Tensor], variant: Variant, batched: bool) -> Message:
    """Return one request of zeros, of the size the model is for."""
    entries = []
    for one in inputs:
        full = (1, variant.channels, *variant.imgsz)
        sides = [side if side is not None else full[index] for index, side in enumerate(one.shape)]
        value = {"data_type": Word(_TYPES[one.dtype]), "dims": sides[1:] if batched else sides, "zero_data": True}
        entries.append({"key": one.name, "value": value})
    return {"name": "zeros", "batch_size": 1, "inputs": entries}


def _parameters(variant: Variant) -> dict[str, str]:
    point = {f"operating_point.{key}": str(value) for key, value in variant.operating_point.items()}
    return {
        "sha256": variant.sha256,
        "kind": variant.kind,
        "task": variant.task,
        "names": ",".join(variant.names),
    } | point


def _whole(config: Mapping[str, str], key: str, default: int, *, least: int) -> int:
    text = config.get(key, str(default))
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise ArgumentError(f"{key}={text} cannot be used. Use a whole number from {least}.")
    return int(text)
