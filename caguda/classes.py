"""Class tables: the categories of an experiment, with names, colours and raw label values. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from caguda.config import Configuration
from caguda.config_frames import Domain, LabelValues
from caguda.config_types import IGNORE as IGNORE  # noqa: PLC0414  re-exported
from caguda.errors import UserError
from caguda.registry import registered_class

UNWRITTEN = 254
"""The value of a store's maps where nothing was written yet, and of an unknown raw value; never a category."""

_Color = tuple[int, int, int]


class Decoder(Protocol):
    """Decodes label files: the layout of their set."""

    def decode_label(self, content: bytes, path: Path) -> NDArray[Any]:
        """The raw values (H, W), uint8 or uint16, of a label file's content; `path` is for messages."""


@dataclass(frozen=True)
class ClassTable:
    """The c categories of an experiment, and their values in the label files of a set. A train id is an index of `names`.

    `train_id` maps a raw value of a label file to its train id, 0 to c - 1, or to IGNORE if the value is void. Other values
    are unknown, and a label file with one is refused. `decoder` is the layout of the set; None: PNGs of one channel.
    """

    names: tuple[str, ...]
    colors: tuple[_Color, ...]
    train_id: Mapping[int, int]
    decoder: Decoder | None = None

    @property
    def count(self) -> int:
        """The number of categories, c."""
        return len(self.names)

    @property
    def pairs(self) -> list[list[int]]:
        """All raw values, ascending, each with its train id, as a JSON value."""
        return [list(pair) for pair in sorted(self.train_id.items())]

    @cached_property
    def lookup(self) -> NDArray[np.uint8]:
        """The train id of every raw value, (65536,): IGNORE for a void value, UNWRITTEN for an unknown one. Read-only."""
        lookup = np.full(65536, UNWRITTEN, dtype=np.uint8)
        for raw, train in self.train_id.items():
            lookup[raw] = train
        lookup.setflags(write=False)
        return lookup

    @cached_property
    def label_ids(self) -> NDArray[np.uint16]:
        """The raw value of every category, (c,), which maps train ids back to label ids. Read-only."""
        raw = {train: value for value, train in sorted(self.train_id.items(), reverse=True) if train != IGNORE}
        label_ids = np.array([raw[train] for train in range(self.count)], dtype=np.uint16)
        label_ids.setflags(write=False)
        return label_ids

    def palette(self) -> NDArray[np.uint8]:
        """The RGB colour of every train id, (256, 3); black where there is no category."""
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[: self.count] = self.colors
        return palette


class _Category(NamedTuple):
    """A category: its label id in Cityscapes and GTA5, its class id in SYNTHIA or None, its name and its colour."""

    label_id: int
    synthia: int | None
    name: str
    color: _Color


# In the order of Cityscapes' train ids, 0 to 18. SYNTHIA's terrain, truck and train (16, 18, 20) count as void.
_CITYSCAPES = (
    _Category(7, 3, "road", (128, 64, 128)),
    _Category(8, 4, "sidewalk", (244, 35, 232)),
    _Category(11, 2, "building", (70, 70, 70)),
    _Category(12, 21, "wall", (102, 102, 156)),
    _Category(13, 5, "fence", (190, 153, 153)),
    _Category(17, 7, "pole", (153, 153, 153)),
    _Category(19, 15, "traffic light", (250, 170, 30)),
    _Category(20, 9, "traffic sign", (220, 220, 0)),
    _Category(21, 6, "vegetation", (107, 142, 35)),
    _Category(22, None, "terrain", (152, 251, 152)),
    _Category(23, 1, "sky", (70, 130, 180)),
    _Category(24, 10, "person", (220, 20, 60)),
    _Category(25, 17, "rider", (255, 0, 0)),
    _Category(26, 8, "car", (0, 0, 142)),
    _Category(27, None, "truck", (0, 0, 70)),
    _Category(28, 19, "bus", (0, 60, 100)),
    _Category(31, None, "train", (0, 80, 100)),
    _Category(32, 12, "motorcycle", (0, 0, 230)),
    _Category(33, 11, "bicycle", (119, 11, 32)),
)
_WITHOUT: dict[str, tuple[str, ...]] = {
    "cityscapes19": (),
    "cityscapes16": ("terrain", "truck", "train"),
    "cityscapes13": ("terrain", "truck", "train", "wall", "fence", "pole"),
}
# All known raw values, and the value of each category. The licence plate, -1, is 255 in 8 bits, and 34 in GTA5.
# SYNTHIA's 22 is lane marking.
_RAW: dict[LabelValues, tuple[tuple[int, ...], list[int | None]]] = {
    "label ids": ((*range(35), 255), [row.label_id for row in _CITYSCAPES]),
    "train ids": ((*range(19), 255), list(range(19))),
    "synthia ids": (tuple(range(23)), [row.synthia for row in _CITYSCAPES]),
}


@cache
def _named_table(classes: str, label_values: LabelValues, decoder: Decoder | None) -> ClassTable:
    """The table of a name in `classes` for label files with these values. The other categories are void."""
    known, values = _RAW[label_values]
    kept = [(raw, row) for raw, row in zip(values, _CITYSCAPES, strict=True) if row.name not in _WITHOUT[classes]]
    return ClassTable(
        names=tuple(row.name for _, row in kept),
        colors=tuple(row.color for _, row in kept),
        train_id=dict.fromkeys(known, IGNORE) | {raw: train for train, (raw, _) in enumerate(kept) if raw is not None},
        decoder=decoder,
    )


CITYSCAPES_19 = _named_table("cityscapes19", "label ids", None)
"""Cityscapes' 19 categories from its label ids; every other id from 0 to 34, and 255, is void. GTA5 shares the ids."""


def class_table(configuration: Configuration, domain: Domain | None = None) -> ClassTable:
    """The class table of an experiment for the label files of a set.

    A table by name is for Cityscapes' label ids, its train ids or SYNTHIA's ids, as the layout of the set says, or for label
    ids without a set. A listed table has the order of the list, and the same raw values in every set. UserError if the
    set's layout is unknown, as that of a plugin that was not loaded.
    """
    layout = None if domain is None else registered_class("layout", domain.layout)()
    if isinstance(configuration.classes, str):
        values = "label ids" if layout is None else layout.label_values(domain)
        if values not in _RAW:
            raise UserError(f"{type(layout).__name__}.label_values: must be one of {', '.join(_RAW)}, found {values!r}")
        return _named_table(configuration.classes, values, layout)
    void = {raw: IGNORE for raw in configuration.ignore}
    return ClassTable(
        names=tuple(entry.name for entry in configuration.classes),
        colors=tuple(entry.color for entry in configuration.classes),
        train_id=void | {entry.id: train for train, entry in enumerate(configuration.classes)},
        decoder=layout,
    )


def smaller_sets(names: tuple[str, ...]) -> dict[int, list[int]]:
    """The train ids of Cityscapes' 16 and 13 categories in its 19, or of the 13 in its 16, by the number of categories.

    Empty for every other table: a mean over fewer categories is reported only where that is a convention.
    """
    tables = [_named_table(classes, "label ids", None).names for classes in _WITHOUT]
    if names not in tables:
        return {}
    smaller = tables[tables.index(names) + 1 :]
    return {len(kept): [names.index(name) for name in kept] for kept in smaller}
