"""Charts for print: loss curves, IoU per class, shares of pseudo-labels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from caguda.artifacts.atomic import read_json, write_atomically
from caguda.config import Configuration
from caguda.paper.table import Row, read_evaluations, table_rows

WIDTH = 7.2
INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
ROW_COLORS = {"source only": "#9aa3af", "warm-up": "#e39a3b", "stage": "#2466a8", "oracle": "#111827"}
TERM_COLORS = {
    "source cross entropy": "#4b5563",
    "adversarial": "#c2410c",
    "discriminator": "#e39a3b",
    "source distance": "#0f766e",
    "target distance": "#5bb8ad",
    "anchor cross entropy": "#2466a8",
    "probability cross entropy": "#9d4edd",
}
PART_COLORS = {
    "both": "#2466a8",
    "anchors only": "#5bb8ad",
    "probability only": "#e39a3b",
    "not assigned": "#e5e7eb",
}
OTHER_COLORS = ("#be185d", "#65a30d", "#0891b2", "#854d0e")


def legend_below(figure: Figure, handles: Sequence[Patch | Line2D], names: Sequence[str], columns: int) -> None:
    """Draws one legend at the lower edge of a figure."""
    figure.legend(
        handles,
        names,
        loc="lower center",
        ncols=min(columns, len(names)),
        fontsize=6.5,
        frameon=False,
        handlelength=1.1,
        handleheight=0.9,
        columnspacing=1.2,
        handletextpad=0.5,
        borderaxespad=0.2,
        labelcolor=INK,
    )


def style(axes: Axes, title: str, grid: Literal["x", "y"]) -> None:
    """Gives a chart its title and the common look: one direction of grid lines, no frame."""
    axes.set_title(title, size=8, color=INK, loc="left", weight="bold", parse_math=False)
    axes.tick_params(labelsize=6.5, color=GRID, labelcolor=MUTED, length=2, which="both")
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#cbd5e1")


def job_title(path: Path) -> str:
    """The training job that a checkpoint's folder names: pretraining, warm-up, stage k, control, oracle."""
    folder = path.parent.name
    stage = re.fullmatch(r"stage(\d+)", folder)
    return f"stage {stage[1]}" if stage else {"pretrain": "pretraining", "warmup": "warm-up"}.get(folder, folder)


def scale(values: Sequence[float]) -> str:
    """`log` where all values are positive and span more than a factor of 20, else `linear`."""
    return "log" if values and min(values) > 0 and max(values) > 20 * min(values) else "linear"


History = Sequence[Mapping[str, float]]


def loss_curves(jobs: Sequence[tuple[str, History]]) -> Figure:
    """One panel per training job with every loss term over the iterations; jobs of one title share a panel (seeds).

    A history is a list of {"iteration": i, term: mean value, ...}; underscores in a term's name are read as spaces.
    """
    titles = list(dict.fromkeys(title for title, _ in jobs))
    terms = list(dict.fromkeys(k for _, history in jobs for entry in history for k in entry if k != "iteration"))
    terms.sort(key=lambda term: _term_order(term))
    others = iter(OTHER_COLORS * len(terms))
    colors = {term: TERM_COLORS.get(_term(term)) or next(others) for term in terms}
    columns = min(3, len(titles)) or 1
    rows = math.ceil(len(titles) / columns) or 1
    legend = 0.1 + 0.18 * math.ceil(len(terms) / 5)
    height = 1.95 * rows + legend
    layout = ConstrainedLayoutEngine(rect=(0, legend / height, 1, 1 - legend / height))
    figure = Figure(figsize=(WIDTH, height), dpi=200, facecolor="white", layout=layout)
    for index, title in enumerate(titles):
        axes = figure.add_subplot(rows, columns, index + 1)
        histories = [history for name, history in jobs if name == title]
        for history in histories:
            for term in terms:
                points = [(entry["iteration"], entry[term]) for entry in history if term in entry]
                if points:
                    axes.plot(
                        *zip(*points, strict=True),
                        color=colors[term],
                        linewidth=1.3,
                        solid_capstyle="round",
                        marker="." if len(points) == 1 else "",
                    )
        style(axes, title, "y")
        axes.set_yscale(scale([entry[term] for h in histories for entry in h for term in terms if term in entry]))
        axes.set_xlabel("iteration", size=6.5, color=MUTED)
        if index % columns == 0:
            axes.set_ylabel("loss (mean per window)", size=6.5, color=MUTED)
    legend_below(
        figure, [Line2D([], [], color=colors[term], linewidth=2) for term in terms], [_term(t) for t in terms], 5
    )
    return figure


def _term(name: str) -> str:
    return name.replace("_", " ")


