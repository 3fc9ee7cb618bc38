"""From the painted canvas to the photograph: reduction to the frame's size, surface texture, light, air and sensor."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from caguda.street.backdrop import Grid, smooth_noise
from caguda.street.camera import Camera
from caguda.street.domain import Photo
from caguda.street.scene import BUILDING, FENCE, ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION, WALL

GRAINS = {
    ROAD: 0.045, SIDEWALK: 0.05, TERRAIN: 0.13, BUILDING: 0.04, WALL: 0.07, FENCE: 0.05, VEGETATION: 0.09, SKY: 0.0,
}  # fmt: skip
TEXTURE = np.array([GRAINS.get(label, 0.02) for label in range(256)], dtype=np.float32)  # contrast of the surface
ON_GROUND = np.isin(np.arange(256), (ROAD, SIDEWALK, TERRAIN))


def reduce_canvas(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint8]]:
    """The canvas at half its size: colours averaged over 2 x 2 pixels, and labels (rows, columns) of one of the four."""
    labels = np.asarray(image.getchannel("A"))[1::2, 1::2]
    return image.convert("RGB").reduce(2), labels


def ground_grain(camera: Camera, shape: tuple[int, int]) -> Grid:
    """Noise (rows below the horizon, columns) in the perspective of the ground; `camera` is that of the larger canvas."""
    first = max(0, int(camera.v0 / 2) + 1)
    z = camera.focal * camera.height / (2.0 * np.arange(first, shape[0]) + 1.0 - camera.v0)
    x = camera.x + (z / camera.focal)[:, None] * (2.0 * np.arange(shape[1]) + 1.0 - camera.u0)
    noise = smooth_noise(512, 512, 24)
    rows, columns = (z * 14.0).astype(np.int64) % 512, (x * 14.0).astype(np.int64) % 512
    return noise[rows[:, None], columns]


def add_texture(
    pixels: Grid, labels: NDArray[np.uint8], shadow: Grid, camera: Camera, rng: np.random.Generator
) -> None:
    """Multiplies the colours (rows, columns, 3) by the grain of each surface and by the shadows on the ground."""
    rows, columns = labels.shape
    noise = smooth_noise(2 * rows, 2 * columns, columns // 3)
    top, left = rng.integers(rows), rng.integers(columns)
    grain = noise[top : top + rows, left : left + columns].copy()
    first = max(0, int(camera.v0 / 2) + 1)
    on_ground = ON_GROUND[labels]
    np.copyto(grain[first:], ground_grain(camera, labels.shape), where=on_ground[first:])
    gain = 1.0 + TEXTURE[labels] * grain
    np.multiply(gain, shadow, out=gain, where=on_ground)
    pixels *= gain[..., None]


def light_field(photo: Photo, shape: tuple[int, int], rng: np.random.Generator) -> Grid:
    """The gain (rows, columns) of the low sun on one side of the frame, times that of the lens's vignette."""
    down = np.linspace(-1.0, 1.0, shape[0], dtype=np.float32)[:, None]
    across = np.linspace(-1.0, 1.0, shape[1], dtype=np.float32)[None, :]
    bearing = rng.choice([0.0, np.pi]) + rng.normal(0.0, 0.45)
    sun = np.float32(np.cos(bearing)) * across - np.float32(0.6 * abs(np.sin(bearing))) * down
    glow, vignette = np.float32(photo.glow * rng.uniform(0.7, 1.3)), np.float32(photo.vignette)
    return (1.0 + glow * sun) * (1.0 - 0.5 * vignette * (down**2 + across**2))


def tone_curve(photo: Photo, rng: np.random.Generator) -> list[int]:
    """The look-up table of 3 x 256 values for cast, gamma and exposure."""
    level = np.linspace(0.0, 1.0, 256)[None, :] ** (photo.gamma * rng.uniform(0.94, 1.06))
    gain = photo.cast[0] / 128.0 * rng.uniform(0.95, 1.05) * rng.uniform(0.98, 1.02, 3)
    return [int(v) for v in np.clip(np.round(gain[:, None] * level * 255.0), 0, 255).ravel()]


def expose(pixels: Grid, photo: Photo, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The photograph (rows, columns, 3) of colours (rows, columns, 3) in 0..255, which are changed in place."""
    rows, columns = pixels.shape[:2]
    pixels *= light_field(photo, (rows, columns), rng)[..., None]
    if photo.desaturation > 0:
        red, green, blue = (pixels[..., channel] for channel in range(3))  # with `@`, the last bit would depend on BLAS
        grey = np.float32(0.3) * red + np.float32(0.59) * green + np.float32(0.11) * blue
        pixels += np.float32(photo.desaturation) * (grey[..., None] - pixels)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).point(tone_curve(photo, rng))
    radius = photo.blur * columns / 256.0
    if radius > 0.15:
        image = image.filter(ImageFilter.BoxBlur(0.5 * math.sqrt(12.0 * radius**2 + 1.0) - 0.5))
    noise = smooth_noise(2 * rows, 2 * columns * 3, 6 * columns)
    top, left = rng.integers(rows), rng.integers(3 * columns)
    grain = noise[top : top + rows, left : left + 3 * columns].reshape(rows, columns, 3)
    sensor = np.asarray(image, dtype=np.float32) + np.float32(photo.noise * rng.uniform(0.7, 1.3)) * grain
    return np.clip(sensor + 0.5, 0, 255).astype(np.uint8)
