"""The paper's Tables 1 to 4: the published rows beside the same rows measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.chain import provenance_of
from caguda.artifacts.checks import refuse_broken_chain
from caguda.artifacts.identity import CHECKPOINT, KIND_BY_VERB, read_artifact, refuse_other_model
from caguda.artifacts.ownership import refuse_foreign
from caguda.classes import CITYSCAPES_19, class_table
from caguda.config import Configuration, Table
from caguda.errors import UserError
from caguda.files import sha256
from caguda.paper.evaluations import by_model, input_of_kind, read_evaluations
from caguda.paper.formats import Line, PrintedTable, Statistic, statistic, to_csv, to_html, to_latex, to_markdown
from caguda.paper.published import Published, published
from caguda.paper.rows import rows_of, table_models

FORMATS: Mapping[str, Callable[[PrintedTable], str]] = {
    ".csv": to_csv,
    ".md": to_markdown,
    ".tex": to_latex,
    ".html": to_html,
}
LATEX = {
    "+ CE(tP)": r"$+\mathcal{L}_{CE}^{tP}$",
    "+ CE(t)": r"$+\mathcal{L}_{CE}^{t}$",
    "+ dis(sP) + dis(tP)": r"$+\mathcal{L}_{dis}^{sP}+\mathcal{L}_{dis}^{tP}$",
    "+ dis(s) + dis(t)": r"$+\mathcal{L}_{dis}^{s}+\mathcal{L}_{dis}^{t}$",
    "+ dis(s) + dis(t) + CE(t)": r"$+\mathcal{L}_{dis}^{s}+\mathcal{L}_{dis}^{t}+\mathcal{L}_{CE}^{t}$",
    "+ CE(t) + CE(tP)": r"$+\mathcal{L}_{CE}^{t}+\mathcal{L}_{CE}^{tP}$",
}
"""The losses of Table 4 in LaTeX, by the titles of their rows.

