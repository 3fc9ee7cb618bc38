"""The result table: every row of the experiment, per category and on average, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caguda.artifacts.atomic import write_atomically
from caguda.classes import class_table, smaller_sets
from caguda.config import Configuration
from caguda.errors import UserError, first, printable
from caguda.paper.escapes import in_csv, in_markdown
from caguda.paper.evaluations import Evaluation, Score, by_run, check_evaluations, read_evaluation, refuse_others
from caguda.paper.rows import ModelRow, notes_of, rows_of
from caguda.runs import imported_files, reports, run_of

ABSENT = "-"
LAST_ITERATE = "Every value is the last iterate: nothing is selected on target labels."
REFERENCE = "The {} {} target labels and is a reference, no adapted row."
ADABN = "AdaBN is {} with batch normalisation statistics re-estimated on target training frames, without any training."
SMALLER = (
    "mIoU16 is the mean without terrain, truck and train, mIoU13 without wall, fence and pole too. Both are means of the "
    "IoUs above, from one confusion matrix of all trained categories; a network that is trained with fewer categories is "
    "another one. A category that occurs neither in the truth nor in the predictions has no IoU and is left out of every "
    "mean, as in Cityscapes' own evaluation."
)


@dataclass(frozen=True)
class Statistic:
    """A mean over seeds and its sample standard deviation (n - 1); no deviation for one seed, nan for no value."""

    mean: float
    deviation: float | None


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

    of: ModelRow
    seeds: tuple[int, ...]
    as_trained: Summary | None
    target_statistics: Summary | None
    is_adabn: bool = False

    @property
    def name(self) -> str:
        """The row's name in short."""
        return "AdaBN" if self.is_adabn else self.of.name

    @property
    def label(self) -> str:
        """The row's name in print."""
        return "AdaBN" if self.is_adabn else self.of.title

    @property
    def adapted(self) -> bool:
        """Whether the row adapts without target labels."""
        return self.is_adabn or self.of.adapts


def statistic(values: Sequence[float]) -> Statistic:
    """The mean and sample standard deviation of the values that are not nan."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Statistic(math.nan, None)
    return Statistic(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None)


def _summary(scores: Sequence[Score | None], base: Sequence[float]) -> Summary | None:
    known = [score for score in scores if score is not None]
    if not known or len(known) < len(scores):
        return None
    iou = 100.0 * np.stack([score.iou for score in known])
    miou = [100.0 * score.miou for score in known]
    gain = [value - start for value, start in zip(miou, base, strict=True)]
    smaller = [statistic([100.0 * score.smaller[n] for score in known]) for n in known[0].smaller]
    each = tuple(statistic(column) for column in iou.T.tolist())
    return Summary(each, statistic(miou), statistic(gain), tuple(smaller))


def table_rows(evaluations: Sequence[Evaluation], rows: Sequence[ModelRow]) -> tuple[Row, ...]:
    """The rows in their order, gains over the first of them; see check_evaluations.

    AdaBN is the target-statistics score of a first row that is source only, and comes behind it where it exists.
    """
    groups = by_run(evaluations, [row.model for row in rows])
    base = [100.0 * item.as_trained.miou for item in groups[rows[0].model]]
    found: list[Row] = []
    for of in rows:
        items = groups[of.model]
        seeds = tuple(item.seed for item in items)
        target = _summary([item.target_statistics for item in items], base)
        found.append(Row(of, seeds, _summary([item.as_trained for item in items], base), target))
        if of is rows[0] and of.is_source_only and target is not None:
            found.append(Row(of, seeds, None, target, is_adabn=True))
    return tuple(found)


def show(value: Statistic | None, sign: bool = False) -> str:
    """The statistic with one decimal, as `12.3` or `12.3 ± 0.4`; "-" where there is none."""
    if value is None or math.isnan(value.mean):
        return ABSENT
    mean = f"{value.mean:+z.1f}" if sign else f"{value.mean:z.1f}"
    return mean if value.deviation is None else f"{mean} ± {value.deviation:.1f}"


def best(rows: Sequence[Row], values: Sequence[Statistic | None]) -> list[bool]:
    """Which values are the largest of the adapted rows at the printed precision; ties are all best."""
    means = [
        round(value.mean, 1) if row.adapted and value is not None and not math.isnan(value.mean) else -math.inf
        for row, value in zip(rows, values, strict=True)
    ]
    top = max(means, default=-math.inf)
    return [mean == top > -math.inf for mean in means]


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table with aligned columns, the first to the left."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *body, strict=True)]
    lines = [
        [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        for cells in (header, *body)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def _bold(texts: Sequence[str], which: Sequence[bool]) -> list[str]:
    return [f"**{text}**" if is_best else text for text, is_best in zip(texts, which, strict=True)]


def _summary_table(rows: Sequence[Row]) -> str:
    trained = [row.as_trained.miou if row.as_trained else None for row in rows]
    target = [row.target_statistics.miou if row.target_statistics else None for row in rows]
    columns = [
        [in_markdown(row.label) for row in rows],
        _bold([show(value) for value in trained], best(rows, trained)),
        [show(row.as_trained.gain if row.as_trained and row is not rows[0] else None, True) for row in rows],
        _bold([show(value) for value in target], best(rows, target)),
        [show(row.target_statistics.gain if row.target_statistics else None, True) for row in rows],
        [str(len(row.seeds)) for row in rows],
    ]
    header = ("row", "mIoU as trained", "gain", "mIoU target statistics", "gain", "seeds")
    return markdown_table(header, list(zip(*columns, strict=True)))


def _means(classes: Sequence[str]) -> tuple[str, ...]:
    """What the means of these categories' IoU are called."""
    return ("mIoU", *(f"mIoU{n}" for n in smaller_sets(tuple(classes))))


