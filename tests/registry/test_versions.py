from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow_yolo.registry import versions
from mlflow_yolo.registry.versions import list_versions, page_of

if TYPE_CHECKING:
    import pytest
    from mlflow.tracking import MlflowClient


def test_all_versions_are_listed_over_pages_the_newest_first(
    client: "MlflowClient", make_versions: Callable[[str, int], list[str]], monkeypatch: "pytest.MonkeyPatch"
) -> None:
    monkeypatch.setattr(versions, "_A_PAGE", 2)
    make_versions("o'neill", 5)
    make_versions("other", 1)
    assert [int(one.version) for one in list_versions(client, "o'neill")] == [5, 4, 3, 2, 1]
    assert list_versions(client, "none") == []


def test_the_address_of_a_page_holds_any_name() -> None:
    assert page_of("a b/c", "3") == "#/models/a%20b%2Fc/versions/3"
