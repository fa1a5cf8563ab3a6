"""The space of a search: `freeze=0:backbone,lr0=1e-4:1e-1:log,prune=0:0.6`, or a YAML file with the same inside.

Dimensions that are looked up after a training (`conf`, `iou`) are kept apart: nothing is trained for them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.checkpoint import Model
from mlflow_yolo.studies.tuning.built_in import REPLAYED, build, check_replayed, known_good
from mlflow_yolo.studies.tuning.dimensions import Dimension, Value
from mlflow_yolo.studies.tuning.model_words import read_models
from mlflow_yolo.studies.tuning.space_text import read_entries

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MODEL = "model"


@dataclass(frozen=True)
class Space:
    """What a search may vary.

    Attributes:
        dimensions: What every trial is given, in the order written.
        replayed: Lowest and highest `conf` and `iou` that are looked up after every training; may be empty.
        models: The models by the words of the dimension `model`; without it the base model, under "".
    """

    dimensions: tuple[Dimension, ...]
    replayed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dimensions that a trial is given."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def n_points(self) -> int | None:
        """Number of different trials; None where they cannot be counted."""
        sizes = [dimension.values for dimension in self.dimensions]
        return None if None in sizes else prod(len(values or ()) for values in sizes)

    @property
    def text(self) -> str:
        """The space as it is written on the command line."""
        spans = [f"{name}={low:g}:{high:g}" for name, (low, high) in self.replayed.items()]
        return ",".join([*(dimension.text for dimension in self.dimensions), *spans])

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def model(self, params: Mapping[str, Any]) -> Model:
        """Return the model that a trial's params ask for."""
        return self.models[params.get(MODEL, "")]

    def distributions(self) -> "dict[str, BaseDistribution]":
        """Return the dimensions as `optuna.study.Study.ask` takes them."""
        return {dimension.name: dimension.distribution() for dimension in self.dimensions}

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Return whether params have a value of every dimension, and no other."""
        known = {dimension.name: dimension for dimension in self.dimensions}
        return params.keys() == known.keys() and all(known[name].contains(value) for name, value in params.items())

    def key(self, params: Mapping[str, Any]) -> str:
        """Return a text that two points share exactly when they are the same trial.

        Floats count to 12 digits: a third step of 0.1 is 0.3 when written and 0.30000000000000004 when added up.
        """
        values = [
            float(f"{value:.12g}") if isinstance(value, float) else value for value in map(params.get, self.names)
        ]
        return json.dumps(values)

    def enqueue(self, defaults: Mapping[str, Any]) -> dict[str, Value] | None:
        """Return the params of a first trial: known-good values, brought into the space where they lie outside.

        Args:
            defaults: What is used where nothing is searched, by dimension; what is missing is Ultralytics' default, or
                nothing frozen, nothing pruned, and the first model.
        """
        found = {
            dimension.name: dimension.nearest(defaults.get(dimension.name, known_good(dimension)))
            for dimension in self.dimensions
        }
        return found or None

    def to_json(self) -> dict[str, Any]:
        """Return what identifies the space, as JSON-able data; models by their bytes where they have some."""
        return {
            "dimensions": [dimension.to_json() for dimension in self.dimensions],
            "replayed": {name: list(span) for name, span in self.replayed.items()},
            "models": {word: model.sha256[:16] or model.source for word, model in self.models.items()},
        }


def parse_space(text: str, *, model: str, trust: bool = False) -> Space:
    """Return the space that a text or a YAML file describes.

    Args:
        text: `name=values` joined by commas, see `dimensions`, or the path of a YAML file of `name: values`, where
            values may also be a list, or a mapping of `low`, `high` and `log` or `step`.
        model: The model of all trials, and what sizes such as `n+s` are sizes of.
        trust: Load checkpoints that name foreign classes.

    Raises:
        InputError: The first thing in it that cannot work, in one line with its remedy.
    """
    entries = read_entries(text)
    if MODEL in entries:
        dimension = build(MODEL, entries[MODEL], models={})
        models = read_models([str(word) for word in dimension.choices], base=model, trust=trust)
    else:
        models = read_models([model], base="", trust=trust)
    task = next(iter(models.values())).task
    dimensions = tuple(build(name, entry, models=models) for name, entry in entries.items() if name not in REPLAYED)
    replayed = {name: check_replayed(name, entries[name], task=task) for name in REPLAYED if name in entries}
    if all(dimension.is_fixed for dimension in dimensions):
        raise ArgumentError(_nothing_to_search(text, only_replayed=bool(replayed)))
    return Space(dimensions, replayed, models if MODEL in entries else {"": models[model]})


def _nothing_to_search(text: str, *, only_replayed: bool) -> str:
    if only_replayed:
        return (
            f"space={text} varies nothing that is trained: conf and iou are looked up after training. "
            "Add a dimension, or use mlflow-yolo thresholds for one checkpoint."
        )
    return f"space={text} leaves nothing to search: every dimension has one value. Write a range: lr0=1e-4:0.1:log."
