"""One line that tracks what Ultralytics does: `autolog()` for every model, `track(model)` for one.

| call | tracked as |
|---|---|
| `model.train(...)` | a run; on several GPUs by rank 0; `data=[...]` one run per dataset, trained in this process |
| `model.val(...)` | a run, or further metrics of the active one |
| `model.export(...)` | a run, or further params of the active one |
| `model.predict(...)`, `model.track(...)`, `model.embed(...)`, `model.calibrate(...)` | not tracked |
| `model.tune(...)`, `model.benchmark(...)` | not tracked, and nothing that they train, validate or export |

Ultralytics' tuner trains in processes of its own (`yolo train …`), in which no callback of the caller fires: nothing of
this package is there. Its own MLflow callback is, with one unrelated run per iteration; `yolo settings mlflow=False`
switches it off. Of a trainer that is tracked here it is taken off, without any change of its settings.
"""

import functools
import importlib.metadata
import logging
from collections.abc import Mapping
from typing import Any

from packaging.specifiers import SpecifierSet

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.autolog.calls import CALLS, call, defaults, explicit
from mlflow_yolo.tracking.autolog.patches import switch_off, switch_on
from mlflow_yolo.tracking.events.hooks import attach_hooks, detach_hooks
from mlflow_yolo.tracking.events.lifecycle import LIFECYCLE_EVENTS, TrainingLifecycle
from mlflow_yolo.tracking.events.options import check_options

_LOG = logging.getLogger(__name__)

SUPPORTED = ">=8.4.190,<8.5"
"""The versions of Ultralytics whose events were read and tested; as in pyproject.toml."""


def autolog(
    *,
    log_statistics: str | bool = "default",
    every_n_steps: int | None = None,
    log_maps: bool | int = True,
    log_images: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    registered_model_name: str | None = None,
    extra_tags: Mapping[str, str] | None = None,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
) -> None:
    """Track every training, validation and export of Ultralytics in this process, also of models made before.

    Inside an active MLflow run (`mlflow.start_run()`, or `MLFLOW_RUN_ID` of `mlflow run`) they log there and leave it
    open; without one each opens and closes a run of its own. A second training inside the same active run gets a run
    nested under it. A training that is resumed (`resume=True`) continues its run. Afterwards
    `model.trainer.mlflow_run_id` is the run's id, None while no server has answered. What cannot be delivered waits on
    disk for `mlflow-yolo replay`; nothing here stops or changes a training.

    MLflow's store and experiment (`mlflow.set_tracking_uri`, `mlflow.set_experiment`, `MLFLOW_TRACKING_URI`,
    `MLFLOW_EXPERIMENT_NAME`), `MLFLOW_RUN_NAME` (or Ultralytics' `MLFLOW_RUN`) and `MLFLOW_KEEP_RUN_ACTIVE` (leave the
    run of a finished training open) are honoured and never changed.

    Args:
        log_statistics: Gradients, updates, activations of every block: `off`, `default` (a sample of the optimizer
            steps that costs at most 1 % of their time) or `all` (every statistic at every step). True and False mean
            `default` and `off`.
        every_n_steps: Sample exactly every n-th optimizer step; None leaves it to `log_statistics`.
        log_maps: Add maps of where the model looks to the image grid, of the same validation images in every run on the
            same data: before the first epoch (step 0), after the last, and between as often as 3 % of the time allow.
            A number: between, every so many epochs. They need `log_images`.
        log_images: Log Ultralytics' plots and predictions, the pictures of the statistics, and maps.
        log_models: Log `weights/best.pt`, `weights/last.pt`, exported files, and `model/`: the best checkpoint as a
            directory that `mlflow.register_model(f"runs:/{run_id}/model", name)` takes.
        log_datasets: Log the dataset as input of the run, with a digest of class names, image names and labels.
        registered_model_name: Kept as the tag `mlflow_yolo.registered_model_name`. Nothing is registered yet: that
            takes the checks of a registry which this version does not have.
        extra_tags: Tags of every run.
        disable: Stop tracking and give Ultralytics back as it was. Models of `track` stay tracked.
        exclusive: Leave runs that somebody else opened alone; always open a run of its own.
        disable_for_unsupported_versions: Do nothing with a version of Ultralytics that was not tested; otherwise this
            warns once.
        silent: Say nothing: no notes, no warnings.

    Raises:
        ArgumentError: `log_statistics`, `every_n_steps` or `log_maps` is no possible value.
    """
    options = check_options(
        log_statistics=log_statistics,
        every_n_steps=every_n_steps,
        log_maps=log_maps,
        log_images=log_images,
        log_models=log_models,
        log_datasets=log_datasets,
        registered_model_name=registered_model_name,
        extra_tags=extra_tags,
        exclusive=exclusive,
        silent=silent,
    )
    if disable or not _is_version_usable(disable_for_unsupported_versions, silent=silent):
        switch_off()
    else:
        switch_on(options)