def _term_order(name: str) -> int:
    return list(TERM_COLORS).index(_term(name)) if _term(name) in TERM_COLORS else len(TERM_COLORS)


def shown_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of the per-class pictures: source only, warm-up, the last stage and, where it exists, the oracle."""
    last = [row for row in rows if row.name.startswith("stage")][-1:]
    return [row for row in rows if row.name in ("source only", "warm-up", "oracle") or row in last]


def iou_bars(classes: Sequence[str], rows: Sequence[Row]) -> Figure:
    """IoU per class, as trained: bars for source only, warm-up and the last stage, a line across them for the oracle.

    Whiskers are sample standard deviations over seeds; an absent category has no bar.
    """
    shown = [row for row in shown_rows(rows) if row.as_trained is not None]
    bars = [row for row in shown if row.name != "oracle"]
    figure = Figure(figsize=(WIDTH, 2.5), dpi=200, facecolor="white", layout="constrained")
    axes, step = figure.add_subplot(), 0.8 / len(bars)
    places, handles = np.arange(len(classes) + 1) + (np.arange(len(classes) + 1) == len(classes)) * 0.5, []
    for row in shown:
        assert row.as_trained is not None
        values = [*row.as_trained.iou, row.as_trained.miou]
        heights = np.array([value.mean for value in values])
        color = ROW_COLORS["stage" if row.name.startswith("stage") else row.name]
        if row.name == "oracle":
            axes.hlines(heights, places - 0.42, places + 0.42, color=color, linewidth=1.2)
            handles.append(Line2D([], [], color=color, linewidth=1.2))
            continue
        left = places - 0.4 + (bars.index(row) + 0.5) * step
        axes.bar(left, heights, step * 0.92, color=color)
        if len(row.seeds) > 1:
            axes.errorbar(
                left, heights, [value.deviation or 0.0 for value in values], fmt="none", ecolor=INK, elinewidth=0.5
            )
        handles.append(Patch(color=color))  # type: ignore[arg-type]
    style(axes, "", "y")
    axes.set_xticks(places, [*classes, "mIoU"], rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.6, places[-1] + 0.6)
    axes.set_ylabel("IoU, %", size=7, color=MUTED)
    axes.legend(
        handles,
        [row.label for row in shown],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        fontsize=6.5,
        frameon=False,
        handlelength=1.1,
        labelcolor=INK,
    )
    return figure


def label_bars(stages: Sequence[tuple[str, Mapping[str, Any]]]) -> Figure:
    """Shares of target pixels with a pseudo-label, one bar per title and labels.json: both kinds, one, none."""
    figure = Figure(figsize=(WIDTH / 2, 0.75 + 0.27 * len(stages)), dpi=200, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(stages))[::-1]
    left = np.zeros(len(stages))
    parts = [label_parts(summary["share"]) for _, summary in stages]
    for name, color in PART_COLORS.items():
        widths = np.array([100.0 * part[name] for part in parts])
        axes.barh(places, widths, 0.72, left=left, color=color, label=name)
        left += widths
    style(axes, "", "x")
    axes.set_yticks(places, [title for title, _ in stages], parse_math=False)
    axes.set_xlim(0, 100)
    axes.set_xlabel("target pixels, %", size=6.5, color=MUTED)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        fontsize=6.5,
        frameon=False,
        handlelength=1.1,
        labelcolor=INK,
    )
    return figure


def label_parts(share: Mapping[str, float]) -> dict[str, float]:
    """Disjoint shares of target pixels, in the order of PART_COLORS, that add up to 1."""
    both, anchor, probability, either = (share[key] for key in ("both", "anchor", "probability", "either"))
    return dict(zip(PART_COLORS, (both, anchor - both, probability - both, 1.0 - either), strict=True))


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, atomically; the same figure gives the same bytes."""
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def write_curves(checkpoints: Sequence[Path], output: Path) -> None:
    """Writes the loss curves of the JSON files beside checkpoints, in the order given; see loss_curves."""
    save(loss_curves([(job_title(path), read_json(path)["metrics"]["history"]) for path in checkpoints]), output)


def write_iou_bars(configuration: Configuration, evaluations: Sequence[Path], output: Path) -> None:
    """Writes IoU per class of one recipe's evaluations; refuses what write_table refuses."""
    read = read_evaluations(configuration, evaluations)
    save(iou_bars(read[0].classes, table_rows(read)), output)


def write_label_bars(labels: Sequence[Path], output: Path) -> None:
    """Writes the shares of pseudo-labels of the labels.json files, in the order given; see label_bars."""
    save(label_bars([(job_title(path), read_json(path)) for path in labels]), output)
