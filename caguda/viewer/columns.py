"""Labels of one frame by several rules or models beside each other: their pictures, and where two of them differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caguda.classes import IGNORE, ClassTable
from caguda.paper.charts import PART_COLORS, save
from caguda.paper.figures import Block, side_by_side
from caguda.paper.pictures import description
from caguda.viewer.overlays import painted

DISAGREEMENTS = {
    "same": PART_COLORS["not assigned"],
    "differ: the first right": PART_COLORS["both"],
    "differ: the second right": PART_COLORS["probability only"],
    "differ: neither right": "#b3372f",
    "differ: truth not known": "#6b7280",
}
"""The values of `disagreement`, in order, and their colours."""
PANELS = ("image", "truth", "difference")
"""The titles of the panels beside the columns."""
PER_ROW = 3
"""The most columns beside each other in a picture."""


@dataclass(frozen=True, eq=False)
class ComparedFrame:
    """An image and its labels by several rules or models, all of one size (h, w), as its truth. IGNORE is no label.

    If `image` is None, `missing` is the reason.
    """

    name: str
    image: NDArray[np.uint8] | None
    missing: str
    truth: NDArray[np.uint8] | None
    labels: Sequence[NDArray[np.uint8]]


def disagreement(
    first: NDArray[np.uint8], second: NDArray[np.uint8], truth: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """The comparison of two labels at every pixel (h, w), as an index into DISAGREEMENTS. No label is a label too."""
    truth = np.full_like(first, IGNORE) if truth is None else truth
    kinds = [first == second, truth == IGNORE, first == truth, second == truth]
    return np.select(kinds, [np.uint8(kind) for kind in (0, 4, 1, 2)], np.uint8(3))


def write_columns_sheet(
    frame: ComparedFrame, titles: Sequence[str], table: ClassTable, heading: str, output: Path
) -> None:
    """Writes a PNG of a frame: image and truth, the labels of every column over the image, and where two differ.

    No title may be one of PANELS.
    """
    row: dict[str, NDArray[np.uint8]] = dict(zip(titles, frame.labels, strict=True))
    row |= {} if frame.image is None else {"image": frame.image}
    row |= {} if frame.truth is None else {"truth": frame.truth}
    blocks = [Block(heading, ("image", "truth"), [row], "image")]
    for start in range(0, len(titles), PER_ROW):
        blocks.append(Block("" if start else "Labels", titles[start : start + PER_ROW], [row], "image"))
    extra: Mapping[str, str] = {}
    if len(titles) == 2:
        extra = DISAGREEMENTS
        row["difference"] = painted(disagreement(frame.labels[0], frame.labels[1], frame.truth), DISAGREEMENTS)
        blocks.append(Block("Where the two differ", ("difference",), [row]))
    save(side_by_side(blocks, table, extra), output, description("view"))
