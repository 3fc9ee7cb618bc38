"""The page of methods, and its tables beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caguda.artifacts.atomic import read_json, write_atomically
from caguda.artifacts.chain import provenance_of
from caguda.artifacts.checks import refuse_broken_chain
from caguda.artifacts.identity import model_of
from caguda.artifacts.ownership import refuse_foreign
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.paper.escapes import in_markdown
from caguda.paper.evaluations import Evaluation, read_evaluations
from caguda.paper.formats import ABSENT, Statistic, markdown_table, render, show
from caguda.paper.methods import (
    Cost,
    LabelsByRule,
    Matrix,
    costs_of_rows,
    labels_by_row,
    matrices,
    pairs_csv,
    sentence_about_p,
    tera,
)
from caguda.paper.pictures import refuse_other_picture
from caguda.paper.report import artifact, data_uri, duration, labels_of_rows, versions
from caguda.paper.report_files import label_reports_of, refuse_other_checkpoints
from caguda.paper.rows import ModelRow, rows_of_runs
from caguda.paper.table import HEADINGS, best_rows, note, rows_with, table_rows, to_csv, to_markdown
from caguda.runs import models

MADE_BY = "methods-figure"
"""The verb that draws the pictures of the page."""


@dataclass(frozen=True)
class Comparisons:
    """What the page and its tables print: the rows, their evaluations, and what was computed of them."""

    configuration: Configuration
    rows: Sequence[ModelRow]
    evaluations: Sequence[Evaluation]
    costs: Mapping[str, Cost]
    labels: Mapping[str, Sequence[LabelsByRule]]
    pairs: Sequence[Matrix]


def write_methods(
    configuration: Configuration,
    flops: Mapping[str, float],
    *,
    evaluations: Sequence[Path],
    checkpoints: Sequence[Path],
    label_reports: Sequence[Path],
    figure: Path,
    output: Path,
) -> None:
    """Writes the page of all runs at `output`, and `table.csv`, `table.md` and `pairs.csv` beside it.

    A row is the last model of a run. The files must be those of all models of the configuration; UserError for others.
    `checkpoints` are the JSON files beside weights. `flops` maps trained models to the FLOPs of their training; a model whose
    FLOPs are unknown is missing there.
    """
    beside = {name: output.with_name(name) for name in ("table.csv", "table.md", "pairs.csv")}
    refuse_foreign(output, *beside.values())
    refuse_broken_chain([*evaluations, *label_reports, *checkpoints], configuration)
    read = read_evaluations(configuration, models(configuration), evaluations)
    refuse_other_checkpoints(read, checkpoints)
    report_by_checkpoint = label_reports_of(configuration, label_reports, checkpoints)
    refuse_other_picture(figure, MADE_BY, {read_json(path)["weights_sha256"] for path in checkpoints})
    rows = rows_of_runs(configuration)
    last = {row.model for row in rows}
    given = {path: report for path, report in report_by_checkpoint.items() if model_of(provenance_of(path)) in last}
    shown = [item for item in read if item.model in last]
    made = Comparisons(
        configuration,
        rows,
        shown,
        costs_of_rows(configuration, rows, checkpoints, flops),
        labels_by_row(labels_of_rows(rows, given)),
        matrices(table_rows(shown, rows), shown),
    )
    texts = {
        beside["table.csv"]: to_csv(shown, rows),
        beside["table.md"]: to_markdown_of_all(made),
        beside["pairs.csv"]: pairs_csv(made.pairs),
        output: _page(made, figure, [*evaluations, *checkpoints, *label_reports]),
    }
    for path, text in texts.items():
        with write_atomically(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _page(made: Comparisons, figure: Path, files: Sequence[Path]) -> str:
    """The HTML of the page, with the picture inside."""
    rows = table_rows(made.evaluations, made.rows)
    context = {
        "config": made.configuration,
        "frames": made.evaluations[0].frames,
        "note": note(made.configuration, made.rows),
        "rows": rows,
        "best_trained": best_rows(rows, "as_trained"),
        "best_target": best_rows(rows, "target_statistics"),
        "costs": made.costs,
        "labels": made.labels,
        "names": class_table(made.configuration).names,
        "class_tables": {heading: rows_with(statistics, rows) for statistics, heading in HEADINGS.items()},
        "matrices": made.pairs,
        "sentence_about_p": sentence_about_p(len(made.configuration.seeds)),
        "figure": data_uri(figure),
        "versions": versions([artifact(path, path.name, path.parent) for path in files]),
    }
    return render("methods.html.in", context, show=show, duration=duration, tera=tera)


def to_markdown_of_all(made: Comparisons) -> str:
    """The tables of all runs as Markdown: scores, costs and labels, and the rows compared in pairs."""
    configuration = made.configuration
    title = f"{configuration.experiment}, all runs"
    parts = [
        to_markdown(title, made.evaluations, made.rows, note(configuration, made.rows)).rstrip("\n"),
        "## Trainings from fresh weights on, and the labels of the last one",
        _costs_and_labels(made),
        "## Rows compared in pairs",
        "Each cell: on how many seeds the row has a higher mIoU than the column, and the mean difference in points.",
        sentence_about_p(len(configuration.seeds)),
    ]
    for matrix in made.pairs:
        parts += [f"### {matrix.heading[:1].upper()}{matrix.heading[1:]}", _matrix_table(matrix)]
    return "\n\n".join(parts) + "\n"


def _costs_and_labels(made: Comparisons) -> str:
    body = []
    for row in made.rows:
        cost, given = made.costs[row.model], made.labels.get(row.name, ())
        cells = (
            in_markdown(row.title),
            f"{cost.iterations:,}" if cost.iterations else ABSENT,
            duration(None if cost.seconds is None else cost.seconds.mean),
            ABSENT if cost.flops is None else tera(cost.flops),
            ", ".join(f"{in_markdown(item.rule)}: {show(item.labelled)}" for item in given) or ABSENT,
            ", ".join(show(item.precision) for item in given) or ABSENT,
        )
        body.append(cells)
    return markdown_table(("row", "iterations", "training", "TFLOP", "labelled, %", "right, %"), body)


def _matrix_table(matrix: Matrix) -> str:
    """Of how many seeds a row of the matrix has the higher mIoU than a column, and the mean difference."""
    body = []
    for name, row in zip(matrix.names, matrix.cells, strict=True):
        means = [None if cell is None else show(Statistic(cell.difference.mean, None), sign=True) for cell in row]
        cells = ["" if cell is None else f"{cell.won} ({mean})" for cell, mean in zip(row, means, strict=True)]
        body.append([in_markdown(name), *cells])
    return markdown_table(("seeds won", *map(in_markdown, matrix.names)), body)
