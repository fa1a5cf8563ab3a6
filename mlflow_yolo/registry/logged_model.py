"""A measured variant as a logged model of MLflow: exact bytes, benchmark and numbers; whole, or not there at all."""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_yolo import keys
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.registry.candidates import Candidate
from mlflow_yolo.registry.record import PARENT_PREDICTIONS, PREDICTIONS, write_record
from mlflow_yolo.registry.version_description import PLOT, version_figure
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.stores.context import context_tags
from mlflow_yolo.variant import write_variant

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric, Run
    from mlflow.tracking import MlflowClient

TAG_IDENTITY = "variant.identity"
"""What tells a variant with its benchmark from any other."""

TAG_VERSIONS = "mlflow.modelVersions"
"""MLflow's own: by it a logged model's page in the UI lists the versions that it became."""

_MOST_DIGEST = 36  # characters of a dataset's digest in MLflow


def identity(candidate: Candidate) -> str:
    """Return 16 hex digits that are equal for the same bytes, benchmark, data and operating point."""
    measured = candidate.record.variant
    parts = [
        candidate.variant.sha256,
        measured.cost.benchmark,
        measured.scores and [measured.scores.dataset, measured.scores.split],
        candidate.record.parent and candidate.record.parent.sha256,
        dict(candidate.variant.operating_point),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def logged_model(client: "MlflowClient", candidate: Candidate, run: "Run") -> Iterator["LoggedModel"]:
    """Yield a logged model that holds the variant's bytes and benchmark; after an error it is removed.

    Args:
        client: Of the store.
        candidate: The variant.
        run: The run that it belongs to, which gets its numbers as metrics of this model.
    """
    variant, run_id = candidate.variant, str(run.info.run_id)
    model = client.create_logged_model(
        run.info.experiment_id,
        name=keys.segment(candidate.name).replace(".", "-"),
        source_run_id=run_id,
        tags={TAG_IDENTITY: identity(candidate), "model.sha256": variant.sha256, "variant.kind": variant.kind},
        params={"kind": variant.kind, "task": variant.task, "imgsz": "x".join(map(str, variant.imgsz))},
        model_type=variant.task,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="mlflow-yolo-") as scratch:
            client.log_model_artifacts(model.model_id, str(_saved(candidate, model, run_id, Path(scratch))))
        _log_numbers(client, candidate, run_id, model.model_id)
        client.finalize_logged_model(model.model_id, "READY")
        yield model
    except BaseException:
        with suppress(Exception):  # what went wrong before is what the user has to hear of
            _remove(client, model)
        raise


def remove_remains(client: "MlflowClient", candidate: Candidate, run: "Run") -> None:
    """Remove what a killed process has left of this very variant: a logged model that became no version."""
    mine = f"tags.`{TAG_IDENTITY}` = '{identity(candidate)}'"
    for model in client.search_logged_models([run.info.experiment_id], filter_string=mine, max_results=100):
        if TAG_VERSIONS not in model.tags:
            _remove(client, model)


def run_of(client: "MlflowClient", candidate: Candidate, experiment_id: str) -> "Run":
    """Return the run that logged a measurement; where this store does not hold it, a new one in the experiment."""
    run = _known_run(client, candidate)
    if run is None:
        tags = {**context_tags(), keys.TAG_NAME: candidate.name, **candidate.record.tags}
        run = client.create_run(experiment_id, tags=tags)
        client.update_run(run.info.run_id, status="FINISHED")  # `set_terminated` would print
    return run


def _known_run(client: "MlflowClient", candidate: Candidate) -> "Run | None":
    """Return the run that logged the measurement, None where this store does not hold it."""
    from mlflow.exceptions import MlflowException

    run_id = candidate.record.run_id or _noted_run(candidate)
    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _noted_run(candidate: Candidate) -> str | None:
    """Return the run that a server has told of only after the record was written."""
    output = candidate.measured.parent.parent.parent
    known = read_run_file(output / "runs" / candidate.measured.name)
    return known.run_id if known else None


def _remove(client: "MlflowClient", model: "LoggedModel") -> None:
    """Remove a logged model, unless a version was made of it after all: the answer can be lost on its way."""
    if not _is_source(client, model):
        client.finalize_logged_model(model.model_id, "FAILED")
        client.delete_logged_model(model.model_id)


def _is_source(client: "MlflowClient", model: "LoggedModel") -> bool:
    places = (model.artifact_location, f"models:/{model.model_id}")
    return any(client.search_model_versions(f"source_path = '{place}'", max_results=1) for place in places)


def _saved(candidate: Candidate, model: "LoggedModel", run_id: str, scratch: Path) -> Path:
    """Write what is logged: the flavor's files, the variant, and its benchmark with the plot."""
    from mlflow.models import Model

    from mlflow_yolo.registry.flavor import save_model

    benchmark = scratch / "benchmark"
    benchmark.mkdir()
    for file in (PREDICTIONS, PARENT_PREDICTIONS):
        if (candidate.measured / file).is_file():
            shutil.copyfile(candidate.measured / file, benchmark / file)
    about = {name: text for name, text in candidate.record.about.items() if name not in ("folder", "error")}
    write_record(benchmark, replace(candidate.record, run_id=run_id, about=about))
    (benchmark / PLOT).write_bytes(png_bytes(version_figure(candidate.record)))
    described = Model(
        artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
    )
    save_model(_staged(candidate, scratch), scratch / "model", mlflow_model=described, benchmark=benchmark)
    return scratch / "model"


def _staged(candidate: Candidate, scratch: Path) -> Path:
    """Return a folder with the variant's bytes and the `variant.json` that it is registered with."""
    folder, file = scratch / "variant", candidate.folder / candidate.variant.file
    folder.mkdir()
    if file.is_dir():
        shutil.copytree(file, folder / file.name)
    else:
        shutil.copyfile(file, folder / file.name)
    write_variant(folder, candidate.variant)
    return folder


def _log_numbers(client: "MlflowClient", candidate: Candidate, run_id: str, model_id: str) -> None:
    """Log what was measured as metrics of the logged model, those of accuracy with their data."""
    from mlflow.entities import LoggedModelOutput

    for one in _metrics(candidate):  # one by one: a batch over HTTP leaves out the model and the data
        client.log_metric(
            run_id,
            one.key,
            one.value,
            one.timestamp,
            dataset_name=one.dataset_name,
            dataset_digest=one.dataset_digest,
            model_id=model_id,
        )
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _metrics(candidate: Candidate) -> list["Metric"]:
    from mlflow.entities import Metric

    record, measured = candidate.record, candidate.record.variant
    at = int(datetime.fromisoformat(measured.cost.date).timestamp() * 1000) if measured.cost.date else 0
    costs = {**measured.cost.metrics(), "agreement": record.agreement}
    found = [Metric(name, value, at, 0) for name, value in costs.items()]
    if measured.scores is not None:
        split, data = measured.scores.split, record.about.get("data", "")
        digest = measured.scores.dataset[:_MOST_DIGEST]
        found += [
            Metric(keys.sanitise(f"{split}/{name}"), value, at, 0, dataset_name=data, dataset_digest=digest)
            for name, value in measured.scores.values.items()
        ]
    return [one for one in found if not math.isnan(one.value)]
