"""All versions of a registered model."""

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_A_PAGE = 1000


def list_versions(client: "MlflowClient", name: str) -> list["ModelVersion"]:
    """Return the versions of a model with their tags, the newest first; MLflow leaves their aliases out."""
    mark = '"' if "'" in name else "'"
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(
            f"name = {mark}{name}{mark}", max_results=_A_PAGE, order_by=["version_number DESC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def page_of(name: str, version: str) -> str:
    """Return the address of a version's page within MLflow's UI."""
    return f"#/models/{quote(name, safe='')}/versions/{version}"
