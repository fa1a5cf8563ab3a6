"""Protocol Buffers' text format, as much of it as a configuration file needs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


class Word(str):
    """A name of an enumeration, which is written without quotes."""

    __slots__ = ()


def to_pbtxt(message: Message) -> str:
    """Return a message as text.

    Args:
        message: Values by field: numbers, booleans, texts, words, messages, or lists of them (a repeated field).
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, str)
        if repeated and not any(isinstance(one, Mapping) for one in value):
            yield f"{name}: [{', '.join(map(_scalar, value))}]"
            continue
        for one in value if repeated else [value]:
            if isinstance(one, Mapping):
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(one))
                yield "}"
            else:
                yield f"{name}: {_scalar(one)}"


def _scalar(value: Any) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    r"""Return a text in quotes; other than ASCII characters as octal bytes, since \u is not known everywhere."""
    if text.isascii() and text.isprintable():
        return json.dumps(text)
    return (
        '"'
        + "".join(f"\\{byte:03o}" if not 32 <= byte < 127 or byte in b'"\\' else chr(byte) for byte in text.encode())
        + '"'
    )
