"""The models that a search may choose between: `n+s` for sizes of the base model, or names and files as they are."""

import re
from collections.abc import Sequence
from pathlib import Path

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.checkpoint import Model, load, read_model

_SIZED = re.compile(r"(yolo(?:v|e-v|e-)?\d+)([a-z])((?:-[a-z]+\d*)*\.(?:pt|ya?ml))")
_SIZE = re.compile(r"[a-z]")


def read_models(words: Sequence[str], *, base: str, trust: bool) -> dict[str, Model]:
    """Return the model that each word means.

    Args:
        words: `n`, `s`, `m`, … for the base model in another size, or anything that `read_model` takes.
        base: The model as the user named it. Where its name says no size (`best.pt`, `digits`), its own record of the
            architecture does, and a size means the checkpoint that Ultralytics publishes of it.
        trust: Load checkpoints that name foreign classes.

    Raises:
        CheckpointError: A model does not exist or may not be loaded.
        ArgumentError: The base model comes in no sizes, or the models are for different tasks.
    """
    models = {word: read_model(_name(word, base, trust=trust), trust=trust) for word in words}
    first = next(iter(models))
    for word, model in models.items():
        if model.task != models[first].task:
            raise ArgumentError(
                f"model={word} is for {model.task}, model={first} for {models[first].task}. Use models of one task."
            )
    return models


def _name(word: str, base: str, *, trust: bool) -> str:
    """Return what a word means as a model's name or path."""
    if not _SIZE.fullmatch(word):
        return word
    if match := _SIZED.fullmatch(Path(base).name):
        return str(Path(base).with_name(f"{match[1]}{word}{match[3]}"))
    network = load(read_model(base, trust=trust).source)
    recorded = str(getattr(network.model, "yaml", {}).get("yaml_file", ""))
    if match := _SIZED.fullmatch(Path(recorded).name):
        return f"{match[1]}{word}{match[3].rpartition('.')[0]}.pt"
    raise ArgumentError(
        f"model={word}: {base} does not say of which family it is. Write names: model=yolo11n.pt+yolo11s.pt."
    )
