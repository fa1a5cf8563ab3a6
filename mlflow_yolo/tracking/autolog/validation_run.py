"""The run of a validation that stands alone: `model.val()`."""

from pathlib import Path
from typing import Any

from mlflow_yolo.tracking.autolog.single_run import SingleRun, chosen
from mlflow_yolo.tracking.events.final_values import per_class_metrics, read_final_values
from mlflow_yolo.tracking.events.tables import per_class_table
from mlflow_yolo.tracking.events.training_data import read_loaded_data
from mlflow_yolo.tracking.events.training_files import log_predictions, log_training_files

_PARAMS = ("data", "split", "imgsz", "batch", "conf", "iou", "max_det", "device", "augment", "single_cls", "rect")


class ValidationRun(SingleRun):
    """Logs what a model scores on one split: `val/mAP50-95`, `test/AP50-95/<class>`, … and Ultralytics' plots.

    In a run that is active in MLflow everything is named by the split (`val/conf`, `val/plots/…`), and the second
    validation of a split there is the second step of its metrics (and `val/2/conf`).
    """

    events = ("on_val_start", "on_val_end")
    kind = "val"
    _validator: Any = None

    def on_event(self, event: str, subject: Any) -> None:
        """Open the run when a validation starts, and note its values when it has ended."""
        if subject.training:
            return
        if event == "on_val_start":
            self.open(Path(subject.save_dir))
        self._validator = subject

    def log_result(self, result: Any) -> None:
        """Log the values, the table of classes, the dataset and the plots of the finished validation."""
        assert self.run is not None
        run, validator = self.run, self._validator
        split = str(validator.args.split)
        place, step = self.place_for(split)
        model = {"model": str(self.model_file)} if self.model_file else {}
        params = {**model, **chosen(vars(validator.args), _PARAMS)}
        run.log_params({f"{place}{name}": value for name, value in params.items()})
        final = read_final_values(validator.metrics)
        values = {**final.values, **{f"{name}_ms": value for name, value in validator.speed.items()}}
        run.log_metrics({f"{split}/{name}": value for name, value in values.items()}, step=step)
        run.log_metrics(per_class_metrics(split, final.per_class), step=step)
        if table := per_class_table({split: final.per_class}):
            run.log_text(table, f"{place}per_class.csv")
        if self.options.log_datasets:
            self._log_data(validator, split)
        if self.options.log_images:
            save_dir = Path(validator.save_dir)
            log_training_files(run, save_dir, weights=(), plots=f"{place}plots")
            log_predictions(run, save_dir, step=step, series=f"{split}_predictions")

    def _log_data(self, validator: Any, split: str) -> None:
        assert self.run is not None
        dataset = validator.dataloader.dataset
        data = read_loaded_data(str(validator.args.data), names=validator.names, splits={split: dataset})
        context = "test" if split == "test" else "validation"
        self.run.log_dataset(data.name, data.digest, source=data.source, profile=data.profile, context=context)
