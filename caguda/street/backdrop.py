"""The background of a frame, computed for all pixels at once: sky, ground plane, facades."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from caguda.street.camera import pack
from caguda.street.scene import (
    BUILDING,
    BUILT,
    CROSS,
    FENCE,
    FENCED,
    HEDGED,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    VEGETATION,
    WALL,
    WALLED,
    Scene,
    Side,
)

Grid = NDArray[np.float32]
Words = NDArray[np.uint32]
CLOUD_LEVELS = 24
ON_ROAD, ON_SIDEWALK, ON_JOINT, ON_TERRAIN, ON_KERB, ON_MARKING, ON_RAIL = range(7)
GROUND_LABELS = np.array([ROAD, SIDEWALK, SIDEWALK, TERRAIN, SIDEWALK, ROAD, ROAD])
LOT_LABELS = np.array([BUILDING, VEGETATION, FENCE, WALL, VEGETATION, ROAD])
PLAIN, COURSE, GLASS, GLASS_LIT, TRIM, ROOF, DOOR = range(7)


@lru_cache(maxsize=8)
def smooth_noise(rows: int, columns: int, coarsest: int) -> Grid:
    """Fixed noise (rows, columns) of zero mean and unit deviation: octaves, the coarsest with `coarsest` cells per row."""
    rng = np.random.default_rng([rows, columns, coarsest])
    total = np.zeros((rows, columns), dtype=np.float32)
    cells, weight = coarsest, 1.0
    while cells <= columns:
        coarse = rng.standard_normal((max(2, cells * rows // columns), cells), dtype=np.float32)
        layer = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC)
        total += weight * np.asarray(layer)
        cells, weight = cells * 2, weight * 0.6
    noise: Grid = (total - total.mean()) / total.std()
    return noise


def paint_sky(pixels: Words, scene: Scene, rng: np.random.Generator) -> None:
    """Fills the rows above the horizon, and a few below it, with a gradient and clouds."""
    rows, columns = min(pixels.shape[0], int(scene.camera.v0) + 2), pixels.shape[1]
    down = np.linspace(0.0, 1.0, rows)[:, None] ** 0.8
    clear = scene.sky[0] * (1.0 - down) + scene.sky[1] * down
    cover = np.linspace(0.0, 1.0, CLOUD_LEVELS)[None, :, None]
    cloud = scene.palette.cloud[0]
    table = pack(clear[:, None] * (1.0 - cover) + cloud * cover, SKY)
    noise = smooth_noise(512, 1024, 10)
    top, left = rng.integers(384), rng.integers(624)
    squeeze = top + np.arange(rows) * 127 // max(1, rows - 1)
    across = left + np.arange(columns) * 400 // columns
    density = noise[squeeze][:, across] * 0.45 + (scene.palette.cloudiness - 0.55) + rng.normal(0.0, 0.15)
    level = np.clip(density * CLOUD_LEVELS, 0, CLOUD_LEVELS - 1).astype(np.intp)
    pixels[:rows] = table.ravel()[level + CLOUD_LEVELS * np.arange(rows)[:, None]]


def lot_of(side: Side, z: NDArray[np.floating]) -> NDArray[np.intp]:
    """The index of the lot at each distance z."""
    return np.clip(np.searchsorted(side.edge, z, side="right") - 1, 0, len(side.kind) - 1)


def side_ground(side: Side, z: NDArray[np.floating], x: Grid) -> NDArray[np.uint8]:
    """The kind of ground (rows, columns) at distances z (rows,) and |x| metres from the middle of the road."""
    lot = lot_of(side, z)
    beyond = np.where(side.lawn[lot], ON_TERRAIN, ON_SIDEWALK).astype(np.uint8)[:, None]
    ground = np.where(x < side.front, np.uint8(ON_SIDEWALK), beyond)
    np.copyto(ground, ON_KERB, where=x < side.kerb + 0.22)
    np.copyto(ground, ON_ROAD, where=(x < side.kerb) | (side.kind[lot] == CROSS)[:, None])
    return ground


def markings(scene: Scene, z: Grid, x: Grid) -> NDArray[np.bool_]:
    """A mask (rows, columns) of the road markings: middle line, lane lines, edge lines, zebra crossing."""
    dash = scene.palette.dash
    dashed = (z % (2.5 * dash) < dash)[:, None]
    aside = np.abs(x)
    painted = (aside < 0.08) & (dashed | (scene.lanes == 4))
    if scene.lanes == 4:
        painted |= (np.abs(aside - 0.5 * scene.road) < 0.07) & dashed
    painted |= np.abs(aside - (scene.road - 0.35)) < 0.06
    if not np.isnan(scene.zebra):
        across = (np.abs(z - scene.zebra - 1.6) < 1.6)[:, None]
        painted = np.where(across, (x - np.floor(x) < 0.5) & (aside < scene.road - 0.3), painted)
    return painted


def paint_ground(pixels: Words, scene: Scene) -> None:
    """Fills the rows below the horizon with road, sidewalks, terrain, markings and rails."""
    camera, columns = scene.camera, pixels.shape[1]
    first = max(0, int(camera.v0) + 1)
    z = camera.focal * camera.height / (np.arange(first, pixels.shape[0]) + 0.5 - camera.v0)
    step = (z / camera.focal).astype(np.float32)
    x = np.float32(camera.x) + step[:, None] * (np.arange(columns, dtype=np.float32) + np.float32(0.5 - camera.u0))
    aside, near = np.abs(x), z.astype(np.float32)
    left, right = (side_ground(side, z, aside) for side in scene.sides)
    ground = np.where(x < 0, left, right)
    slab = aside * np.float32(1.0 / 0.9)
    joint = (slab - np.floor(slab) < 0.1) | (near % 0.9 < 0.08)[:, None]
    np.copyto(ground, ON_JOINT, where=(ground == ON_SIDEWALK) & joint)
    on_road = ground == ON_ROAD
    np.copyto(ground, ON_MARKING, where=on_road & (aside < scene.road) & markings(scene, near, x))
    if not np.isnan(scene.rails):
        np.copyto(ground, ON_RAIL, where=on_road & (np.abs(np.abs(x - np.float32(scene.rails)) - 0.72) < 0.07))
    colours = scene.ground
    joint_colour = colours["sidewalk"] * (1.0 - 0.45 * scene.palette.tiles)
    table = np.stack([colours["road"], colours["sidewalk"], joint_colour, colours["terrain"], colours["kerb"],
                      colours["marking"], colours["road"] * 0.55])  # fmt: skip
    faded = scene.air.fade(np.broadcast_to(table, (len(z), *table.shape)), np.broadcast_to(z[:, None], (len(z), 7)))
    pixels[first:] = pack(faded, GROUND_LABELS).ravel()[ground + 7 * np.arange(len(z))[:, None]]


def facade_table(scene: Scene, side: Side, lot: NDArray[np.intp], z: NDArray[np.float64]) -> Words:
    """The canvas pixels (columns, 7) of the seven facade materials in each column."""
    palette = scene.palette
    plain, window = side.facade[lot], side.window[lot]
    kind = side.kind[lot]
    contrast = np.where(kind == BUILT, 0.35 * palette.brick, np.where(kind == FENCED, 0.45, 0.2))
    contrast *= np.clip(2.0 - z / 30.0, 0.25, 1.0)
    course = plain * (1.0 - contrast[:, None])
    trim = 0.5 * plain + 0.5 * palette.trim[0]
    door = 0.45 * side.roof[lot] + 0.15 * plain
    table = np.stack([plain, course, window, window * 0.7 + 60.0, trim, side.roof[lot], door], axis=1)
    faded = scene.air.fade(table, np.broadcast_to(z[:, None], table.shape[:2]))
    return pack(faded, LOT_LABELS[kind][:, None])


def facade_material(side: Side, lot: NDArray[np.intp], z: Grid, y: Grid) -> NDArray[np.uint8]:
    """The material (rows, columns) on the building line at height y (rows, columns) and distance z (columns,)."""
    f4 = np.float32
    built, kind = side.kind[lot] == BUILT, side.kind[lot]
    along = (z - side.edge[lot].astype(f4)) / side.bay[lot].astype(f4)
    count = np.floor(along)
    part = along - count
    ground_floor = np.where(side.shop[lot], 3.6, 1.0).astype(f4)
    level = (y - ground_floor) / side.storey[lot].astype(f4)
    storey = np.floor(level)
    level -= storey
    height = side.height[lot].astype(f4)
    fine = y * (1.0 / np.where(built, 0.34, np.where(kind == WALLED, 0.5, 50.0))).astype(f4)
    picket = ((kind == FENCED) & (z % 0.5 < 0.22)) | ((kind == HEDGED) & (z % 0.9 < 0.3))
    material: NDArray[np.uint8] = ((fine - np.floor(fine) < 0.35) | picket).view(np.uint8)  # PLAIN or COURSE
    np.copyto(material, TRIM, where=(y > height - f4(0.5)) & ((kind != HEDGED) & (kind != FENCED)))
    window = (part > 0.24) & (part < 0.76) & built & (storey >= 0) & (y < height - f4(0.9))
    np.copyto(material, TRIM, where=window & (np.abs(level - f4(0.48)) < 0.32))
    dice = (storey * f4(3.0) + (count * 5.0 + lot).astype(f4)) * f4(1.0 / 7.0)
    glass = np.where(dice - np.floor(dice) < 0.25, np.uint8(GLASS_LIT), np.uint8(GLASS))
    np.copyto(material, glass, where=window & (np.abs(level - f4(0.48)) < 0.26))
    shop = side.shop[lot] & built & (part > 0.08) & (part < 0.92)
    np.copyto(material, GLASS, where=shop & (np.abs(y - f4(1.6)) < 1.1))
    np.copyto(material, DOOR, where=(built & (count == 1) & (part > 0.3) & (part < 0.75)) & (y < 2.3))
    np.copyto(material, ROOF, where=y > height)
    return material


def paint_facades(pixels: Words, scene: Scene, side: Side) -> None:
    """Paints the facades, fences, walls and hedges of one side: each column meets their plane at one distance."""
    camera = scene.camera
    reach = side.line - side.sign * camera.x
    u = np.arange(pixels.shape[1]) + 0.5 - camera.u0
    z = camera.focal * reach / np.maximum(side.sign * u, 1e-3)
    visible = np.flatnonzero((z > 2.0) & (z < min(160.0, side.edge[-1])))
    if not len(visible):
        return
    z = z[visible]
    lot = lot_of(side, z)
    bottom = min(pixels.shape[0], int(camera.v0 + camera.focal * camera.height / z.min()) + 1)
    rise = (camera.v0 - 0.5 - np.arange(bottom)).astype(np.float32)[:, None]
    y = np.float32(camera.height) + rise * (z / camera.focal).astype(np.float32)
    table = facade_table(scene, side, lot, z)
    material = facade_material(side, lot, z.astype(np.float32), y)
    hip = np.minimum(z - side.edge[lot], side.edge[lot + 1] - z) / 3.0
    top = (side.height[lot] + side.roof_height[lot] * np.minimum(hip, 1.0)).astype(np.float32)
    words = table.ravel()[material + 7 * np.arange(len(z))]
    span = slice(int(visible[0]), int(visible[-1]) + 1)
    np.copyto(pixels[:bottom, span], words, where=(y > 0) & (y < top))
