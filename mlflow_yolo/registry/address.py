"""Addresses of registered models: `models:/cells/7` and `models:/cells@champion-cpu`."""

import re
from dataclasses import dataclass

from mlflow_yolo.exceptions import ArgumentError

_SCHEME = "models:"
_FORMS = "Use models:/<name>/<version> or models:/<name>@<alias>."
_LOGGED_MODEL = re.compile(r"m-[0-9a-f]{32}")
_STAGES = frozenset({"none", "staging", "production", "archived"})
_ALIAS = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class ModelAddress:
    """Which version of which registered model is meant.

    Attributes:
        name: The registered model.
        version: Its version's number, None where an alias is named.
        alias: The alias, None where a version is named.
    """

    name: str
    version: str | None = None
    alias: str | None = None

    def __str__(self) -> str:
        """Return the URI."""
        return f"models:/{self.name}@{self.alias}" if self.alias is not None else f"models:/{self.name}/{self.version}"


def is_model_uri(text: object) -> bool:
    """Return whether `text` names something in the registry rather than a file: it starts with `models:`."""
    return isinstance(text, str) and text.startswith(_SCHEME)


def parse_model_uri(text: str) -> ModelAddress:
    """Return what a URI of the registry names.

    Raises:
        ArgumentError: It is none, or names what may be another version tomorrow without anybody having promoted it
            (`latest`, MLflow's retired stages), or a logged model, which has no version.
    """
    path = text.removeprefix(_SCHEME)
    if not is_model_uri(text) or not path.startswith("/") or path.startswith("//"):
        raise ArgumentError(f"model={text} is no address of a registered model. {_FORMS}")
    name, _, suffix = path[1:].partition("/")
    if _LOGGED_MODEL.fullmatch(name) and not suffix:
        raise ArgumentError(f"model={text} is a logged model, which has no version. {_FORMS}")
    if suffix:
        return ModelAddress(_check_name(name, text), version=_check_version(suffix, name, text))
    name, _, alias = name.rpartition("@")
    if not _ALIAS.fullmatch(alias) or not name:
        raise ArgumentError(f"model={text} names no version and no alias. {_FORMS}")
    if alias.lower() == "latest":
        raise _unstable(alias, name, text)
    return ModelAddress(_check_name(name, text), alias=alias)


def _check_name(name: str, text: str) -> str:
    if not name.strip() or ":" in name:
        raise ArgumentError(f"model={text} has no name that a registered model can have. {_FORMS}")
    return name


def _check_version(suffix: str, name: str, text: str) -> str:
    if suffix.isascii() and suffix.isdigit() and int(suffix):
        return str(int(suffix))
    if suffix.lower() == "latest" or suffix.lower() in _STAGES:
        raise _unstable(suffix, name, text)
    raise ArgumentError(f"model={text}: {suffix!r} is no version number. {_FORMS}")


def _unstable(suffix: str, name: str, text: str) -> ArgumentError:
    word = "the version registered last" if suffix.lower() == "latest" else "a stage, which MLflow has retired"
    return ArgumentError(
        f"model={text}: {suffix!r} is {word}; nobody has promoted it. "
        f"Use an alias, as in models:/{name}@champion-cpu, or a version, as in models:/{name}/1."
    )
