"""Pictures of `inspect`: precision against coverage, over all thresholds of the paper's rules and of stored labels."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from caguda.artifacts.label_statistics import float16_bins, precision_and_coverage
from caguda.paper.charts import FURTHER_COLORS, GRID, INK, style
from caguda.paper.escapes import in_picture
from caguda.viewer.charts import RULE_COLORS, label_axes, name_sides, title, titled_figure
from caguda.viewer.tables import Inspection

RULE_NAMES = {"anchor": "by anchors, another margin", "probability": "by probability, another P0"}
LEAST_COVERAGE = 0.005
"""The share of pixels from which a curve is drawn: below, its precision is that of a few pixels."""
Verdicts = Mapping[str, Int64[np.ndarray, "2 v"]]
"""For `anchor` the counts of wrong and right pixels by the bit pattern of d2 - d1, for `probability` by that of p."""


def _draw_curves(axes: Axes, verdicts: Verdicts) -> dict[str, np.ndarray]:
    """Draws the curve of each rule; returns coverage and precision in percent at every bin, (v, 2) by rule."""
    points = {}
    for rule, counts in verdicts.items():
        precision, coverage = precision_and_coverage(*counts)
        points[rule] = 100 * np.stack([coverage, precision], axis=1)
        shown = points[rule][coverage > LEAST_COVERAGE]
        axes.plot(*shown.T, color=RULE_COLORS[rule], linewidth=1.5, label=RULE_NAMES[rule])
    return points


def _finish(axes: Axes) -> None:
    style(axes, "Precision against coverage, over pixels with a truth", "y")
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_xlim(0, 100)
    axes.set_ylim(top=100.5)
    label_axes(axes, "coverage: labelled, % of pixels", "precision: right, % of labelled pixels")
    axes.legend(fontsize=6.5, frameon=False, labelcolor=INK, loc="lower left")


def threshold_curves(inspection: Inspection, verdicts: Verdicts) -> Figure:
    """The curves of both rules, with marks at the stored and the other thresholds."""
    figure = titled_figure(title(inspection), 4.0)
    axes = figure.add_subplot()
    for rule, points in _draw_curves(axes, verdicts).items():
        key, trials, name = ("margin", "margins", "margin") if rule == "anchor" else ("p0", "p0s", "P0")
        side, color = (-1, RULE_COLORS[rule]) if rule == "anchor" else (1, RULE_COLORS[rule])
        stored = (inspection["configured"].get(key, inspection[key]), inspection[key], " (stored)")
        for value, threshold, note in (
            stored,
            *((trial["value"], trial["threshold"], "") for trial in inspection[trials]),
        ):
            at, precision = points[int(float16_bins(np.asarray(threshold, np.float32)))].tolist()
            axes.scatter(at, precision, s=34 if note else 16, color=color, edgecolors="white", zorder=3)
            axes.annotate(f"{name} {value:g}{note}", (at, precision), (side * 4, side * 4), size=6,
                          ha="left" if side > 0 else "right", va="bottom" if side > 0 else "top",
                          textcoords="offset points", color=color)  # fmt: skip
    _finish(axes)
    return figure


def rule_curves(inspection: Inspection, verdicts: Verdicts) -> Figure:
    """The curves of both rules, and a marker with its name for the stored labels of every rule that have a precision."""
    figure = titled_figure(title(inspection), 4.6)
    axes = figure.add_subplot()
    drawn = [points[points[:, 0] > 100 * LEAST_COVERAGE, 1] for points in _draw_curves(axes, verdicts).values()]
    rules = {name: row for name, row in inspection["rules"].items() if row["precision"] is not None}
    points = np.array([[100 * row["coverage"], 100 * row["precision"]] for row in rules.values()]).reshape(-1, 2)
    least = min((values.min() for values in (*drawn, points[:, 1]) if len(values)), default=0.0)
    kinds = list(dict.fromkeys(row["rule"]["name"] for row in rules.values()))
    further = [kind for kind in kinds if kind not in RULE_COLORS]
    colors = RULE_COLORS | {kind: FURTHER_COLORS[k % len(FURTHER_COLORS)] for k, kind in enumerate(further)}
    names = [in_picture(name) for name in rules]
    in_points = points * [4.5, 250 / max(100.5 - least, 1.0)]  # typographic points, about
    sides = name_sides(in_points, names)
    for row, name, (at, precision), (x, y) in zip(rules.values(), names, points.tolist(), sides, strict=True):
        color = colors[row["rule"]["name"]]
        axes.scatter(at, precision, s=34, color=color, edgecolors="white", zorder=3)
        axes.annotate(name, (at, precision), (5 * x, 4 * y), size=6, color=color, textcoords="offset points", parse_math=False,
                      ha=("center", "left", "right")[x], va=("center", "bottom", "top")[y])  # fmt: skip
    _finish(axes)
    axes.set_ylim(bottom=max(0.0, least - 3))
    return figure
