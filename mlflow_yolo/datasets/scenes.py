"""Scenes: handwritten digits drawn on paper, with exact boxes and outlines. Pure functions of a random generator.

A layout says what lies where (digits, strokes, paper); one renderer draws it in grey, the other in coloured ink on
coloured paper under soft cast shadows. Lengths are pixels of the scene.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

from mlflow_yolo.datasets.log_chromaticity import encode_srgb, log_ratios
from mlflow_yolo.datasets.outline import fill_diagonals

Array = NDArray[np.float64]
DrawScan = Callable[[np.random.Generator], tuple[int, Array]]
"""Draws a (class id, (8, 8) scan with values 0 to 16)."""

MIN_CHROMATICITY_DISTANCE = 0.6
"""Least distance between ink and paper in the (log R/G, log B/G) plane: 38 grey levels of the 8-bit image. Closer
pairs would leave labelled digits that log-chromaticity cannot show."""

MIN_GREY_CONTRAST = 0.3
"""Least difference between ink and paper in grey scenes, where white is 1."""

_UPSCALED = 96
_INK_LOW, _INK_HIGH = 0.30, 0.55
SIDE_FRACTIONS = (0.11, 0.45)
"""Longer side of a digit as a fraction of the scene's: 14 to 58 pixels of 128, both sides of COCO's small (32 x 32)."""

_STROKE_POINTS = 500
_MARGIN = 2
_SHADOW_TINT = np.array([0.92, 1.0, 1.12])
_SHADOW_LEVELS = (0.22, 0.45)
_SENSOR_NOISE = 0.003


@dataclass(frozen=True)
class Glyph:
    """A digit placed in a scene.

    Attributes:
        class_id: 0 to 9.
        box: xyxy, whole pixels: the tight extent of the ink that covers at least half a pixel.
        coverage: Ink coverage in [0, 1] inside the box widened by one pixel on each side, shape of that window.
    """

    class_id: int
    box: tuple[int, int, int, int]
    coverage: Array

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the scene that `coverage` lies on."""
        x1, y1, x2, y2 = self.box
        return slice(y1 - 1, y2 + 1), slice(x1 - 1, x2 + 1)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Pixels of the window that are ink, corners joined; one region."""
        return fill_diagonals(self.coverage >= 0.5)


@dataclass(frozen=True)
class Layout:
    """What lies where in a scene.

    Attributes:
        imgsz: Side in pixels.
        glyphs: The digits; their windows do not overlap.
        strokes: Coverage of the unlabelled pen strokes, (imgsz, imgsz) in [0, 1].
        texture: Relative brightness of the paper, (imgsz, imgsz), mean near 0, within about +-1.
    """

    imgsz: int
    glyphs: tuple[Glyph, ...]
    strokes: Array
    texture: Array


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        image: (imgsz, imgsz, 3) uint8 sRGB.
        glyphs: The labelled digits.
        shadow_fractions: For each digit the mean shadow over its box, 0 in light, 1 in the umbra.
        chromaticity_distances: For each digit the distance of its ink from the paper in (log R/G, log B/G), of the
            reflectances; 0 in grey scenes.
    """

    image: NDArray[np.uint8]
    glyphs: tuple[Glyph, ...]
    shadow_fractions: tuple[float, ...]
    chromaticity_distances: tuple[float, ...]


def compose_layout(
    rng: np.random.Generator,
    draw_scan: DrawScan,
    *,
    imgsz: int,
    n_digits: tuple[int, int] = (2, 6),
    side_fractions: tuple[float, float] = SIDE_FRACTIONS,
) -> Layout:
    """Return digits of varying size, strokes and paper; digits that find no free place are left out, never the first.

    Args:
        rng: Source of all chance.
        draw_scan: Draws a digit.
        imgsz: Side of the scene.
        n_digits: Least and most digits aimed at.
        side_fractions: Least and greatest longer side of a digit as a fraction of `imgsz`.
    """
    low, high = side_fractions
    glyphs: list[Glyph] = []
    taken = np.zeros((imgsz, imgsz), bool)
    for _ in range(int(rng.integers(n_digits[0], n_digits[1] + 1))):
        glyph = _place(draw_glyph(rng, draw_scan, sides=(low * imgsz, high * imgsz)), rng, taken)
        if glyph is not None:
            glyphs.append(glyph)
            taken[glyph.window] = True
    strokes = np.zeros((imgsz, imgsz))
    for _ in range(int(rng.integers(0, 4))):
        strokes = np.maximum(strokes, _draw_stroke(rng, imgsz))
    return Layout(imgsz=imgsz, glyphs=tuple(glyphs), strokes=strokes, texture=_draw_texture(rng, imgsz))


