"""Segmentations side by side, as in Figure 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from caguda.classes import ClassTable
from caguda.paper.charts import INK, MUTED, WIDTH, legend_below, save
from caguda.paper.escapes import in_picture

GAP, HEADING = 0.04, 0.36
"""Inches between two panels, and for the heading above the panels of a block."""
LETTER = 0.06
"""Inches of a wide letter of a heading."""
OPACITY = 0.62
"""The opacity of labels that are painted over an image."""
UNIT = (0.0, 1.0, 1.0, 0.0)
"""The extent of a panel on its axes: from (0, 0), the upper left corner, to (1, 1)."""


@dataclass(frozen=True)
class Block:
    """Rows of panels below one heading: every frame maps a column to an RGB image (H, W, 3) or labels (h, w), uint8.

    Labels are train ids or IGNORE, of any size; a column that a frame lacks reads "not known". `below` names the column
    whose image is drawn below the labels of its row.
    """

    title: str
    columns: Sequence[str]
    frames: Sequence[Mapping[str, NDArray[np.uint8]]]
    below: str | None = None


def colored(panel: NDArray[np.uint8], table: ClassTable) -> NDArray[np.uint8]:
    """The RGB picture (H, W, 3) of a panel: labels in the colours of their categories, ignore in black."""
    if panel.ndim == 3:
        return panel
    return table.palette()[panel]


def _panel(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Axes without decoration at (left, top, width, height) in inches from the top left corner."""
    left, top, width, height = box
    total_width, total_height = figure.get_size_inches()
    bottom = 1.0 - (top + height) / total_height
    axes = figure.add_axes((left / total_width, bottom, width / total_width, height / total_height))
    axes.set_axis_off()
    return axes


def _categories_in(blocks: Sequence[Block], table: ClassTable) -> list[int]:
    panels = [panel for block in blocks for frame in block.frames for panel in frame.values() if panel.ndim == 2]
    present = {int(category) for panel in panels for category in np.unique(panel)}
    return sorted(category for category in present if category < table.count)


def side_by_side(blocks: Sequence[Block], table: ClassTable, extra: Mapping[str, str] = MappingProxyType({})) -> Figure:
    """Segmentations side by side, one block below the other, and a legend of the categories in them.

    All panels have the size that the block with most columns needs, and the shape of the first panel. `extra` maps further
    entries of the legend to their colours.
    """
    first = next(panel for block in blocks for frame in block.frames for panel in frame.values())
    width = WIDTH / max(len(block.columns) for block in blocks) - GAP
    height = width * first.shape[0] / first.shape[1]
    categories = _categories_in(blocks, table)
    names = [*(table.names[category] for category in categories), "ignored or not assigned", *extra]
    per_row = max(1, int(WIDTH / (0.24 + 0.051 * max(len(in_picture(name)) for name in names[:-1] or names))))
    legend = 0.06 + 0.155 * math.ceil(len(names) / per_row)
    total = sum(HEADING + len(block.frames) * (height + GAP) + 2 * GAP for block in blocks) + legend
    figure = Figure(figsize=(WIDTH, total), dpi=200, facecolor="white")
    top = 0.0
    for block in blocks:
        _draw(figure, block, table, top, (width, height))
        top += HEADING + len(block.frames) * (height + GAP) + 2 * GAP
    colors = [*(table.colors[category] for category in categories), (0, 0, 0)]
    faces: list[Any] = [*((r / 255, g / 255, b / 255) for r, g, b in colors), *extra.values()]
    handles = [Patch(facecolor=face, edgecolor=MUTED, linewidth=0.4) for face in faces]
    legend_below(figure, handles, names, per_row)
    return figure


def _draw(figure: Figure, block: Block, table: ClassTable, top: float, size: tuple[float, float]) -> None:
    width, height = size
    left = (WIDTH - len(block.columns) * (width + GAP) + GAP) / 2
    _text(figure, WIDTH / 2, top + 0.12, block.title, "bold")
    for column, title in enumerate(block.columns):
        x = left + column * (width + GAP)
        _text(figure, x + width / 2, top + HEADING - 0.09, in_picture(title, int(width / LETTER)))
        for row, frame in enumerate(block.frames):
            axes = _panel(figure, (x, top + HEADING + row * (height + GAP), width, height))
            if title not in frame:
                axes.text(0.5, 0.5, "not known", ha="center", va="center", size=6.5, color=MUTED)
                continue
            panel, below = frame[title], frame.get(block.below or "")
            drawn: dict[str, Any] = {"aspect": "auto", "extent": UNIT}
            if panel.ndim == 2 and below is not None:
                axes.imshow(below, **drawn)
                drawn["alpha"] = OPACITY
            smooth = "nearest" if panel.ndim == 2 else "auto"
            axes.imshow(colored(panel, table), interpolation=smooth, **drawn)


def _text(figure: Figure, left: float, top: float, text: str, weight: str = "normal") -> None:
    width, height = figure.get_size_inches()
    style = {"ha": "center", "va": "center", "size": 7.5, "color": INK, "weight": weight, "parse_math": False}
    figure.text(left / width, 1.0 - top / height, text, style)


def write_figure(blocks: Sequence[Block], table: ClassTable, output: Path, text: Mapping[str, Any]) -> None:
    """Writes the segmentations as a PNG; see side_by_side and save."""
    save(side_by_side(blocks, table), output, text)
