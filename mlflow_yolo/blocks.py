"""The blocks of a YOLO model (`model.0` … `model.N`): names, parts, and which of them a freeze word means.

A block is one line of the model's own yaml. The backbone is what the yaml calls so; the last block is the head; what
lies between is the neck. Nothing is hard-coded per version, so YOLOv8 (backbone 0-9), YOLO11 and YOLO26 (0-10) are
each read right.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_yolo.exceptions import ArgumentError, FreezeError

_PARAMETER = re.compile(r"(?:^|\.)model\.(\d+)\.")
_FROM_WORD = re.compile(r"(\d+)-")

COPIES = ("Upsample", "Concat")
"""Block types without weights that pass on other blocks' outputs."""


@dataclass(frozen=True)
class Block:
    """One block of a model.

    Attributes:
        index: Position in the model, counted from 0: `model.<index>`.
        type: Class name, for example `C3k2`.
        part: `backbone`, `neck` or `head`.
    """

    index: int
    type: str
    part: str

    @property
    def name(self) -> str:
        """The block's name in metric keys, tables and figures: `04-C3k2`."""
        return f"{self.index:02d}-{self.type}"


@dataclass(frozen=True)
class Freeze:
    """One configuration of a freeze ablation.

    Attributes:
        word: What the user wrote, normalised: `0`, `10`, `backbone`, `6-`.
        blocks: Indices of the frozen blocks, ascending; empty for the baseline.
    """

    word: str
    blocks: tuple[int, ...]

    @property
    def depth(self) -> int | None:
        """Number of leading frozen blocks, or None when the frozen blocks are not the leading ones."""
        return len(self.blocks) if self.blocks == tuple(range(len(self.blocks))) else None

    @property
    def param(self) -> int | str:
        """The value of the param `freeze`: a plain integer for a depth, else the word."""
        return self.word if self.depth is None else self.depth

    @property
    def label(self) -> str:
        """How tables and figures call this configuration: `0`, `10`, `backbone (11)`, `6-`."""
        if self.depth is None or self.word.isdigit():
            return self.word
        return f"{self.word} ({self.depth})"


def read_blocks(yaml: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the blocks of a model from its yaml.

    Args:
        yaml: Ultralytics' model yaml as a mapping, with lists `backbone` and `head` of `[from, repeats, type, args]`.

    Returns:
        One `Block` per line of `backbone` and `head`, in the model's order.

    Raises:
        FreezeError: The yaml holds no backbone or no head.
    """
    backbone, head = yaml.get("backbone"), yaml.get("head")
    if not backbone or not head:
        raise FreezeError("the model's yaml has no 'backbone' and 'head' lists: use a YOLO model built from a yaml.")
    lines = [*backbone, *head]
    last = len(lines) - 1
    return tuple(
        Block(i, str(line[2]).rsplit(".", 1)[-1], "head" if i == last else "backbone" if i < len(backbone) else "neck")
        for i, line in enumerate(lines)
    )


def block_of(parameter: str) -> int | None:
    """Return the block a parameter belongs to: `model.4.cv1.conv.weight` is in block 4; None when in no block."""
    match = _PARAMETER.search(parameter)
    return int(match[1]) if match else None


def parse_freeze(text: str, blocks: Sequence[Block]) -> tuple[Freeze, ...]:
    """Return the configurations that a comma-separated list names, the baseline `0` first.

    Args:
        text: Depths and words without quotes or brackets, for example `0,3,backbone,6-`. A number N freezes blocks 0
            to N-1; `backbone` freezes the backbone; `neck` everything but the head; `head` the head alone; `N-` block
            N and every later one, so that the first N train.
        blocks: The model's blocks.

    Returns:
        One `Freeze` per configuration, in the order written, without repetitions; `0` is always included and first.

    Raises:
        FreezeError: An empty list, an unknown word, a depth below 0 or one that leaves nothing to train.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if not words:
        raise FreezeError(
            f"freeze={text!r} names no configuration. Write depths or words, for example freeze=0,3,backbone."
        )
    unique: dict[tuple[int, ...], Freeze] = {(): Freeze("0", ())}
    for freeze in (_freeze(word, blocks) for word in words):
        unique.setdefault(freeze.blocks, freeze)
    return tuple(unique.values())


def _freeze(word: str, blocks: Sequence[Block]) -> Freeze:
    """Return the configuration that one word names."""
    last = blocks[-1].index
    n_backbone = sum(block.part == "backbone" for block in blocks)
    named = {"backbone": tuple(range(n_backbone)), "neck": tuple(range(last)), "head": (last,)}
    if word in named:
        return Freeze(word, named[word])
    if match := _FROM_WORD.fullmatch(word):
        first = int(match[1])
        if not 0 < first <= last:
            raise FreezeError(
                f"freeze={word} leaves nothing to choose: the model has {last + 1} blocks. Use 1- to {last}-."
            )
        return Freeze(f"{first}-", tuple(range(first, last + 1)))
    try:
        depth = int(word)
    except ValueError:
        raise FreezeError(
            f"freeze={word} is neither a number nor one of {', '.join(named)} or N-. "
            f"Use a depth from 0 to {last}, for example freeze=0,3,backbone."
        ) from None
    if depth < 0:
        raise FreezeError(f"freeze={depth} is negative. Use 0 (nothing frozen) to {last}.")
    if depth > last:
        raise FreezeError(f"freeze={depth} leaves nothing to train: the model has {last + 1} blocks. Use 0 to {last}.")
    return Freeze(str(depth), tuple(range(depth)))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that a comma-separated list names, in order, without repetitions.

    Raises:
        ArgumentError: The list is empty, or a seed is not a whole number of at least 0.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ArgumentError(f"seeds={text!r} names no seed. Write whole numbers, for example seeds=0,1,2.")
    wrong = [word for word in words if not word.isdigit()]
    if wrong:
        raise ArgumentError(f"seeds={wrong[0]} is not a whole number of at least 0. Write for example seeds=0,1,2.")
    return tuple(dict.fromkeys(int(word) for word in words))
