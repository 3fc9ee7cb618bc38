"""Class tables: which raw label value is which category, what it is called and how it is painted. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from caguda.config import Configuration

IGNORE = 255
"""The train id of a void pixel: no loss, no score."""
UNWRITTEN = 254
"""What a label store holds where nothing was written yet; never a category."""

_UNKNOWN = -1
_Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """The c categories of an experiment; a train id is a position in `names`, 0 to c - 1.

    `train_id` maps a raw value of a label file to its train id, or to IGNORE if the value is void.
    A value that is not in it is unknown, and a label file that holds one is refused.
    """

    names: tuple[str, ...]
    colors: tuple[_Color, ...]
    train_id: Mapping[int, int]

    @property
    def count(self) -> int:
        """The number of categories, c."""
        return len(self.names)

    @cached_property
    def lookup(self) -> NDArray[np.int16]:
        """The train id of every raw value, (65536,): IGNORE for a void value, -1 for an unknown one. Read-only."""
        lookup = np.full(65536, _UNKNOWN, dtype=np.int16)
        for raw, train in self.train_id.items():
            lookup[raw] = train
        lookup.setflags(write=False)
        return lookup

    @cached_property
    def label_ids(self) -> NDArray[np.uint16]:
        """The raw value of every category, (c,): the way back from train ids to label ids. Read-only."""
        raw = {train: value for value, train in sorted(self.train_id.items(), reverse=True) if train != IGNORE}
        label_ids = np.array([raw[train] for train in range(self.count)], dtype=np.uint16)
        label_ids.setflags(write=False)
        return label_ids

    def palette(self) -> NDArray[np.uint8]:
        """The RGB colour of every train id, (256, 3); black where there is no category."""
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[: self.count] = self.colors
        return palette


# (raw id, name, colour), in the order of the train ids 0 to 18.
_CITYSCAPES: tuple[tuple[int, str, _Color], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_CITYSCAPES_VOID = {raw: IGNORE for raw in (*range(35), 255)}

CITYSCAPES_19 = ClassTable(
    names=tuple(name for _, name, _ in _CITYSCAPES),
    colors=tuple(color for _, _, color in _CITYSCAPES),
    train_id=_CITYSCAPES_VOID | {raw: train for train, (raw, _, _) in enumerate(_CITYSCAPES)},
)
"""Cityscapes' 19 categories from its label ids; every other id from 0 to 34, and 255, is void. GTA5 shares the ids."""


def class_table(configuration: Configuration) -> ClassTable:
    """The categories of an experiment: Cityscapes' nineteen, or the listed ones in the order of the list."""
    if isinstance(configuration.classes, str):
        return CITYSCAPES_19
    void = {raw: IGNORE for raw in configuration.ignore}
    return ClassTable(
        names=tuple(entry.name for entry in configuration.classes),
        colors=tuple(entry.color for entry in configuration.classes),
        train_id=void | {entry.id: train for train, entry in enumerate(configuration.classes)},
    )
