"""Raw outputs of an OpenVINO model on the CPU: one request, a fixed number of threads, latency first.

    session = OpenVinoSession(Path("out/bf16-openvino/model_openvino"), threads=1, options=variant.runtime)
    (output,) = session.run(images)

OpenVINO chooses bf16 by itself wherever the CPU has it, which moves boxes by a pixel in a model that was exported as
fp32; so the precision is always named here, f32 where the options name none.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import ArgumentError, CheckpointError, ShapeError

N_COMPILED = 3
"""Batch sizes that stay compiled: one image, a full batch, and the rest at the end of a split."""


class OpenVinoSession:
    """A compiled OpenVINO model; not to be shared between threads.

    Attributes:
        batch: The batch size that the model is fixed to, None where any will do.
    """

    batch: int | None

    def __init__(self, path: Path, *, threads: int | None = None, options: Mapping[str, str] | None = None) -> None:
        """Compile the model.

        Args:
            path: The `.xml` file, or the folder that holds exactly one.
            threads: Threads of one inference; None leaves the number to OpenVINO.
            options: OpenVINO properties by name, such as {"INFERENCE_PRECISION_HINT": "bf16"}.

        Raises:
            ArgumentError: OpenVINO is not installed, or `threads` is below one.
            CheckpointError: There is no model, it cannot be read, or it does not compile with `options`.
        """
        if threads is not None and threads < 1:
            raise ArgumentError(f"threads={threads} runs nothing. Use 1 or more.")
        self._openvino = import_openvino()
        self._core = self._openvino.Core()
        self._file = model_file(path)
        self._properties: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            **(options or {}),
        }
        if threads is not None:
            self._properties["INFERENCE_NUM_THREADS"] = threads
        self._model = self._opened(lambda: self._core.read_model(str(self._file)))
        self._shape = [None if side.is_dynamic else side.get_length() for side in self._model.input(0).partial_shape]
        self.batch = self._shape[0]
        self._requests: dict[int | None, Any] = {}
        self._request(1)

    def run(self, images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], ...]:
        """Return the model's outputs, in the order of the model, as arrays of their own.

        Args:
            images: (N, C, H, W), [0, 1]; a classifier's are normalised.

        Raises:
            ShapeError: The shape is not the one that the model is fixed to.
        """
        if images.ndim != len(self._shape) or any(
            fixed not in (None, side) for fixed, side in zip(self._shape, images.shape, strict=True)
        ):
            wanted = ", ".join("any" if side is None else str(side) for side in self._shape)
            raise ShapeError(f"images are {images.shape}, the model takes ({wanted}). Resize or split them.")
        request = self._request(len(images))
        outputs = request.infer({0: np.ascontiguousarray(images, np.float32)}, share_inputs=True)
        return tuple(outputs[index] for index in range(len(self._model.outputs)))

    def _request(self, n_images: int) -> Any:
        """Return the request that takes so many images.

        A free batch is compiled for the number of images that come: with the axis left free, int8 took 15.5 instead of
        13.3 ms and bf16 12.3 instead of 11.4 (YOLO11n, 320 pixels, one thread).
        """
        only_the_batch_is_free = self.batch is None and None not in self._shape[1:]
        key = n_images if only_the_batch_is_free else None
        if key not in self._requests:
            if only_the_batch_is_free:
                self._model.reshape(self._openvino.PartialShape([n_images, *self._shape[1:]]))
            compiled = self._opened(lambda: self._core.compile_model(self._model, "CPU", self._properties))
            if len(self._requests) == N_COMPILED:
                del self._requests[next(iter(self._requests))]
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]

    def _opened(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except RuntimeError as error:
            cause = " ".join(str(error).split())[-300:]
            raise CheckpointError(
                f"{self._file} cannot be opened with {self._properties}: {cause} Make it again."
            ) from error


def model_file(path: Path) -> Path:
    """Return the one `.xml` file that `path` is or holds.

    Raises:
        CheckpointError: There is none, several, or its weights are missing.
    """
    files = sorted(path.glob("*.xml")) if path.is_dir() else [path] if path.is_file() else []
    if len(files) != 1:
        raise CheckpointError(f"{path} holds {len(files)} OpenVINO models (.xml), not one. Name a model's folder.")
    if not files[0].with_suffix(".bin").is_file():
        raise CheckpointError(f"{files[0]} has no weights beside it (.bin). Export the model again.")
    return files[0]


def import_openvino() -> ModuleType:
    """Return the module `openvino`.

    Raises:
        ArgumentError: It is not installed; names the extra.
    """
    try:
        import openvino
    except ImportError as error:
        raise ArgumentError("OpenVINO is not installed. Run: pip install 'mlflow-yolo[openvino]'.") from error
    return openvino  # type: ignore[no-any-return]