def track(
    model: Any,
    *,
    log_statistics: str | bool = "default",
    every_n_steps: int | None = None,
    log_maps: bool | int = True,
    log_images: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    registered_model_name: str | None = None,
    extra_tags: Mapping[str, str] | None = None,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    run_name: str | None = None,
) -> TrainingLifecycle:
    """Track the trainings, validations and exports of one Ultralytics model; return what its callbacks report to.

        callbacks = mlflow_yolo.track(model)
        model.train(data="data.yaml", epochs=3)
        callbacks.run_id

    Called again it replaces the options and returns the same object. Callbacks that the user removes from the model
    (`model.reset_callbacks()`) end it, as does `disable=True`.

    Args:
        model: An `ultralytics.YOLO`.
        log_statistics: See `autolog`, as for every option down to `silent`.
        every_n_steps: See `autolog`.
        log_maps: See `autolog`.
        log_images: See `autolog`.
        log_models: See `autolog`.
        log_datasets: See `autolog`.
        registered_model_name: See `autolog`.
        extra_tags: See `autolog`.
        disable: Track this model no longer.
        exclusive: See `autolog`.
        disable_for_unsupported_versions: See `autolog`.
        silent: See `autolog`.
        tracking_uri: Store; None for MLflow's current one.
        experiment: Experiment, created when missing; None for MLflow's current one.
        run_name: Name of the runs; None for MLflow's variables, else Ultralytics' `name`.

    Returns:
        The callbacks, whose `run_id` is MLflow's id of the latest training's run: None before the first training, and
        while no server has answered.

    Raises:
        ArgumentError: An option is no possible value, or `model` is no Ultralytics model.
    """
    options = check_options(
        log_statistics=log_statistics,
        every_n_steps=every_n_steps,
        log_maps=log_maps,
        log_images=log_images,
        log_models=log_models,
        log_datasets=log_datasets,
        registered_model_name=registered_model_name,
        extra_tags=extra_tags,
        exclusive=exclusive,
        silent=silent,
        tracking_uri=tracking_uri,
        experiment=experiment,
        run_name=run_name,
    )
    _check_model(model)
    lifecycle = explicit(model) or TrainingLifecycle(options, defaults=defaults(), is_explicit=True)
    lifecycle.options = options
    _untrack(model, lifecycle)
    if not disable and _is_version_usable(disable_for_unsupported_versions, silent=silent):
        attach_hooks(model.callbacks, lifecycle, LIFECYCLE_EVENTS)
        for name in CALLS:
            setattr(model, name, functools.partial(_call_own, model, name))
    return lifecycle


def _check_model(model: Any) -> None:
    from ultralytics.engine.model import Model

    if not isinstance(model, Model):
        raise ArgumentError(f"model={model!r} is no Ultralytics model. Give track() a YOLO(...) object.")


def _untrack(model: Any, lifecycle: TrainingLifecycle) -> None:
    detach_hooks(model.callbacks, lifecycle)
    for name in CALLS:
        if getattr(vars(model).get(name), "func", None) is _call_own:
            delattr(model, name)


def _call_own(model: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a model that is tracked by itself."""
    return call(name, getattr(type(model), name), None, model, *args, **kwargs)


def _is_version_usable(disable_otherwise: bool, *, silent: bool) -> bool:
    version = importlib.metadata.version("ultralytics")
    if SpecifierSet(SUPPORTED).contains(version, prereleases=True):
        return True
    if not silent:
        _LOG.warning("mlflow_yolo: Ultralytics %s was not tested; %s is.", version, SUPPORTED)
    return not disable_otherwise
