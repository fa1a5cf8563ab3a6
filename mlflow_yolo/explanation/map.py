"""One map, with all that is needed to read it without the model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from mlflow_yolo.attribution.localisation import Localisation
from mlflow_yolo.figures.heat_map import Pixels, overlay, signed_overlay


@dataclass(frozen=True, eq=False)
class Map:
    """Where in an image one number that the model gave comes from.

    Attributes:
        image: The image's path, or `image0`, `image1`, … for one without.
        values: (h, w) float32, covers exactly the original image; not normalised. Of a classifier 0 where its crop
            does not reach.
        target: What is explained, in words.
        class_id: The class it is about, None for a target of the user's own.
        class_name: Its name, empty for None.
        score: What is explained, a logit or a distance in pixels of the network input: not a share; NaN for an exported
            model, of which no single number is explained.
        conf: Confidence of the detection, or the class's probability; None where there is no single one.
        box: (4,) xyxy, pixels of the original image, clipped to it: of the detection, of the true object where that is
            explained, or what encloses a rotated box. None where the target is a class or the whole image.
        method: How it was made; `cam` for the exact map of a classifier.
        blocks: The blocks it was made at; of the exact map of a classifier its head.
        unit: `logit` or `px`, which the values are contributions in, or `relative` where only their proportions count.
        signed: Whether negative values mean something: evidence against.
        is_detected: False where the model did not detect what is explained, and its best anchor stands in for it.
        localisation: How well the map (its positive part) lies on the box, the mask or, of a class, on all of them;
            None without any.
    """

    image: str
    values: npt.NDArray[np.float32]
    target: str
    class_id: int | None
    class_name: str
    score: float
    conf: float | None
    box: npt.NDArray[np.float64] | None
    method: str
    blocks: tuple[int, ...]
    unit: str
    signed: bool
    is_detected: bool
    localisation: Localisation | None

    def at_size(self, height: int, width: int) -> npt.NDArray[np.float32]:
        """Return the values at another size, (height, width) float32: straight lines between the cells' centres."""
        h, w = self.values.shape
        y, x = (np.arange(height) + 0.5) * h / height - 0.5, (np.arange(width) + 0.5) * w / width - 0.5
        places = np.meshgrid(y, x, indexing="ij")
        return np.asarray(map_coordinates(self.values, places, order=1, mode="nearest"), dtype=np.float32)

    def overlay(self, picture: npt.NDArray[Any], *, strength: float = 0.7, limit: float | None = None) -> Pixels:
        """Return the picture with the map over it.

        Args:
            picture: (H, W, 3) uint8 RGB, the original image at any size, or (H, W) grey.
            strength: Opacity of the largest value, 0 to 1.
            limit: The value of the last colour, the same for maps to be compared; None for this map's own.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            ShapeError: `picture` is no such picture.
            ArgumentError: `strength` or `limit` is out of range.
        """
        if picture.ndim == 2 or picture.shape[2:] == (1,):
            picture = np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
        if self.signed:
            return signed_overlay(picture, self.values, limit=limit, strength=strength)
        return overlay(picture, self.values, largest=limit, strength=strength)
