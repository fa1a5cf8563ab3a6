import base64
import io
import threading

import matplotlib as mpl
import numpy as np
from PIL import Image

from mlflow_yolo.figures.encode import data_uri, png_bytes, rgb_array
from mlflow_yolo.figures.learning_curves import learning_curves
from mlflow_yolo.figures.style import new_figure


def test_the_png_has_the_figures_size_at_the_dpi_asked_for() -> None:
    figure = new_figure(width_in=2, height_in=1)
    image = Image.open(io.BytesIO(png_bytes(figure, dpi=100)))
    assert (image.format, image.size) == ("PNG", (200, 100))
    assert figure.dpi == 120  # left as it was


def test_rgb_and_png_are_the_same_picture() -> None:
    figure = learning_curves({"0": [[0.1, 0.5]]}, metric="m", split="val")
    pixels = rgb_array(figure, dpi=50)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(png_bytes(figure, dpi=50))).convert("RGB")))
    assert pixels.min() < 100 < pixels.max()


def test_the_callers_savefig_settings_do_not_crop() -> None:
    with mpl.rc_context({"savefig.bbox": "tight", "savefig.dpi": 10}):
        assert Image.open(io.BytesIO(png_bytes(new_figure(width_in=2, height_in=1), dpi=100))).size == (200, 100)


def test_a_data_uri_holds_the_png_of_a_figure_or_of_bytes() -> None:
    figure = new_figure(width_in=1, height_in=1)
    png = png_bytes(figure)
    head, body = data_uri(figure).split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == png
    assert data_uri(png) == data_uri(figure)


def test_threads_draw_the_same_as_one() -> None:
    def draw() -> bytes:
        return png_bytes(learning_curves({"0": [[0.1, 0.5]], "3": [[0.2, 0.4]]}, metric="m", split="val"), dpi=50)

    drawn: list[bytes] = []
    threads = [threading.Thread(target=lambda: drawn.append(draw())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [draw()] * 4
