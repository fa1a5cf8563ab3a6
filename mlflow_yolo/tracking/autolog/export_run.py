"""The run of an export: `model.export()`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow_yolo.tracking.autolog.single_run import SingleRun, chosen
from mlflow_yolo.tracking.events.options import Options
from mlflow_yolo.variant import digest

_PARAMS = (
    *("format", "imgsz", "batch", "device", "quantize", "half", "int8", "dynamic", "simplify", "opset", "nms"),
    *("workspace", "optimize", "keras", "data", "fraction"),
)


class ExportRun(SingleRun):
    """Logs format, arguments, size, digest and duration of an export, and the exported file.

    Args:
        options: How to track.
        model_file: The checkpoint that is exported.
        directory: Returns where the run is journaled; called when the export starts.
    """

    events = ("on_export_start", "on_export_end")
    kind = "export"

    def __init__(self, options: Options, *, model_file: Path | None, directory: Callable[[], Path]) -> None:
        super().__init__(options, model_file=model_file)
        self._directory = directory
        self._start = time.monotonic()
        self._place, self._step = "", 0

    def on_event(self, event: str, subject: Any) -> None:
        """Open the run when the export starts, and log its arguments."""
        if event != "on_export_start":
            return
        run = self.open(self._directory())
        self._start = time.monotonic()
        self._place, self._step = self.place_for(self.kind)
        model = {"model": str(self.model_file)} if self.model_file else {}
        params = {**model, **chosen(vars(subject.args), _PARAMS)}
        run.log_params({f"{self._place}{name}": value for name, value in params.items()})

    def log_result(self, result: Any) -> None:
        """Log the exported file: its name, size and digest, and the file itself where models are logged."""
        assert self.run is not None
        seconds = time.monotonic() - self._start
        file = Path(str(result))
        files = [path for path in file.rglob("*") if path.is_file()] if file.is_dir() else [file]
        size = sum(path.stat().st_size for path in files)
        self.run.log_params({f"{self._place}file": file.name, f"{self._place}sha256": digest(file)})
        self.run.log_metrics({"export/size_mb": size / 1e6, "export/seconds": seconds}, step=self._step)
        if self.options.log_models:
            self.run.log_file(file, f"export/{self._step + 1}" if self._step else "export")
