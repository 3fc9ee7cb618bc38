"""Pictures of a label store: margins, categories, anchors, features, and precision against coverage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from caguda.artifacts.anchors import Anchors
from caguda.artifacts.label_arrays import pattern, precision_and_coverage, values_of_patterns
from caguda.classes import ClassTable
from caguda.errors import UserError
from caguda.paper.charts import GRID, INK, MUTED, WIDTH, as_they_are, style
from caguda.paper.escapes import in_picture
from caguda.viewer.tables import margin_text, percent

BINS, SHOWN = 90, 0.998
RIGHT, WRONG, UNKNOWN, PASSIVE = "#2466a8", "#d9480f", "#5bb8ad", "#cbd5e1"
RULE_COLORS = {"anchor": "#2466a8", "probability": "#e39a3b"}
RULE_NAMES = {"anchor": "by anchors, another margin", "probability": "by probability, another P0"}
LONGEST_NAME = 62
_BEHIND = {"facecolor": "white", "alpha": 0.8, "pad": 0.8, "linewidth": 0}
Found = Mapping[str, Any]


def title(found: Found) -> str:
    """Which store a picture shows, and its thresholds."""
    name = str(found["store"])
    name = name if len(name) <= LONGEST_NAME else "…" + name[-LONGEST_NAME:]
    return f"{name}\n{margin_text(found)}; P0 {found['p0']:g}; {found['images']:,} images"


def _figure(heading: str, height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), dpi=200, facecolor="white", layout="constrained")
    figure.suptitle(heading, size=7, color=MUTED, x=0.01, ha="left", parse_math=False)
    return figure


def _label(axes: Axes, x: str, y: str = "") -> None:
    axes.set_xlabel(x, size=7, color=MUTED)
    axes.set_ylabel(y, size=7, color=MUTED)


def _color(table: ClassTable, category: int) -> tuple[float, float, float]:
    r, g, b = table.colors[category]
    return r / 255, g / 255, b / 255


def margins(
    heading: str,
    counts: Int64[np.ndarray, " v"],
    verdicts: Int64[np.ndarray, "2 v"] | None,
    margin: float,
    marks: Sequence[tuple[str, float]],
) -> Figure:
    """The histogram of d2 - d1 over all pixels by its bit pattern, with the threshold and other ones.

    With `verdicts` (wrong, right), the bars show which nearest anchors are the truth's.
    """
    values = values_of_patterns().astype(np.float64)
    shown = np.isfinite(values) & (counts.cumsum() <= SHOWN * counts.sum())
    top = max([values[shown].max(initial=0.0), 1.2 * margin, *(1.05 * at for _, at in marks), 1e-6])
    edges = np.linspace(0.0, top, BINS + 1)
    inside = values <= top
    parts = {"pixels": counts} if verdicts is None else {
        "nearest anchor is right": verdicts[1],
        "wrong": verdicts[0],
        "truth void or not known": counts - verdicts.sum(0),
    }  # fmt: skip
    figure = _figure(heading, 3.1)
    axes = figure.add_subplot()
    floor = np.zeros(BINS)
    for (name, part), color in zip(parts.items(), (RIGHT, WRONG, PASSIVE), strict=False):
        share = 100 * np.histogram(values[inside], edges, weights=part[inside])[0] / counts.sum()
        if share.any():
            axes.bar(edges[:-1], share, np.diff(edges), floor, align="edge", color=color, label=name, linewidth=0)
        floor += share
    axes.axvline(margin, color=INK, linewidth=1.2, label=f"margin {margin:.4g}: active to the right")
    for place, (name, at) in enumerate(marks):
        axes.axvline(at, color=MUTED, linewidth=0.9, linestyle="--")
        axes.annotate(name, (at, 0.98 - 0.065 * (place % 4)), (3, 0), size=6, color=INK, va="top", bbox=_BEHIND,
                      xycoords=axes.get_xaxis_transform(), textcoords="offset points")  # fmt: skip
    beyond = counts[~inside].sum() / counts.sum()
    style(axes, "Margins of all pixels", "y")
    axes.set_xlim(0, top)
    _label(
        axes,
        "d2 - d1" + (f"   (beyond the right edge: {percent(float(beyond), 2)}%)" if beyond else ""),
        "% of pixels per bar",
    )
    figure.legend(fontsize=6.5, frameon=False, labelcolor=INK, loc="outside lower center", ncols=4)
    return figure


def categories(heading: str, found: Found, table: ClassTable) -> Figure:
    """Bars of every category: pixels labelled, share of active ones and, where a truth is known, precision and recall.

    Of two bars the upper one is by anchors, the lower, paler one by probability.
    """
    rows = found["per_category"]
    active = [_quotients(rows, "anchor", "nearest"), _quotients(rows, "probability", "predicted")]
    panels = {
        "labelled, % (log)": [[100 * row[rule] for row in rows] for rule in RULE_COLORS],
        "active, % of its pixels": active,
    }
    if found["accuracy"]:
        for what in ("precision", "recall"):
            scores = [[row[what] for row in found["accuracy"][rule]["per_category"]] for rule in RULE_COLORS]
            panels[f"{what}, %"] = [[np.nan if v is None else 100 * v for v in values] for values in scores]
    figure = _figure(heading, 1.0 + 0.19 * len(rows))
    places = np.arange(len(rows))
    first: Axes | None = None
    for column, (name, bars) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), column + 1, sharey=first)
        first = first or axes
        colors = [_color(table, c) for c in range(len(rows))]
        axes.barh(places - 0.2, bars[0], 0.38, color=colors, edgecolor=INK, linewidth=0.3)
        axes.barh(
            places + 0.2, bars[1], 0.38, color=[(*color, 0.45) for color in colors], edgecolor=MUTED, linewidth=0.3
        )
        style(axes, name, "x")
        axes.tick_params(axis="y", labelleft=column == 0, labelcolor=INK)
        if column == 0:
            axes.set_yticks(places, [in_picture(row["name"]) for row in rows], parse_math=False)
            axes.set_xscale("symlog", linthresh=0.1, linscale=0.4)
            axes.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
            axes.set_xlim(0, 100)
            axes.set_ylim(len(rows) - 0.4, -0.6)
        else:
            axes.set_xlim(0, 100)
    figure.supxlabel("upper bar: by anchors; lower, paler bar: by probability", size=6.5, color=MUTED)
    return figure


def _quotients(rows: Sequence[Found], part: str, whole: str) -> list[float]:
    return [100 * row[part] / row[whole] if row[whole] else np.nan for row in rows]


def distances(heading: str, anchors: Anchors, table: ClassTable, margin: float) -> Figure:
    """The distances between the anchors as a heat map; absent categories are grey.

    d2 - d1 is at most the distance of two anchors: closer ones than the margin, framed, keep both categories inactive.
    """
    c = len(anchors.pairwise)
    figure = _figure(heading, 1.3 + 0.27 * c)
    axes = figure.add_subplot()
    shown = np.ma.masked_invalid(anchors.pairwise)
    image = axes.imshow(shown, cmap=colormaps["viridis"].with_extremes(bad=GRID), vmin=0)
    middle = 0.55 * float(shown.max() if shown.count() else 1.0)
    for (y, x), distance in np.ndenumerate(anchors.pairwise):
        if y == x or not np.isfinite(distance):
            continue
        axes.text(
            x, y, f"{distance:.1f}", size=5, ha="center", va="center", color="white" if distance < middle else INK
        )
        if distance <= margin:
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=WRONG, linewidth=1.2))
    style(
        axes,
        f"Distances between anchors, mean {anchors.mean_distance:.4g}; framed: within the margin; grey: absent",
        "x",
    )
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
    """The mean of some points, the two orthonormal directions of their largest variance, and its shares of the whole.

    By singular value decomposition of the centred points; the sign makes each direction's largest component positive.
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
    """Anchors and sampled features in the plane in which the anchors differ most, by PCA of the anchors.

    Active features have the colour of their nearest anchor, the others are grey.
    """
    present = np.flatnonzero(anchors.present)
    if len(present) < 2:
        raise UserError("two anchors make a plane, found fewer")
    mean, plane, explained = principal_axes(anchors.vectors[present])
    dots, crosses = (features - mean) @ plane, (anchors.vectors[present] - mean) @ plane
    figure = _figure(heading, 5.6)
    axes = figure.add_subplot()
    colors = table.palette()[nearest] / 255
    axes.scatter(dots[~active, 0], dots[~active, 1], s=3, color=PASSIVE, linewidths=0)
    axes.scatter(dots[active, 0], dots[active, 1], s=4, c=colors[active], linewidths=0, alpha=0.7)
    names = [in_picture(table.names[category]) for category in present]
    point = max(np.ptp(np.concatenate([dots, crosses]), axis=0) / (440, 270))  # a typographic point in the plane
    sides = _sides(crosses / point, names)
    for category, name, at, (x, y) in zip(present.tolist(), names, crosses, sides, strict=True):
        axes.scatter(at[0], at[1], s=60, color=_color(table, category), label=name, edgecolors="white", linewidths=1.2,
                     zorder=4)  # fmt: skip
        axes.annotate(name, at, (5 * x, 4 * y), textcoords="offset points", size=6.5, color=INK, zorder=3,
                      ha=("center", "left", "right")[x], va=("center", "bottom", "top")[y], parse_math=False, bbox=_BEHIND)  # fmt: skip
    style(axes, f"Anchors and {len(features):,} features of target frames; grey: not active", "y")
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_aspect("equal", adjustable="datalim")
    titles = (f"{name} principal axis of the anchors ({100 * share:.0f}% of their variance)"
            for name, share in zip(("first", "second"), explained, strict=True))  # fmt: skip
    _label(axes, *titles)
    as_they_are(figure.legend(fontsize=6.5, frameon=False, labelcolor=INK, loc="outside lower center", ncols=7))
    return figure


