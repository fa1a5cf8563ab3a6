"""How a space is written: on the command line without quotes, or in a YAML file, where lists and mappings may stand."""

from pathlib import Path

import yaml

from mlflow_yolo.exceptions import ArgumentError

_SUFFIXES = (".yaml", ".yml")
_RANGE = ("low", "high", "log", "step")


def read_entries(text: str) -> dict[str, str]:
    """Return what is written of each dimension, as `dimensions` reads it: `{"lr0": "1e-4:1e-1:log"}`.

    Raises:
        ArgumentError: Nothing is described, a dimension twice, or the file cannot be read.
    """
    text = text.strip()
    is_file = text.lower().endswith(_SUFFIXES) and ("=" not in text or Path(text).expanduser().is_file())
    pairs = (
        _read_yaml(Path(text).expanduser()) if is_file else [_pair(part) for part in text.split(",") if part.strip()]
    )
    if not pairs:
        raise ArgumentError(f"space={text or repr(text)} has no dimension. Write for example space=freeze=0:backbone.")
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ArgumentError(f"space has {name} twice. Write each dimension once.")
    return dict(pairs)


def _pair(part: str) -> tuple[str, str]:
    name, equals, values = part.partition("=")
    name, values = name.strip(), values.strip()
    if not equals or not name or not values:
        raise ArgumentError(
            f"space: {part.strip()!r} is not name=values. Write for example lr0=1e-4:1e-1:log, and + between choices."
        )
    return name, values


def _read_yaml(path: Path) -> list[tuple[str, str]]:
    """Return the entries of a YAML file, read as text throughout: YAML takes 1:30 for a time and 1e-4 for a word."""
    try:
        node = yaml.compose(path.read_text(), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ArgumentError(f"space={path} cannot be read: {reason}. Give a YAML file of name: values.") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(
            f"space={path} is not YAML: {reason}. Write one line a dimension: lr0: 1e-4:1e-1:log."
        ) from error
    if not isinstance(node, yaml.MappingNode):
        raise ArgumentError(f"space={path} holds no dimensions. Write one line a dimension: lr0: 1e-4:1e-1:log.")
    return [(_scalar(path, "a name", key), _values(path, key.value, value)) for key, value in node.value]


def _values(path: Path, name: str, node: yaml.Node) -> str:
    """Return the values of one dimension as they would be written on the command line."""
    if isinstance(node, yaml.SequenceNode):
        return "+".join(_scalar(path, name, one) for one in node.value)
    if isinstance(node, yaml.MappingNode):
        return _range(path, name, {_scalar(path, name, key): _scalar(path, name, one) for key, one in node.value})
    return _scalar(path, name, node)


def _range(path: Path, name: str, given: dict[str, str]) -> str:
    if not {"low", "high"} <= given.keys() <= set(_RANGE):
        raise ArgumentError(
            f"space={path}: {name} needs low and high, and may have log or step; it has {', '.join(given)}."
        )
    if given.get("log", "false").lower() not in ("true", "false"):
        raise ArgumentError(f"space={path}: log of {name} is {given['log']}. Write true or false.")
    last = ["log"] if given.get("log", "false").lower() == "true" else []
    return ":".join([given["low"], given["high"], *last, *([given["step"]] if "step" in given else [])])


def _scalar(path: Path, name: str, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not str(node.value).strip():
        raise ArgumentError(f"space={path}: {name} has no value that can be read. Write {name}: low:high, or a list.")
    return str(node.value).strip()
