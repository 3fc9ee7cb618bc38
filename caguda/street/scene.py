"""One street as data: camera, ground, and the lots along both sides, sampled by the layout and palette of a domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caguda.street.camera import Air, Camera
from caguda.street.domain import Colours, Layout, Palette

Floats = NDArray[np.float64]
ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN = 7, 8, 11, 12, 13, 17, 19, 20
VEGETATION, TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS = range(21, 29)
TRAIN, MOTORCYCLE, BICYCLE = 31, 32, 33
STATIC = 4  # void
END = 170.0  # metres; the street ends here
BUILT, PARK, FENCED, WALLED, HEDGED, CROSS = range(6)  # kinds of lots; CROSS is a side road


@dataclass(frozen=True)
class Side:
    """One side of the street, sign -1 left or +1 right; lot k extends from edge[k] to edge[k + 1] (metres ahead).

    Distances from the middle of the road: `kerb`, `front` (end of the sidewalk), `line` (facades, fences, walls).
    Per lot (k,): kind, height of the building, fence, wall or hedge on the line, its colours (k, 3), the window grid of
    buildings, and whether there is grass between sidewalk and line.
    """

    sign: int
    kerb: float
    front: float
    line: float
    edge: Floats
    kind: NDArray[np.int64]
    height: Floats
    roof_height: Floats
    storey: Floats
    bay: Floats
    shop: NDArray[np.bool_]
    lawn: NDArray[np.bool_]
    facade: Floats
    roof: Floats
    window: Floats


@dataclass(frozen=True)
class Scene:
    """A street to be painted. `rails` is the middle of a tram track, `zebra` the start of a zebra crossing; nan: none."""

    layout: Layout
    palette: Palette
    camera: Camera
    air: Air
    lit: int
    road: float
    sides: tuple[Side, Side]
    lanes: int
    rails: float
    zebra: float
    ground: dict[str, Floats]
    sky: tuple[Floats, Floats]


def pick_many(rng: np.random.Generator, choice: Colours, count: int, spread: float = 10.0) -> Floats:
    """Random colours (count, 3) out of `choice` (k, 3), each slightly varied in brightness and hue."""
    noise = rng.standard_normal((count, 4)) * spread
    colour = choice[rng.integers(len(choice), size=count)] + noise[:, :1] + noise[:, 1:] / 3.0
    return np.minimum(np.maximum(colour, 8.0), 250.0)


def pick(rng: np.random.Generator, choice: Colours, spread: float = 10.0) -> Floats:
    """One random colour (3,) out of `choice` (k, 3), slightly varied in brightness and hue."""
    grey, *tint = (rng.standard_normal(4) * spread).tolist()
    base = choice[int(rng.random() * len(choice))].tolist()
    return np.array([min(max(b + grey + t / 3.0, 8.0), 250.0) for b, t in zip(base, tint, strict=True)])


def sample_camera(rng: np.random.Generator, layout: Layout, shape: tuple[int, int], x: float) -> Camera:
    """A random camera for a canvas of (rows, columns), x metres right of the middle of the road."""
    rows, columns = shape
    return Camera(
        focal=columns * layout.focal * rng.uniform(0.92, 1.08),
        u0=columns * (0.5 + np.clip(rng.normal(0.0, layout.heading), -0.16, 0.16)),
        v0=rows * layout.horizon + columns * float(np.clip(rng.normal(0.0, 0.012), -0.03, 0.03)),
        height=layout.camera_height * rng.uniform(0.9, 1.1),
        x=x,
    )


def sample_lots(rng: np.random.Generator, layout: Layout) -> tuple[Floats, NDArray[np.int64]]:
    """Random edges (k + 1,) and kinds (k,) of the lots of one side, from the camera to the end of the street."""
    edges, kinds = [0.0], list[int]()
    open_land = (1.0 - layout.built) * np.array([0.18, 0.31, 0.28, 0.09, 0.14])
    share = np.array([layout.built, *open_land])
    while edges[-1] < END:
        kind = int(rng.choice(6, p=share / share.sum()))
        if kind == CROSS and (not kinds or kinds[-1] == CROSS):
            kind = BUILT
        length = {BUILT: rng.uniform(8, 22), CROSS: rng.uniform(7, 11)}.get(kind, rng.uniform(8, 18))
        edges.append(edges[-1] + length)
        kinds.append(kind)
    return np.array(edges), np.array(kinds)


def sample_side(rng: np.random.Generator, layout: Layout, palette: Palette, sign: int, road: float, lit: bool) -> Side:
    """A random side of the street."""
    edge, kind = sample_lots(rng, layout)
    k = len(kind)
    sidewalk = layout.sidewalk * rng.uniform(0.75, 1.3)
    garden = layout.garden * rng.uniform(0.3, 1.7)
    storey = layout.storey_height * rng.uniform(0.9, 1.15, k)
    storeys = np.maximum(2, np.round(layout.storeys * rng.gamma(9.0, 1 / 9.0, k)))
    low = np.array([0.0, 0.0, 2.0, 2.2, 2.0, 0.0])[kind] * rng.uniform(0.8, 1.25, k)
    built = kind == BUILT
    facade = pick_many(rng, palette.facade, k)
    for unbuilt, choice in ((FENCED, palette.fence), (WALLED, palette.wall), (HEDGED, palette.leaf)):
        facade[kind == unbuilt] = pick_many(rng, choice, int((kind == unbuilt).sum()))
    return Side(
        sign=sign,
        kerb=road,
        front=road + sidewalk,
        line=road + sidewalk + garden,
        edge=edge,
        kind=kind,
        height=np.where(built, storey * storeys + 0.8, low),
        roof_height=np.where(built & (rng.random(k) < 0.65), rng.uniform(1.5, 3.5, k), 0.0),
        storey=storey,
        bay=rng.uniform(1.9, 3.2, k),
        shop=rng.random(k) < 0.4,
        lawn=~built | (rng.random(k) < 0.3),
        facade=facade * (1.06 if lit else 0.86),
        roof=pick_many(rng, palette.roof, k),
        window=pick_many(rng, palette.window, k),
    )


def sample_scene(rng: np.random.Generator, layout: Layout, palette: Palette, air: Air, shape: tuple[int, int]) -> Scene:
    """A random street for a canvas of (rows, columns)."""
    road = layout.road * float(np.clip(rng.normal(1.0, 0.16), 0.75, 1.5))
    lit = int(rng.choice([-1, 1]))
    sides = tuple(sample_side(rng, layout, palette, sign, road, sign != lit) for sign in (-1, 1))
    camera = sample_camera(rng, layout, shape, road * rng.uniform(0.18, 0.4))
    ground = {
        name: pick(rng, getattr(palette, name), 6.0) for name in ("road", "marking", "sidewalk", "kerb", "terrain")
    }
    crossings = [side.edge[:-1][side.kind == CROSS] for side in sides]
    near = [z for z in np.concatenate(crossings) if 9.0 < z < 60.0]
    return Scene(
        layout=layout,
        palette=palette,
        camera=camera,
        air=air,
        lit=lit,
        road=road,
        sides=(sides[0], sides[1]),
        lanes=4 if road > 1.12 * layout.road else 2,
        rails=-0.36 * road if rng.random() < 0.33 else np.nan,
        zebra=float(near[0]) - 4.0 if near and rng.random() < 0.7 else np.nan,
        ground=ground,
        sky=(pick(rng, palette.sky_top), pick(rng, palette.sky_low, 6.0)),
    )