_SIDES = [(x, y) for x in (1, -1, 0) for y in (1, -1, 0) if (x, y) != (0, 0)]


def _sides(points: Float64[np.ndarray, "c 2"], names: Sequence[str]) -> list[tuple[int, int]]:
    """On which side of its marker each name stands, one of _SIDES: where it covers least of markers and other names.

    `points` are in typographic points.
    """
    taken, chosen = [_box(point, np.array([11, 9])) for point in points], []
    for point, name in zip(points, names, strict=True):
        half = np.array([1.9 * len(name), 4.5])
        boxes = {side: _box(point + side * (half + [6, 4]), half) for side in _SIDES}
        chosen.append(min(_SIDES, key=lambda side: sum(_common(boxes[side], other) for other in taken)))
        taken.append(boxes[chosen[-1]])
    return chosen


def _box(middle: np.ndarray, half: np.ndarray) -> tuple[float, ...]:
    return (*(middle - half), *(middle + half))


def _common(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(width, 0.0) * max(height, 0.0)


def curves(heading: str, found: Found, verdicts: Mapping[str, Int64[np.ndarray, "2 v"]]) -> Figure:
    """Precision against coverage of the labels of both rules over all thresholds; the stored and other ones are marked."""
    figure = _figure(heading, 4.0)
    axes = figure.add_subplot()
    for rule, side in (("anchor", -1), ("probability", 1)):
        counts = verdicts[rule]
        precision, coverage = precision_and_coverage(*counts)
        shown = coverage > 0.005
        axes.plot(
            100 * coverage[shown],
            100 * precision[shown],
            color=RULE_COLORS[rule],
            linewidth=1.5,
            label=RULE_NAMES[rule],
        )
        stored, others, name = ("margin", "margins", "margin") if rule == "anchor" else ("p0", "p0s", "P0")
        marks = [(found[stored], True), *((trial["threshold"], False) for trial in found[others])]
        values = [found["configured"].get(stored, found[stored]), *(trial["value"] for trial in found[others])]
        for (threshold, is_stored), value in zip(marks, values, strict=True):
            at = int(pattern(np.asarray(threshold, np.float32)))
            x, y = 100 * coverage[at], 100 * precision[at]
            axes.scatter(x, y, s=34 if is_stored else 16, color=RULE_COLORS[rule], edgecolors="white", zorder=3)
            axes.annotate(f"{name} {value:g}" + (" (stored)" if is_stored else ""), (x, y), (side * 4, side * 4), size=6,
                          ha="left" if side > 0 else "right", va="bottom" if side > 0 else "top",
                          textcoords="offset points", color=RULE_COLORS[rule])  # fmt: skip
    style(axes, "Precision against coverage, over pixels with a truth", "y")
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_xlim(0, 100)
    axes.set_ylim(top=100.5)
    _label(axes, "coverage: labelled, % of pixels", "precision: right, % of labelled pixels")
    axes.legend(fontsize=6.5, frameon=False, labelcolor=INK, loc="lower left")
    return figure
