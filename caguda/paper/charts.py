"""Loss curves, and the colours, legend and style that all charts share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.checks import refuse_broken_chain
from caguda.artifacts.identity import CHECKPOINT, model_of, read_artifact
from caguda.artifacts.ownership import MADE_BY
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.escapes import in_picture
from caguda.paper.pictures import description, pixel_digest
from caguda.paper.table import report_rows

WIDTH = 7.2
INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
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
FURTHER_COLORS = ("#be185d", "#65a30d", "#0891b2", "#854d0e")


def legend_below(figure: Figure, handles: Sequence[Patch | Line2D], names: Sequence[str], columns: int) -> None:
    """Draws one legend at the lower edge of a figure; names are shown letter by letter."""
    legend = figure.legend(
        handles,
        [in_picture(name) for name in names],
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
    disable_math(legend)


def disable_math(legend: Legend) -> None:
    """Makes a legend show its texts letter by letter, `$` too."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def style(axes: Axes, title: str, grid: Literal["x", "y"]) -> None:
    """Gives a chart its title and the common style: one direction of grid lines, no frame."""
    axes.set_title(title, size=8, color=INK, loc="left", weight="bold", parse_math=False)
    axes.tick_params(labelsize=6.5, color=GRID, labelcolor=MUTED, length=2, which="both")
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#cbd5e1")


def scale(values: Sequence[float]) -> str:
    """`log` where all values are positive and span more than a factor of 20, else `linear`."""
    return "log" if values and min(values) > 0 and max(values) > 20 * min(values) else "linear"


History = Sequence[Mapping[str, float]]


def loss_curves(jobs: Sequence[tuple[str, History]]) -> Figure:
    """One panel per title with every loss term over the iterations; the jobs of one title (its seeds) share the panel.

    A history is a list of {"iteration": i, term: mean value, ...}; underscores in a term's name are shown as spaces.
    """
    titles = list(dict.fromkeys(title for title, _ in jobs))
    keys = dict.fromkeys(key for _, history in jobs for entry in history for key in entry if key != "iteration")
    names = {key: key.replace("_", " ") for key in keys}
    order = list(TERM_COLORS)
    terms = sorted(keys, key=lambda term: order.index(names[term]) if names[term] in order else len(order))
    further = iter(FURTHER_COLORS * len(terms))
    colors = {term: TERM_COLORS.get(names[term]) or next(further) for term in terms}
    columns = min(3, len(titles)) or 1
    rows = math.ceil(len(titles) / columns) or 1
    legend = 0.1 + 0.18 * math.ceil(len(terms) / 5)
    height = 1.95 * rows + legend
    layout = ConstrainedLayoutEngine(rect=(0, legend / height, 1, 1 - legend / height))
    figure = Figure(figsize=(WIDTH, height), dpi=200, facecolor="white", layout=layout)
    if not jobs:
        figure.text(0.5, 0.5, "no model was trained here", ha="center", va="center", size=8, color=MUTED)
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
        style(axes, in_picture(title), "y")
        axes.set_yscale(scale([entry[term] for h in histories for entry in h for term in terms if term in entry]))
        axes.set_xlabel("iteration", size=6.5, color=MUTED)
        if index % columns == 0:
            axes.set_ylabel("loss (mean per window)", size=6.5, color=MUTED)
    handles = [Line2D([], [], color=colors[term], linewidth=2) for term in terms]
    legend_below(figure, handles, [names[term] for term in terms], 5)
    return figure


def label_parts(share: Mapping[str, float]) -> dict[str, float]:
    """Disjoint shares of target pixels, in the order of PART_COLORS, that add up to 1."""
    both, anchor, probability, either = (share[key] for key in ("both", "anchor", "probability", "either"))
    return dict(zip(PART_COLORS, (both, anchor - both, probability - both, 1.0 - either), strict=True))


def save(figure: Figure, path: Path, text: Mapping[str, Any]) -> None:
    """Writes a figure as a PNG, atomically, marked as ours; the same figure gives the same bytes.

    `text` and a digest of the pixels become the text `Description` of the file; see pictures.description.
    """
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png")
        with Image.open(temporary) as picture:
            picture.load()
        texts = PngInfo()
        texts.add_text("Software", MADE_BY)
        texts.add_text("Description", json.dumps({**text, "pixels": pixel_digest(picture)}))
        picture.save(temporary, format="PNG", pnginfo=texts)


def write_curves(configuration: Configuration, report: str, checkpoints: Sequence[Path], output: Path) -> None:
    """Writes the loss curves of the JSON files beside checkpoints, in the order of the report's rows; see loss_curves.

    Raises UserError where a model is not of the report, was not trained here, or is named twice.
    """
    contents = {path: read_artifact(path, CHECKPOINT) for path in checkpoints}
    refuse_broken_chain(checkpoints, configuration)
    by_weights: dict[str, Path] = {}
    for path, content in contents.items():
        if (earlier := by_weights.setdefault(content["weights_sha256"], path)) != path:
            raise UserError(
                f"{path}: every model must be named once, found {earlier} with the same weights; leave one out"
            )
    rows = report_rows(configuration, report)
    histories: dict[str, list[History]] = {row.model: [] for row in rows}
    for path, content in contents.items():
        model = model_of(content["provenance"])
        if model not in histories:
            raise UserError(
                f"{path}: the curves must be of models of the report {report}, found {model or 'another one'}; leave it out"
            )
        if "history" not in content["metrics"]:
            raise UserError(f"{path}: this model must have been trained here to have loss curves, found one that was brought; "
                            "leave it out")  # fmt: skip
        histories[model].append(content["metrics"]["history"])
    jobs = [(row.name, history) for row in rows for history in histories[row.model]]
    save(loss_curves(jobs), output, description("curves", checkpoints))
