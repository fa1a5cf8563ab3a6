"""Which of Ultralytics' arguments a search can vary: those that change what a training learns, each with its kind."""

from typing import Any, Literal

Kind = Literal["float", "int", "switch", "optimizer"]

_SWITCHES = ("cos_lr", "rect", "overlap_mask")
_FLOATS_TOO = ("scale",)  # Ultralytics keeps these in no list, because they may be pairs too
_INTS_TOO = ("imgsz", "batch")
_OF_NO_TRAINING = frozenset({"conf", "iou", "max_det", "vid_stride", "line_width", "opset", "workspace"})
_OF_NO_RESULT = frozenset({"workers", "seed", "save_period", "time"})
"""What a training takes along without learning anything else, or decides how long a trial is apart from `epochs`."""


def argument_kind(name: str) -> Kind | None:
    """Return what the values of an argument are, None for one that does not exist or that no search varies."""
    from ultralytics.cfg import CFG_FLOAT_KEYS, CFG_FRACTION_KEYS, CFG_INT_KEYS

    if name in _OF_NO_TRAINING | _OF_NO_RESULT:
        return None
    if name == "optimizer":
        return "optimizer"
    if name in _SWITCHES:
        return "switch"
    if name in CFG_INT_KEYS or name in _INTS_TOO:
        return "int"
    return "float" if name in CFG_FLOAT_KEYS | CFG_FRACTION_KEYS or name in _FLOATS_TOO else None


def default_value(name: str) -> Any:
    """Return Ultralytics' own value of an argument, None where it has none."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    return DEFAULT_CFG_DICT.get(name)


def variable_arguments() -> list[str]:
    """Return the names of all arguments that a search can vary, in order."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    return sorted(name for name in DEFAULT_CFG_DICT if argument_kind(name))
