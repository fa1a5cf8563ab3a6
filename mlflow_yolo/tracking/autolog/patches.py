"""The methods of Ultralytics' model class while `autolog` is on."""

import functools
import threading
from collections.abc import Callable
from typing import Any

from mlflow_yolo.tracking.autolog.calls import CALLS, call
from mlflow_yolo.tracking.options import Options

_lock = threading.Lock()
_originals: dict[str, Callable[..., Any]] = {}
_patches: dict[str, Callable[..., Any]] = {}
_options: Options | None = None


def switch_on(options: Options) -> None:
    """Wrap the methods of Ultralytics' model class, once; wrappers of others are wrapped like methods of its own."""
    from ultralytics.engine.model import Model

    global _options
    with _lock:
        _options = options
        for name in CALLS:
            if vars(Model)[name] is not _patches.get(name):
                _originals[name] = vars(Model)[name]
                _patches[name] = _wrap(name, _originals[name])
                setattr(Model, name, _patches[name])


def switch_off() -> None:
    """Give the class its own methods back; where somebody has wrapped ours meanwhile, it stays and only passes on."""
    global _options
    with _lock:
        _options = None
        if not _originals:
            return
        from ultralytics.engine.model import Model

        for name, original in _originals.items():
            if vars(Model).get(name) is _patches[name]:
                setattr(Model, name, original)
        _originals.clear()
        _patches.clear()


def _wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return call(name, original, _options, self, *args, **kwargs)

    return wrapped
