"""Where the original image lies in a network input, and a map of that input cut down to it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """How an image was scaled and padded, or cropped, into a network input.

    Attributes:
        original: (height, width) of the image, pixels.
        input: (height, width) of the network input, pixels.
        scale: (y, x) pixels of the input for one of the image.
        pad: (top, left) where the image begins in the input, pixels; negative where it was cropped.
    """

    original: tuple[int, int]
    input: tuple[int, int]
    scale: tuple[float, float]
    pad: tuple[float, float]

    @classmethod
    def letterbox(cls, original: tuple[int, int], input: tuple[int, int]) -> "Frame":
        """Return the frame of an image that was scaled to fit and padded evenly, as detectors take it."""
        gain = min(input[0] / original[0], input[1] / original[1])
        resized = [max(round(side * gain), 1) for side in original]
        # A tenth of a pixel decides where an odd one goes: as Ultralytics' LetterBox has it.
        top, left = (round((inside - side) / 2 - 0.1) for side, inside in zip(resized, input, strict=True))
        return cls(original, input, (resized[0] / original[0], resized[1] / original[1]), (top, left))

    @classmethod
    def centre_crop(cls, original: tuple[int, int], input: tuple[int, int]) -> "Frame":
        """Return the frame of an image as classifiers take it.

        For a square input the shorter side is scaled to fill it and the longer one cropped evenly; for another the
        image is stretched.
        """
        short = min(original)
        resized = [int(input[0] * side / short) for side in original] if input[0] == input[1] else input
        top, left = (-round((side - inside) / 2) for side, inside in zip(resized, input, strict=True))
        return cls(original, input, (resized[0] / original[0], resized[1] / original[1]), (top, left))

    def to_input(self, boxes: npt.NDArray[Any]) -> Floats:
        """Return boxes (N, 4) xyxy of the image as pixels of the input."""
        return np.asarray(boxes, dtype=np.float64) * self._scales + self._pads

    def to_original(self, boxes: npt.NDArray[Any]) -> Floats:
        """Return boxes (N, 4) xyxy of the input as pixels of the image, not clipped."""
        return (np.asarray(boxes, dtype=np.float64) - self._pads) / self._scales

    def cut(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the part of a map that covers the image, about as fine as before.

        Args:
            values: (h, w) a map of the whole input.

        Returns:
            (h', w') covering exactly the image; 0 where the image was cropped away.
        """
        height, width = values.shape
        cells = [inside / n for inside, n in zip(self.input, (height, width), strict=True)]
        sizes = [
            max(1, round(side * scale / cell))
            for side, scale, cell in zip(self.original, self.scale, cells, strict=True)
        ]
        y, x = (
            ((np.arange(n) + 0.5) / n * side * scale + pad) / cell
            for n, side, scale, pad, cell in zip(sizes, self.original, self.scale, self.pad, cells, strict=True)
        )
        rows, columns = np.meshgrid(y, x, indexing="ij")
        sampled = map_coordinates(values.astype(np.float64), (rows - 0.5, columns - 0.5), order=1, mode="nearest")
        outside = (rows < 0) | (rows > height) | (columns < 0) | (columns > width)
        return np.asarray(np.where(outside, 0.0, sampled), dtype=np.float32)

    @property
    def _scales(self) -> Floats:
        return np.array([self.scale[1], self.scale[0]] * 2)

    @property
    def _pads(self) -> Floats:
        return np.array([self.pad[1], self.pad[0]] * 2)
