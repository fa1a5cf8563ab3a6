"""A checkpoint that would run code is refused, and nothing of it is run, however the code is hidden."""

import io
import pickle
import pickletools
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from mlflow_yolo import checkpoints
from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.models.checkpoint import read_model
from mlflow_yolo.models.scan import scan, scan_yaml

_MADE = {"backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]], "nc": 1}


class _Calls:
    """Unpickling this would call a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


def _touch(target: Path) -> str:
    """Return Python that makes a file, and is an activation besides."""
    return f"__import__('pathlib').Path({str(target)!r}).touch() or nn.SiLU()"


def _saved(content: Any, file: Path) -> Path:
    torch.save(content, file)
    return file


def _plain_pickle(target: Path, file: Path) -> Path:
    file.write_bytes(pickle.dumps(_Calls(Path.touch, target)))
    return file


def _legacy(target: Path, file: Path) -> Path:
    torch.save({"model": _Calls(Path.touch, target)}, file, _use_new_zipfile_serialization=False)
    return file


def _legacy_tar(target: Path, file: Path) -> Path:
    with tarfile.open(file, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(_Calls(Path.touch, target))
            (entry := tarfile.TarInfo(name)).size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file


def _data_of_another_name(target: Path, file: Path) -> Path:
    """Return an archive whose folder is none of PyTorch's own, with a second pickle beside the first."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("other/data.pkl", pickle.dumps(_Calls(Path.touch, target), protocol=2))
        archive.writestr("other/version", "3\n")
        archive.writestr("data.pkl", pickle.dumps({}, protocol=2))
    return file


def _newer_pickle(target: Path, file: Path) -> Path:
    """Return an archive whose pickle names its function by a later protocol's opcode."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Calls(Path.touch, target), protocol=4))
        archive.writestr("archive/version", "3\n")
    return file


def _nested(target: Path, file: Path) -> Path:
    """Return an archive that loads another one from bytes of its own."""
    stream = io.BytesIO()
    torch.save(_Calls(Path.touch, target), stream)
    return _saved({"model": _Calls(torch.storage._load_from_bytes, stream.getvalue())}, file)


@pytest.mark.parametrize(
    "make",
    [_plain_pickle, _legacy, _legacy_tar, _data_of_another_name, _newer_pickle, _nested],
    ids=lambda f: f.__name__,
)
def test_code_in_any_wrapping_is_refused_and_not_run(make: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    target = tmp_path / "ran"
    file = make(target, tmp_path / "evil.pt")

    with pytest.raises(CheckpointError, match=r"evil\.pt (would run foreign code|is not a PyTorch checkpoint)"):
        read_model(str(file))

    assert not target.exists()


@pytest.mark.parametrize("function", [eval, exec, torch.hub.load, torch.load, getattr], ids=lambda f: f.__name__)
def test_functions_that_load_or_run_are_named_in_the_refusal(function: Callable[..., Any], tmp_path: Path) -> None:
    file = _saved({"model": _Calls(function, "1")}, tmp_path / "evil.pt")

    with pytest.raises(CheckpointError, match=rf"it names .*{function.__name__}.*--trust"):
        scan(file)


def test_a_model_class_that_is_called_is_refused_since_its_constructor_evaluates_text(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    target = tmp_path / "ran"
    call = _Calls(DetectionModel, {**_MADE, "activation": _touch(target)}, 3)
    file = _saved({"model": call}, tmp_path / "evil.pt")

    with pytest.raises(CheckpointError, match=r"it calls ultralytics\.nn\.tasks\.DetectionModel"):
        read_model(str(file))

    assert not target.exists()
    torch.load(file, weights_only=False)
    assert target.exists(), "the file is harmless, so nothing was shown"


def test_a_model_class_that_an_allowed_function_would_call_is_refused(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    call = _Calls(torch._tensor._rebuild_from_type_v2, DetectionModel, torch.Tensor, ({},), {})

    with pytest.raises(CheckpointError, match=r"it calls ultralytics\.nn\.tasks\.DetectionModel"):
        scan(_saved({"model": call}, tmp_path / "evil.pt"))


def _with_yaml(file: Path, **words: Any) -> Path:
    content = torch.load(checkpoints.path(), weights_only=False)
    network = content.get("ema") or content["model"]
    network.yaml |= words
    return _saved(content, file)


@pytest.mark.parametrize(
    "words",
    [
        {"activation": "nn.SiLU() or open('x')"},
        {"activation": "nn.SiLU(open('x'))"},
        {"activation": "nn.functional.silu"},
        {"activation": "os.nn.System('true')"},
        {"backbone": [[-1, 1, "load_checkpoint", ["other.pt"]]]},
        {"head": [[-1, 1, "DetectionModel", [{"activation": "nn.SiLU()"}]]]},
    ],
    ids=lambda words: str(next(iter(words.items()))),
)
def test_text_that_a_training_would_evaluate_is_refused(words: dict[str, Any], tmp_path: Path) -> None:
    file = _with_yaml(tmp_path / "evil.pt", **words)

    with pytest.raises(CheckpointError, match="its model yaml says"):
        scan(file)
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump({**_MADE, **words}))
    with pytest.raises(CheckpointError, match="it says"):
        scan_yaml(tmp_path / "evil.yaml")


@pytest.mark.parametrize("activation", ["nn.SiLU()", "torch.nn.LeakyReLU(0.1, inplace=True)", " nn.ReLU( ) "])
def test_an_activation_made_of_plain_values_is_a_layer(activation: str, tmp_path: Path) -> None:
    scan(_with_yaml(tmp_path / "good.pt", activation=activation))


def test_yamls_of_ultralytics_are_trusted() -> None:
    from ultralytics.cfg import __file__ as place

    files = sorted((Path(place).parent / "models").rglob("*.yaml"))
    assert len(files) > 50
    for file in files:
        scan_yaml(file)


def test_the_interpreter_itself_cannot_be_reached_through_a_module_that_imports_it(tmp_path: Path) -> None:
    state = pickle.dumps({"path": ["evil.pt"]}, protocol=2)
    body = state[2:-1]  # without PROTO and STOP
    with zipfile.ZipFile(tmp_path / "evil.pt", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02ccollections\n_sys\n" + body + b"b.")
        archive.writestr("archive/version", "3\n")

    with pytest.raises(CheckpointError, match=r"it names collections\._sys"):
        scan(tmp_path / "evil.pt")


def test_a_pickle_that_changes_a_trusted_class_is_refused(tmp_path: Path) -> None:
    state = pickle.dumps((None, {"forward": None}), protocol=2)
    pickled = b"\x80\x02ctorch.nn.modules.activation\nSiLU\n" + state[2:-1] + b"b."
    pickletools.dis(pickled, out=io.StringIO())  # well-formed
    with zipfile.ZipFile(tmp_path / "evil.pt", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")

    with pytest.raises(CheckpointError, match="is not a PyTorch checkpoint"):
        scan(tmp_path / "evil.pt")
    assert nn.SiLU.forward is not None


def test_trust_is_what_loads_it_after_all(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    file = _saved({"model": _Calls(Path.touch, target)}, tmp_path / "mine.pt")

    with pytest.raises(CheckpointError, match="cannot be loaded"):
        read_model(str(file), trust=True)

    assert target.exists()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.pt"
    file.write_text("not a checkpoint")

    with pytest.raises(CheckpointError, match="is not a PyTorch checkpoint"):
        read_model(str(file))


def test_a_classifier_that_ultralytics_trained_is_trusted_with_its_preprocessing(tmp_path: Path) -> None:
    from ultralytics.data.augment import classify_transforms

    torch.save({"transforms": classify_transforms(64)}, tmp_path / "classifier.pt")
    scan(tmp_path / "classifier.pt")
