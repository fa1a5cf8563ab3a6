"""What is done around one call of a model: which calls are tracked, by what, and which are left alone."""

import contextlib
import contextvars
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow_yolo.tracking.autolog.export_run import ExportRun
from mlflow_yolo.tracking.autolog.single_run import SingleRun
from mlflow_yolo.tracking.autolog.unpruning import warn_of_unpruning
from mlflow_yolo.tracking.autolog.validation_run import ValidationRun
from mlflow_yolo.tracking.events.callbacks import TrainingCallbacks
from mlflow_yolo.tracking.events.hooks import attach_hooks, detach_hooks, listeners
from mlflow_yolo.tracking.events.lifecycle import LIFECYCLE_EVENTS, TrainingLifecycle
from mlflow_yolo.tracking.events.options import Options
from mlflow_yolo.tracking.events.silence import silence

_LOG = logging.getLogger(__name__)
_is_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("mlflow_yolo_is_inside", default=False)


def call(
    name: str, original: Callable[..., Any], options: Options | None, model: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Call a method of a model, tracked unless it is called by another that is.

    Args:
        name: The method's name, one of `CALLS`.
        original: Ultralytics' own method.
        options: How to track a model that has no options of its own; None: not at all.
        model: The Ultralytics model.
        args: Arguments of the method.
        kwargs: Arguments of the method; they may be called `name` and `model`.
    """
    lifecycle = explicit(model)
    options = lifecycle.options if lifecycle else options
    if options is None or _is_inside.get() or _is_followed(model):
        return original(model, *args, **kwargs)
    token = _is_inside.set(True)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(silence(options.silent))
            tracked = _follow(stack, name, model, options, kwargs)
            result = original(model, *args, **kwargs)
            if tracked is not None:
                tracked.finish(result)
            return result
    finally:
        _is_inside.reset(token)


def _follow(
    stack: contextlib.ExitStack, name: str, model: Any, options: Options, arguments: Mapping[str, Any]
) -> SingleRun | None:
    """Begin to follow a call; what fails here costs the tracking, not the call."""
    follow = CALLS[name]
    try:
        return None if follow is None else follow(stack, model, options, arguments)
    except Exception as error:
        _LOG.warning("mlflow_yolo: %s() is not tracked: %s: %s", name, type(error).__name__, error)
        return None


def _follow_training(stack: contextlib.ExitStack, model: Any, options: Options, arguments: Mapping[str, Any]) -> None:
    with contextlib.suppress(Exception):  # a model unlike Ultralytics' own; it is tracked all the same
        warn_of_unpruning(model, arguments)
    lifecycle = explicit(model)
    if lifecycle is None:
        lifecycle = TrainingLifecycle(options, defaults=defaults())
        _attach(stack, model, lifecycle, LIFECYCLE_EVENTS)
    stack.enter_context(lifecycle.around(model))


def _follow_validation(stack: contextlib.ExitStack, model: Any, options: Options, _: Mapping[str, Any]) -> SingleRun:
    return _follow_single(stack, model, ValidationRun(options, model_file=_model_file(model)))


def _follow_export(
    stack: contextlib.ExitStack, model: Any, options: Options, arguments: Mapping[str, Any]
) -> SingleRun:
    directory = functools.partial(_export_directory, model, arguments)
    return _follow_single(stack, model, ExportRun(options, model_file=_model_file(model), directory=directory))


def _follow_single(stack: contextlib.ExitStack, model: Any, run: SingleRun) -> SingleRun:
    _attach(stack, model, run, run.events)
    stack.enter_context(run.around())
    return run


CALLS: dict[str, Callable[..., Any] | None] = {
    "train": _follow_training,
    "val": _follow_validation,
    "export": _follow_export,
    "tune": None,
    "benchmark": None,
}
"""What is done around each method; None: nothing, and nothing is tracked inside either."""


def _attach(stack: contextlib.ExitStack, model: Any, listener: Any, events: tuple[str, ...]) -> None:
    """Put hooks on the model for the duration of a call."""
    attach_hooks(model.callbacks, listener, events)
    stack.callback(detach_hooks, model.callbacks, listener)


def explicit(model: Any) -> TrainingLifecycle | None:
    """Return what `track` has put on the model, None where it has not or the user has taken it off."""
    found = [lifecycle for lifecycle in listeners(model.callbacks, TrainingLifecycle) if lifecycle.is_explicit]
    return found[0] if found else None


def _is_followed(model: Any) -> bool:
    """Return whether a workflow of this package is already logging what the model does."""
    functions = (function for functions in model.callbacks.values() for function in functions)
    return any(isinstance(getattr(function, "__self__", None), TrainingCallbacks) for function in functions)


def _model_file(model: Any) -> Path | None:
    """Return the file the model was loaded from or trained into last."""
    source = (getattr(model, "overrides", None) or {}).get("model") or getattr(model, "ckpt_path", None)
    path = Path(str(source)) if source else None
    return path.absolute() if path is not None and path.is_file() else path


def _export_directory(model: Any, arguments: Mapping[str, Any]) -> Path:
    """Return a folder beside Ultralytics' own results, as it would name one for an export: `runs/detect/export2`."""
    from ultralytics.cfg import get_save_dir

    names = {"project": None, "name": None, "exist_ok": False, "save_dir": None}
    given = {name: arguments.get(name, default) for name, default in names.items()}
    return Path(get_save_dir(SimpleNamespace(**given, task=model.task, mode="export")))


def defaults() -> dict[str, Any]:
    """Return Ultralytics' default arguments."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    return dict(DEFAULT_CFG_DICT)
