"""A figure as PNG bytes, as an RGB array or as a data URI."""

import base64
import io
from typing import cast

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlflow_yolo.figures.style import DPI


def png_bytes(figure: Figure, *, dpi: float = DPI) -> bytes:
    """Return the figure as a PNG file of `dpi` dots per inch.

    The canvas is asked directly: `Figure.savefig` would follow the caller's `savefig.*` settings and could crop.
    """
    buffer = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    before = figure.dpi
    figure.set_dpi(dpi)
    try:
        canvas.print_png(buffer)
    finally:
        figure.set_dpi(before)
    return buffer.getvalue()


def rgb_array(figure: Figure, *, dpi: float = DPI) -> npt.NDArray[np.uint8]:
    """Return the figure as (H, W, 3) uint8 RGB, as `mlflow.log_image` takes it."""
    canvas = FigureCanvasAgg(figure)
    before = figure.dpi
    figure.set_dpi(dpi)
    try:
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    finally:
        figure.set_dpi(before)
    return cast(npt.NDArray[np.uint8], pixels)


def data_uri(image: Figure | bytes, *, dpi: float = DPI) -> str:
    """Return a figure, or a PNG file that is already encoded, as a `data:` URI for an HTML page."""
    png = png_bytes(image, dpi=dpi) if isinstance(image, Figure) else image
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
