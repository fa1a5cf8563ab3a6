"""What a checkpoint would do when it is loaded or trained on, found out without doing it.

A checkpoint is a pickle, and a pickle is a program. It may name classes of PyTorch, NumPy, Ultralytics and plain Python
containers; it may make networks and blocks only as pickle itself does, without running their constructors, since a
model's constructor evaluates text of its yaml; and that text, which a training would evaluate later, may only name
layers.
"""

import ast
import io
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mlflow_yolo.exceptions import CheckpointError

_TRUSTED = re.compile(
    r"""
    torch\.nn\.modules\.\w+\.[A-Z]\w*              # layers
    | ultralytics\.nn\.modules\.\w+\.([A-Z]\w*|v10Detect)  # blocks and heads
    | ultralytics\.nn\.tasks\.\w+Model              # the model classes; a function there could load another file
    | ultralytics\.utils\.IterableSimpleNamespace
    | torchvision\.transforms\.(transforms\.[A-Z]\w*|functional\.InterpolationMode)  # a classifier's preprocessing
    | torch\.torch_version\.TorchVersion | torch\.(Size|device|dtype)
    | numpy\.(dtype|ndarray|(_core|core)\.multiarray\.(scalar|_reconstruct)|dtypes\.\w+)
    | pathlib\.(\w*Path) | pathlib\._local\.(\w*Path) | types\.SimpleNamespace
    | collections\.(OrderedDict|defaultdict|deque|Counter)  # `collections._sys` would be the interpreter's own module
    | (builtins|__builtin__)\.(set|frozenset|slice|complex|bytearray|range|object|int|float|str|bool|list|dict|tuple)
    """,
    re.VERBOSE,
)
_NEVER_CALLED = re.compile(r"torch\.nn\.modules\..+|ultralytics\.nn\..+|torchvision\.transforms\.transforms\..+")
_LAYER = re.compile(r"(nn\.|torchvision\.ops\.)?[A-Z]\w*(?<!Model)|v10Detect")
_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Z]\w*")


def scan(path: Path) -> None:
    """Check that a checkpoint holds weights and descriptions of layers, and nothing that would run.

    Nothing of the file is executed: PyTorch lists the names that its pickle refers to, then it is read with stand-ins
    for all of them.

    Raises:
        CheckpointError: The file is no checkpoint, or it would run code (what it names is said).
    """
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except Exception as error:
        raise CheckpointError(
            f"model={path} is not a PyTorch checkpoint: {str(error)[:200]}. Use a .pt file."
        ) from error
    if foreign := sorted(name for name in names if not _TRUSTED.fullmatch(name)):
        raise _refusal(path, f"it names {', '.join(foreign[:3])}")
    content, calls = _read_inert(path)
    if called := next(filter(None, map(_never_called, calls)), ""):
        raise _refusal(path, f"it calls {called}")
    if text := next(_evaluated(content), ""):
        raise _refusal(path, f"its model yaml says {text}")


def scan_yaml(path: Path) -> None:
    """Check that a model's yaml names layers only: Ultralytics evaluates its activation as Python.

    Raises:
        CheckpointError: It cannot be read, or it would run code.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"model={path} cannot be read: {' '.join(str(error).split())[:200]}.") from error
    if text := next(_evaluated(content), ""):
        raise _refusal(path, f"it says {text}")


def _refusal(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"model={path} would run foreign code when loaded: {why}. If you know where it comes from, add --trust."
    )


class _Name(type):
    """Stands for a class or function that a pickle names; a call of it is noted and made nothing of."""

    named: str
    calls: list[tuple[str, tuple[Any, ...]]]

    def __call__(cls, *given: Any) -> Any:
        cls.calls.append((cls.named, given))
        return super().__call__(*given)


class _Made(metaclass=_Name):
    """Stands for an object that a pickle makes; it keeps what it is filled with."""

    held: list[Any]

    def __new__(cls, *given: Any) -> "_Made":
        made = super().__new__(cls)
        made.held = list(given)
        return made

    def __setstate__(self, state: Any) -> None:
        self.held.append(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.held.append({key: value})

    def append(self, item: Any) -> None:
        self.held.append(item)

    def extend(self, items: Any) -> None:
        self.held.extend(items)


def _read_inert(path: Path) -> tuple[Any, list[tuple[str, tuple[Any, ...]]]]:
    """Return a checkpoint's content made of stand-ins, and the calls that loading it would make.

    Raises:
        CheckpointError: Its pickle does what none of PyTorch's does, such as changing a class.
    """
    from torch._C import PyTorchFileReader

    calls: list[tuple[str, tuple[Any, ...]]] = []

    class Inert(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return _Name("_Made", (_Made,), {"named": f"{module}.{name}", "calls": calls})

        def persistent_load(self, _pid: Any) -> Any:
            return None  # a storage: bytes

    try:
        pickled = PyTorchFileReader(str(path)).get_record("data.pkl")
        return Inert(io.BytesIO(pickled)).load(), calls
    except Exception as error:
        raise CheckpointError(
            f"model={path} is not a PyTorch checkpoint: {str(error)[:200]}. Use a .pt file."
        ) from error


def _never_called(call: tuple[str, tuple[Any, ...]]) -> str:
    """Return the model class that a call is of, or is given to call; empty for none."""
    names = [call[0], *(value.named for value in _walk(call[1]) if isinstance(value, _Name))]
    return next((name for name in names if _NEVER_CALLED.fullmatch(name)), "")


def _walk(content: Any) -> Iterator[Any]:
    """Yield everything that a tree of containers and stand-ins holds, each once."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, _Made):
            waiting.append(value.held)


def _evaluated(content: Any) -> Iterator[str]:
    """Yield what Ultralytics would evaluate as code when it builds a model of a yaml in `content`."""
    for value in _walk(content):
        if isinstance(value, dict):
            activation = value.get("activation")
            if activation and not _is_activation(activation):
                yield f"activation: {str(activation)[:80]}"
            rows = [row for part in ("backbone", "head") for row in _walk(value.get(part)) if _is_row(row)]
            yield from (f"layer: {row[2][:80]}" for row in rows if not _LAYER.fullmatch(row[2]))


def _is_row(row: Any) -> bool:
    """Return whether something is a row of a model yaml: from, number, module, arguments."""
    is_row = isinstance(row, list | tuple) and len(row) == 4 and isinstance(row[2], str)
    return is_row and isinstance(row[3], list | tuple | _Made)


def _is_activation(text: Any) -> bool:
    """Return whether a text makes a layer of PyTorch from plain values: `nn.LeakyReLU(0.1)`."""
    try:
        call = ast.parse(str(text).strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not _ACTIVATION.fullmatch(ast.unparse(call.func)):
            return False
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(argument)
    except (SyntaxError, ValueError):
        return False
    return True
