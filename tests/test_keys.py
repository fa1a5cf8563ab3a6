import re

import pytest

from mlflow_yolo import keys


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("metrics/mAP50-95(B)", "metrics/mAP50-95B"),  # as Ultralytics' own MLflow callback spells it
        ("train/box_loss", "train/box_loss"),
        ("épaule gauche", "épaule gauche"),
        ("a:b*c", "a_b_c"),
        ("a//b", "a/b"),
        ("../etc/./x", "etc/x"),
        ("/rooted/", "rooted"),
        ("", "_"),
        ("()", "_"),
    ],
)
def test_sanitise_known_answers(name: str, key: str) -> None:
    assert keys.sanitise(name) == key


@pytest.mark.parametrize("name", ["metrics/mAP50(B)", "a b/c.d", "x" * 300, "été: 3", "a/../b", ""])
def test_sanitising_twice_changes_nothing_more(name: str) -> None:
    once = keys.sanitise(name)
    assert keys.sanitise(once) == once


def test_a_key_is_never_longer_than_mlflow_allows() -> None:
    assert len(keys.sanitise("k" * 1000)) == 250


@pytest.mark.parametrize("name", ["metrics/mAP50(B)", "ключ", "a:b", "naïve/Klasse Ä", "../x", "tab\tnewline\n"])
def test_mlflow_accepts_every_sanitised_name(name: str, store: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run = client.create_run("0")
    client.log_metric(run.info.run_id, keys.sanitise(name), 1.0)
    client.log_param(run.info.run_id, keys.sanitise(name), "v")
    assert client.get_run(run.info.run_id).data.metrics == {keys.sanitise(name): 1.0}


def test_a_segment_holds_no_slash() -> None:
    assert keys.segment("left/right") == "left_right"


def test_class_segments_keep_order_and_tell_colliding_names_apart() -> None:
    assert keys.class_segments(["a:b", "c", "a*b", "c d"]) == ["a_b_0", "c", "a_b_2", "c d"]
    assert keys.class_segments([]) == []


def test_metrics_are_plain_floats_under_sanitised_keys() -> None:
    import numpy as np

    values = keys.metrics({"metrics/precision(B)": np.float32(0.5), "epoch": 3})
    assert values == {"metrics/precisionB": 0.5, "epoch": 3.0}
    assert {type(value) for value in values.values()} == {float}


def test_block_metrics_share_one_short_section_prefix() -> None:
    assert keys.block_metric("gradient_l2", "04-C3k2") == "stats/gradient_l2/04-C3k2"


def test_an_image_file_is_what_mlflow_itself_would_write(store: str) -> None:
    """MLflow's UI parses the file name; our name must have the same shape as the one its client makes."""
    import numpy as np
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run_id = client.create_run("0").info.run_id
    client.log_image(run_id, np.zeros((4, 4, 3), np.uint8), key="figures/heat map", step=3, timestamp=1700000000000)
    written = [f.path for f in client.list_artifacts(run_id, "images") if f.path.endswith(".png")]
    ours = keys.image_file("figures/heat map", step=3, timestamp_ms=1700000000000, uid="u")
    assert [_without_uuid(path) for path in written] == [_without_uuid(ours)]


def test_an_image_sent_twice_has_one_name_and_another_image_another() -> None:
    first = keys.image_file("a", step=1, timestamp_ms=5, uid="u")
    assert first == keys.image_file("a", step=1, timestamp_ms=5, uid="u")
    others = {
        keys.image_file(*args[:1], step=args[1], timestamp_ms=5, uid=args[2])
        for args in [("b", 1, "u"), ("a", 2, "u"), ("a", 1, "v")]
    }
    assert len(others) == 3
    assert first not in others


def _without_uuid(path: str) -> str:
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", path)
