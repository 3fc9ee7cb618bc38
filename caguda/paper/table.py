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

from caguda.ablations import chains
from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.identity import refuse_other_recipe
from caguda.classes import class_table, smaller_sets
from caguda.config import Configuration
from caguda.errors import printable
from caguda.paper.escapes import in_csv, in_markdown
from caguda.paper.evaluations import Evaluation, Score, by_row, check_evaluations, read_evaluation, refuse_others

ABSENT = "-"
LABELS = {"control": "source CE control"}
_NOTES = {
    "all": "Every value is the last iterate: nothing is selected on target labels.",
    "oracle": "The oracle trains on target labels and is a reference, no adapted row.",
    "AdaBN": "AdaBN is source only with batch normalisation statistics re-estimated on target training frames, without any "
    "training.",
    "control": "The source CE control goes on from the warm-up with the source cross entropy alone, for as many iterations "
    "as all stages together.",
}
NOTE = " ".join(_NOTES.values())
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

    name: str
    seeds: tuple[int, ...]
    as_trained: Summary | None
    target_statistics: Summary | None

    @property
    def label(self) -> str:
        """The row's name in print."""
        return LABELS.get(self.name, self.name)

    @property
    def adapted(self) -> bool:
        """Whether the row adapts without target labels: all but source only and the oracle."""
        return self.name not in ("source only", "oracle")


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


def table_rows(evaluations: Sequence[Evaluation]) -> tuple[Row, ...]:
    """The rows in the order source only, AdaBN, warm-up, control, stages, oracle; see check_evaluations.

    AdaBN is the target-statistics score of source only. Both are left out where they do not exist.
    """
    groups = by_row(evaluations)
    base = [100.0 * item.as_trained.miou for item in next(iter(groups.values()))]
    rows: list[Row] = []
    for name, items in groups.items():
        seeds = tuple(item.seed for item in items)
        target = _summary([item.target_statistics for item in items], base)
        rows.append(Row(name, seeds, _summary([item.as_trained for item in items], base), target))
        if name == "source only" and target is not None:
            rows.append(Row("AdaBN", seeds, None, target))
    return tuple(rows)


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
        [row.label for row in rows],
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
    return markdown_table(("class", *(row.name for row in rows)), body)


def note(configuration: Configuration) -> str:
    """What a reader must know of the rows, what is left out, and which models were brought from elsewhere."""
    rows = ("all", "AdaBN", *configuration.trained_bounds)
    notes = [text for name, text in _NOTES.items() if name in rows]
    if configuration.left_out:
        notes.append(f"Left out: {', '.join(configuration.left_out)}.")
    brought = [f"the model of {run} is {path}" for run, path in configuration.start_from.items()]
    if brought:
        notes.append(f"Not trained here: {', '.join(brought)}.")
    return " ".join(notes)


def _filled(text: str) -> str:
    """Text in lines of at most 116 characters; no name of a file is broken."""
    return textwrap.fill(text, 116, break_on_hyphens=False, break_long_words=False)


def to_markdown(title: str, evaluations: Sequence[Evaluation], note: str = NOTE) -> str:
    """The table as Markdown: what was run, a summary, then one table per kind of statistics with classes as rows.

    IoU and mIoU in percent; the best adapted value is bold; lines stay below 120 columns for up to five stages.
    """
    rows, first = table_rows(evaluations), evaluations[0]
    seeds = ", ".join(str(seed) for seed in rows[0].seeds)
    spread = "mean ± sample standard deviation over seeds" if len(rows[0].seeds) > 1 else "one seed, no deviation"
    run = (
        f"Seeds: {seeds} ({spread}). Evaluation: {first.frames} target frames, {len(first.classes)} classes. "
        f"IoU in percent, gain in points over {rows[0].label} as trained; best adapted value in bold."
    )
    parts = [f"# {title}", _filled(run), _filled(in_markdown(printable(note))), _summary_table(rows)]
    tables = (
        ("as trained", [(row, row.as_trained) for row in rows]),
        ("with target statistics", [(row, row.target_statistics) for row in rows if row.name != "source only"]),
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


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """The table as CSV: one line per row, kind of statistics and seed; percent; an absent category's cell is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = evaluations[0].classes
    writer.writerow(("row", "statistics", "seed", "frames", *map(in_csv, classes), *_means(classes), "gain"))
    base = {item.seed: item.as_trained.miou for item in next(iter(by_row(evaluations).values()))}
    for item in (item for items in by_row(evaluations).values() for item in items):
        scores = (("as trained", item.as_trained), ("target", item.target_statistics))
        for statistics, score in scores:
            if score is not None:
                values = (*score.iou.tolist(), score.miou, *score.smaller.values(), score.miou - base[item.seed])
                cells = ["" if math.isnan(value) else f"{100.0 * value:.1f}" for value in values]
                name = "AdaBN" if (item.row, statistics) == ("source only", "target") else item.row
                writer.writerow((name, statistics, item.seed, item.frames, *cells))
    return text.getvalue()


def read_evaluations(configuration: Configuration, recipe: str, paths: Sequence[Path]) -> list[Evaluation]:
    """The evaluations in the files, of one recipe, complete for the experiment's seeds and stages; UserError otherwise.

    All that they were made of must be there unchanged: one that is older than its checkpoint would pass for current.
    """
    refuse_others(paths, configuration)
    evaluations = [read_evaluation(path) for path in paths]
    refuse_other_recipe(recipe, list(chains(configuration)), {item.path: item.recipe for item in evaluations})
    names, optional = class_table(configuration).names, () if "pretrain" in configuration.runs else ("source only",)
    check_evaluations(evaluations, names, configuration.seeds, configuration.stages.count, optional)
    return evaluations


def write_table(
    configuration: Configuration, recipe: str, evaluations: Sequence[Path], csv: Path, markdown: Path
) -> None:
    """Writes the result table of a recipe as CSV and as Markdown; see check_evaluations for what is refused."""
    read = read_evaluations(configuration, recipe, evaluations)
    title = f"{configuration.experiment}, {recipe}"
    for path, text in ((csv, to_csv(read)), (markdown, to_markdown(title, read, note(configuration)))):
        with write_atomically(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
