"""The result table of a report: every row, per category and on average, as CSV and as Markdown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.checks import refuse_broken_chain
from caguda.classes import smaller_sets
from caguda.config import Configuration
from caguda.config_run import run_name
from caguda.errors import UserError, first, printable
from caguda.paper.escapes import in_csv, in_markdown
from caguda.paper.evaluations import Evaluation, Score, by_model, read_evaluations
from caguda.paper.formats import Statistic, best, csv_text, markdown_table, marked, show, statistic
from caguda.paper.rows import ADABN, ModelRow, notes_of, rows_of
from caguda.runs import anchors_files, imported_files, reports, run_of

LAST_ITERATE = "Every value is the last iterate: nothing is selected on target labels."
REFERENCE = "The {} {} target labels and is a reference, no adapted row."
RE_ESTIMATED = (
    "AdaBN is {} with batch normalisation statistics re-estimated on target training frames, without any training."
)
SMALLER = (
    "mIoU16 is the mean without terrain, truck and train, mIoU13 without wall, fence and pole too. Both are means of the "
    "IoUs above, from one confusion matrix of all trained categories; a network that is trained with fewer categories is "
    "another one. A category that occurs neither in the truth nor in the predictions has no IoU and is left out of every "
    "mean, as in Cityscapes' own evaluation."
)
Statistics = Literal["as_trained", "target_statistics"]
"""The statistics of batch normalisation that a score is with: learnt in training, or re-estimated on the target."""
HEADINGS: Mapping[Statistics, str] = {"as_trained": "as trained", "target_statistics": "with target statistics"}


@dataclass(frozen=True)
class Summary:
    """A row's scores in percent over its seeds; the gain is over the first row as trained, paired by seed."""

    iou: tuple[Statistic, ...]
    miou: Statistic
    gain: Statistic
    smaller: tuple[Statistic, ...]


@dataclass(frozen=True)
class Row:
    """A row of the table; `as_trained` is None for AdaBN, `target_statistics` for a network without batch norm."""

    model_row: ModelRow
    seeds: tuple[int, ...]
    as_trained: Summary | None
    target_statistics: Summary | None
    is_adabn: bool = False

    @property
    def name(self) -> str:
        """The row's short name."""
        return ADABN if self.is_adabn else self.model_row.name

    @property
    def label(self) -> str:
        """The row's title."""
        return ADABN if self.is_adabn else self.model_row.title

    @property
    def adapts(self) -> bool:
        """Whether the row is adapted without target labels."""
        return self.is_adabn or self.model_row.adapts

    def summary(self, statistics: Statistics) -> Summary | None:
        """The scores with one kind of statistics."""
        return self.as_trained if statistics == "as_trained" else self.target_statistics

    def miou(self, statistics: Statistics) -> Statistic | None:
        """The mIoU with one kind of statistics."""
        summary = self.summary(statistics)
        return None if summary is None else summary.miou


def _summary(scores: Sequence[Score | None], base: Sequence[float]) -> Summary | None:
    """The summary of a score for each seed, None where one is missing; `base` is the first row's mIoU in percent."""
    complete = [score for score in scores if score is not None]
    if not complete or len(complete) < len(scores):
        return None
    iou = 100.0 * np.stack([score.iou for score in complete])
    miou = [100.0 * score.miou for score in complete]
    gain = [value - start for value, start in zip(miou, base, strict=True)]
    smaller = [statistic([100.0 * score.smaller[n] for score in complete]) for n in complete[0].smaller]
    return Summary(tuple(map(statistic, iou.T.tolist())), statistic(miou), statistic(gain), tuple(smaller))


def table_rows(evaluations: Sequence[Evaluation], model_rows: Sequence[ModelRow]) -> tuple[Row, ...]:
    """The rows in their order, gains over the first of them; the evaluations must be complete (refuse_incomplete).

    AdaBN is the target-statistics score of a first row that is source only, and follows that row where the score exists.
    """
    groups = by_model(evaluations, [row.model for row in model_rows])
    base = [100.0 * item.as_trained.miou for item in groups[model_rows[0].model]]
    rows: list[Row] = []
    for model_row in model_rows:
        items = groups[model_row.model]
        seeds = tuple(item.seed for item in items)
        target = _summary([item.target_statistics for item in items], base)
        rows.append(Row(model_row, seeds, _summary([item.as_trained for item in items], base), target))
        if model_row is model_rows[0] and model_row.is_source_only and target is not None:
            rows.append(Row(model_row, seeds, None, target, is_adabn=True))
    return tuple(rows)


def rows_with(statistics: Statistics, rows: Sequence[Row]) -> list[tuple[Row, Summary]]:
    """The rows with a score of these statistics, and that score; AdaBN stands for the first row's target statistics."""
    is_repeated = statistics == "target_statistics" and any(row.is_adabn for row in rows)
    summaries = [(row, row.summary(statistics)) for row in rows[is_repeated:]]
    return [(row, summary) for row, summary in summaries if summary is not None]


def best_rows(rows: Sequence[Row], statistics: Statistics) -> list[bool]:
    """Which rows have the best mIoU of the adapted rows."""
    return best([row.miou(statistics) for row in rows], [row.adapts for row in rows])


def _summary_table(rows: Sequence[Row]) -> str:
    columns = [[in_markdown(row.label) for row in rows]]
    for statistics in HEADINGS:
        columns.append(marked([show(row.miou(statistics)) for row in rows], best_rows(rows, statistics)))
        gains = [None if summary is None else summary.gain for summary in (row.summary(statistics) for row in rows)]
        if statistics == "as_trained":
            gains[0] = None
        columns.append([show(gain, sign=True) for gain in gains])
    columns.append([str(len(row.seeds)) for row in rows])
    header = ("row", "mIoU as trained", "gain", "mIoU target statistics", "gain", "seeds")
    return markdown_table(header, list(zip(*columns, strict=True)))


