"""The parameters of the two domains of the generated street scenes, to be tuned here.

The target domain is a linear interpolation between `SOURCE_...` (severity 0) and `TARGET_...` (severity 1):

    Layout   geometry: camera, street, buildings, densities        severity: `street.strength`
    Palette  appearance of every category: colours, patterns       severity: `street.strength`
    Photo    effects of light, air and sensor on the frame         severity: `street.photo`

No value makes one category look like another: each stays distinct in both domains. Severity 0 gives the source itself.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Colours = NDArray[np.float64]


def colours(text: str) -> Colours:
    """The colours (k, 3), 0..255, of k hexadecimal words `rrggbb`."""
    return np.array([list(bytes.fromhex(word)) for word in text.split()], dtype=np.float64)


@dataclass(frozen=True)
class Layout:
    """Geometry. Lengths in metres; `focal` in frame widths; `horizon` as a share of the height from the top."""

    camera_height: float
    focal: float
    horizon: float
    heading: float  # standard deviation of the vanishing point, in frame widths
    road: float  # half width
    sidewalk: float
    garden: float  # strip between sidewalk and facades
    storeys: float
    storey_height: float
    built: float  # share of the lots that carry a building
    tree_spacing: float
    tree_size: float
    pole_spacing: float
    vehicle_gap: float
    parked: float  # share of the kerbs with parked vehicles
    people: float
    object_scale: float  # of people, two-wheelers, signs and lights


@dataclass(frozen=True)
class Palette:
    """Appearance: colours (k, 3), one of which is drawn for each object, and the contrast 0..1 of patterns."""

    road: Colours
    marking: Colours
    sidewalk: Colours
    kerb: Colours
    terrain: Colours
    sky_top: Colours
    sky_low: Colours
    cloud: Colours
    facade: Colours
    roof: Colours
    window: Colours
    trim: Colours
    wall: Colours
    fence: Colours
    leaf: Colours
    trunk: Colours
    pole: Colours
    car: Colours
    truck: Colours
    bus: Colours
    train: Colours
    two_wheeler: Colours
    cloth: Colours
    tiles: float  # joints of the sidewalk
    brick: float  # courses of the facades
    cloudiness: float
    dash: float  # length of a lane marking, metres
    conifer: float  # share of the trees that are narrow and pointed


@dataclass(frozen=True)
class Photo:
    """Effects of light, air and sensor.

    `haze` is per metre; `blur` and `noise` are standard deviations, in pixels of a frame of 256 columns and in grey levels.
    """

    air: Colours
    haze: float
    cast: Colours  # gain of red, green, blue in 1/128
    desaturation: float
    gamma: float
    vignette: float
    glow: float  # brightness that the low sun adds on its side of the frame and removes on the other
    blur: float
    noise: float


T = TypeVar("T", Layout, Palette, Photo)


def mix(source: T, target: T, severity: float) -> T:
    """The domain at `severity` (0 source, 1 target): every field is interpolated linearly."""
    pairs = {f.name: (getattr(source, f.name), getattr(target, f.name)) for f in fields(source)}
    return type(source)(**{name: (1.0 - severity) * a + severity * b for name, (a, b) in pairs.items()})


SOURCE_LAYOUT = Layout(
    camera_height=1.65, focal=0.80, horizon=0.40, heading=0.045, road=5.35, sidewalk=5.0, garden=2.6, storeys=3.6,
    storey_height=3.1, built=0.42, tree_spacing=9.0, tree_size=5.6, pole_spacing=20.0, vehicle_gap=13.0, parked=0.55,
    people=4.5, object_scale=1.12,
)  # fmt: skip
TARGET_LAYOUT = Layout(
    camera_height=2.1, focal=0.96, horizon=0.365, heading=0.075, road=5.1, sidewalk=5.6, garden=3.3, storeys=2.8,
    storey_height=3.8, built=0.38, tree_spacing=8.0, tree_size=4.8, pole_spacing=16.0, vehicle_gap=12.0, parked=0.7,
    people=6.0, object_scale=1.0,
)  # fmt: skip

SOURCE_PALETTE = Palette(
    road=colours("6a6b70 62646a 707074"),
    marking=colours("e8e8e4"),
    sidewalk=colours("b3afa8 a8a6a2 bab4aa"),
    kerb=colours("cfccc6"),
    terrain=colours("79a04c 86a558 8f9c54"),
    sky_top=colours("5f9be0 74a6e0"),
    sky_low=colours("c4dcf2 d4e4f2"),
    cloud=colours("f6f8fb"),
    facade=colours("d8ccb4 c9c3b8 b9b2a6 dcc8a0 c4b49c ccd0d2"),
    roof=colours("8c4a3c 6c5048 58595f"),
    window=colours("4c6078 5a6c80 3c4a5c"),
    trim=colours("efe9dc"),
    wall=colours("9a8f80 a39a90"),
    fence=colours("6f5f48 7c7060 a89878"),
    leaf=colours("3f7a34 4a8a3a 35692f 5c9444"),
    trunk=colours("5e4632"),
    pole=colours("5c6066 70747a"),
    car=colours("b8201c 1f4fa8 d9d9d6 2a2c30 8b9096 e0b428 1f7a5a f0f0ee"),
    truck=colours("e4e2dc 7fa0b8 c8b890"),
    bus=colours("d83a28 e08a1c"),
    train=colours("2f8a7a 287a94"),
    two_wheeler=colours("24262c 7a1c20 1c3c78"),
    cloth=colours("c03a30 2c4a8c 2c2c34 d8d2c4 5a7a3c 8a4a7c d8a030"),
    tiles=0.25, brick=0.12, cloudiness=0.45, dash=3.0, conifer=0.12,
)  # fmt: skip
TARGET_PALETTE = Palette(
    road=colours("7c746c 756d68 847c72"),
    marking=colours("f0dc98"),
    sidewalk=colours("b48a78 a87e70 bf9884"),
    kerb=colours("d8cfc0"),
    terrain=colours("9a9440 a89a50 b0a060"),
    sky_top=colours("b9bec8 c4c4c8"),
    sky_low=colours("e8e0d4 f0e8d8"),
    cloud=colours("a4a8b2"),
    facade=colours("a04c38 8c4434 b06a4c 9a5a40 7c4a40 b88868"),
    roof=colours("484c56 3c4048 5a4c48"),
    window=colours("b8c4c8 98a8b0 d0c8a0"),
    trim=colours("d8cfc0"),
    wall=colours("7c6c62 8a7264"),
    fence=colours("2f4238 3a4a44 5c5248"),
    leaf=colours("a8802c b8682c 8a8434 c09838"),
    trunk=colours("3c3028"),
    pole=colours("3c4440 4c5450"),
    car=colours("e8e6e0 24282e 6a7078 c8ccd0 3c4450 e8c838 741c24 b0b4b0"),
    truck=colours("c8c0a8 58809c a89460"),
    bus=colours("c83048 d8681c"),
    train=colours("3c6ea0 34569a"),
    two_wheeler=colours("303034 3c5c48 6c2c2c"),
    cloth=colours("1c2430 3c3430 5c5448 74302c 2c4438 a89878 c8c4bc"),
    tiles=0.9, brick=0.8, cloudiness=0.75, dash=1.6, conifer=0.5,
)  # fmt: skip

SOURCE_PHOTO = Photo(
    air=colours("c8d8e8"), haze=0.0035, cast=colours("808080"), desaturation=0.0, gamma=1.0, vignette=0.05, glow=0.03,
    blur=0.0, noise=2.0,
)  # fmt: skip
TARGET_PHOTO = Photo(
    air=colours("dcd4c4"), haze=0.026, cast=colours("888078"), desaturation=0.25, gamma=1.12, vignette=0.4, glow=0.4,
    blur=0.8, noise=6.5,
)  # fmt: skip
