"""Every run of an experiment beside all others: what it cost, the labels that it was given, and who beats whom."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from caguda.artifacts.atomic import read_json
from caguda.artifacts.identity import model_of
from caguda.config import Configuration
from caguda.config_run import Method
from caguda.paper.comparison import MOST_SEEDS, Comparison, compared
from caguda.paper.escapes import in_csv
from caguda.paper.evaluations import Evaluation, by_model
from caguda.paper.formats import Statistic, csv_text, statistic
from caguda.paper.report import LabelsOfModel
from caguda.paper.rows import ModelRow
from caguda.paper.table import HEADINGS, Row, Statistics, rows_with
from caguda.runs import models_before, run_of

PAIRS_HEADER = ("statistics", "first", "second", "difference", "difference sd", "seeds won", "seeds", "p")


class Cost(NamedTuple):
    """What a model's trainings cost in all, from fresh weights on: iterations, seconds and FLOPs of one seed.

    All are None where a model of the lineage was brought from elsewhere. The seconds are those that the trainings took, the FLOPs
    those of a plan.
    """

    iterations: int | None
    seconds: Statistic | None
    flops: float | None


class LabelsByRule(NamedTuple):
    """The pseudo-labels that a row's last model was trained on, by one rule: shares in percent over seeds.

    `labelled` is the share of the target's pixels with a label; `precision` is that of right labels, nan without a truth.
    """

    rule: str
    labelled: Statistic
    precision: Statistic


def costs_of_rows(
    configuration: Configuration, rows: Sequence[ModelRow], checkpoints: Sequence[Path], flops: Mapping[str, float]
) -> dict[str, Cost]:
    """The cost of each row's model, by the model: sums over it and all that it starts from.

    `checkpoints` are the JSON files of all trained models, `flops` those of one training by the model.
    """
    seconds: dict[str, list[float]] = {}
    for path in checkpoints:
        content = read_json(path)
        if "seconds" in content["metrics"]:
            seconds.setdefault(model_of(content["provenance"]), []).append(content["metrics"]["seconds"])
    costs = {}
    for row in rows:
        lineage = [row.model, *models_before(configuration, row.model)]
        trained = {model: run for model in lineage if isinstance(run := run_of(configuration, model), Method)}
        of_seeds = [seconds[model] for model in trained if model in seconds]
        is_trained_here = len(trained) == len(lineage)
        costs[row.model] = Cost(
            sum(run.iterations for run in trained.values()) if is_trained_here else None,
            statistic(map(sum, zip(*of_seeds, strict=True))) if len(of_seeds) == len(lineage) else None,
            sum(flops[model] for model in trained) if is_trained_here and trained.keys() <= flops.keys() else None,
        )
    return costs


def labels_by_row(labels: Sequence[LabelsOfModel]) -> dict[str, list[LabelsByRule]]:
    """The pseudo-labels of every row by its name, one entry for each rule, means over seeds."""
    result = {}
    for name, group in itertools.groupby(labels, lambda item: item.name):
        items = list(group)
        result[name] = [
            LabelsByRule(
                rule,
                statistic(100.0 * item.report["share"][rule] for item in items),
                statistic(math.nan if (right := item.score(rule)) is None else 100.0 * right for item in items),
            )
            for rule in items[0].rules
        ]
    return result


class Matrix(NamedTuple):
    """Rows compared in pairs with one kind of statistics: `cells[i][j]` is row i against row j, None on the diagonal."""

    heading: str
    names: list[str]
    cells: list[list[Comparison | None]]


def matrices(rows: Sequence[Row], evaluations: Sequence[Evaluation]) -> list[Matrix]:
    """Every row against every other, paired by seed, as trained and with target statistics; see comparison.compared."""
    groups = by_model(evaluations, [row.model_row.model for row in rows])
    result = []
    for statistics, heading in HEADINGS.items():
        scored = [row for row, _ in rows_with(statistics, rows)]
        scores = [_mious(groups[row.model_row.model], statistics) for row in scored]
        cells = [[None if a is b else compared(a, b) for b in scores] for a in scores]
        if scored:
            result.append(Matrix(heading, [row.label for row in scored], cells))
    return result


def _mious(evaluations: Sequence[Evaluation], statistics: Statistics) -> list[float]:
    scores = [item.as_trained if statistics == "as_trained" else item.target_statistics for item in evaluations]
    return [100.0 * score.miou for score in scores if score is not None]


def pairs_csv(compared_rows: Sequence[Matrix]) -> str:
    """Every pair of rows as CSV, one line for each kind of statistics: differences in points of mIoU."""
    lines: list[Sequence[object]] = [PAIRS_HEADER]
    for matrix in compared_rows:
        for first, row in zip(matrix.names, matrix.cells, strict=True):
            for second, cell in zip(matrix.names, row, strict=True):
                if cell is not None:
                    deviation = "" if cell.difference.deviation is None else f"{cell.difference.deviation:.2f}"
                    p = "" if cell.p is None else f"{cell.p:.4f}"
                    numbers = (f"{cell.difference.mean:.2f}", deviation, cell.won, cell.seeds, p)
                    lines.append((matrix.heading, in_csv(first), in_csv(second), *numbers))
    return csv_text(lines)


def tera(flops: float) -> str:
    """FLOPs in units of 10^12, with three significant digits."""
    value = flops / 1e12
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def sentence_about_p(seeds: int) -> str:
    """The sentence about the paired test over so many seeds."""
    if seeds > MOST_SEEDS:
        return (
            f"The paired test goes through all signs of the differences, which is done for at most {MOST_SEEDS} seeds."
        )
    told = "One seed gives" if seeds == 1 else f"{seeds} seeds give"
    return f"p is that of the exact paired permutation test over seeds, two-sided. {told} none below {min(1.0, 2 / 2**seeds):.2g}."
