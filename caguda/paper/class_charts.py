"""What adaptation does to each category: gains in IoU, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from caguda.artifacts.atomic import read_json
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.charts import INK, MUTED, WIDTH, save, style
from caguda.paper.escapes import in_picture
from caguda.paper.evaluations import read_evaluation, refuse_others
from caguda.paper.pictures import description


def write_class_chart(configuration: Configuration, evaluations: Sequence[Path], output: Path) -> None:
    """Draw the gain in IoU of every category, and the confusions of the adapted model, as a PNG.

    `evaluations` are those of source only and of one adapted model, one of each for every seed: gains are means over
    seeds, paired; confusions are sums.
    """
    refuse_others(evaluations, configuration)
    read = [read_evaluation(path) for path in evaluations]
    base = {item.seed: item for item in read if item.row == "source only"}
    adapted = {item.seed: item for item in read if item.row != "source only"}
    if len(models := sorted({(item.recipe or "", item.row) for item in adapted.values()})) > 1:
        raise UserError(
            f"{evaluations[0]}: all evaluations but those of source only must be of one model, found "
            f"{', '.join(' '.join(model).strip() for model in models)}; name those of one"
        )
    if not base.keys() == adapted.keys() == set(configuration.seeds) or len(read) != 2 * len(base):
        raise UserError(
            f"{evaluations[0]}: source only and one adapted model must have an evaluation of every seed, found seeds "
            f"{sorted(base)} and {sorted(adapted)} of {list(configuration.seeds)}; name both of each seed"
        )
    gains = np.array([100.0 * (adapted[s].as_trained.iou - base[s].as_trained.iou) for s in base])
    paths = [item.path for item in adapted.values()]
    confusion = np.sum([read_json(path)["as_trained"]["confusion"] for path in paths], axis=0)
    names = [in_picture(name) for name in class_table(configuration).names]
    row = next(iter(adapted.values())).row
    save(class_chart(names, gains, confusion, row), output, description("class-chart"))


def class_chart(names: Sequence[str], gains: NDArray[np.float64], confusion: NDArray[np.int64], row: str) -> Figure:
    """Bars of the (seeds, c) gains in points, nan for an absent category, and the (c, c) confusions by truth in percent."""
    figure = Figure(figsize=(WIDTH, 0.19 * len(names) + 1.1), dpi=200, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    _bars(left, names, gains, f"gain of {row} over source only, points of IoU")
    _heat_map(right, names, confusion, f"{row}: predictions by truth, percent")
    return figure


def _bars(axes: Axes, names: Sequence[str], gains: NDArray[np.float64], title: str) -> None:
    places = np.arange(len(names))
    known = np.array([not np.isnan(values).all() for values in gains.T])
    means = np.zeros(len(names))
    means[known] = np.nanmean(gains[:, known], axis=0)
    axes.barh(places, means, color=np.where(means < 0, "#c2410c", "#2466a8"), height=0.7)
    for place, values in zip(places, gains.T, strict=True):
        axes.plot(values, np.full(len(values), place), ".", color=INK, markersize=2.5)
    axes.axvline(0.0, color=MUTED, linewidth=0.6)
    axes.set_yticks(
        places,
        [name if here else f"{name} (absent)" for name, here in zip(names, known, strict=True)],
        parse_math=False,
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    style(axes, title, "x")


def _heat_map(axes: Axes, names: Sequence[str], confusion: NDArray[np.int64], title: str) -> None:
    share = 100.0 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for truth, predicted in zip(*np.nonzero(share >= 1.0), strict=True):
        ink = "white" if share[truth, predicted] > 55 else INK
        text = f"{share[truth, predicted]:.0f}"
        axes.text(predicted, truth, text, ha="center", va="center", size=4.5, color=ink)
    axes.set_xticks(np.arange(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(np.arange(len(names)), names, parse_math=False)
    style(axes, title, "x")
    axes.grid(visible=False)