def _class_table(classes: Sequence[str], rows: Sequence[Row], summaries: Sequence[Summary]) -> str:
    body = []
    columns = [(*summary.iou, summary.miou, *summary.smaller) for summary in summaries]
    for name, values in zip((*classes, *_means(classes)), zip(*columns, strict=True), strict=True):
        means = [show(Statistic(value.mean, None)) for value in values]
        body.append((in_markdown(name), *_bold(means, best(rows, values))))
    return markdown_table(("class", *(in_markdown(row.name) for row in rows)), body)


def note(configuration: Configuration, rows: Sequence[ModelRow]) -> str:
    """What a reader must know of the rows, what is left out, and which models were brought from elsewhere."""
    seen = {row: "trains on" if run_of(configuration, row.model).is_reference else "has seen" for row in rows}
    notes = [LAST_ITERATE, *(REFERENCE.format(row.title, seen[row]) for row in rows if row.is_reference)]
    notes += [ADABN.format(rows[0].title)] if rows[0].is_source_only else []
    notes += notes_of(configuration, rows)
    if configuration.left_out:
        notes.append(f"Left out: {', '.join(configuration.left_out)}.")
    shown = {row.model for row in rows}
    brought = [f"the model of {run} is {path}" for run, path in imported_files(configuration).items() if run in shown]
    if brought:
        notes.append(f"Not trained here: {', '.join(brought)}.")
    return " ".join(notes)


def _filled(text: str) -> str:
    """Text in lines of at most 116 characters; no name of a file is broken."""
    return textwrap.fill(text, 116, break_on_hyphens=False, break_long_words=False)


