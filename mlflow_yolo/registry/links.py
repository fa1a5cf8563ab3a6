"""What a run says of a registered version that it was about."""

from mlflow_yolo.registry.fetching import SHA_TAG, Fetched


def link_tags(version: Fetched) -> dict[str, str]:
    """Return a version as tags of a run: `registry.model`, `registry.version`, `registry.alias`, `model.sha256`."""
    alias = {"registry.alias": version.alias} if version.alias else {}
    return {"registry.model": version.name, "registry.version": version.version, **alias, SHA_TAG: version.sha256}
