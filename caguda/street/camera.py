"""The pinhole camera over the ground plane, and the canvas that holds colour and category of every pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

NEAR = 2.0  # metres; nothing is drawn closer
RGBA = tuple[int, int, int, int]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: metres x right, y up, z forward, with the ground at y = 0, to canvas pixels u right, v down.

    Heading and pitch shift the principal point (u0, v0): verticals stay vertical, and v0 is the horizon.
    """

    focal: float
    u0: float
    v0: float
    height: float
    x: float

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (k, 2) of points (k, 3)."""
        scale = self.focal / np.maximum(points[:, 2], NEAR)
        u = self.u0 + scale * (points[:, 0] - self.x)
        v = self.v0 + scale * (self.height - points[:, 1])
        return np.stack([u, v], axis=1)

    def pixel(self, x: float, y: float, z: float) -> tuple[float, float]:
        """The pixel (u, v) of one point."""
        scale = self.focal / max(z, NEAR)
        return self.u0 + scale * (x - self.x), self.v0 + scale * (self.height - y)


@dataclass(frozen=True)
class Air:
    """Atmospheric perspective: a colour at distance z fades to `colour` (3,) by 1 - exp(-density z)."""

    colour: NDArray[np.float64]
    density: float

    def fade(self, colour: ArrayLike, z: ArrayLike) -> NDArray[np.float64]:
        """`colour` (..., 3) seen through z metres of air; z has the leading dimensions of colour."""
        clear = np.exp(-self.density * np.asarray(z, dtype=np.float64))[..., None]
        return np.asarray(colour, dtype=np.float64) * clear + self.colour * (1.0 - clear)


class Canvas:
    """The frame while it is painted, at twice its size: RGB, and raw Cityscapes ids as fourth channel, never blended."""

    def __init__(self, pixels: NDArray[np.uint8], camera: Camera, air: Air) -> None:
        self.image = Image.fromarray(pixels, "RGBA")
        self.draw = ImageDraw.Draw(self.image)
        self.camera = camera
        self.air = air
        self._haze = air.colour.tolist()

    def ink(self, colour: Sequence[float], z: float, label: int) -> RGBA:
        """The colour seen through z metres of air, with its label."""
        clear = math.exp(-self.air.density * z)
        r, g, b = [min(255, int(c * clear + h * (1.0 - clear))) for c, h in zip(colour, self._haze, strict=True)]
        return r, g, b, label

    def inks(self, colours: NDArray[np.float64], z: float, label: int) -> list[RGBA]:
        """The colours (k, 3) seen through z metres of air, with their label."""
        clear = math.exp(-self.air.density * z)
        faded = np.minimum(colours * clear + self.air.colour * (1.0 - clear), 255.0).astype(np.int64).tolist()
        return [(r, g, b, label) for r, g, b in faded]

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, z: float, ink: RGBA) -> None:
        """Fills the rectangle that faces the camera at distance z, from (x0, y0) up to (x1, y1) metres, x0 <= x1."""
        left, low = self.camera.pixel(x0, y0, z)
        right, high = self.camera.pixel(x1, y1, z)
        self.draw.rectangle((left, high, right, low), fill=ink)

    def polygon(self, points: NDArray[np.float64], ink: RGBA) -> None:
        """Fills the polygon with corners (k, 3) in metres."""
        self.draw.polygon(self.camera.project(points).ravel().tolist(), fill=ink)


def pack(colour: NDArray[np.float64], label: ArrayLike) -> NDArray[np.uint32]:
    """Canvas pixels (...): each colour (..., 3) and label (...) as the four bytes of one word."""
    entry = np.empty((*colour.shape[:-1], 4), dtype=np.uint8)
    entry[..., :3] = np.clip(colour, 0.0, 255.0)
    entry[..., 3] = label
    return entry.view(np.uint32)[..., 0]
