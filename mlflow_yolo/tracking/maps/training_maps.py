"""Maps of one training: made before its first epoch and after some, with the model that is validated and saved.

They are made in the trainer's thread, where the device is free, and drawn in a thread of their own. Nothing of the
training is changed: not a weight, a gradient, a mode or a random number.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow_yolo.attribution.layers import Layers, read_layers
from mlflow_yolo.attribution.localisation import summarise
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.maps.explained import ExplainedImage, ExplainedObjects, explain_images, explain_objects
from mlflow_yolo.tracking.maps.pictures import draw_image, draw_objects
from mlflow_yolo.tracking.maps.schedule import START, interval, is_due
from mlflow_yolo.tracking.maps.watched import WatchedSet, read_watched
from mlflow_yolo.tracking.run import TrackedRun

_LOG = logging.getLogger(__name__)


class TrainingMaps:
    """Makes and logs the maps of a run, over one or several stages of training.

    The images are chosen when the first maps are made and stay the same; each has its own key in the image grid, whose
    step is the epoch: 0 for the weights that the training begins with.

    Args:
        run: The open run.
        every_n_epochs: After every how many epochs; None for as many as 3 % of the training's time allow.
        report: Called with a name and an error when drawing fails.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        run: TrackedRun,
        *,
        every_n_epochs: int | None = None,
        report: Callable[[str, Exception], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._run = run
        self._every_n_epochs = every_n_epochs
        self._report = report
        self._clock = clock
        self._watched: WatchedSet | None = None
        self._layers: Layers | None = None
        self._spent_s, self._drawing_s, self._n_sets = 0.0, 0.0, 0
        self._trained_s, self._n_epochs = 0.0, 0
        self._pool: ThreadPoolExecutor | None = None
        self._held_back: Callable[[], None] | None = None

    def start(self, trainer: Any) -> bool:
        """Make the maps of the weights that a training begins with.

        Their values are logged after those of the first epoch: MLflow's comparison of runs opens with the metric that
        was logged first.

        Args:
            trainer: Ultralytics' trainer, set up and before its first step.

        Returns:
            See `end_epoch`.
        """
        return self._make_set(trainer, epoch=START)

    def end_epoch(self, trainer: Any, *, epoch: int, n_epochs: int, seconds: float, is_last: bool) -> bool:
        """Make the maps of an epoch if it is time for them.

        Args:
            trainer: Ultralytics' trainer, after its validation.
            epoch: The epoch, from 1.
            n_epochs: Epochs of all stages.
            seconds: How long the epoch took.
            is_last: Whether it is the last of all.

        Returns:
            False where this training has no maps and never will: no labels, or a model without class logits.
        """
        self._release()
        cost_s = (self._spent_s + self._drawing_s) / max(1, self._n_sets)
        self._trained_s, self._n_epochs = self._trained_s + seconds, self._n_epochs + 1
        epoch_s = self._trained_s / self._n_epochs
        every = self._every_n_epochs or interval(n_epochs=n_epochs, cost_s=cost_s, epoch_s=epoch_s)
        return self._make_set(trainer, epoch=epoch) if is_due(epoch, every, is_last=is_last) else True

    def stop(self) -> None:
        """Finish what is being drawn; waits for it."""
        self._release()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def _make_set(self, trainer: Any, *, epoch: int) -> bool:
        """Make the maps of all images; return False where there are none and never will be."""
        if getattr(trainer, "test_loader", None) is None:  # this process validates nothing
            return True
        began = self._clock()
        try:
            network = trainer.ema.ema if trainer.ema else getattr(trainer.model, "module", trainer.model)
            watched, layers = self._prepared(trainer, network)
            self._make(network, layers, watched, device=trainer.device, epoch=epoch)
        except ArgumentError as error:
            _LOG.info("mlflow_yolo: no maps of this training: %s", error)
            return False
        self._spent_s += self._clock() - began
        self._n_sets += 1
        return bool(watched.images)

    def _prepared(self, trainer: Any, network: Any) -> tuple[WatchedSet, Layers]:
        if self._watched is None or self._layers is None:
            self._watched = read_watched(trainer.test_loader.dataset, trainer.data["names"])
            self._layers = read_layers(network)
        return self._watched, self._layers

    def _make(self, network: Any, layers: Layers, watched: WatchedSet, *, device: Any, epoch: int) -> None:
        """Make all maps and hand them over to be drawn."""
        names = watched.names
        if watched.is_classification:
            images = list(explain_images(network, layers, watched.images, device))
            self._later(lambda: self._log_images(images, names, epoch))
        elif watched.images:
            objects = list(explain_objects(network, layers, watched.images, device))
            self._held_back = lambda: self._log_values(objects, epoch)
            if epoch != START:
                self._release()
            self._later(lambda: self._log_objects(objects, names, epoch))

    def _release(self) -> None:
        """Have the values logged that were held back."""
        if self._held_back is not None:
            self._later(self._held_back)
            self._held_back = None

    def _log_values(self, explained: Sequence[ExplainedObjects], epoch: int) -> None:
        places = summarise(one.localisation() for one in explained)
        if places.n:
            values = {"val/map_energy_inside": places.energy, "val/map_energy_uniform": places.coverage}
            self._run.log_metrics(values, step=epoch)

    def _log_objects(self, explained: Sequence[ExplainedObjects], names: Any, epoch: int) -> None:
        for one in explained:
            self._run.log_image(one.watched.chosen.key, draw_objects(one, names), step=epoch)

    def _log_images(self, explained: Sequence[ExplainedImage], names: Any, epoch: int) -> None:
        for one in explained:
            self._run.log_image(one.watched.chosen.key, draw_image(one, names), step=epoch)

    def _later(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            began = time.thread_time()
            try:
                work()
            except Exception as error:
                self._report("pictures of maps", error)
            self._drawing_s += time.thread_time() - began

        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow-yolo-maps")
        self._pool.submit(guarded)
