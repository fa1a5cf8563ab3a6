"""A dataset as MLflow run input: plain entities, so that nothing of MLflow's dataset classes is needed to send one."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

SOURCE_TYPE = "yolo"
_MAX_DIGEST = 36
_MAX_NAME = 500


def dataset_record(*, name: str, digest: str, source: str, profile: Mapping[str, Any], context: str) -> dict[str, Any]:
    """Return the journal record of a dataset input.

    Args:
        name: Shown as chip in MLflow's run table.
        digest: Fingerprint of the content; the first 36 characters are kept (MLflow's limit).
        source: Where the data came from, usually the path of data.yaml.
        profile: Anything that describes it: classes, counts per split.
        context: What it was used for: `training`, `validation` or `test`.
    """
    return {
        "type": "dataset",
        "name": name[:_MAX_NAME],
        "digest": digest[:_MAX_DIGEST],
        "source": source,
        "profile": dict(profile),
        "context": context,
    }


def dataset_input(record: Mapping[str, Any]) -> "DatasetInput":
    """Return the MLflow entity of a record made by `dataset_record`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=record["name"],
        digest=record["digest"],
        source_type=SOURCE_TYPE,
        source=json.dumps({"uri": record["source"]}),
        profile=json.dumps(record["profile"], default=str),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", record["context"])])
