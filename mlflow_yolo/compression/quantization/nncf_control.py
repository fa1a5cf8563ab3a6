"""NNCF's accuracy control, judged on the files that would be deployed.

NNCF ranks the int8 layers by how much they change the outputs, returns them to float one after the other and asks for
the accuracy each time. It hands over a compiled float32 model then; what is to be measured is the saved variant with
the precision of its session, so here the graph itself is handed over.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlflow_yolo.compression.quantization.quiet_nncf import Guest
from mlflow_yolo.exceptions import ArgumentError

N_RANKED = 20
"""Images on whose outputs the layers are ranked; all their outputs are held in memory, twice."""


class Images(Sized, Protocol):
    """Calibration images as the model gets them, to be read as often as needed."""

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield arrays (1, C, H, W)."""


def quantize_with_control(
    guest: Guest,
    model: Any,
    images: Images,
    *,
    evaluate: Callable[[Any], float],
    max_drop: float,
    parameters: Any,
    settings: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """Return the int8 model that loses at most `max_drop`, and what was reached.

    Args:
        guest: NNCF.
        model: The float `openvino.Model`.
        images: Calibration images.
        evaluate: Accuracy of an `openvino.Model`, the higher the better.
        max_drop: What may be lost, in the unit of `evaluate`.
        parameters: NNCF's advanced parameters.
        settings: What `nncf.quantize` takes besides.

    Returns:
        The model, and `max_drop`, the accuracies `fp32` and `int8`, whether the latter `holds`, and `n_evaluations`.

    Raises:
        ArgumentError: The accuracy of the float model is not a number, so no drop can be told.
    """
    nncf, values = guest.nncf, list[float]()

    def accuracy(graph: Any) -> float:
        with guest.speaking():
            values.append(evaluate(graph))
        if not math.isfinite(values[0]):
            raise ArgumentError(f"evaluate gives {values[0]} for the fp32 model. Evaluate on images with objects.")
        return values[-1]

    with _graphs_for_validation():
        quantized = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(images),
            nncf.Dataset(list(islice(images, N_RANKED))),
            _Validation(accuracy),
            max_drop=max_drop,
            advanced_quantization_parameters=parameters,
            # More workers would compile several models at once, beside whatever else the machine does.
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(N_RANKED, len(images)), num_ranking_workers=1
            ),
            **settings,
        )
    reached = accuracy(quantized)  # NNCF may have gone back a step since it asked last
    holds = values[0] - reached <= max_drop
    record = {"max_drop": max_drop, "fp32": values[0], "int8": reached, "holds": holds, "n_evaluations": len(values)}
    return quantized, record


class _Validation:
    """NNCF's validation function: an accuracy of the whole, nothing for single images.

    NNCF calls it with one image first, to see what it returns. With a number, it would call it for every image by
    itself to rank the layers; with none, it compares the outputs.
    """

    def __init__(self, accuracy: Callable[[Any], float]) -> None:
        self._accuracy = accuracy
        self._asked = False

    def __call__(self, graph: Any, images: Any) -> tuple[float | None, None]:
        if not self._asked:
            self._asked = True
            return None, None
        return self._accuracy(graph), None


@contextmanager
def _graphs_for_validation() -> Iterator[None]:
    """Make NNCF hand the graph to the validation function instead of the model that it has compiled from it."""
    from nncf.quantization.algorithms.accuracy_control import openvino_backend

    compiled = openvino_backend.OVPreparedModel

    class Graph(compiled):  # type: ignore[misc, valid-type]
        def __init__(self, model: Any, use_fp32_precision: bool = True) -> None:
            super().__init__(model, use_fp32_precision)
            self._graph = model

        @property
        def model_for_inference(self) -> Any:
            return self._graph

    openvino_backend.OVPreparedModel = Graph
    try:
        yield
    finally:
        openvino_backend.OVPreparedModel = compiled
