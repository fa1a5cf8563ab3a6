"""Which process of a training may log: of several that train together, only the first."""

import os
import sys


def is_first_rank() -> bool:
    """Return whether this process is the only one of its training, or the first of several.

    Read at every call and from Ultralytics where it is loaded: the same pickled callbacks run in every process of a
    multi-GPU training.
    """
    loaded = sys.modules.get("ultralytics.utils")
    rank = getattr(loaded, "RANK", None)
    return int(os.environ.get("RANK", -1) if rank is None else rank) in (-1, 0)
