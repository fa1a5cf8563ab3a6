"""Addresses of registered models."""

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.registry.address import ModelAddress, is_model_uri, parse_model_uri


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("models:/cells/7", ModelAddress("cells", version="7")),
        ("models:/cells@champion-cpu", ModelAddress("cells", alias="champion-cpu")),
        ("models:/blood cells.v2/12", ModelAddress("blood cells.v2", version="12")),
        ("models:/a@b@previous-arm_64", ModelAddress("a@b", alias="previous-arm_64")),
    ],
)
def test_an_address_names_a_version_or_an_alias_and_gives_its_uri_back(uri: str, address: ModelAddress) -> None:
    assert parse_model_uri(uri) == address
    assert str(address) == uri


def test_a_version_is_a_number_however_it_is_written() -> None:
    assert parse_model_uri("models:/cells/007") == ModelAddress("cells", version="7")


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("models:/cells", "models:/cells names no version"),
        ("models:/cells/", "models:/cells/ names no version"),
        ("models:/cells/latest", "'latest' is the version registered last"),
        ("models:/cells@Latest", "'Latest' is the version registered last"),
        ("models:/cells/Production", "'Production' is a stage"),
        ("models:/cells/v7", "'v7' is no version number"),
        ("models:/cells/0", "'0' is no version number"),
        ("models:/cells/²", "'²' is no version number"),
        ("models:/cells/7/variant", "'7/variant' is no version number"),
        ("models:/cells@", "models:/cells@ names no version"),
        ("models:/@champion", "models:/@champion names no version"),
        ("models:/cells@../x", "is no version number"),
        ("models:/a:b/1", "no name"),
        ("models:/ /1", "no name"),
        ("models://host/cells/1", "no address"),
        ("models:cells/1", "no address"),
        ("runs:/cells/1", "no address"),
        ("models:/m-" + "0" * 32, "is a logged model"),
    ],
)
def test_what_names_no_fixed_version_is_refused_in_one_line(uri: str, named: str) -> None:
    with pytest.raises(ArgumentError) as error:
        parse_model_uri(uri)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert "models:/" in str(error.value)


def test_only_text_that_begins_with_the_scheme_is_for_the_registry() -> None:
    assert is_model_uri("models:/cells/7")
    assert is_model_uri("models:cells")
    assert not any(map(is_model_uri, ("cells.onnx", "./models:/x", "", None, 7)))
