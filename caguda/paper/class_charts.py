"""The effect of adaptation on each category: gains in IoU, and the confusions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from caguda.artifacts.atomic import read_json
from caguda.artifacts.checks import refuse_broken_chain
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.charts import INK, MUTED, WIDTH, save, style
from caguda.paper.escapes import in_picture
from caguda.paper.evaluations import read_evaluation, refuse_incomplete
from caguda.paper.pictures import description
from caguda.paper.rows import rows_of
from caguda.runs import models, models_before


def write_class_chart(configuration: Configuration, evaluations: Sequence[Path], output: Path) -> None:
    """Draws the gain in IoU of every category, and the confusions of the adapted model, as a PNG.

    `evaluations` are of two models, one of each for every seed. The adapted model is the one that the other led to, or else
    the second one given. Gains over the other are paired by seed, confusions are sums over seeds.
    """
    refuse_broken_chain(evaluations, configuration)
    read = [read_evaluation(path) for path in evaluations]
    if unknown := [item.path for item in read if item.model not in models(configuration)]:
        raise UserError(
            f"{unknown[0]}: the model must be one of the configuration, found another; name evaluations of its models"
        )
    pair = list(dict.fromkeys(item.model for item in read))
    if len(pair) != 2:
        raise UserError(
            f"{evaluations[0]}: the evaluations must be of two models, found {', '.join(pair)}; name those of two"
        )
    if pair[1] in models_before(configuration, pair[0]):
        pair.reverse()
    refuse_incomplete(configuration, pair, read)
    base, adapted = ({item.seed: item for item in read if item.model == model} for model in pair)
    gains = np.array([100.0 * (adapted[s].as_trained.iou - base[s].as_trained.iou) for s in configuration.seeds])
    confusion = np.sum([read_json(item.path)["as_trained"]["confusion"] for item in adapted.values()], axis=0)
    names = [in_picture(name) for name in class_table(configuration).names]
    base_name, name = (in_picture(row.name) for row in rows_of(configuration, pair))
    save(class_chart(names, gains, confusion, name, base_name), output, description("class-chart"))


def class_chart(
    names: Sequence[str], gains: NDArray[np.float64], confusion: NDArray[np.int64], model: str, base: str
) -> Figure:
    """Bars of the (seeds, c) gains in points, nan for an absent category, and the (c, c) confusions by truth in percent."""
    figure = Figure(figsize=(WIDTH, 0.19 * len(names) + 1.1), dpi=200, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    _bars(left, names, gains, f"gain of {model} over {base}, points of IoU")
    _heat_map(right, names, confusion, f"{model}: predictions by truth, percent")
    return figure


def _bars(axes: Axes, names: Sequence[str], gains: NDArray[np.float64], title: str) -> None:
    positions = np.arange(len(names))
    present: NDArray[np.bool_] = ~np.all(np.isnan(gains), axis=0)
    means = np.zeros(len(names))
    means[present] = np.nanmean(gains[:, present], axis=0)
    axes.barh(positions, means, color=np.where(means < 0, "#c2410c", "#2466a8"), height=0.7)
    for position, values in zip(positions, gains.T, strict=True):
        axes.plot(values, np.full(len(values), position), ".", color=INK, markersize=2.5)
    axes.axvline(0.0, color=MUTED, linewidth=0.6)
    labels = [name if is_present else f"{name} (absent)" for name, is_present in zip(names, present, strict=True)]
    axes.set_yticks(positions, labels, parse_math=False)
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
