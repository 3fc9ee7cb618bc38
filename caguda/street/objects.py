"""Painting of single objects: vehicles, people, two-wheelers, trees, poles with lights and signs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from PIL import Image

from caguda.street.backdrop import smooth_noise
from caguda.street.camera import RGBA, Canvas
from caguda.street.scene import (
    BICYCLE,
    BUS,
    CAR,
    LIGHT,
    MOTORCYCLE,
    PERSON,
    POLE,
    RIDER,
    SIGN,
    TRAIN,
    TRUCK,
    VEGETATION,
    Floats,
    Scene,
    pick,
)
from caguda.street.shapes import (
    BICYCLE_SHAPE,
    BUS_SHAPE,
    CAR_SHAPE,
    CYCLIST_SHAPE,
    MOTORCYCLE_SHAPE,
    MOTORCYCLIST_SHAPE,
    TRAIN_SHAPE,
    TRUCK_SHAPE,
    WALKERS,
    Shape,
)

Parts = Mapping[str, tuple[float, ...] | Floats]
VEHICLES: dict[int, tuple[Shape, tuple[float, float, float]]] = {  # half width, height, length in metres
    CAR: (CAR_SHAPE, (0.9, 1.5, 4.3)),
    BUS: (BUS_SHAPE, (1.27, 3.0, 11.0)),
    TRUCK: (TRUCK_SHAPE, (1.22, 3.3, 7.5)),
    TRAIN: (TRAIN_SHAPE, (1.3, 3.4, 24.0)),
}
TWO_WHEELERS = {BICYCLE: (BICYCLE_SHAPE, CYCLIST_SHAPE), MOTORCYCLE: (MOTORCYCLE_SHAPE, MOTORCYCLIST_SHAPE)}
DARK, TYRE, WHITE = (34.0, 35.0, 38.0), (26.0, 26.0, 28.0), (228.0, 228.0, 222.0)
SKINS = np.array([[224, 180, 150], [200, 150, 120], [140, 95, 70], [96, 64, 48]], dtype=np.float64)


def paint_shape(canvas: Canvas, shape: Shape, points: Floats, parts: Parts, label: int) -> None:
    """Paints the faces of a shape with its corners at `points` (k, 3)."""
    inks = dict(zip(parts, canvas.inks(np.array(list(parts.values())), float(points[0, 2]), label), strict=True))
    flat = canvas.camera.project(points).tolist()
    for part, corners in shape[0]:
        canvas.draw.polygon([value for corner in flat[corners] for value in corner], fill=inks[part])


def vehicle_parts(scene: Scene, kind: int, oncoming: bool, shade: float, rng: np.random.Generator) -> Parts:
    """The colours of a vehicle's parts."""
    palette = scene.palette
    paint = pick(rng, {CAR: palette.car, BUS: palette.bus, TRUCK: palette.truck, TRAIN: palette.train}[kind])
    second = pick(rng, palette.car)
    glass = (52.0, 62.0, 74.0)
    lamp = (250.0, 246.0, 220.0) if oncoming else (196.0, 28.0, 24.0)
    return {
        "body": paint * 0.92, "side": paint * shade, "top": np.minimum(paint * 1.15 + 14.0, 255.0), "glass": glass,
        "under": DARK, "tyre": TYRE, "hub": (150.0, 152.0, 156.0), "lamp": lamp, "plate": (236.0, 232.0, 200.0),
        "stripe": WHITE if kind in (BUS, TRAIN) else second, "sign": (40.0, 36.0, 20.0), "cab": second * shade,
        "seam": paint * 0.84, "door": paint * shade * 0.55, "wire": DARK,
    }  # fmt: skip


def paint_vehicle(canvas: Canvas, scene: Scene, kind: int, x: float, z: float, oncoming: bool, size: float,
                  rng: np.random.Generator) -> None:  # fmt: skip
    """Paints a car, bus, truck or train with its near end at (x, z); `size` scales its height and length."""
    shape, box = VEHICLES[kind]
    inner = -1.0 if x > canvas.camera.x else 1.0
    points = shape[1] * (inner * box[0], box[1] * size, box[2] * size) + (x, 0.0, z)
    shade = 1.0 if scene.lit == inner else 0.78
    paint_shape(canvas, shape, points, vehicle_parts(scene, kind, oncoming, shade, rng), kind)


def clothes(scene: Scene, rng: np.random.Generator) -> Parts:
    """The colours of a person's parts."""
    cloth = scene.palette.cloth
    shirt, trousers = pick(rng, cloth), pick(rng, cloth) * 0.7
    helmet = pick(rng, scene.palette.car)
    hair = rng.uniform(20.0, 110.0) * np.array([1.0, 0.75, 0.5])
    return {
        "shirt": shirt, "sleeve": shirt * 0.85, "trousers": trousers, "shoes": DARK, "skin": pick(rng, SKINS, 4.0),
        "hair": hair, "helmet": helmet, "visor": (40.0, 48.0, 60.0),
    }  # fmt: skip


