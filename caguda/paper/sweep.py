"""What other thresholds than the configured ones give: of the margin (Eq. 6) and of P0, as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from caguda.ablations import sweep
from caguda.artifacts.ownership import refuse_foreign
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.charts import INK, MUTED, WIDTH, save, style
from caguda.paper.evaluations import accuracy_of, by_model, read_evaluation, refuse_others
from caguda.paper.formats import Line, PrintedTable
from caguda.paper.pictures import description
from caguda.paper.table import statistic
from caguda.paper.tables import measured_note, write_formats

KINDS = ("anchor", "probability")
COLUMNS = (*(f"{kind} labels, {what}" for kind in KINDS for what in ("coverage", "precision")), "mIoU", "gain")
KIND_OF = {"margin": "anchor", "p0": "probability"}
NAMES = {"margin": "margin", "p0": "P0"}
COLORS = {"coverage": "#5bb8ad", "precision": "#e39a3b", "mIoU": "#2466a8"}


@dataclass(frozen=True)
class Point:
    """What one pair of thresholds gives, seed by seed: (6,) numbers of COLUMNS in percent each, nan for an unknown one."""

    margin: float
    p0: float
    values: tuple[tuple[float, ...], ...]


def write_sweep(
    configuration: Configuration, evaluations: Sequence[Path], accuracy: Sequence[Path], output: Path
) -> None:
    """Write a sweep as CSV at `output`, as Markdown, LaTeX, HTML and PNG beside it.

    `evaluations` are those of one stage under every pair of thresholds and seed, `accuracy` what
    `diagnose` wrote of its pseudo-labels.
    """
    refuse_foreign(output.with_suffix(".png"))
    refuse_others([*evaluations, *accuracy], configuration)
    found = points(configuration, evaluations, accuracy)
    configured = configuration.labels
    unknown = all(math.isnan(value) for point in found for values in point.values for value in values[:4])
    lines = []
    for point in found:
        same = (point.margin, point.p0) == (configured.margin, configured.p0)
        label = f"margin {point.margin:g}, P0 {point.p0:g}" + (" (configured)" if same else "")
        lines.append(Line(label, label, "measured", tuple(map(statistic, zip(*point.values, strict=True)))))
    note = (
        measured_note(configuration)
        + "One stage from the warm-up, with the losses of the first recipe. Coverage is the share of the target's "
        "training pixels with a truth that get a label, precision the share of these that are right; neither is known to "
        "the training. Gain in points over the configured thresholds, paired by seed. Thresholds chosen by this table "
        "would be chosen by target labels."
        + (" Coverage and precision are not known here: the target has no labels." if unknown else "")
    )
    write_formats(
        PrintedTable(f"Thresholds: {configuration.experiment}", note, COLUMNS, len(COLUMNS), tuple(lines)), output
    )
    save(sweep_chart(found, configured.margin, configured.p0), output.with_suffix(".png"), description("sweep"))


def points(configuration: Configuration, evaluations: Sequence[Path], accuracy: Sequence[Path]) -> list[Point]:
    """The points of a sweep, margins first, each in rising order; UserError where a seed is missing."""
    thresholds, recipe = configuration.labels, next(iter(configuration.recipes))
    chains = {name: thresholds.model_copy(update={key: value}) for name, (key, value) in sweep(thresholds).items()}
    rows = [(name, "stage 1") for name in (*chains, recipe)]
    models = by_model([read_evaluation(path) for path in evaluations], rows, configuration.seeds)
    known = accuracy_of([item.path for item in models.values()], accuracy)
    scores = {
        (item.recipe, item.seed): (*_shares(known.get(item.path, {})), 100.0 * item.as_trained.miou)
        for item in models.values()
    }
    found = []
    for name, chosen in (chains | {recipe: thresholds}).items():
        values = []
        for seed in configuration.seeds:
            if missing := [f"{key}, seed {seed}" for key in (name, recipe) if (key, seed) not in scores]:
                raise UserError(f"{missing[0]}: a sweep needs an evaluation for every seed, found none; make it first")
            values.append((*scores[name, seed], scores[name, seed][-1] - scores[recipe, seed][-1]))
        found.append(Point(chosen.margin, chosen.p0, tuple(values)))
    return sorted(found, key=lambda point: (point.p0 != thresholds.p0, point.margin, point.p0))


def _shares(accuracy: Mapping[str, Any]) -> list[float]:
    """Coverage and precision of both kinds of labels in percent, nan where they are not known."""
    kinds = [accuracy.get(kind) or {"coverage": None, "accuracy": None} for kind in KINDS]
    shares = [share for kind in kinds for share in (kind["coverage"], kind["accuracy"])]
    return [math.nan if share is None else 100.0 * share for share in shares]


def sweep_chart(found: Sequence[Point], margin: float, p0: float) -> Figure:
    """Two panels, the margin and P0: mIoU, and coverage and precision of the labels that the threshold decides.

    Lines are means over seeds, dots seeds; the configured value is marked.
    """
    figure = Figure(figsize=(WIDTH, 2.9), dpi=200, facecolor="white", layout="constrained")
    for axes, (key, configured) in zip(figure.subplots(1, 2), (("margin", margin), ("p0", p0)), strict=True):
        fixed = {"margin": "p0", "p0": "margin"}[key]
        shown = [point for point in found if getattr(point, fixed) == {"margin": margin, "p0": p0}[fixed]]
        shown.sort(key=lambda point: float(getattr(point, key)))
        xs = [getattr(point, key) for point in shown]
        for what, color in COLORS.items():
            column = COLUMNS.index("mIoU" if what == "mIoU" else f"{KIND_OF[key]} labels, {what}")
            seeds = [[values[column] for values in point.values] for point in shown]
            if all(math.isnan(value) for each in seeds for value in each):
                continue
            axes.plot(xs, [statistic(each).mean for each in seeds], color=color, linewidth=1.4, label=what)
            for x, each in zip(xs, seeds, strict=True):
                axes.plot([x] * len(each), each, ".", color=color, markersize=3)
        axes.axvline(configured, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        style(axes, f"{NAMES[key]}: labels by {'anchors' if key == 'margin' else 'probability'}, and mIoU", "y")
        axes.set_xlabel(f"{NAMES[key]} (dashed: configured)", size=6.5, color=INK)
        axes.set_ylabel("percent", size=6.5, color=INK)
        axes.set_ylim(0, 101)
        axes.legend(fontsize=6.5, frameon=False, labelcolor=INK)
    return figure
