"""Failures that say nothing about what was tried: memory or disk ran out, and may be there on another try."""

import errno
from collections.abc import Iterator

_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM})
_WORDS = (
    "out of memory",  # CUDA, as torch says it
    "alloc_failed",  # cuBLAS and cuDNN
    "allocate memory",  # torch on the host
    "bad_alloc",  # C++ libraries
    "killed by signal",  # a data loader's process, taken by the kernel
    "no space left",
    "disk is full",  # SQLite
    "disk quota exceeded",
)


def is_shortage(error: BaseException) -> bool:
    """Return whether an error, or one that it came from, says that memory or disk ran out."""
    return any(_says_so(one) for one in _chain(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _ERRNOS):
        return True
    text = str(error).lower()
    return isinstance(error, OSError | RuntimeError) and any(word in text for word in _WORDS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, or raised while handling."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
