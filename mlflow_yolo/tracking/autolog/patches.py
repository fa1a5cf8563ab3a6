"""The methods of Ultralytics' model class while `autolog` is on."""

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

from mlflow_yolo.tracking.autolog.calls import CALLS, call
from mlflow_yolo.tracking.events.options import Options

_lock = threading.Lock()
_options: Options | None = None


def switch_on(options: Options) -> None:
    """Wrap the methods of Ultralytics' model class, once; wrappers of others are wrapped like methods of its own."""
    from ultralytics.engine.model import Model

    global _options
    with _lock:
        _options = options
        for name in CALLS:
            setattr(Model, name, _wrap(name, _own(vars(Model)[name])))


def switch_off() -> None:
    """Give the class its own methods back; where somebody has wrapped ours meanwhile, it stays and only passes on."""
    global _options
    with _lock:
        _options = None
        loaded = sys.modules.get("ultralytics.engine.model")
        if loaded is None:
            return
        for name in CALLS:
            setattr(loaded.Model, name, _own(vars(loaded.Model)[name]))


def _own(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a wrapper of this module wraps, anything else as it is.

    Wrappers are known by the module they were made in, because a notebook may have imported that anew since then.
    """
    is_ours = getattr(method, "__globals__", {}).get("__name__") == __name__
    return method.__wrapped__ if is_ours else method  # type: ignore[attr-defined]


def _wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return call(name, original, _options, self, *args, **kwargs)

    return wrapped