CE(tP) is the cross entropy on labels by probability, CE(t) that on labels by anchors, dis the distances to the anchors.
"""
SCENARIOS: Mapping[int, tuple[Table, str, str]] = {
    1: ("table1", "GTA5 -> Cityscapes", "gta5"),
    3: ("table3", "SYNTHIA -> Cityscapes", "synthia"),
}
"""Of the tables that compare methods: the key in `tables`, the scenario, and the layout of its source."""


def write_paper_table(configuration: Configuration, number: int, evaluations: Sequence[Path], output: Path) -> None:
    """Writes a table of the paper as CSV at `output`, and as Markdown, LaTeX and HTML beside it.

    For Table 2, which is of the test set without public labels, `evaluations` are the JSON files of submissions.
    """
    refuse_broken_chain(evaluations, configuration)
    write_formats(BUILDERS[number](configuration, evaluations), output)


def write_formats(table: PrintedTable, output: Path) -> None:
    """Writes a table in all formats, beside each other; UserError, before any is written, where a foreign file lies."""
    refuse_foreign(*map(output.with_suffix, FORMATS))
    for suffix, text in FORMATS.items():
        with write_atomically(output.with_suffix(suffix)) as temporary:
            temporary.write_text(text(table), encoding="utf-8")


def ablation(configuration: Configuration, paths: Sequence[Path]) -> PrintedTable:
    """Table 4: source only, the warm-up, each loss added to it, the stages, and variants that the paper describes."""
    published_values = {row.label: row.values for row in published(4)[1]}
    lines = []
    for line in _measured(configuration, paths, "table4", ("mIoU",)):
        values = published_values.get(line.label, {})
        beside = tuple(Statistic(values.get(name, math.nan), None) for name in ("mIoU", "gain"))
        lines.append(replace(line, values=(*line.values, *beside)))
    names = class_table(configuration).names
    columns = (*names, "mIoU", "gain", "published mIoU", "published gain")
    note = (
        measured_note(configuration)
        + "Every ablation is one stage from the same warm-up, anchors and pseudo-labels as stage 1 (without warm-up: from source "
        "only). CE(t) and CE(tP) are the cross entropies on target labels by anchors and by probability, dis the distances to "
        f"the anchors. Gain in points over {lines[0].label}, paired by seed. Published: Zhang et al., NeurIPS 2019, Table 4, "
        "GTA5 -> Cityscapes."
    )
    return PrintedTable(f"Table 4, ablations: {configuration.experiment}", note, columns, len(names), tuple(lines))


def comparison(number: Literal[1, 3], configuration: Configuration, paths: Sequence[Path]) -> PrintedTable:
    """Table 1 or 3: our rows after the published ones, if the experiment is of their scenario."""
    table, scenario, layout = SCENARIOS[number]
    columns, published_rows = published(number)
    names = tuple(name for name in columns if name in CITYSCAPES_19.names)
    if missing := sorted(set(names) - set(class_table(configuration).names)):
        raise UserError(
            f"table {number}: the experiment must have the categories of {scenario}, but {missing[0]} is missing from "
            f"{configuration.experiment}; use a configuration with cityscapes{len(names)}"
        )
    lines = _measured(configuration, paths, table, columns[len(names) :], names)
    columns = (*columns, "gain")
    note = f"{measured_note(configuration)}Gain in points over our own {lines[0].label}, paired by seed. "
    if configuration.street is None and configuration.source.layout == layout:
        title = f"Table {number}, {scenario}"
        note += f"Published: Zhang et al., NeurIPS 2019, Table {number}, by the source that it cites."
        lines = [*(_published_line(row, columns) for row in published_rows), *lines]
    else:
        title = f"Table {number}, {configuration.experiment}"
        note += f"The published rows are of {scenario} and are left out here: these frames are others."
    return PrintedTable(title, note, columns, len(names), tuple(lines))


def _measured(
    configuration: Configuration, paths: Sequence[Path], table: Table, means: Sequence[str], names: Sequence[str] = ()
) -> list[Line]:
    """The measured lines: IoU of the named categories (all if none are named), the means, and the gain in the first mean.

    `mIoU` is over these categories, `mIoU*` over 13 of them. Gains are over the first row, which has none.
    """
    rows = rows_of(configuration, table_models(configuration, table))
    models, classes = [row.model for row in rows], class_table(configuration).names
    evaluations = by_model(read_evaluations(configuration, models, paths), models)
    indices = [classes.index(name) for name in names or classes]
    sizes = [13 if name == "mIoU*" else len(indices) for name in means]
    base = [100.0 * item.as_trained.mean(sizes[0]) for item in evaluations[models[0]]]
    lines = []
    for row in rows:
        scores = [item.as_trained for item in evaluations[row.model]]
        values = [statistic(100.0 * float(score.iou[index]) for score in scores) for index in indices]
        values += [statistic(100.0 * score.mean(size) for score in scores) for size in sizes]
        gains = [100.0 * score.mean(sizes[0]) - start for score, start in zip(scores, base, strict=True)]
        values.append(statistic([] if row is rows[0] else gains))
        lines.append(Line(row.title, "measured", tuple(values), row.adapts, LATEX.get(row.title, "")))
    return lines


def _published_line(row: Published, columns: Sequence[str]) -> Line:
    values = tuple(Statistic(row.values.get(name, math.nan), None) for name in columns)
    adapts = not row.label.lower().startswith("source only")
    return Line(row.label, f"published, {row.source}", values, adapts)


def measured_note(configuration: Configuration) -> str:
    """The sentence of a note about measured values: over which seeds they are, and that nothing is selected."""
    seeds = ", ".join(str(seed) for seed in configuration.seeds)
    spread = f"mean ± sample standard deviation of seeds {seeds}" if len(configuration.seeds) > 1 else f"seed {seeds}"
    return f"Measured: {spread}, last iterate, no selection on target labels. "


def test_set(configuration: Configuration, paths: Sequence[Path]) -> PrintedTable:
    """Table 2: the published row, and the submissions that the test server can score."""
    columns, published_rows = published(2)
    models = table_models(configuration, "table2")
    if len(models) > 1:
        raise UserError(
            f"tables.table2: this table must be of one model, found {', '.join(models)}; list one run, or RUN/stageK"
        )
    submissions = {path: _submission(path, models[0]) for path in paths}
    seeds = sorted(submission["provenance"]["seed"] for submission in submissions.values())
    if seeds != sorted(configuration.seeds):
        raise UserError(f"{paths[0]}: table 2 must have one submission of each seed {list(configuration.seeds)}, found "
                        f"seeds {seeds}; name those")  # fmt: skip
    lines = [_published_line(row, columns) for row in published_rows]
    unknown = tuple(Statistic(math.nan, None) for _ in columns)
    for path, submission in submissions.items():
        seed, images, digest = submission["provenance"]["seed"], submission["images"], submission["sha256"]
        label = f"seed {seed}: {images} frames, SHA-256 {digest[:12]}"
        lines.append(Line(label, f"to be scored, {path.with_suffix('.zip')}", unknown))
    note = (
        "Published: Zhang et al., NeurIPS 2019, Table 2. The labels of the test set are not public: Cityscapes' server "
        f"scores the zip of each seed. Those listed hold predictions of the set {submissions[paths[0]]['set']}."
    )
    title = f"Table 2, test set: {configuration.experiment}"
    return PrintedTable(title, note, columns, len(columns) - 1, tuple(lines))


def _submission(path: Path, model: str) -> dict[str, Any]:
    """The JSON of a submission; UserError unless the zip beside it is the recorded one, and of this model's predictions."""
    content = read_artifact(path, KIND_BY_VERB["submission"])
    if sha256(path.with_suffix(".zip")) != content["sha256"]:
        raise UserError(f"{path.with_suffix('.zip')}: the zip must have the SHA-256 that {path.name} gives, found another; make "
                        "it again")  # fmt: skip
    checkpoint = input_of_kind(input_of_kind(path, KIND_BY_VERB["predict"]), CHECKPOINT)
    refuse_other_model(checkpoint, provenance_of(checkpoint), model)
    return content


BUILDERS: Mapping[int, Callable[[Configuration, Sequence[Path]], PrintedTable]] = {
    1: partial(comparison, 1),
    2: test_set,
    3: partial(comparison, 3),
    4: ablation,
}
