from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from mlflow_yolo.deployment.inference.backend import Options
from mlflow_yolo.deployment.inference.served import Served, open_served
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.runtime.detector import Detector
from mlflow_yolo.runtime.session import OnnxSession
from mlflow_yolo.variant import read_variant
from tests.deployment.tiny_variants import NAMES, noise, picture, tiny_openvino_variant, tiny_variant


def fetched(folder: Path, **changes: Any) -> Fetched:
    values = {"sha256": read_variant(folder).sha256, "alias": "champion-cpu", "tags": {}, "run_id": None}
    return Fetched(name="cells", version="7", folder=folder, **{**values, **changes})


def test_a_red_and_a_blue_cell_are_found_where_they_are(tmp_path: Path) -> None:
    served = open_served(tiny_variant(tmp_path / "v", side=6))
    image = served.read(picture((1, 2, "red"), (3, 0, "blue")))
    (found,) = served.detect([image], [Options()])
    assert {(NAMES[kind], *box) for kind, box in zip(found.classes, found.boxes.tolist(), strict=True)} == {
        ("red", 17, 9, 23, 15),  # the middle of row 1, column 2 is (20, 12)
        ("blue", 1, 25, 7, 31),
    }
    assert found.scores.tolist() == [1, 1]


@pytest.mark.parametrize("options", [{}, {"conf": 0.49}, {"iou": 0.0, "conf": 0.3}, {"max_det": 2}])
def test_the_answer_is_the_one_of_a_detector(tmp_path: Path, options: dict[str, float]) -> None:
    point = {"conf": 0.45, "iou": 0.2, "max_det": 9, "per_class": {"green": 0.5}}
    folder = tiny_variant(tmp_path / "v", side=12, operating_point=point)
    served, detector = open_served(folder), Detector(folder, **options)  # type: ignore[arg-type]
    for seed in range(5):
        image = noise(seed)
        (found,) = served.detect([served.read(image)], [Options(**options)])  # type: ignore[arg-type]
        wanted = detector(image)
        assert len(wanted)
        for name in ("boxes", "scores", "classes"):
            assert np.array_equal(getattr(found, name), getattr(wanted, name))


def test_each_image_of_a_batch_has_its_own_options(tmp_path: Path) -> None:
    served = open_served(tiny_variant(tmp_path / "v"), max_batch=3)
    image = served.read(picture((0, 0, "red"), (0, 2, "green"), (2, 0, "blue")))
    found = served.detect([image] * 3, [Options(), Options(max_det=1), Options(max_det=2)])
    assert [len(one) for one in found] == [3, 1, 2]


def test_a_registered_version_says_what_it_is(tmp_path: Path) -> None:
    folder = tiny_variant(tmp_path / "v")
    before = datetime.now(UTC).replace(microsecond=0)
    loaded = open_served(fetched(folder)).loaded
    assert (loaded.name, loaded.version, loaded.alias, loaded.kind) == ("cells", "7", "champion-cpu", "fp32-onnx")
    assert (loaded.task, loaded.names, loaded.imgsz) == ("detect", NAMES, (32, 32))
    assert loaded.sha256 == read_variant(folder).sha256
    assert before <= datetime.fromisoformat(loaded.loaded_at) <= datetime.now(UTC)


def test_a_local_variant_has_its_folders_name_and_no_version(tmp_path: Path) -> None:
    loaded = open_served(str(tiny_variant(tmp_path / "int8-onnx"))).loaded
    assert (loaded.name, loaded.version, loaded.alias) == ("int8-onnx", None, None)


def test_bytes_other_than_the_registered_ones_are_refused_with_both_digests(tmp_path: Path) -> None:
    folder = tiny_variant(tmp_path / "v")
    with pytest.raises(CheckpointError, match=f"{'0' * 64}.*{read_variant(folder).sha256}"):
        open_served(fetched(folder, sha256="0" * 64))


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    source = fetched(tiny_variant(tmp_path / "v"))
    content = bytearray((source.folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (source.folder / "model.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=source.sha256):
        open_served(source)


def test_an_operating_point_of_an_unknown_class_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    folder = tiny_variant(tmp_path / "v", operating_point={"per_class": {"purple": 0.5}})
    with pytest.raises(ArgumentError, match="purple"):
        open_served(folder)


def test_a_model_with_other_outputs_than_it_says_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        open_served(tiny_variant(tmp_path / "v", task="classify"))


@pytest.mark.parametrize(
    ("batch", "max_batch", "sizes"),
    [("n", 1, (1,)), ("n", 2, (1, 2)), ("n", 8, (1, 4, 8)), (1, 8, (1,)), (4, 8, (1, 2, 4)), (4, 1, (1,))],
)
def test_batches_are_of_three_sizes_at_most_and_fit_the_model(
    tmp_path: Path, batch: int | str, max_batch: int, sizes: tuple[int, ...]
) -> None:
    assert open_served(tiny_variant(tmp_path / "v", batch=batch), max_batch=max_batch).sizes == sizes


def test_every_batch_size_has_run_before_the_model_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, run = [], OnnxSession.run
    monkeypatch.setattr(OnnxSession, "run", lambda self, images: (seen.append(len(images)), run(self, images))[1])
    open_served(tiny_variant(tmp_path / "v"), workers=2, max_batch=8)
    assert seen == [1, 4, 8]


def test_a_retired_model_is_closed_when_its_last_user_is_gone(tmp_path: Path) -> None:
    served = open_served(tiny_variant(tmp_path / "v"))
    for _ in range(2):
        served.acquire()
    served.release()
    served.retire()
    assert not served.closed
    served.release()
    assert served.closed


def test_a_model_without_users_is_closed_when_it_is_retired_and_not_before(tmp_path: Path) -> None:
    served = open_served(tiny_variant(tmp_path / "v"))
    served.acquire().release()
    assert not served.closed
    served.retire()
    assert served.closed


@pytest.fixture
def openvino_variant(tmp_path: Path, missing: Callable[[str, str], NoReturn]) -> Path:
    try:
        import openvino  # noqa: F401
    except ImportError:
        missing("openvino", "Install it: pip install 'mlflow-yolo[openvino]'.")
    return tiny_openvino_variant(tmp_path / "openvino", side=6)


def test_workers_share_an_onnx_session_and_have_an_openvino_session_each(
    tmp_path: Path, openvino_variant: Path
) -> None:
    onnx, openvino = (open_served(one, workers=2) for one in (tiny_variant(tmp_path / "v"), openvino_variant))
    assert len(onnx._pipelines) == 1
    assert len({id(pipeline.session) for pipeline in openvino._pipelines}) == 2


def test_an_openvino_model_is_not_pinned_to_the_cores_of_another_worker(openvino_variant: Path) -> None:
    served = open_served(openvino_variant, workers=2)
    for pipeline in served._pipelines:
        compiled = pipeline.session._request(1).get_compiled_model()  # type: ignore[attr-defined]
        assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_both_sessions_of_an_openvino_model_give_a_detectors_answer(openvino_variant: Path) -> None:
    served: Served = open_served(openvino_variant, workers=2)
    image = picture((1, 2, "red"))
    wanted = Detector(openvino_variant)(image)
    assert wanted.boxes.tolist() == [[17, 9, 23, 15]]
    for worker in range(2):
        (found,) = served.detect([served.read(image)], [Options()], worker=worker)
        assert np.array_equal(found.boxes, wanted.boxes)
        assert np.array_equal(found.scores, wanted.scores)
