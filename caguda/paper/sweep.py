"""The effect of the thresholds, the margin of Eq. 6 and P0 of Eq. 11, as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import provenance_of
from caguda.artifacts.checks import refuse_broken_chain
from caguda.artifacts.identity import CHECKPOINT
from caguda.artifacts.ownership import refuse_foreign
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.charts import INK, MUTED, WIDTH, save, style
from caguda.paper.evaluations import input_of_kind, match_label_reports, read_evaluations
from caguda.paper.formats import Line, PrintedTable, statistic
from caguda.paper.pictures import description
from caguda.paper.rows import table_models
from caguda.paper.tables import measured_note, write_formats
from caguda.pseudo_labels import PAPERS_RULES
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule
from caguda.runs import rules_of

COLUMNS = (*(f"{rule} labels, {what}" for rule in PAPERS_RULES for what in ("coverage", "precision")), "mIoU", "gain")
RULE_OF = {"margin": "anchor", "p0": "probability"}
NAMES = {"margin": "margin", "p0": "P0"}
COLORS = {"coverage": "#5bb8ad", "precision": "#e39a3b", "mIoU": "#2466a8"}


@dataclass(frozen=True)
class Point:
    """One pair of thresholds, and for each seed (6,) numbers by COLUMNS, in percent, nan for an unknown one."""

    margin: float
    p0: float
    values: tuple[tuple[float, ...], ...]


def write_sweep(
    configuration: Configuration, evaluations: Sequence[Path], label_reports: Sequence[Path], output: Path
) -> None:
    """Writes a sweep as CSV at `output`, as Markdown, LaTeX, HTML and PNG beside it.

    `evaluations` are of one stage under every pair of thresholds and seed, `label_reports` are of their pseudo-labels.
    """
    refuse_foreign(output.with_suffix(".png"))
    refuse_broken_chain([*evaluations, *label_reports], configuration)
    points = sweep_points(configuration, evaluations, label_reports)
    configured = thresholds_of(configuration, table_models(configuration, "sweep")[0])
    lines = []
    for point in points:
        suffix = " (configured)" if (point.margin, point.p0) == configured else ""
        label = f"margin {point.margin:g}, P0 {point.p0:g}{suffix}"
        lines.append(Line(label, "measured", tuple(map(statistic, zip(*point.values, strict=True)))))
    has_truth = any(not math.isnan(value) for point in points for values in point.values for value in values[:4])
    note = (
        measured_note(configuration)
        + "The runs differ in the thresholds of their pseudo-labels. Coverage is the share of the target's "
        "training pixels with a truth that get a label, precision the share of these that are right; neither is known to "
        "the training. Gain in points over the configured thresholds, paired by seed. Thresholds chosen by this table "
        "would be chosen by target labels."
        + ("" if has_truth else " Coverage and precision are not known here: the target has no labels.")
    )
    write_formats(PrintedTable(f"Thresholds: {configuration.experiment}", note, COLUMNS, 0, tuple(lines)), output)
    save(sweep_chart(points, *configured), output.with_suffix(".png"), description("sweep"))


def thresholds_of(configuration: Configuration, model: str) -> tuple[float, float]:
    """The margin and P0 of a model's pseudo-labels; UserError unless they are by anchors and by probability."""
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


def _refuse_incomparable(configuration: Configuration, models: Sequence[str]) -> None:
    """Raises UserError unless every model has another pair of thresholds, and all margins are in one unit."""
    unit = _rules(configuration, models[0])[0].unit
    by_thresholds: dict[tuple[float, float], str] = {}
    for model in models:
        anchor, probability = _rules(configuration, model)
        if anchor.unit != unit:
            raise UserError(
                f"tables.sweep: all margins must be in the unit {unit}, found {anchor.unit} of {model}; leave it out"
            )
        if (earlier := by_thresholds.setdefault((anchor.margin, probability.p0), model)) != model:
            raise UserError(
                f"tables.sweep: every run must have thresholds of its own, found {earlier} and {model} with the same; leave "
                "one out"
            )


def sweep_points(
    configuration: Configuration, evaluations: Sequence[Path], label_reports: Sequence[Path]
) -> list[Point]:
    """The points of a sweep: first those that differ in the margin, then those that differ in P0, each in rising order.

    Gains are over the first run of the table, which has the configured thresholds. UserError where a seed is missing.
    """
    models = table_models(configuration, "sweep")
    _refuse_incomparable(configuration, models)
    read = read_evaluations(configuration, models, evaluations)
    checkpoints = {item.path: provenance_of(input_of_kind(item.path, CHECKPOINT)) for item in read}
    reports = match_label_reports(checkpoints, label_reports)
    miou = {(item.model, item.seed): 100.0 * item.as_trained.miou for item in read}
    shares = {(item.model, item.seed): _shares(read_json(reports[item.path])["accuracy"] or {}) for item in read}
    points = []
    for model in models:
        keys = [((model, seed), (models[0], seed)) for seed in configuration.seeds]
        values = tuple((*shares[key], miou[key], miou[key] - miou[base]) for key, base in keys)
        points.append(Point(*thresholds_of(configuration, model), values))
    return sorted(points, key=lambda point: (point.p0 != points[0].p0, point.margin, point.p0))


def _shares(accuracy: Mapping[str, Any]) -> list[float]:
    """Coverage and precision of the labels by each rule, in percent, nan where they are unknown."""
    rules = [accuracy.get(rule) or {"coverage": None, "accuracy": None} for rule in PAPERS_RULES]
    shares = [share for rule in rules for share in (rule["coverage"], rule["accuracy"])]
    return [math.nan if share is None else 100.0 * share for share in shares]


def sweep_chart(points: Sequence[Point], margin: float, p0: float) -> Figure:
    """Two panels, the margin and P0: mIoU, and coverage and precision of the labels that the threshold decides.

    Lines are means over seeds, dots seeds; the configured value is marked.
    """
    configured = {"margin": margin, "p0": p0}
    figure = Figure(figsize=(WIDTH, 2.9), dpi=200, facecolor="white", layout="constrained")
    for axes, (key, fixed) in zip(figure.subplots(1, 2), (("margin", "p0"), ("p0", "margin")), strict=True):
        varied = [point for point in points if getattr(point, fixed) == configured[fixed]]
        varied.sort(key=lambda point: float(getattr(point, key)))
        xs = [getattr(point, key) for point in varied]
        for what, color in COLORS.items():
            column = COLUMNS.index("mIoU" if what == "mIoU" else f"{RULE_OF[key]} labels, {what}")
            ys = [[values[column] for values in point.values] for point in varied]
            if all(math.isnan(y) for seeds in ys for y in seeds):
                continue
            axes.plot(xs, [statistic(seeds).mean for seeds in ys], color=color, linewidth=1.4, label=what)
            for x, seeds in zip(xs, ys, strict=True):
                axes.plot([x] * len(seeds), seeds, ".", color=color, markersize=3)
        axes.axvline(configured[key], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        style(axes, f"{NAMES[key]}: labels by {'anchors' if key == 'margin' else 'probability'}, and mIoU", "y")
        axes.set_xlabel(f"{NAMES[key]} (dashed: configured)", size=6.5, color=INK)
        axes.set_ylabel("percent", size=6.5, color=INK)
        axes.set_ylim(0, 101)
        axes.legend(fontsize=6.5, frameon=False, labelcolor=INK)
    return figure