def to_markdown(title: str, evaluations: Sequence[Evaluation], models: Sequence[ModelRow], note: str) -> str:
    """The table as Markdown: what was run, a summary, then one table per kind of statistics with classes as rows.

    IoU and mIoU in percent; the best adapted value is bold; lines stay below 120 columns for up to five stages.
    """
    rows, first = table_rows(evaluations, models), evaluations[0]
    seeds = ", ".join(str(seed) for seed in rows[0].seeds)
    spread = "mean ± sample standard deviation over seeds" if len(rows[0].seeds) > 1 else "one seed, no deviation"
    run = (
        f"Seeds: {seeds} ({spread}). Evaluation: {first.frames} target frames, {len(first.classes)} classes. "
        f"IoU in percent, gain in points over {in_markdown(rows[0].label)} as trained; best adapted value in bold."
    )
    parts = [f"# {title}", _filled(run), _filled(in_markdown(printable(note))), _summary_table(rows)]
    tables = (
        ("as trained", [(row, row.as_trained) for row in rows]),
        ("with target statistics", [(row, row.target_statistics) for row in rows if not _is_told_by_adabn(row, rows)]),
    )
    for heading, pairs in tables:
        known = [(row, summary) for row, summary in pairs if summary is not None]
        if known:
            means = " (means over seeds)" if len(rows[0].seeds) > 1 else ""
            text = _class_table(first.classes, [row for row, _ in known], [summary for _, summary in known])
            parts += [f"## IoU per class {heading}{means}", text]
    if smaller_sets(first.classes):
        parts.append(_filled(SMALLER))
    return "\n\n".join(parts) + "\n"


def _is_told_by_adabn(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a row's target statistics are those of the row AdaBN."""
    return row is rows[0] and any(other.is_adabn for other in rows)


def to_csv(evaluations: Sequence[Evaluation], rows: Sequence[ModelRow]) -> str:
    """The table as CSV: one line per row, kind of statistics and seed; percent; an absent category's cell is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes, groups = evaluations[0].classes, by_run(evaluations, [row.model for row in rows])
    writer.writerow(("row", "statistics", "seed", "frames", *map(in_csv, classes), *_means(classes), "gain"))
    base = {item.seed: item.as_trained.miou for item in groups[rows[0].model]}
    for row, item in [(of, item) for of in rows for item in groups[of.model]]:
        for statistics, score in (("as trained", item.as_trained), ("target", item.target_statistics)):
            if score is not None:
                values = (*score.iou.tolist(), score.miou, *score.smaller.values(), score.miou - base[item.seed])
                cells = ["" if math.isnan(value) else f"{100.0 * value:.1f}" for value in values]
                is_adabn = row is rows[0] and row.is_source_only and statistics == "target"
                name = "AdaBN" if is_adabn else in_csv(row.name)
                writer.writerow((name, statistics, item.seed, item.frames, *cells))
    return text.getvalue()


def report_rows(configuration: Configuration, report: str) -> list[ModelRow]:
    """The rows of a report; UserError where the configuration has none of this name."""
    known = reports(configuration)
    if report not in known:
        raise UserError(f"--report {report}: the configuration has no such report, only {first(list(known))}")
    return rows_of(configuration, known[report])


def read_evaluations(configuration: Configuration, rows: Sequence[ModelRow], paths: Sequence[Path]) -> list[Evaluation]:
    """The evaluations in the files, of these rows, complete for the experiment's seeds; UserError otherwise.

    All that they were made of must be there unchanged: one that is older than its checkpoint would pass for current.
    """
    refuse_others(paths, configuration)
    evaluations = [read_evaluation(path) for path in paths]
    check_evaluations(evaluations, class_table(configuration).names, configuration.seeds, [row.model for row in rows])
    return evaluations


def write_table(
    configuration: Configuration, report: str, evaluations: Sequence[Path], csv: Path, markdown: Path
) -> None:
    """Writes the result table of a report as CSV and as Markdown; see check_evaluations for what is refused."""
    rows = report_rows(configuration, report)
    read = read_evaluations(configuration, rows, evaluations)
    title = f"{configuration.experiment}, {report}"
    texts = {csv: to_csv(read, rows), markdown: to_markdown(title, read, rows, note(configuration, rows))}
    for path, text in texts.items():
        with write_atomically(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