def paint_person(canvas: Canvas, scene: Scene, x: float, z: float, rng: np.random.Generator) -> None:
    """Paints a person standing or walking at (x, z)."""
    shape = WALKERS[rng.integers(len(WALKERS))]
    size = scene.layout.object_scale * rng.uniform(0.88, 1.06)
    turn = rng.choice([-1.0, 1.0]) * rng.uniform(0.7, 1.1)
    paint_shape(canvas, shape, shape[1] * (turn * size, size, 1.0) + (x, 0.0, z), clothes(scene, rng), PERSON)


def paint_two_wheeler(canvas: Canvas, scene: Scene, kind: int, x: float, z: float, ridden: bool,
                      rng: np.random.Generator) -> None:  # fmt: skip
    """Paints a bicycle or motorcycle at (x, z), with or without a rider, turned towards the camera by a random angle."""
    paint = pick(rng, scene.palette.two_wheeler)
    size = scene.layout.object_scale
    scale = np.array([rng.choice([-1.0, 1.0]) * rng.uniform(0.55, 1.0) * size, size, 1.0])
    offset = np.array([x, 0.0, z])
    machine, person = TWO_WHEELERS[kind]
    parts: Parts = {
        "frame": paint, "body": paint * 1.1 + 8.0, "tyre": TYRE, "spokes": (112.0, 112.0, 114.0),
        "hub": (150.0, 150.0, 154.0), "engine": (62.0, 62.0, 66.0), "chrome": (168.0, 170.0, 174.0), "seat": TYRE,
        "screen": (150.0, 170.0, 186.0), "lamp": (240.0, 230.0, 190.0),
    }  # fmt: skip
    paint_shape(canvas, machine, machine[1] * scale + offset, parts, kind)
    if ridden:
        paint_shape(canvas, person, person[1] * scale + offset, clothes(scene, rng), RIDER)


@lru_cache(maxsize=1)
def crowns() -> tuple[tuple[Image.Image, Image.Image, Image.Image], ...]:
    """Fixed masks of tree crowns: the silhouette, its brighter half, its highlights; the last four are conifers."""
    side, stamps = 96, []
    down, across = np.mgrid[-1.0 : 1.0 : side * 1j, -1.0 : 1.0 : side * 1j]
    for i in range(10):
        leaf = np.roll(smooth_noise(256, 256, 14), (i * 53, i * 91), axis=(0, 1))[:side, :side]
        clump = np.roll(smooth_noise(256, 256, 5), (i * 71, i * 37), axis=(0, 1))[:side, :side]
        width = 1.0 if i < 6 else np.clip((down + 1.0) * 0.5, 0.0, 1.0)
        rise = down if i < 6 else 0.4 * (down + 0.05)
        inside = np.hypot(across / np.maximum(width, 0.02), rise) + 0.10 * leaf + 0.09 * clump < 0.86
        light = leaf * 0.7 + clump * 0.5 - 0.9 * down - 0.5 * across
        masks = (inside, inside & (light > 0.0), inside & (light > 0.9))
        stamps.append(tuple(Image.fromarray((m * 255).astype(np.uint8)).convert("1") for m in masks))
    return tuple((a, b, c) for a, b, c in stamps)


def paint_crown(canvas: Canvas, leaf: Floats, centre: tuple[float, float, float], width: float, height: float,
                which: int) -> None:  # fmt: skip
    """Paints a tree crown, the one of index `which`, of `width` by `height` metres around `centre` (x, y, z)."""
    x, y, z = centre
    u0, v0 = canvas.camera.pixel(x - width / 2, y + height / 2, z)
    u1, v1 = canvas.camera.pixel(x + width / 2, y - height / 2, z)
    columns, rows = max(2, round(u1 - u0)), max(2, round(v1 - v0))
    left, top = round(u0), round(v0)
    frame = (max(0, left), max(0, top), min(canvas.image.width, left + columns), min(canvas.image.height, top + rows))
    if frame[0] >= frame[2] or frame[1] >= frame[3]:
        return
    stamp = crowns()[which]
    part = (frame[2] - frame[0], frame[3] - frame[1])
    scale = (stamp[0].width / columns, stamp[0].height / rows)
    box = tuple((frame[i] - (left, top)[i % 2]) * scale[i % 2] for i in range(4))
    tones = zip(stamp if rows > 10 else stamp[:2], (0.62, 0.95, 1.32), strict=False)
    for mask, bright in tones:
        ink = canvas.ink(np.minimum(leaf * bright, 255.0).tolist(), z, VEGETATION)
        canvas.image.paste(ink, frame, mask.resize(part, Image.Resampling.NEAREST, (box[0], box[1], box[2], box[3])))