def draw_glyph(rng: np.random.Generator, draw_scan: DrawScan, *, sides: tuple[float, float]) -> Glyph:
    """Return a digit with its box at (1, 1), its longer side log-uniform in `sides`, a little turned and sheared.

    Scans whose ink falls into several pieces at the drawn size are drawn again, so that one outline tells all.
    """
    while True:
        class_id, scan = draw_scan(rng)
        side = sides[0] * (sides[1] / sides[0]) ** rng.random()
        coverage = _transform(_upscale(scan), rng, side=side)
        ink = coverage >= 0.5
        if not ink.any():
            continue
        rows, columns = np.nonzero(ink.any(axis=1))[0], np.nonzero(ink.any(axis=0))[0]
        y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        window = np.pad(coverage, 1)[y1 : y2 + 2, x1 : x2 + 2]
        if ndimage.label(fill_diagonals(window >= 0.5))[1] == 1:
            return Glyph(class_id=class_id, box=(1, 1, 1 + x2 - x1, 1 + y2 - y1), coverage=window)


def render_grey(layout: Layout, rng: np.random.Generator) -> Scene:
    """Return the layout in grey ink on grey paper, dark on light or (one in three) light on dark."""
    dark, light = 0.08 + 0.27 * rng.random(), 0.65 + 0.3 * rng.random()
    paper, ink = (light, dark) if rng.random() < 2 / 3 else (dark, light)
    image = paper + 0.07 * layout.texture
    image = image + layout.strokes * (0.35 + 0.3 * rng.random()) * (ink - paper)
    for glyph in layout.glyphs:
        strength = MIN_GREY_CONTRAST / abs(ink - paper)
        tone = paper + (ink - paper) * (strength + (1 - strength) * rng.random() ** 0.5)
        image[glyph.window] += glyph.coverage * (tone - image[glyph.window])
    image = image + 0.015 * rng.standard_normal(image.shape)
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    none = (0.0,) * len(layout.glyphs)
    return Scene(
        image=np.repeat(pixels[..., None], 3, axis=2),
        glyphs=layout.glyphs,
        shadow_fractions=none,
        chromaticity_distances=none,
    )


def render_shadow(layout: Layout, rng: np.random.Generator) -> Scene:
    """Return the layout in coloured ink on coloured paper under soft cast shadows, encoded as sRGB.

    Shadow multiplies linear light by 0.22 to 0.45, a little more in red and less in blue (sky light), with an edge of
    a few pixels; noise of a sensor is added in linear light, so shadows are noisier.
    """
    paper = _draw_paper(rng)
    reflectance = paper * (1 + 0.12 * layout.texture[..., None])
    stroke = _draw_ink(rng, paper)
    reflectance = reflectance + layout.strokes[..., None] * (0.3 + 0.3 * rng.random()) * (stroke - reflectance)
    distances = []
    for glyph in layout.glyphs:
        ink = _draw_ink(rng, paper)
        distances.append(chromaticity_distance(ink, paper))
        reflectance[glyph.window] += glyph.coverage[..., None] * (ink - reflectance[glyph.window])
    shadow = _draw_shadow(rng, layout.imgsz)
    low, high = _SHADOW_LEVELS
    umbra = (low + (high - low) * rng.random()) * _SHADOW_TINT
    light = 1 + shadow[..., None] * (umbra - 1)
    linear = reflectance * light + _SENSOR_NOISE * rng.standard_normal(reflectance.shape)
    fractions = tuple(float(shadow[y1:y2, x1:x2].mean()) for x1, y1, x2, y2 in (g.box for g in layout.glyphs))
    return Scene(
        image=encode_srgb(linear),
        glyphs=layout.glyphs,
        shadow_fractions=fractions,
        chromaticity_distances=tuple(distances),
    )


def chromaticity_distance(first: Array, second: Array) -> float:
    """Return the Euclidean distance of two linear RGB colours, (3,), in the plane of log R/G and log B/G."""
    return float(np.linalg.norm(log_ratios(first, epsilon=0.0) - log_ratios(second, epsilon=0.0)))


def _place(glyph: Glyph, rng: np.random.Generator, taken: NDArray[np.bool_]) -> Glyph | None:
    """Return the glyph moved to a place whose window, widened by a pixel, is free; None after 40 tries."""
    height, width = glyph.coverage.shape
    imgsz = len(taken)
    for _ in range(40):
        x, y = (int(rng.integers(_MARGIN, imgsz - side - _MARGIN + 1)) for side in (width, height))
        if not taken[y - 1 : y + height + 1, x - 1 : x + width + 1].any():
            return Glyph(
                class_id=glyph.class_id, box=(x + 1, y + 1, x + width - 1, y + height - 1), coverage=glyph.coverage
            )
    return None


def _upscale(scan: Array) -> Array:
    """Return ink coverage of a scan, (96, 96), by cubic interpolation of its 8 x 8 grey levels with a blank rim."""
    padded = np.pad(scan / 16.0, 2)
    positions = (np.arange(_UPSCALED) + 0.5) * len(padded) / _UPSCALED - 0.5
    weights = _cubic(positions[:, None] - np.arange(len(padded))[None, :])
    weights /= weights.sum(axis=1, keepdims=True)
    smooth: Array = weights @ padded @ weights.T
    return np.clip((smooth - _INK_LOW) / (_INK_HIGH - _INK_LOW), 0.0, 1.0)


