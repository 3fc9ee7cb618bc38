"""Pictures of `inspect`: margins, categories, anchors and features."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from caguda.artifacts.anchors import Anchors
from caguda.artifacts.label_statistics import values_of_bins
from caguda.artifacts.ownership import clear_folder
from caguda.classes import ClassTable
from caguda.errors import UserError
from caguda.paper.charts import GRID, INK, MUTED, WIDTH, disable_math, save, style
from caguda.paper.escapes import in_picture
from caguda.paper.pictures import description
from caguda.viewer.tables import Inspection, margin_text, percent

BINS, SHOWN = 90, 0.998
RIGHT, WRONG, PASSIVE = "#2466a8", "#d9480f", "#cbd5e1"
RULE_COLORS = {"anchor": "#2466a8", "probability": "#e39a3b"}
LONGEST_NAME = 62
_BEHIND = {"facecolor": "white", "alpha": 0.8, "pad": 0.8, "linewidth": 0}


def title(inspection: Inspection) -> str:
    """The title of all pictures: the file, cut to LONGEST_NAME, its thresholds if it has any, and its number of images."""
    name = str(inspection["store"])
    name = name if len(name) <= LONGEST_NAME else "…" + name[-LONGEST_NAME:]
    thresholds = f"{margin_text(inspection)}; P0 {inspection['p0']:g}; " if "p0" in inspection else ""
    return f"{name}\n{thresholds}{inspection['images']:,} images"


def write_pictures(pictures: Mapping[str, Callable[[], Figure]], folder: Path) -> dict[str, str | None]:
    """Draws pictures into a folder, in place of earlier ones. Returns for each name None, or why it could not be drawn."""
    clear_folder(folder, ("*.png",), "inspect")
    reasons: dict[str, str | None] = {}
    for name, draw in pictures.items():
        try:
            save(draw(), folder / name, description("inspect"))
            reasons[name] = None
        except UserError as error:
            reasons[name] = str(error)
    return reasons


def titled_figure(heading: str, height: float) -> Figure:
    """An empty figure of some inches of height below a heading."""
    figure = Figure(figsize=(WIDTH, height), dpi=200, facecolor="white", layout="constrained")
    figure.suptitle(heading, size=7, color=MUTED, x=0.01, ha="left", parse_math=False)
    return figure


def label_axes(axes: Axes, x: str, y: str = "") -> None:
    """Gives both axes of a chart their titles."""
    axes.set_xlabel(x, size=7, color=MUTED)
    axes.set_ylabel(y, size=7, color=MUTED)


def margins(
    heading: str,
    counts: Int64[np.ndarray, " v"],
    verdicts: Int64[np.ndarray, "2 v"] | None,
    margin: float,
    marks: Sequence[tuple[str, float]],
) -> Figure:
    """The histogram of d2 - d1 over all pixels, with vertical lines at `margin` and at `marks` (name, threshold).

    `counts` and `verdicts` are by the bit pattern of a float16. With `verdicts` (wrong, right), each bar is
    divided into right and wrong nearest anchors.
    """
    values = values_of_bins().astype(np.float64)
    shown = np.isfinite(values) & (counts.cumsum() <= SHOWN * counts.sum())
    top = max([values[shown].max(initial=0.0), 1.2 * margin, *(1.05 * at for _, at in marks), 1e-6])
    edges = np.linspace(0.0, top, BINS + 1)
    inside = values <= top
    parts = {"pixels": counts} if verdicts is None else {
        "nearest anchor is right": verdicts[1],
        "wrong": verdicts[0],
        "truth void or not known": counts - verdicts.sum(0),
    }  # fmt: skip
    figure = titled_figure(heading, 3.1)
    axes = figure.add_subplot()
    floor = np.zeros(BINS)
    for (name, part), color in zip(parts.items(), (RIGHT, WRONG, PASSIVE), strict=False):
        share = 100 * np.histogram(values[inside], edges, weights=part[inside])[0] / counts.sum()
        if share.any():
            axes.bar(edges[:-1], share, np.diff(edges), floor, align="edge", color=color, label=name, linewidth=0)
        floor += share
    axes.axvline(margin, color=INK, linewidth=1.2, label=f"margin {margin:.4g}: active to the right")
    for number, (name, at) in enumerate(marks):
        axes.axvline(at, color=MUTED, linewidth=0.9, linestyle="--")
        axes.annotate(name, (at, 0.98 - 0.065 * (number % 4)), (3, 0), size=6, color=INK, va="top", bbox=_BEHIND,
                      xycoords=axes.get_xaxis_transform(), textcoords="offset points")  # fmt: skip
    beyond = counts[~inside].sum() / counts.sum()
    style(axes, "Margins of all pixels", "y")
    axes.set_xlim(0, top)
    note = f"   (beyond the right edge: {percent(float(beyond), 2)}%)" if beyond else ""
    label_axes(axes, f"d2 - d1{note}", "% of pixels per bar")
    figure.legend(fontsize=6.5, frameon=False, labelcolor=INK, loc="outside lower center", ncols=4)
    return figure


def categories(heading: str, inspection: Inspection, table: ClassTable) -> Figure:
    """Bars for every category: labelled pixels, active share and, if a truth is known, precision and recall.

    The upper bar is by anchors, the lower and paler one by probability.
    """
    rows = inspection["per_category"]
    panels = {
        "labelled, % (log)": [[100 * row[rule] for row in rows] for rule in RULE_COLORS],
        "active, % of its pixels": [
            [100 * row[rule] / row[pixels] if row[pixels] else np.nan for row in rows]
            for rule, pixels in (("anchor", "nearest"), ("probability", "predicted"))
        ],
    }
    if inspection["accuracy"]:
        for score in ("precision", "recall"):
            scores = [[row[score] for row in inspection["accuracy"][rule]["per_category"]] for rule in RULE_COLORS]
            panels[f"{score}, %"] = [[np.nan if v is None else 100 * v for v in values] for values in scores]
    figure = titled_figure(heading, 1.0 + 0.19 * len(rows))
    positions, colors = np.arange(len(rows)), table.palette()[: len(rows)] / 255
    pale = [(*color, 0.45) for color in colors]
    first: Axes | None = None
    for column, (name, bars) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), column + 1, sharey=first)
        first = first or axes
        axes.barh(positions - 0.2, bars[0], 0.38, color=colors, edgecolor=INK, linewidth=0.3)
        axes.barh(positions + 0.2, bars[1], 0.38, color=pale, edgecolor=MUTED, linewidth=0.3)
        style(axes, name, "x")
        axes.tick_params(axis="y", labelleft=column == 0, labelcolor=INK)
        if column == 0:
            axes.set_yticks(positions, [in_picture(row["name"]) for row in rows], parse_math=False)
            axes.set_xscale("symlog", linthresh=0.1, linscale=0.4)
            axes.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
            axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 100)
    figure.supxlabel("upper bar: by anchors; lower, paler bar: by probability", size=6.5, color=MUTED)
    return figure


def distances(heading: str, anchors: Anchors, table: ClassTable, margin: float) -> Figure:
    """The heat map of the distances between anchors; absent categories are grey.

    Distances up to the margin are framed. Since d2 - d1 is at most the distance between the two anchors, no pixel with these
    as its closest ones is active.
    """
    c = len(anchors.pairwise)
    figure = titled_figure(heading, 1.3 + 0.27 * c)
    axes = figure.add_subplot()
    shown = np.ma.masked_invalid(anchors.pairwise)
    image = axes.imshow(shown, cmap=colormaps["viridis"].with_extremes(bad=GRID), vmin=0)
    middle = 0.55 * float(shown.max() if shown.count() else 1.0)
    for (y, x), distance in np.ndenumerate(anchors.pairwise):
        if y == x or not np.isfinite(distance):
            continue
        color = "white" if distance < middle else INK
        axes.text(x, y, f"{distance:.1f}", size=5, ha="center", va="center", color=color)
        if distance <= margin:
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=WRONG, linewidth=1.2))
    mean = f"mean {anchors.mean_distance:.4g}"
    style(axes, f"Distances between anchors, {mean}; framed: within the margin; grey: absent", "x")
    axes.grid(visible=False)
    names = [in_picture(name) for name in table.names]
    axes.set_xticks(range(c), names, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(c), names, parse_math=False)
    axes.tick_params(labelcolor=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=6.5, labelcolor=MUTED)
    bar.outline.set_visible(False)
    return figure


def principal_axes(
    points: Float32[np.ndarray, "p d"],
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "d 2"], Float64[np.ndarray, " 2"]]:
    """PCA: the mean of points, their first two principal axes, and the share of the variance along each.

    Each axis has the sign that makes its largest component positive.
    """
    mean = points.mean(0, dtype=np.float64)
    _, sizes, directions = np.linalg.svd(points - mean, full_matrices=False)
    first = directions[:2]
    signs = np.sign(first[np.arange(len(first)), np.abs(first).argmax(1)])
    return mean, (first * signs[:, None]).T, sizes[:2] ** 2 / (sizes**2).sum()


def projection(
    heading: str,
    anchors: Anchors,
    features: Float32[np.ndarray, "p d"],
    nearest: UInt8[np.ndarray, " p"],
    active: Bool[np.ndarray, " p"],
    table: ClassTable,
) -> Figure:
    """Anchors and features, projected on the first two principal axes of the anchors.

    Active features have the colour of their nearest anchor, the others are grey. UserError for fewer than two anchors.
    """
    present = np.flatnonzero(anchors.present)
    if len(present) < 2:
        raise UserError("at least two anchors are needed to draw features on a plane, found fewer")
    mean, plane, explained = principal_axes(anchors.vectors[present])
    dots, crosses = (features - mean) @ plane, (anchors.vectors[present] - mean) @ plane
    figure = titled_figure(heading, 5.6)
    axes = figure.add_subplot()
    palette = table.palette() / 255
    axes.scatter(dots[~active, 0], dots[~active, 1], s=3, color=PASSIVE, linewidths=0)
    axes.scatter(dots[active, 0], dots[active, 1], s=4, c=palette[nearest[active]], linewidths=0, alpha=0.7)
    names = [in_picture(table.names[category]) for category in present]
    point = max(np.ptp(np.concatenate([dots, crosses]), axis=0) / (440, 270))  # a typographic point, in data units
    sides = name_sides(crosses / point, names)
    for category, name, at, (x, y) in zip(present.tolist(), names, crosses, sides, strict=True):
        axes.scatter(at[0], at[1], s=60, color=palette[category], label=name, edgecolors="white", linewidths=1.2,
                     zorder=4)  # fmt: skip
        axes.annotate(name, at, (5 * x, 4 * y), textcoords="offset points", size=6.5, color=INK, zorder=3,
                      ha=("center", "left", "right")[x], va=("center", "bottom", "top")[y], parse_math=False, bbox=_BEHIND)  # fmt: skip
    style(axes, f"Anchors and {len(features):,} features of target frames; grey: not active", "y")
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_aspect("equal", adjustable="datalim")
    titles = (f"{name} principal axis of the anchors ({100 * share:.0f}% of their variance)"
            for name, share in zip(("first", "second"), explained, strict=True))  # fmt: skip
    label_axes(axes, *titles)
    disable_math(figure.legend(fontsize=6.5, frameon=False, labelcolor=INK, loc="outside lower center", ncols=7))
    return figure


_SIDES = [(x, y) for x in (1, -1, 0) for y in (1, -1, 0) if (x, y) != (0, 0)]


def name_sides(points: Float64[np.ndarray, "c 2"], names: Sequence[str]) -> list[tuple[int, int]]:
    """The side (x, y) of each marker, -1 to 1 each, on which its name covers the least of the markers and of earlier names.

    `points` are the markers' positions in typographic points.
    """
    taken, chosen = [Bbox([point - [11, 9], point + [11, 9]]) for point in points], []
    for point, name in zip(points, names, strict=True):
        half = np.array([1.9 * len(name), 4.5])
        middles = {side: point + side * (half + [6, 4]) for side in _SIDES}
        boxes = {side: Bbox([middle - half, middle + half]) for side, middle in middles.items()}
        chosen.append(min(_SIDES, key=lambda side: sum(_overlap(boxes[side], box) for box in taken)))
        taken.append(boxes[chosen[-1]])
    return chosen


def _overlap(a: Bbox, b: Bbox) -> float:
    """The area of the intersection of two boxes."""
    common = Bbox.intersection(a, b)
    return 0.0 if common is None else float(common.width * common.height)
