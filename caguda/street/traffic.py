"""The skyline and yards behind the building line, and the positions of the objects in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from caguda.street.camera import Canvas
from caguda.street.objects import (
    VEHICLES,
    paint_crown,
    paint_person,
    paint_pole,
    paint_tree,
    paint_two_wheeler,
    paint_vehicle,
)
from caguda.street.scene import (
    BICYCLE,
    BUILDING,
    BUILT,
    BUS,
    CAR,
    CROSS,
    END,
    LIGHT,
    MOTORCYCLE,
    PARK,
    PERSON,
    POLE,
    SIGN,
    STATIC,
    TRAIN,
    TRUCK,
    VEGETATION,
    Floats,
    Scene,
    Side,
    pick,
)

FIRST, LAST = 6.5, 85.0  # metres; objects stand between
Choice = tuple[NDArray[np.int64], Floats]
TRAFFIC = (np.array([CAR, TRUCK, BUS]), np.array([0.84, 0.055, 0.105]))
PARKED = (np.array([CAR, TRUCK]), np.array([0.97, 0.03]))
FOOTPRINTS = {VEGETATION: (1.6, 0.0, 2.0), BICYCLE: (0.8, 0.0, 0.4), MOTORCYCLE: (0.9, 0.0, 0.5)}
TRAMS = (np.array([TRAIN]), np.array([1.0]))


class Item(NamedTuple):
    """An object: its category (a raw id) and the position of its near end in metres.

    `active`: a two-wheeler has a rider, or a vehicle comes towards the camera.
    """

    kind: int
    x: float
    z: float
    active: bool = False
    size: float = 1.0


def paint_skyline(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Paints distant buildings and trees across the whole frame; they also close the street."""
    for z in (1.6 * END, 1.25 * END):
        x = -0.75 * z
        while x < 0.75 * z:
            width = rng.uniform(15.0, 45.0)
            if rng.random() < 0.6:
                height = scene.layout.storeys * scene.layout.storey_height * rng.uniform(0.6, 1.5)
                ink = canvas.ink(pick(rng, scene.palette.facade).tolist(), z, BUILDING)
                canvas.rectangle(x, 0.0, x + width, height, z, ink)
            else:
                leaf = pick(rng, scene.palette.leaf)
                height = rng.uniform(14.0, 22.0)
                paint_crown(canvas, leaf, (x + width / 2, 4.0, z), 1.5 * width, height, int(rng.integers(6)))
            x += width * rng.uniform(0.7, 1.1)


def paint_end_wall(canvas: Canvas, side: Side, lot: int) -> None:
    """Paints the end wall of a building, which faces the camera, with its gable and windows."""
    z, height = float(side.edge[lot]), float(side.height[lot])
    if z < 6.0:
        return
    left, right = sorted((side.sign * side.line, side.sign * (side.line + 14.0)))
    ink = canvas.ink((0.8 * side.facade[lot]).tolist(), z, BUILDING)
    canvas.rectangle(left, 0.0, right, height, z, ink)
    roof = float(side.roof_height[lot])
    if roof:
        ridge = np.array([[left, height, z], [right, height, z], [0.5 * (left + right), height + roof, z]])
        canvas.polygon(ridge, ink)
    if side.kind[lot - 1] == BUILT or z > 70.0:
        return
    glass = canvas.ink(side.window[lot].tolist(), z, BUILDING)
    for y in np.arange(1.4, height - 2.0, float(side.storey[lot])).tolist():
        for x in (left + 3.0, right - 4.3):
            canvas.rectangle(x, y, x + 1.3, y + 1.5, z, glass)