def _cubic(distance: Array) -> Array:
    """Return the weight of a sample at a distance (R. G. Keys, IEEE TASSP 29(6), 1981, a = -0.5)."""
    x = np.abs(distance)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _transform(ink: Array, rng: np.random.Generator, *, side: float) -> Array:
    """Return the ink turned by up to 12 degrees, sheared, stretched and scaled so that its longer side is `side`."""
    angle, shear, stretch = np.deg2rad(24 * rng.random() - 12), 0.3 * rng.random() - 0.15, 1.3 ** (2 * rng.random() - 1)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = rotate @ np.array([[1.0, 0.0], [shear, 1.0]]) @ np.diag([stretch**0.5, stretch**-0.5])  # (row, column)
    points = np.argwhere(ink >= 0.5) @ shape.T
    extent = points.max(axis=0) - points.min(axis=0) + 1
    scale = side / extent.max()
    size = np.ceil(extent * scale).astype(int) + 4
    inverse = np.linalg.inv(shape * scale)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    offset = np.linalg.inv(shape) @ middle - inverse @ ((size - 1) / 2 + rng.random(2) - 0.5)
    blur = max(0.0, 0.45 / scale - 0.3)  # area averaging where the scene is coarser than the upscaled scan
    source = ndimage.gaussian_filter(ink, blur) if blur else ink
    moved: Array = ndimage.affine_transform(source, inverse, offset=offset, output_shape=tuple(size), order=1)
    return moved


def _draw_texture(rng: np.random.Generator, imgsz: int) -> Array:
    """Return paper: a slope, two scales of smooth blotches and grain."""
    y, x = np.mgrid[0:imgsz, 0:imgsz] / imgsz - 0.5
    slope = 1.6 * (rng.random() - 0.5) * x + 1.6 * (rng.random() - 0.5) * y
    blotches = sum(
        strength
        * ndimage.zoom(rng.random((cells, cells)) - 0.5, imgsz / cells, order=3, grid_mode=True, mode="nearest")
        for cells, strength in ((4, 0.8), (16, 0.5))
    )
    texture: Array = slope + blotches + 0.15 * rng.standard_normal((imgsz, imgsz))
    return texture


def _draw_stroke(rng: np.random.Generator, imgsz: int) -> Array:
    """Return the coverage of a thin curve across a good part of the scene, (imgsz, imgsz)."""
    start, bend, end = rng.random((3, 2)) * imgsz * 1.4 - 0.2 * imgsz
    t = np.linspace(0, 1, _STROKE_POINTS)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    pixels = np.moveaxis(np.mgrid[0:imgsz, 0:imgsz], 0, -1) + 0.5
    width = imgsz / 128 * (0.8 + 1.2 * rng.random())
    distance, _ = spatial.KDTree(curve).query(pixels, distance_upper_bound=width / 2 + 1)
    coverage: Array = np.clip(width / 2 + 0.5 - distance, 0.0, 1.0)
    return coverage


def _draw_paper(rng: np.random.Generator) -> Array:
    """Return a linear RGB reflectance of light paper with a tint, (3,)."""
    tint = np.exp(0.8 * (rng.random(3) - 0.5))
    paper: Array = (0.45 + 0.35 * rng.random()) * tint / tint.max()
    return paper


def _draw_ink(rng: np.random.Generator, paper: Array) -> Array:
    """Return a linear RGB reflectance of ink, (3,): darker than the paper and far enough from it in chromaticity."""
    while True:
        colour = np.exp(2.4 * (rng.random(3) - 0.5))
        ink: Array = colour / colour.mean() * paper.mean() * (0.3 + 0.4 * rng.random())
        if ink.max() < 0.95 and chromaticity_distance(ink, paper) >= MIN_CHROMATICITY_DISTANCE:
            return ink


def _draw_shadow(rng: np.random.Generator, imgsz: int) -> Array:
    """Return one or two soft-edged shadows, (imgsz, imgsz) in [0, 1]: edges of a wall, bands, discs."""
    y, x = np.mgrid[0:imgsz, 0:imgsz] + 0.5
    shadow = np.zeros((imgsz, imgsz))
    for _ in range(int(rng.integers(1, 3))):
        angle, (cx, cy) = 2 * np.pi * rng.random(), imgsz * (0.2 + 0.6 * rng.random(2))
        across = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        half = imgsz * (0.12 + 0.18 * rng.random())
        shape = int(rng.integers(0, 3))
        signed = (across, half - np.abs(across), half - np.hypot(x - cx, y - cy))[shape]
        softness = imgsz / 128 * (0.5 + 2.0 * rng.random())
        shadow = np.maximum(shadow, 1 / (1 + np.exp(np.clip(-signed / softness, -60, 60))))
    return shadow