def _names_of_means(classes: Sequence[str]) -> tuple[str, ...]:
    return ("mIoU", *(f"mIoU{n}" for n in smaller_sets(tuple(classes))))


def _class_table(classes: Sequence[str], rows: Sequence[tuple[Row, Summary]]) -> str:
    body = []
    adapts = [row.adapts for row, _ in rows]
    columns = [(*summary.iou, summary.miou, *summary.smaller) for _, summary in rows]
    for name, values in zip((*classes, *_names_of_means(classes)), zip(*columns, strict=True), strict=True):
        means = [show(Statistic(value.mean, None)) for value in values]
        body.append((in_markdown(name), *marked(means, best(values, adapts))))
    return markdown_table(("class", *(in_markdown(row.name) for row, _ in rows)), body)


def note(configuration: Configuration, rows: Sequence[ModelRow]) -> str:
    """The note below a table: references, AdaBN, the runs' own notes, what is left out, imported models and anchors."""
    notes = [LAST_ITERATE]
    for row in rows:
        if row.is_reference:
            is_trained = run_of(configuration, row.model).is_reference
            notes.append(REFERENCE.format(row.title, "trains on" if is_trained else "has seen"))
    if rows[0].is_source_only:
        notes.append(RE_ESTIMATED.format(rows[0].title))
    notes += notes_of(configuration, rows)
    if configuration.left_out:
        notes.append(f"Left out: {', '.join(configuration.left_out)}.")
    models = {row.model for row in rows}
    files = imported_files(configuration).items()
    if imported := [f"the model of {run} is {path}" for run, path in files if run in models]:
        notes.append(f"Not trained here: {', '.join(imported)}.")
    runs, given = {run_name(model) for model in models}, anchors_files(configuration).items()
    if anchors := [f"those of {run} are {path}" for run, path in given if run in runs]:
        notes.append(f"Anchors from elsewhere: {', '.join(anchors)}.")
    return " ".join(notes)


def _filled(text: str) -> str:
    """Text in lines of at most 116 characters; no name of a file is broken."""
    return textwrap.fill(text, 116, break_on_hyphens=False, break_long_words=False)


def to_markdown(title: str, evaluations: Sequence[Evaluation], model_rows: Sequence[ModelRow], note: str) -> str:
    """The table as Markdown: seeds and frames, a summary, then one table per kind of statistics with classes as rows.

    IoU and mIoU in percent; the best adapted value is bold; lines stay below 120 columns for up to five stages.
    """
    rows, classes = table_rows(evaluations, model_rows), evaluations[0].classes
    has_several = len(rows[0].seeds) > 1
    seeds = ", ".join(str(seed) for seed in rows[0].seeds)
    spread = "mean ± sample standard deviation over seeds" if has_several else "one seed, no deviation"
    setting = (
        f"Seeds: {seeds} ({spread}). Evaluation: {evaluations[0].frames} target frames, {len(classes)} classes. "
        f"IoU in percent, gain in points over {in_markdown(rows[0].label)} as trained; best adapted value in bold."
    )
    parts = [f"# {title}", _filled(setting), _filled(in_markdown(printable(note))), _summary_table(rows)]
    for statistics, heading in HEADINGS.items():
        if scored := rows_with(statistics, rows):
            means = " (means over seeds)" if has_several else ""
            parts += [f"## IoU per class {heading}{means}", _class_table(classes, scored)]
    if smaller_sets(classes):
        parts.append(_filled(SMALLER))
    return "\n\n".join(parts) + "\n"


def to_csv(evaluations: Sequence[Evaluation], model_rows: Sequence[ModelRow]) -> str:
    """The table as CSV: one line per row, seed and kind of statistics; percent; an absent category's cell is empty."""
    classes, groups = evaluations[0].classes, by_model(evaluations, [row.model for row in model_rows])
    base = {item.seed: item.as_trained.miou for item in groups[model_rows[0].model]}
    header = ("row", "statistics", "seed", "frames", *map(in_csv, classes), *_names_of_means(classes), "gain")
    lines: list[Sequence[object]] = [header]
    for row in model_rows:
        target_name = ADABN if row is model_rows[0] and row.is_source_only else row.name
        for item in groups[row.model]:
            scores = ((row.name, "as trained", item.as_trained), (target_name, "target", item.target_statistics))
            for name, statistics, score in scores:
                if score is not None:
                    values = (*score.iou.tolist(), score.miou, *score.smaller.values(), score.miou - base[item.seed])
                    cells = ["" if math.isnan(value) else f"{100.0 * value:.1f}" for value in values]
                    lines.append((in_csv(name), statistics, item.seed, item.frames, *cells))
    return csv_text(lines)


def report_rows(configuration: Configuration, report: str) -> list[ModelRow]:
    """The rows of a report; UserError where the configuration has no report of this name."""
    models = reports(configuration)
    if report not in models:
        raise UserError(f"--report {report}: the configuration has no such report, only {first(list(models))}")
    return rows_of(configuration, models[report])


def write_table(
    configuration: Configuration, report: str, evaluations: Sequence[Path], csv: Path, markdown: Path
) -> None:
    """Writes the result table of a report as CSV and as Markdown; see refuse_broken_chain and refuse_incomplete."""
    rows = report_rows(configuration, report)
    refuse_broken_chain(evaluations, configuration)
    read = read_evaluations(configuration, [row.model for row in rows], evaluations)
    title = f"{configuration.experiment}, {report}"
    texts = {csv: to_csv(read, rows), markdown: to_markdown(title, read, rows, note(configuration, rows))}
    for path, text in texts.items():
        with write_atomically(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