def paint_yards(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Paints behind both building lines, far to near: end walls of the buildings, trees of the other lots."""
    for side in scene.sides:
        for lot in range(len(side.kind) - 1, -1, -1):
            z, kind = float(side.edge[lot]), side.kind[lot]
            if kind == BUILT:
                paint_end_wall(canvas, side, lot)
            elif kind != CROSS and z < 90.0:
                for _ in range(3 if kind == PARK else 2):
                    x = side.sign * (side.line + rng.uniform(2.0, 9.0))
                    paint_tree(canvas, scene, x, z + rng.uniform(4.0, 8.0), rng)


def vehicles(
    rng: np.random.Generator, x: float, start: float, gap: float, oncoming: bool, choice: Choice
) -> Iterator[Item]:
    """Random vehicles of one lane at x, from `start` metres on, with gaps of `gap` metres on average."""
    z = start + rng.exponential(gap)
    while z < LAST:
        kind, size = int(rng.choice(choice[0], p=choice[1])), rng.uniform(0.92, 1.08)
        yield Item(kind, x + rng.normal(0.0, 0.12), z, oncoming, size)
        z += VEHICLES[kind][1][2] * size + 1.2 + rng.exponential(gap)


def traffic(scene: Scene, rng: np.random.Generator) -> Iterator[Item]:
    """Random vehicles in the camera's and the oncoming lane, parked vehicles, a tram, and riders."""
    gap = scene.layout.vehicle_gap
    yield from vehicles(rng, scene.camera.x, FIRST + 4.0, 1.6 * gap, False, TRAFFIC)
    if np.isnan(scene.rails):
        yield from vehicles(rng, -0.3 * scene.road, FIRST + 2.0, 1.6 * gap, True, TRAFFIC)
    elif rng.random() < 0.75:
        yield from vehicles(rng, scene.rails, FIRST + 7.0, 16.0, True, TRAMS)
    for side in scene.sides:
        if rng.random() < scene.layout.parked:
            yield from vehicles(rng, side.sign * (scene.road - 1.05), FIRST, 0.7 * gap, side.sign < 0, PARKED)
    for kind, count in ((BICYCLE, 0.75), (MOTORCYCLE, 0.5)):
        for _ in range(rng.poisson(count)):
            yield Item(kind, rng.uniform(-0.8, 0.8) * scene.road, rng.uniform(FIRST, 24.0), True)


def furniture(scene: Scene, side: Side, rng: np.random.Generator) -> Iterator[Item]:
    """Random objects along one sidewalk: trees, lamps, lights, signs, people, parked two-wheelers, bins."""
    layout, outer = scene.layout, side.sign * (side.kerb + 0.45)
    planted = rng.random() < 0.7
    for kind, spacing in ((VEGETATION, layout.tree_spacing), (POLE, layout.pole_spacing)):
        z = FIRST + rng.uniform(0.0, spacing)
        while z < 55.0 and (planted or kind == POLE):
            yield Item(kind, outer + rng.normal(0.0, 0.1), z)
            z += spacing * rng.uniform(0.7, 1.3)
    for kind, count, far in ((LIGHT, 0.6, 30.0), (SIGN, 1.0, 35.0), (STATIC, 0.4, 25.0)):
        for _ in range(rng.poisson(count)):
            yield Item(kind, outer + side.sign * rng.uniform(0.0, 0.3), rng.uniform(FIRST, far))
    for kind, count in ((PERSON, layout.people / 2), (BICYCLE, 0.42), (MOTORCYCLE, 0.25)):
        for _ in range(rng.poisson(count)):
            yield Item(kind, side.sign * rng.uniform(side.kerb + 0.5, side.front + 0.3), FIRST + rng.gamma(1.6, 8.0))


def sample_items(scene: Scene, rng: np.random.Generator) -> list[Item]:
    """All objects of the street, far to near."""
    items = list(traffic(scene, rng))
    for side in scene.sides:
        items += furniture(scene, side, rng)
    if not np.isnan(scene.zebra):
        items += [Item(PERSON, rng.uniform(-0.9, 0.9) * scene.road, scene.zebra + 1.5) for _ in range(rng.poisson(1.2))]
    return sorted((item for item in items if item.z >= FIRST), key=lambda item: -item.z)


def paint_item(canvas: Canvas, scene: Scene, item: Item, rng: np.random.Generator) -> None:
    """Paints one object of any kind."""
    if item.kind in VEHICLES:
        paint_vehicle(canvas, scene, item.kind, item.x, item.z, item.active, item.size, rng)
    elif item.kind == PERSON:
        paint_person(canvas, scene, item.x, item.z, rng)
    elif item.kind in (BICYCLE, MOTORCYCLE):
        paint_two_wheeler(canvas, scene, item.kind, item.x, item.z, item.active, rng)
    elif item.kind == VEGETATION:
        paint_tree(canvas, scene, item.x, item.z, rng)
    elif item.kind == STATIC:
        canvas.rectangle(item.x - 0.3, 0.0, item.x + 0.3, 1.0, item.z, canvas.ink((70.0, 78.0, 70.0), item.z, STATIC))
    else:
        paint_pole(canvas, scene, item.x, item.z, item.kind, rng)


def paint_shadows(scene: Scene, items: list[Item], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The fraction of light (rows, columns) that reaches the ground: soft contact shadows under the objects."""
    image = Image.new("L", ((shape[1] + 1) // 2, (shape[0] + 1) // 2), 0)
    draw = ImageDraw.Draw(image)
    for item in items:
        half, _, length = (
            VEHICLES[item.kind][1] if item.kind in VEHICLES else FOOTPRINTS.get(item.kind, (0.3, 0.0, 0.3))
        )
        lean = -0.35 * scene.lit * half
        x0, x1, z0, z1 = item.x - half + min(lean, 0), item.x + half + max(lean, 0), item.z - 0.15, item.z + length
        corners = scene.camera.project(np.array([[x0, 0, z0], [x1, 0, z0], [x1, 0, z1], [x0, 0, z1]]))
        draw.polygon((corners * 0.25).ravel().tolist(), fill=110 if item.kind == VEGETATION else 190)
    soft = image.filter(ImageFilter.BoxBlur(shape[1] / 300)).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return 1.0 - np.asarray(soft, dtype=np.float32) * np.float32(0.55 / 255.0)
