"""Writing and drawing block statistics, in a thread of its own: the trainer's thread only hands over.

The work is done in the order of the calls. What fails is said once by `report`, and the rest goes on.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from torch import Tensor

from mlflow_yolo.figures.activation_functions import FunctionPanel, activation_functions
from mlflow_yolo.figures.encode import rgb_array
from mlflow_yolo.figures.statistics_report import statistics_report
from mlflow_yolo.statistics.activations import STEP_STATISTICS, ActivationProbe, ActivationResult
from mlflow_yolo.statistics.batch_norm import BatchNorm, batch_norm_statistics
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics
from mlflow_yolo.statistics.function_use import function_uses
from mlflow_yolo.statistics.start_weights import forget_start, load_start, save_start
from mlflow_yolo.statistics.storage import StatisticsWriter, read
from mlflow_yolo.tracking.blocks.block_metrics import block_metrics
from mlflow_yolo.tracking.blocks.statistics_figures import draw_statistics
from mlflow_yolo.tracking.run import TrackedRun

FOLDER = "statistics"
"""Of the run's directory and of its artifacts."""

_DRAWINGS = 10


class StatisticsOutput:
    """The metrics, files, figures and the report of one run.

    Args:
        run: Where they are logged.
        resume: Whether the files of an earlier, unfinished training in the same directory are continued.
        log_images: Whether pictures are drawn.
        report: Called with a name and an error when something fails.
    """

    def __init__(
        self, run: TrackedRun, *, resume: bool, log_images: bool, report: Callable[[str, Exception], None]
    ) -> None:
        self._run = run
        self._resume = resume
        self._log_images = log_images
        self._report = report
        self._directory = run.directory / FOLDER
        self._writer = StatisticsWriter(self._directory, resume=resume)
        self.first_attempt = self._writer.next_attempt
        self._activations: ActivationResult | None = None
        self._names: Mapping[int, str] = {}
        self._drawn = 0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow-yolo-statistics")

    def start_weights(self) -> dict[str, Tensor]:
        """Return the weights that a resumed training began with, by parameter name; else nothing."""
        return load_start(self._directory) if self._resume else {}

    def keep_start(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights that the training begins with, in case it is resumed; they must not change any more."""
        self._later("weights at the start", lambda: save_start(self._directory, weights))

    def forget_start(self) -> None:
        """Remove them."""
        self._later("weights at the start", lambda: forget_start(self._directory))

    def append(self, part: EpochStatistics, *, attempt: int) -> None:
        """Put rows on disk, where a kill does not reach them."""
        self._later("statistics files", lambda: self._writer.append(part, attempt=attempt))

    def end_epoch(
        self,
        found: EpochStatistics,
        norms: Mapping[int, Sequence[BatchNorm]],
        validation: ActivationProbe | None,
        training: ActivationProbe | None,
        *,
        attempt: int,
        n_epochs: int | None,
    ) -> None:
        """Add what an epoch has besides the rows that were appended, and log its metrics.

        Files are logged after epochs 1, 2, 4, 8, …, pictures ten times in a training.

        Args:
            found: The whole epoch.
            norms: The batch norms of each block of the model that was validated.
            validation: What has seen the epoch's validation; closed.
            training: What has seen its training, at every step; closed, its rows drained.
            attempt: Which attempt at the epoch it is.
            n_epochs: Epochs of the training, None when unknown.
        """
        now_ms = int(time.time() * 1000)
        every = max(_DRAWINGS, (n_epochs or 0) // _DRAWINGS)

        def work() -> None:
            with_norms = found.with_block_values("batch_norm", batch_norm_statistics(norms))
            whole = self._with_activations(with_norms, validation, training)
            self._run.log_metrics(block_metrics(whole.summary(), whole.names), step=whole.epoch, timestamp_ms=now_ms)
            self._names = whole.names
            self._writer.append(whole.epoch_only, attempt=attempt)
            self._writer.add_histograms(whole)
            draw = whole.epoch % every == 0
            if draw or whole.epoch & (whole.epoch - 1) == 0:
                self._write()
            if draw:
                self._draw(whole.epoch)

        self._later("statistics files", work)

    def finish(self, *, epoch: int) -> None:
        """Write and log everything, with the report, and end the thread; waits for it.

        Args:
            epoch: The last epoch, 0 where there was none.
        """
        if epoch:
            self._later("statistics files", self._write)
            self._later("statistics figures", lambda: self._draw(epoch))
            self._later("statistics report", self._log_report)
        self._later("statistics files", self._say_what_is_missing)
        self._pool.shutdown(wait=True)

    def _say_what_is_missing(self) -> None:
        if self._writer.error or self._writer.n_dropped:
            raise OSError(f"{self._writer.n_dropped} parts dropped, the disk refuses: {self._writer.error}")

    def _later(self, what: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self._report(what, error)

        self._pool.submit(guarded)

    def _with_activations(
        self, found: EpochStatistics, validation: ActivationProbe | None, training: ActivationProbe | None
    ) -> EpochStatistics:
        """Return the epoch with what the probes have seen; one that failed takes nothing else with it."""
        try:
            if training is not None:
                rest = _by_block(training.result(), without=STEP_STATISTICS)
                found = found.with_block_values("training_activations", rest)
            if validation is not None:
                self._activations = validation.result()
                found = found.with_block_values("activations", _by_block(self._activations))
        except Exception as error:
            self._report("activation statistics", error)
        return found

    def _write(self) -> None:
        extra: dict[str, pd.DataFrame] = {}
        if self._activations is not None:
            extra["channels"] = self._activations.channels.to_frame()
        for path in self._writer.write(extra=extra):
            self._run.log_file(path, FOLDER)

    def _draw(self, epoch: int) -> None:
        """Add the pictures of all epochs so far to the image grid, once for each epoch."""
        if epoch == self._drawn or not self._log_images:
            return
        self._drawn = epoch
        pictures = draw_statistics(self._directory)
        if self._activations is not None and (uses := function_uses(self._activations, self._names)):
            panels = [FunctionPanel(**vars(use)) for use in uses]
            pictures["activation_functions"] = rgb_array(activation_functions(panels))
        for name, picture in pictures.items():
            self._run.log_image(f"stats/{name}", picture, step=epoch)

    def _log_report(self) -> None:
        page = statistics_report(*read(self._directory), title=self._directory.parent.name)
        self._run.log_text(page, f"{FOLDER}/report.html")


def _by_block(seen: ActivationResult, *, without: Collection[str] = ()) -> dict[int, dict[str, float]]:
    """Return the statistics of all passes by block, and of the whole model the number of images; empty without any."""
    kept = {
        block: {name: value for name, value in values.items() if name not in without}
        for block, values in seen.blocks.items()
    }
    return {NO_BLOCK: {"n_images": seen.n_images}, **kept} if kept else {}
