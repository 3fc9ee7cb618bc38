"""What other thresholds than the configured ones give: of the margin (Eq. 6) and of P0, as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from caguda.artifacts.ownership import refuse_foreign
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.charts import INK, MUTED, WIDTH, save, style
from caguda.paper.evaluations import accuracy_of, check_evaluations, read_evaluation, refuse_others
from caguda.paper.formats import Line, PrintedTable
from caguda.paper.pictures import description
from caguda.paper.rows import table_models
from caguda.paper.table import statistic
from caguda.paper.tables import measured_note, write_formats
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule
from caguda.runs import rules_of

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
    configured = thresholds_of(configuration, table_models(configuration, "sweep")[0])
    unknown = all(math.isnan(value) for point in found for values in point.values for value in values[:4])
    lines = []
    for point in found:
        same = (point.margin, point.p0) == configured
        label = f"margin {point.margin:g}, P0 {point.p0:g}" + (" (configured)" if same else "")
        lines.append(Line(label, label, "measured", tuple(map(statistic, zip(*point.values, strict=True)))))
    note = (
        measured_note(configuration)
        + "The runs differ in the thresholds of their pseudo-labels. Coverage is the share of the target's "
        "training pixels with a truth that get a label, precision the share of these that are right; neither is known to "
        "the training. Gain in points over the configured thresholds, paired by seed. Thresholds chosen by this table "
        "would be chosen by target labels."
        + (" Coverage and precision are not known here: the target has no labels." if unknown else "")
    )
    write_formats(
        PrintedTable(f"Thresholds: {configuration.experiment}", note, COLUMNS, len(COLUMNS), tuple(lines)), output
    )
    save(sweep_chart(found, *configured), output.with_suffix(".png"), description("sweep"))


def thresholds_of(configuration: Configuration, model: str) -> tuple[float, float]:
    """The margin and P0 that a model's pseudo-labels are made with; UserError unless they are by anchors and by probability."""
    anchor, probability = _rules(configuration, model)
    return anchor.margin, probability.p0


def _rules(configuration: Configuration, model: str) -> tuple[AnchorRule, ProbabilityRule]:
    rules = rules_of(configuration, model)
    anchor, probability = rules.get("anchor"), rules.get("probability")
    if not isinstance(anchor, AnchorRule) or not isinstance(probability, ProbabilityRule):
        raise UserError(
            f"tables.sweep: every run must be labelled by anchors and by probability, found {model}; leave it out"
        )
    return anchor, probability


def _refuse_incomparable(configuration: Configuration, runs: Sequence[str]) -> None:
    """UserError unless every run has a pair of thresholds of its own, and all margins are in one unit."""
    first, seen = _rules(configuration, runs[0])[0], dict[tuple[float, float], str]()
    for run in runs:
        if (unit := _rules(configuration, run)[0].unit) != first.unit:
            raise UserError(
                f"tables.sweep: all margins must be in the unit {first.unit}, found {unit} of {run}; leave it out"
            )
        if (other := seen.setdefault(thresholds_of(configuration, run), run)) != run:
            raise UserError(
                f"tables.sweep: every run must have thresholds of its own, found {other} and {run} with the same; leave "
                "one out"
            )


def points(configuration: Configuration, evaluations: Sequence[Path], accuracy: Sequence[Path]) -> list[Point]:
    """The points of a sweep, margins first, each in rising order; UserError where a seed is missing.

    Gains are over the first run of the table, which has the configured thresholds.
    """
    runs = table_models(configuration, "sweep")
    _refuse_incomparable(configuration, runs)
    read = [read_evaluation(path) for path in evaluations]
    check_evaluations(read, class_table(configuration).names, configuration.seeds, runs)
    known = accuracy_of([item.path for item in read], accuracy)
    scores = {
        (item.run, item.seed): (*_shares(known.get(item.path, {})), 100.0 * item.as_trained.miou) for item in read
    }
    found = []
    for run in runs:
        values = [
            (*scores[run, seed], scores[run, seed][-1] - scores[runs[0], seed][-1]) for seed in configuration.seeds
        ]
        found.append(Point(*thresholds_of(configuration, run), tuple(values)))
    return sorted(found, key=lambda point: (point.p0 != found[0].p0, point.margin, point.p0))


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
