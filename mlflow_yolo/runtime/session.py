"""An open model file: arrays in, arrays out."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.variant import Variant

Images = npt.NDArray[np.float32]
Outputs = tuple[npt.NDArray[Any], ...]

_PROVIDERS = ["CPUExecutionProvider"]
_ERRORS_ONLY = 3
_NOTHING = 4


class Session(Protocol):
    """What every open model can do, whatever runs it."""

    @property
    def batch(self) -> int | None:
        """Number of images that one run takes; None for any number."""

    def run(self, images: Images) -> Outputs:
        """Return the model's outputs for images (N, C, H, W) in [0, 1], a classifier's normalised; each (N, ...)."""


class OnnxSession:
    """An ONNX file in ONNX Runtime, on the CPU.

    Attributes:
        batch: Number of images that one run takes; None for any number.
    """

    batch: int | None

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open the file.

        Args:
            path: The .onnx file.
            threads: Threads that compute one image; None for one a physical core.

        Raises:
            CheckpointError: ONNX Runtime cannot read the file.
        """
        self._session = open_onnx(path, threads=threads)
        entry = self._session.get_inputs()[0]
        self._input = entry.name
        self._type = np.float16 if entry.type == "tensor(float16)" else np.float32
        self.batch = entry.shape[0] if isinstance(entry.shape[0], int) else None

    def run(self, images: Images) -> Outputs:
        """Return the model's outputs for images (N, C, H, W), N as `batch` says; a half-precision one as float32."""
        outputs = self._session.run(None, {self._input: images.astype(self._type, copy=False)})
        return tuple(one.astype(np.float32) if one.dtype == np.float16 else one for one in outputs)


def open_session(path: Path, variant: Variant, *, threads: int | None = None) -> Session:
    """Return the open model of a variant.

    Args:
        path: The .onnx file, or the folder with OpenVINO's .xml and .bin (or the .xml itself).
        variant: What the file is; its `runtime` holds the options its session needs.
        threads: Threads that compute one image; None leaves it to the runtime.

    Raises:
        CheckpointError: The file cannot be read.
        ArgumentError: `threads` is below 1, or the runtime is not installed.
    """
    if threads is not None and threads < 1:
        raise ArgumentError(f"threads={threads} cannot compute anything. Use 1 or more, or leave it out.")
    if path.suffix == ".onnx":
        return OnnxSession(path, threads=threads)
    from mlflow_yolo.runtime.openvino_session import OpenVinoSession

    return OpenVinoSession(path, threads=threads, options=variant.runtime)


def open_onnx(path: Path, *, threads: int | None = None, optimise: bool = True) -> onnxruntime.InferenceSession:
    """Return ONNX Runtime's own session of a file.

    Args:
        path: The .onnx file.
        threads: Threads that compute one image; None for one a physical core.
        optimise: Let ONNX Runtime rewrite the graph; without, only what the file says about itself is wanted.

    Raises:
        CheckpointError: The file is missing, empty, truncated or no ONNX graph that this version runs.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY if optimise else _NOTHING
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS)
    except Exception as error:  # its errors share no class
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"model={path} is not an ONNX file that can be run: {reason} Export it again.") from error