def paint_tree(canvas: Canvas, scene: Scene, x: float, z: float, rng: np.random.Generator) -> None:
    """Paints a tree at (x, z): a trunk and one to three crowns, or a conifer."""
    leaf, trunk = pick(rng, scene.palette.leaf, 8.0), scene.palette.trunk[0]
    size = scene.layout.tree_size * rng.uniform(0.75, 1.3)
    ink = canvas.ink(trunk.tolist(), z, VEGETATION)
    canvas.rectangle(x - size * 0.028, 0.0, x + size * 0.028, 0.6 * size, z, ink)
    if rng.random() < scene.palette.conifer:
        needles, which = leaf * (0.75, 0.95, 0.85), int(rng.integers(6, 10))
        paint_crown(canvas, needles, (x, 1.0 + 0.75 * size, z), 0.75 * size, 1.5 * size, which)
        return
    for _ in range(int(rng.integers(1, 4)) if z < 40.0 else 1):
        shift = rng.normal(0.0, 0.12, 2) * size
        paint_crown(canvas, leaf * rng.uniform(0.9, 1.1), (x + shift[0], 0.95 * size + 0.6 + shift[1], z),
                    rng.uniform(0.75, 1.0) * size, rng.uniform(0.7, 0.95) * size, int(rng.integers(6)))  # fmt: skip


def paint_pole(canvas: Canvas, scene: Scene, x: float, z: float, kind: int, rng: np.random.Generator) -> None:
    """Paints a pole at (x, z): a lamp post (kind POLE), or one with a traffic light (LIGHT) or sign (SIGN)."""
    colour = pick(rng, scene.palette.pole, 6.0)
    size = scene.layout.object_scale
    height = {POLE: rng.uniform(6.0, 8.0), LIGHT: 3.5 * size, SIGN: rng.uniform(2.6, 3.0) * size}[kind]
    thick = {POLE: 0.085, LIGHT: 0.085, SIGN: 0.055}[kind]
    ink = canvas.ink(colour.tolist(), z, POLE)
    canvas.rectangle(x - thick, 0.0, x + thick, height, z, ink)
    inward = -1.0 if x > 0 else 1.0
    if kind == POLE:
        arm = np.array([[0, 0, 0], [1.6 * inward, 0.35, 0], [1.6 * inward, 0.5, 0], [0, 0.18, 0]])
        canvas.polygon(arm + np.array([x, height - 0.2, z]), ink)
    elif kind == LIGHT:
        paint_light(canvas, x, height, z, size, int(rng.integers(3)))
    else:
        paint_sign(canvas, x, height, z, size, int(rng.integers(4)))


def paint_light(canvas: Canvas, x: float, y: float, z: float, size: float, on: int) -> None:
    """Paints a traffic light with its top at height y: a black box with three lamps, of which `on` is lit."""
    canvas.rectangle(x - 0.26 * size, y - 1.3 * size, x + 0.26 * size, y, z, canvas.ink((24.0, 26.0, 24.0), z, LIGHT))
    lamps = ((240.0, 40.0, 30.0), (250.0, 190.0, 40.0), (60.0, 230.0, 120.0))
    for i, lamp in enumerate(lamps):
        colour = lamp if i == on else tuple(0.3 * c for c in lamp)
        paint_disc(canvas, (x, y - size * (0.25 + 0.4 * i), z), 0.17 * size, canvas.ink(colour, z, LIGHT), 8)


@lru_cache(maxsize=8)
def rim(corners: int) -> tuple[tuple[float, float], ...]:
    """The corners of a regular polygon on the unit circle; one of them is at the top if their number is odd."""
    turns = [(i + 0.5 * (corners % 2 == 0)) / corners for i in range(corners)]
    return tuple((math.sin(2 * math.pi * t), -math.cos(2 * math.pi * t)) for t in turns)


def paint_disc(canvas: Canvas, middle: tuple[float, float, float], radius: float, ink: RGBA, corners: int) -> None:
    """Paints a regular polygon that faces the camera."""
    u, v = canvas.camera.pixel(*middle)
    size = radius * canvas.camera.focal / middle[2]
    canvas.draw.polygon([(u + size * a, v + size * b) for a, b in rim(corners)], fill=ink)


def paint_sign(canvas: Canvas, x: float, y: float, z: float, size: float, kind: int) -> None:
    """Paints a traffic sign with its middle at height y; `kind` is 0 prohibition, 1 warning, 2 direction, 3 stop."""
    edge, face, corners = (
        ((205.0, 24.0, 30.0), (240.0, 240.0, 236.0), 12),
        ((205.0, 24.0, 30.0), (244.0, 206.0, 60.0), 3),
        ((240.0, 240.0, 236.0), (28.0, 84.0, 176.0), 4),
        ((240.0, 240.0, 236.0), (205.0, 24.0, 30.0), 8),
    )[kind]
    radius = (0.46, 0.6, 0.56, 0.48)[kind] * size
    paint_disc(canvas, (x, y, z), radius, canvas.ink(edge, z, SIGN), corners)
    paint_disc(canvas, (x, y, z), 0.74 * radius, canvas.ink(face, z, SIGN), corners)
    ink = canvas.ink((30.0, 30.0, 32.0) if kind < 2 else (240.0, 240.0, 236.0), z, SIGN)
    canvas.rectangle(x - 0.4 * radius, y - 0.12 * radius, x + 0.4 * radius, y + 0.12 * radius, z, ink)
