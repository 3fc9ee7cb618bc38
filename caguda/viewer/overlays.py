"""The pictures of `view`: the pseudo-labels of one target image, their differences, and small objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from caguda.artifacts.label_statistics import ImageLabels
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
"""The values of `difference`, in order, and their colours."""
RARE, SMALLEST, MARKS = 0.05, 3, 8
"""Small objects: the largest share of an image for their category, the fewest pixels, and the most that are marked."""


@dataclass(frozen=True, eq=False)
class ViewedFrame:
    """A target image and its pseudo-labels by one or two labellings.

    `truth` has the train ids at the resolution of each labelling. If `image` is None, `missing` is the reason.
    """

    name: str
    image: NDArray[np.uint8] | None
    missing: str
    truth: Sequence[NDArray[np.uint8]] | None
    labels: Sequence[ImageLabels]


def agreement(label: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float | None:
    """The share of right labels (h, w) among the pixels with a label and a truth (h, w); None without such pixels."""
    known = (label != IGNORE) & (truth != IGNORE)
    return float(np.mean(label[known] == truth[known])) if known.any() else None


@dataclass(frozen=True)
class Mark:
    """A circle around a small object: centre and size as fractions of the picture's width and height."""

    x: float
    y: float
    width: float
    height: float


def difference(labels: ImageLabels) -> NDArray[np.uint8]:
    """The comparison of labels by anchors and by probability at every pixel (h, w), as an index into DIFFERENCES."""
    differ = (labels.active == 3) & (labels.nearest_anchor != labels.predicted)
    return np.where(differ, 4, labels.active).astype(np.uint8)


def regions(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The 4-connected regions of equal values (h, w): for every pixel the flat index of the first pixel of its region."""
    across, down = values[:, 1:] == values[:, :-1], values[1:] == values[:-1]
    index = np.arange(values.size).reshape(values.shape)
    while True:
        smaller = index.copy()
        for a, b, equal in ((smaller[:, :-1], smaller[:, 1:], across), (smaller[:-1], smaller[1:], down)):
            np.minimum(a, b, out=a, where=equal)
            np.minimum(b, a, out=b, where=equal)
        smaller = smaller.ravel()[smaller]
        if (smaller == index).all():
            return index
        index = smaller


def small_objects(labels: ImageLabels) -> list[Mark]:
    """Circles around small objects that are active by anchors and not by probability, as in Figure 2b; largest first.

    An object is a region of SMALLEST pixels or more with one label by anchors. At most RARE of all pixels are nearest to the
    anchor of its category, and at most half of its own pixels are active by probability. At most MARKS are returned.
    """
    height, width = labels.active.shape
    rare = np.bincount(labels.nearest_anchor.ravel(), minlength=256) <= RARE * labels.active.size
    rare[IGNORE] = False
    region = regions(labels.anchor_label)
    sizes = np.bincount(region.ravel(), minlength=region.size)
    probable = np.bincount(region.ravel(), weights=labels.probability_label.ravel() != IGNORE, minlength=region.size)
    small = rare[labels.anchor_label.ravel()] & (sizes >= SMALLEST) & (probable <= sizes / 2)
    marks = []
    for pixel in sorted(np.flatnonzero(small), key=lambda pixel: (-sizes[pixel], pixel))[:MARKS]:
        rows, columns = np.nonzero(region == pixel)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        across = 1.2 * float(np.hypot(bottom - top, right - left)) + 2
        marks.append(Mark((left + right) / 2 / width, (top + bottom) / 2 / height, across / width, across / height))
    return marks


def painted(differences: NDArray[np.uint8], colors: Mapping[str, str]) -> NDArray[np.uint8]:
    """Indices into some colours (h, w), such as DIFFERENCES, as an RGB picture (4 h, 4 w, 3)."""
    palette = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors.values()], np.uint8)
    large: NDArray[np.uint8] = palette[differences].repeat(4, axis=0).repeat(4, axis=1)
    return large


def write_sheet(frame: ViewedFrame, table: ClassTable, heading: str, output: Path) -> None:
    """Writes a PNG of a frame: image and truth, labels by anchors and by probability as in Figure 2b, their difference."""
    labels = frame.labels[0]
    row: Mapping[str, NDArray[np.uint8]] = {
        **({} if frame.image is None else {"image": frame.image}),
        **({} if frame.truth is None else {"truth": frame.truth[0]}),
        "by probability": labels.probability_label,
        "by anchors": labels.anchor_label,
        "difference": painted(difference(labels), DIFFERENCES),
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
