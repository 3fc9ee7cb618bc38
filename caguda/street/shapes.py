"""The shapes of objects, as tables of flat faces.

A vehicle fills a unit box: x -1..1 across, y 0..1 up, z 0..1 ahead. It shows the side x = 1, which is mirrored for the
other one, the top and the near end. People and two-wheelers are flat: x and y in metres. A face is the name of a part
and its corners.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Face = tuple[str, tuple[tuple[float, ...], ...]]
Shape = tuple[tuple[tuple[str, slice], ...], NDArray[np.float64]]


def shape(*faces: Face) -> Shape:
    """A shape of these faces: part names with slices of the corners, and all corners (k, 3) in the order of painting.

    Corners of flat faces get z = 0.
    """
    parts: list[tuple[str, slice]] = []
    points: list[tuple[float, ...]] = []
    for part, corners in faces:
        parts.append((part, slice(len(points), len(points) + len(corners))))
        points += [(*corner, 0.0)[:3] for corner in corners]
    return tuple(parts), np.array(points, dtype=np.float64)


def disc(part: str, x: float, y: float, radius: float, squeeze: float = 1.0, corners: int = 10) -> Face:
    """A flat disc, `squeeze` times as wide as high."""
    angles = [2 * math.pi * (i + 0.5) / corners for i in range(corners)]
    return part, tuple((x + squeeze * radius * math.cos(a), y + radius * math.sin(a)) for a in angles)


def bar(part: str, x0: float, y0: float, x1: float, y1: float, thick: float, thick_end: float | None = None) -> Face:
    """A flat bar from (x0, y0) to (x1, y1), `thick` at the start and `thick_end` at the end."""
    length = math.hypot(x1 - x0, y1 - y0)
    nx, ny = -(y1 - y0) / length / 2, (x1 - x0) / length / 2
    end = thick if thick_end is None else thick_end
    return part, (
        (x0 + nx * thick, y0 + ny * thick), (x1 + nx * end, y1 + ny * end),
        (x1 - nx * end, y1 - ny * end), (x0 - nx * thick, y0 - ny * thick),
    )  # fmt: skip


def rectangle(part: str, x0: float, y0: float, x1: float, y1: float, z: float = 0.0) -> Face:
    """A rectangle facing the camera."""
    return part, ((x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z))


def flank(part: str, z0: float, y0: float, z1: float, y1: float) -> Face:
    """A rectangle on the side x = 1."""
    return part, ((1.0, y0, z0), (1.0, y0, z1), (1.0, y1, z1), (1.0, y1, z0))


def wheel(z: float, radius: float, slimness: float) -> tuple[Face, Face]:
    """Tyre and hub on the side x = 1; `slimness` is height over length of the vehicle."""
    _, tyre = disc("tyre", z, radius, radius, slimness)
    _, hub = disc("hub", z, radius, 0.5 * radius, slimness, 8)
    return ("tyre", tuple((1.0, y, a) for a, y in tyre)), ("hub", tuple((1.0, y, a) for a, y in hub))


CAR_SHAPE = shape(
    ("under", ((1, 0.0, 0.02), (1, 0.0, 0.98), (1, 0.2, 0.98), (1, 0.2, 0.02))),
    ("side", ((1, 0.13, 0.0), (1, 0.13, 1.0), (1, 0.45, 1.0), (1, 0.56, 0.8), (1, 0.6, 0.04), (1, 0.5, 0.0))),
    ("side", ((1, 0.58, 0.06), (0.82, 0.98, 0.2), (0.82, 0.98, 0.55), (1, 0.56, 0.78))),
    ("glass", ((0.99, 0.6, 0.12), (0.84, 0.92, 0.22), (0.84, 0.92, 0.36), (0.99, 0.6, 0.38))),
    ("glass", ((0.99, 0.6, 0.42), (0.84, 0.92, 0.39), (0.84, 0.92, 0.54), (0.99, 0.59, 0.72))),
    *wheel(0.19, 0.21, 0.36),
    *wheel(0.81, 0.21, 0.36),
    ("top", ((-0.82, 0.98, 0.2), (0.82, 0.98, 0.2), (0.82, 0.98, 0.55), (-0.82, 0.98, 0.55))),
    rectangle("under", -0.92, 0.0, -0.6, 0.2),
    rectangle("under", 0.6, 0.0, 0.92, 0.2),
    ("body", ((-1, 0.58, 0.04), (1, 0.58, 0.04), (0.82, 0.98, 0.2), (-0.82, 0.98, 0.2))),
    ("glass", ((-0.86, 0.62, 0.05), (0.86, 0.62, 0.05), (0.72, 0.93, 0.19), (-0.72, 0.93, 0.19))),
    ("body", ((-1, 0.13, 0), (1, 0.13, 0), (1, 0.5, 0), (0.96, 0.6, 0.03), (-0.96, 0.6, 0.03), (-1, 0.5, 0))),
    rectangle("under", -0.98, 0.11, 0.98, 0.25),
    rectangle("lamp", -0.97, 0.38, -0.66, 0.5),
    rectangle("lamp", 0.66, 0.38, 0.97, 0.5),
    rectangle("plate", -0.26, 0.29, 0.26, 0.38),
)
BUS_SHAPE = shape(
    flank("side", 0.0, 0.08, 1.0, 1.0),
    *(flank("glass", 0.03 + 0.16 * i, 0.45, 0.16 + 0.16 * i, 0.86) for i in range(6)),
    flank("stripe", 0.0, 0.3, 1.0, 0.37),
    *wheel(0.18, 0.15, 0.28),
    *wheel(0.78, 0.15, 0.28),
    ("top", ((-1, 1, 0), (1, 1, 0), (1, 1, 1), (-1, 1, 1))),
    rectangle("tyre", -0.9, 0.0, -0.55, 0.12),
    rectangle("tyre", 0.55, 0.0, 0.9, 0.12),
    rectangle("body", -1.0, 0.07, 1.0, 1.0),
    rectangle("glass", -0.88, 0.46, 0.88, 0.84),
    rectangle("sign", -0.6, 0.87, 0.6, 0.96),
    rectangle("stripe", -1.0, 0.3, 1.0, 0.37),
    rectangle("lamp", -0.95, 0.16, -0.72, 0.26),
    rectangle("lamp", 0.72, 0.16, 0.95, 0.26),
    rectangle("plate", -0.2, 0.12, 0.2, 0.19),
)
TRUCK_SHAPE = shape(
    ("cab", ((0.95, 0.14, 0.74), (0.95, 0.14, 1.0), (0.95, 0.5, 1.0), (0.95, 0.78, 0.93), (0.95, 0.78, 0.74))),
    ("glass", ((0.95, 0.48, 0.82), (0.95, 0.48, 0.97), (0.95, 0.7, 0.93), (0.95, 0.7, 0.82))),
    flank("under", 0.02, 0.12, 0.98, 0.24),
    flank("side", 0.0, 0.22, 0.72, 1.0),
    flank("stripe", 0.04, 0.5, 0.68, 0.72),
    *wheel(0.14, 0.14, 0.45),
    *wheel(0.3, 0.14, 0.45),
    *wheel(0.86, 0.14, 0.45),
    ("top", ((-1, 1, 0), (1, 1, 0), (1, 1, 0.72), (-1, 1, 0.72))),
    rectangle("tyre", -0.9, 0.0, -0.5, 0.2),
    rectangle("tyre", 0.5, 0.0, 0.9, 0.2),
    rectangle("under", -0.95, 0.13, 0.95, 0.24),
    rectangle("body", -1.0, 0.22, 1.0, 1.0),
    rectangle("seam", -0.92, 0.27, -0.05, 0.94),
    rectangle("seam", 0.05, 0.27, 0.92, 0.94),
    rectangle("lamp", -0.9, 0.15, -0.68, 0.22),
    rectangle("lamp", 0.68, 0.15, 0.9, 0.22),
    rectangle("plate", -0.2, 0.15, 0.2, 0.21),
)
TRAIN_SHAPE = shape(
    flank("under", 0.01, 0.02, 0.99, 0.14),
    flank("side", 0.0, 0.1, 1.0, 0.95),
    *(flank("glass", 0.02 + 0.1 * i, 0.46, 0.1 + 0.1 * i, 0.78) for i in range(10)),
    flank("stripe", 0.0, 0.1, 1.0, 0.24),
    *(flank("door", 0.14 + 0.3 * i, 0.12, 0.2 + 0.3 * i, 0.8) for i in range(3)),
    ("top", ((-1, 0.95, 0), (1, 0.95, 0), (1, 0.95, 1), (-1, 0.95, 1))),
    ("wire", ((-0.5, 1, 0.1), (0.5, 1, 0.1), (0.5, 1.25, 0.14), (0.4, 1.25, 0.14), (0.35, 1.03, 0.1), (-0.5, 1, 0.1))),
    rectangle("under", -0.8, 0.0, 0.8, 0.12),
    ("body", ((-1, 0.08, 0), (1, 0.08, 0), (1, 0.8, 0), (0.8, 0.98, 0), (-0.8, 0.98, 0), (-1, 0.8, 0))),
    ("glass", ((-0.85, 0.44, 0), (0.85, 0.44, 0), (0.8, 0.8, 0), (-0.8, 0.8, 0))),
    rectangle("sign", -0.4, 0.84, 0.4, 0.93),
    rectangle("stripe", -1.0, 0.1, 1.0, 0.24),
    rectangle("lamp", -0.9, 0.28, -0.62, 0.36),
    rectangle("lamp", 0.62, 0.28, 0.9, 0.36),
)  # fmt: skip


def walker(stride: float, swing: float) -> Shape:
    """A person of 1.75 m with `stride` metres between the feet, and hands that swing by `swing` metres."""
    return shape(
        bar("trousers", -0.07, 0.88, -0.09 - stride / 2, 0.06, 0.19, 0.13),
        bar("trousers", 0.07, 0.88, 0.07 + stride / 2, 0.06, 0.19, 0.13),
        bar("shoes", -0.14 - stride / 2, 0.05, 0.02 - stride / 2, 0.05, 0.1),
        bar("shoes", 0.02 + stride / 2, 0.05, 0.18 + stride / 2, 0.05, 0.1),
        bar("sleeve", -0.21, 1.42, -0.25 - swing, 0.9, 0.12, 0.09),
        ("shirt", ((-0.19, 0.82), (0.19, 0.82), (0.25, 1.42), (0.15, 1.5), (-0.15, 1.5), (-0.25, 1.42))),
        bar("sleeve", 0.21, 1.42, 0.25 + swing, 0.9, 0.12, 0.09),
        disc("skin", -0.25 - swing, 0.86, 0.06, 1.0, 6),
        disc("skin", 0.25 + swing, 0.86, 0.06, 1.0, 6),
        rectangle("skin", -0.06, 1.45, 0.06, 1.56),
        disc("skin", 0.0, 1.63, 0.13, 0.85),
        ("hair", ((-0.12, 1.63), (-0.1, 1.74), (0.0, 1.78), (0.1, 1.74), (0.12, 1.63), (0.0, 1.69))),
    )


WALKERS = tuple(walker(stride, swing) for stride, swing in ((0.05, 0.02), (0.3, 0.1), (0.5, 0.18)))
BICYCLE_SHAPE = shape(
    disc("tyre", -0.55, 0.36, 0.37, 1.0, 14), disc("spokes", -0.55, 0.36, 0.28, 1.0, 12),
    disc("tyre", 0.55, 0.36, 0.37, 1.0, 14), disc("spokes", 0.55, 0.36, 0.28, 1.0, 12),
    bar("frame", -0.55, 0.36, -0.05, 0.34, 0.08),
    bar("frame", -0.05, 0.34, 0.42, 0.82, 0.09),
    bar("frame", -0.18, 0.85, 0.42, 0.85, 0.09),
    bar("frame", -0.05, 0.34, -0.2, 0.95, 0.09),
    bar("frame", -0.55, 0.36, -0.18, 0.82, 0.07),
    bar("frame", 0.55, 0.36, 0.4, 1.0, 0.08),
    bar("tyre", 0.28, 1.06, 0.48, 1.02, 0.08),
    bar("tyre", -0.34, 0.97, -0.08, 0.97, 0.1),
)  # fmt: skip
CYCLIST_SHAPE = shape(
    bar("trousers", -0.2, 1.0, 0.14, 0.72, 0.2, 0.16),
    bar("trousers", 0.14, 0.72, 0.02, 0.26, 0.15, 0.11),
    bar("shoes", -0.02, 0.22, 0.18, 0.22, 0.1),
    ("shirt", ((-0.34, 0.95), (-0.08, 0.92), (0.3, 1.4), (0.2, 1.55), (0.0, 1.5))),
    bar("sleeve", 0.2, 1.42, 0.34, 1.16, 0.13, 0.1),
    bar("sleeve", 0.34, 1.16, 0.44, 1.06, 0.1),
    disc("skin", 0.3, 1.64, 0.14),
    ("helmet", ((0.13, 1.66), (0.18, 1.79), (0.32, 1.83), (0.44, 1.74), (0.45, 1.67))),
)
MOTORCYCLE_SHAPE = shape(
    disc("tyre", -0.68, 0.33, 0.34, 1.0, 12), disc("hub", -0.68, 0.33, 0.17, 1.0, 8),
    disc("tyre", 0.7, 0.33, 0.34, 1.0, 12), disc("hub", 0.7, 0.33, 0.17, 1.0, 8),
    ("engine", ((-0.35, 0.2), (0.32, 0.2), (0.4, 0.6), (-0.4, 0.62))),
    bar("chrome", -0.85, 0.28, -0.1, 0.24, 0.12),
    bar("chrome", 0.68, 0.34, 0.42, 0.98, 0.1),
    ("body", ((-0.95, 0.82), (-0.4, 0.55), (0.42, 0.52), (0.6, 0.82), (0.38, 1), (0.1, 1), (0, 0.82), (-0.6, 0.86))),
    bar("seat", -0.9, 0.88, -0.05, 0.84, 0.12),
    ("screen", ((0.5, 0.85), (0.4, 1.22), (0.32, 1.2), (0.36, 0.95))),
    disc("lamp", 0.62, 0.86, 0.1, 1.0, 8),
    bar("seat", 0.18, 1.08, 0.4, 1.04, 0.07),
)  # fmt: skip
MOTORCYCLIST_SHAPE = shape(
    bar("trousers", -0.3, 0.92, 0.12, 0.8, 0.22, 0.18),
    bar("trousers", 0.12, 0.8, -0.02, 0.38, 0.17, 0.13),
    bar("shoes", -0.06, 0.32, 0.18, 0.32, 0.12),
    ("shirt", ((-0.42, 0.9), (-0.1, 0.86), (0.16, 1.34), (0.06, 1.5), (-0.16, 1.46))),
    bar("sleeve", 0.04, 1.38, 0.16, 1.12, 0.15, 0.12),
    bar("sleeve", 0.16, 1.12, 0.32, 1.08, 0.12),
    disc("helmet", 0.14, 1.62, 0.18, 1.0, 12),
    ("visor", ((0.18, 1.56), (0.33, 1.58), (0.33, 1.68), (0.18, 1.7))),
)
