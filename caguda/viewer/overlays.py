"""The pseudo-labels of one target image as pictures: over the image, compared, and small objects marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from caguda.artifacts.label_arrays import LabelArrays
from caguda.classes import IGNORE, ClassTable
from caguda.paper.charts import PART_COLORS, save
from caguda.paper.figures import Block, side_by_side
from caguda.paper.pictures import description

DIFFERENCES = {
    "neither": PART_COLORS["not assigned"],
    "anchors only": PART_COLORS["anchors only"],
    "probability only": PART_COLORS["probability only"],
    "both agree": PART_COLORS["both"],
    "both differ": "#b3372f",
}
"""What the two kinds of labels say of a pixel, and its colour; the values of `difference`, in order."""
RARE, SMALLEST, MARKS = 0.05, 3, 8
"""Of a category that is nearest to at most this share of an image, regions of so many pixels; marked at most."""


@dataclass(frozen=True, eq=False)
class ViewedFrame:
    """A target image as far as it is known, and what each of some label stores says of it.

    `truth` has the train ids at the resolution of each store. `missing` says why there is no image, where there is none.
    """

    name: str
    image: NDArray[np.uint8] | None
    missing: str
    truth: Sequence[NDArray[np.uint8]] | None
    labels: Sequence[LabelArrays]


def agreement(label: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float | None:
    """The share of labels (h, w) that are the truth (h, w), where both are known; None where there is no such pixel."""
    both = (label != IGNORE) & (truth != IGNORE)
    return float(np.mean(label[both] == truth[both])) if both.any() else None


@dataclass(frozen=True)
class Mark:
    """A circle around a small object, in shares of a picture's width and height from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


def difference(labels: LabelArrays) -> NDArray[np.uint8]:
    """What the labels by anchors and by probability say of every pixel (h, w): a place in DIFFERENCES."""
    apart = (labels.active == 3) & (labels.nearest_anchor != labels.predicted)
    return np.where(apart, 4, labels.active).astype(np.uint8)


def regions(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The region of every pixel (h, w), named by its first pixel in reading order: 4-connected pixels of one value."""
    across, down = values[:, 1:] == values[:, :-1], values[1:] == values[:-1]
    index = np.arange(values.size).reshape(values.shape)
    while True:
        found = index.copy()
        for one, other, same in ((found[:, :-1], found[:, 1:], across), (found[:-1], found[1:], down)):
            np.minimum(one, other, out=one, where=same)
            np.minimum(other, one, out=other, where=same)
        found = found.ravel()[found]
        if (found == index).all():
            return index
        index = found


def small_objects(labels: LabelArrays) -> list[Mark]:
    """Circles around small objects that anchors activate and the probability misses, as in Figure 2b; largest first.

    An object is a region with one label by anchors, of a category that is nearest to at most RARE of all pixels. It is
    missed if at most half of its pixels are active by probability.
    """
    height, width = labels.active.shape
    rare = np.bincount(labels.nearest_anchor.ravel(), minlength=256) <= RARE * labels.active.size
    rare[IGNORE] = False
    region = regions(labels.anchor_label)
    sizes = np.bincount(region.ravel(), minlength=region.size)
    probable = np.bincount(region.ravel(), weights=labels.probability_label.ravel() != IGNORE, minlength=region.size)
    wanted = rare[labels.anchor_label.ravel()] & (sizes >= SMALLEST) & (probable <= sizes / 2)
    first = sorted(np.flatnonzero(wanted & (sizes > 0)), key=lambda name: (-sizes[name], name))[:MARKS]
    marks = []
    for name in first:
        rows, columns = np.nonzero(region == name)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        across = 1.2 * float(np.hypot(bottom - top, right - left)) + 2
        marks.append(Mark((left + right) / 2 / width, (top + bottom) / 2 / height, across / width, across / height))
    return marks


def painted(differences: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The RGB picture (4 h, 4 w, 3) of what `difference` returns."""
    palette = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in DIFFERENCES.values()], np.uint8)
    large: NDArray[np.uint8] = palette[differences].repeat(4, axis=0).repeat(4, axis=1)
    return large


def write_sheet(frame: ViewedFrame, table: ClassTable, heading: str, output: Path) -> None:
    """Writes a PNG of a frame: image and truth, both kinds of labels as in Figure 2b, and their difference."""
    labels = frame.labels[0]
    row: Mapping[str, NDArray[np.uint8]] = {
        **({} if frame.image is None else {"image": frame.image}),
        **({} if frame.truth is None else {"truth": frame.truth[0]}),
        "by probability": labels.probability_label,
        "by anchors": labels.anchor_label,
        "difference": painted(difference(labels)),
    }
    second = "Pseudo-labels as in Figure 2b; circles: small objects that anchors alone activate"
    blocks = [
        Block(heading, ("image", "truth"), [row], "image"),
        Block(second, ("by probability", "by anchors"), [row], "image"),
        Block("Where the two kinds of labels differ", ("difference",), [row]),
    ]
    figure = side_by_side(blocks, table, DIFFERENCES)
    for axes in figure.axes[2:4]:
        for mark in small_objects(labels):
            axes.add_patch(
                Ellipse((mark.x, mark.y), mark.width, mark.height, fill=False, edgecolor="#ff2d2d", linewidth=1.1)
            )
    save(figure, output, description("view"))
