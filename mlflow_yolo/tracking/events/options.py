"""What `autolog` and `track` can be told, checked once and plain enough to travel into the processes of a training."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.maps.schedule import check_interval
from mlflow_yolo.tracking.stores.addresses import without_password

LEVELS = ("off", "default", "all")


@dataclass(frozen=True)
class Options:
    """How trainings, validations and exports are tracked; see `autolog` for the meaning of each.

    Attributes:
        statistics: `off`, `default` or `all`.
        every_n_steps: Optimizer steps between two samples, None for about 20 samples an epoch.
        maps: Epochs between two sets of maps, None for what 3 % of the time allow, 0 for none.
        log_images: Whether pictures are logged.
        log_models: Whether weights, the registrable model and exported files are logged.
        log_datasets: Whether datasets are logged as inputs.
        registered_model_name: Name the model is meant to be registered under.
        extra_tags: Tags of every run.
        exclusive: Whether runs that somebody else opened are left alone.
        silent: Whether nothing is said.
        tracking_uri: Store, None for MLflow's current one.
        experiment: Experiment, None for MLflow's current one.
        run_name: Name of the runs, None for MLflow's variables or Ultralytics' name.
    """

    statistics: str = "default"
    every_n_steps: int | None = None
    maps: int | None = None
    log_images: bool = True
    log_models: bool = True
    log_datasets: bool = True
    registered_model_name: str | None = None
    extra_tags: Mapping[str, str] = field(default_factory=dict)
    exclusive: bool = False
    silent: bool = False
    tracking_uri: str | None = None
    experiment: str | None = None
    run_name: str | None = None

    def without_secret(self) -> "Options":
        """Return the options without a password: pickles of a multi-GPU training are files on disk."""
        uri = self.tracking_uri
        return self if uri is None else replace(self, tracking_uri=without_password(uri))


def check_options(
    *,
    log_statistics: str | bool,
    every_n_steps: int | None,
    log_maps: bool | int = True,
    extra_tags: Mapping[str, Any] | None,
    **rest: Any,
) -> Options:
    """Return the options that a user's arguments mean.

    Args:
        log_statistics: `off`, `default` or `all`; True and False mean `default` and `off`.
        every_n_steps: At least 1, or None.
        log_maps: True, False, or a number of epochs.
        extra_tags: Tags; their values become text.
        rest: The other attributes of `Options` by name.

    Raises:
        ArgumentError: A level that does not exist, or a number of steps or epochs below 1.
    """
    words = {True: "default", False: "off"}
    level = words[log_statistics] if isinstance(log_statistics, bool) else str(log_statistics).lower()
    if level not in LEVELS:
        raise ArgumentError(f"log_statistics={log_statistics!r} is no level. Use one of {', '.join(LEVELS)}.")
    if every_n_steps is not None and (isinstance(every_n_steps, bool) or int(every_n_steps) < 1):
        raise ArgumentError(f"every_n_steps={every_n_steps} samples nothing. Use 1 or more, or None.")
    tags = {str(key): str(value) for key, value in (extra_tags or {}).items()}
    maps = check_interval(log_maps, name="log_maps")
    return Options(statistics=level, every_n_steps=every_n_steps, maps=maps, extra_tags=tags, **rest)
