"""Text that is safe to draw: no mathtext, no characters without a glyph, no label longer than its place."""

import textwrap
import unicodedata
from functools import lru_cache

from matplotlib import font_manager

_FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Noto Sans Devanagari",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Arial Unicode MS",
)
_MEAN_WIDTH = 0.56  # of the font size: mean advance of DejaVu Sans over English text, measured as 0.53 to 0.58


@lru_cache(maxsize=1)
def families() -> tuple[str, ...]:
    """Return the fonts to draw with: DejaVu Sans, which matplotlib ships, then installed ones for other scripts.

    A family that is not installed must not be asked for: matplotlib would log a line for every text.
    """
    installed = set(font_manager.fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in _FALLBACKS if name in installed))


@lru_cache(maxsize=1)
def _drawable() -> frozenset[int]:
    """Return the code points for which a font of `families()` has a glyph."""
    paths = [font_manager.findfont(font_manager.FontProperties(family=[name])) for name in families()]
    return frozenset(code for path in paths for code in font_manager.get_font(path).get_charmap())


def legible(text: str, *, longest: int | None = None) -> str:
    """Return `text` on one line with every undrawable character spelt as its code point.

    Args:
        text: Any text, for example a class name from the user's data.yaml.
        longest: Characters to keep; a longer text is cut in the middle, where names differ least.

    Returns:
        Text without line breaks and control characters; a character that no installed font can draw becomes `<U+6F22>`,
        so that two such names stay different.
    """
    line = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    line = "".join(c if ord(c) in _drawable() else f"<U+{ord(c):04X}>" for c in line)
    if longest is None or len(line) <= longest:
        return line
    tail = (longest - 1) // 3
    return f"{line[: longest - 1 - tail]}…{line[len(line) - tail :]}"


def wrapped(text: str, *, width_in: float, font_size: float) -> str:
    """Return `text` broken into lines that fit `width_in` inches at `font_size` points; existing breaks are kept."""
    characters = max(12, int(width_in * 72 / (font_size * _MEAN_WIDTH)))
    return "\n".join(textwrap.fill(legible(line), characters) for line in text.splitlines())
