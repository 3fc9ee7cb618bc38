"""The paper's tables: its published rows, and the same rows as they were measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from caguda.artifacts.atomic import read_json, sha256, write_atomically
from caguda.artifacts.chain import inputs_of, provenance_of, recorded_sha256
from caguda.artifacts.identity import KINDS, read_artifact, refuse_other_model
from caguda.artifacts.ownership import refuse_foreign
from caguda.classes import CITYSCAPES_19, class_table
from caguda.config import Configuration, Table
from caguda.errors import UserError
from caguda.paper.escapes import in_latex
from caguda.paper.evaluations import Evaluation, by_run, check_evaluations, read_evaluation, refuse_others
from caguda.paper.formats import Line, PrintedTable, to_csv, to_html, to_latex, to_markdown
from caguda.paper.published import Published, published
from caguda.paper.rows import ModelRow, rows_of, table_models
from caguda.paper.table import Statistic, statistic

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
"""How the losses of Table 4 are printed in LaTeX, by the titles of their rows.

CE(tP) is the cross entropy on labels by probability, CE(t) that on labels by anchors, dis the distances to the anchors.
"""


def write_paper_table(configuration: Configuration, number: int, evaluations: Sequence[Path], output: Path) -> None:
    """Write a table of the paper as CSV at `output`, and as Markdown, LaTeX and HTML beside it.

    Table 2 is of the test set, whose labels nobody has: its `evaluations` are the JSON files of submissions.
    """
    refuse_others(evaluations, configuration)
    write_formats(BUILDERS[number](configuration, evaluations), output)


def write_formats(table: PrintedTable, output: Path) -> None:
    """Write a table in all its formats, beside each other, or none where a file of somebody else lies."""
    refuse_foreign(*map(output.with_suffix, FORMATS))
    for suffix, text in FORMATS.items():
        with write_atomically(output.with_suffix(suffix)) as partial:
            partial.write_text(text(table), encoding="utf-8")


def ablation(configuration: Configuration, paths: Sequence[Path]) -> PrintedTable:
    """Table 4: what each loss adds to the warm-up, the stages, and what the paper tells of other ways."""
    printed = {row.label: row.values for row in published(4)[1]}
    rows = rows_of(configuration, table_models(configuration, "table4"))
    lines = []
    for line, row in zip(_measured(configuration, paths, rows, ("mIoU",)), rows, strict=True):
        known = printed.get(row.title, {})
        beside = tuple(Statistic(known.get(what, math.nan), None) for what in ("mIoU", "gain"))
        lines.append(replace(line, values=(*line.values, *beside)))
    columns = (*class_table(configuration).names, "mIoU", "gain", "published mIoU", "published gain")
    note = (
        measured_note(configuration)
        + "Every ablation is one stage from the same warm-up, anchors and pseudo-labels as stage 1 (without warm-up: from source "
        "only). CE(t) and CE(tP) are the cross entropies on target labels by anchors and by probability, dis the distances to "
        f"the anchors. Gain in points over {rows[0].title}, paired by seed. Published: Zhang et al., NeurIPS 2019, Table 4, "
        "GTA5 -> Cityscapes."
    )
    return PrintedTable(f"Table 4, ablations: {configuration.experiment}", note, columns, 4, tuple(lines))


def _comparison(number: Literal[1, 3], scenario: str, layout: str) -> Callable[..., PrintedTable]:
    """The builder of Table 1 or 3: our rows among the published ones of a scenario."""

    def build(configuration: Configuration, paths: Sequence[Path]) -> PrintedTable:
        columns, published_rows = published(number)
        names = tuple(name for name in columns if name in CITYSCAPES_19.names)
        means = columns[len(names) :]
        if missing := sorted(set(names) - set(class_table(configuration).names)):
            raise UserError(
                f"table {number}: the experiment must have the categories of {scenario}, but {missing[0]} is missing from "
                f"{configuration.experiment}; use a configuration with cityscapes{len(names)}"
            )
        table: Table = "table1" if number == 1 else "table3"
        lines = _measured(
            configuration, paths, rows_of(configuration, table_models(configuration, table)), means, names
        )
        comparable = configuration.street is None and configuration.source.layout == layout
        known = [_published_line(row, (*columns, "gain")) for row in published_rows] if comparable else []
        note = f"{measured_note(configuration)}Gain in points over our own {lines[0].label}, paired by seed. "
        note += (
            f"Published: Zhang et al., NeurIPS 2019, Table {number}, by the source that it cites."
            if comparable
            else f"The published rows are of {scenario} and are left out here: these frames are others."
        )
        title = f"Table {number}, {scenario if comparable else configuration.experiment}"
        return PrintedTable(title, note, (*columns, "gain"), len(means) + 1, (*known, *lines))

    return build


def _measured(
    configuration: Configuration,
    paths: Sequence[Path],
    rows: Sequence[ModelRow],
    means: Sequence[str],
    names: Sequence[str] = (),
) -> list[Line]:
    """Our lines: IoU of the named categories (all if none are named), the means, and the gain in the first of them.

    Gains are over the first row.
    """
    classes, read = class_table(configuration).names, [read_evaluation(path) for path in paths]
    check_evaluations(read, classes, configuration.seeds, [row.model for row in rows])
    of_runs = by_run(read, [row.model for row in rows])
    places = [classes.index(name) for name in names or classes]
    base = [_mean(item, means[0], len(places)) for item in of_runs[rows[0].model]]
    lines = []
    for row in rows:
        items = of_runs[row.model]
        each = [statistic([100.0 * float(item.as_trained.iou[place]) for item in items]) for place in places]
        each += [statistic([_mean(item, name, len(places)) for item in items]) for name in means]
        gains = [_mean(item, means[0], len(places)) - start for item, start in zip(items, base, strict=True)]
        gain = statistic([math.nan if row is rows[0] else gain for gain in gains])
        latex = LATEX.get(row.title, in_latex(row.title))
        lines.append(Line(row.title, latex, "measured", (*each, gain), row.adapts))
    return lines


def _mean(item: Evaluation, name: str, categories: int) -> float:
    """The mean IoU in percent over the `categories` of the table for `mIoU`, over 13 of them for `mIoU*`."""
    wanted = 13 if name == "mIoU*" else categories
    score = item.as_trained
    return 100.0 * (score.miou if wanted == len(item.classes) else score.smaller[wanted])


def _published_line(row: Published, columns: Sequence[str]) -> Line:
    values = tuple(Statistic(row.values.get(name, math.nan), None) for name in columns)
    return Line(
        row.label, row.label, f"published, {row.source}", values, not row.label.lower().startswith("source only")
    )


def measured_note(configuration: Configuration) -> str:
    """What a measured value is."""
    seeds = ", ".join(str(seed) for seed in configuration.seeds)
    spread = f"mean ± sample standard deviation of seeds {seeds}" if len(configuration.seeds) > 1 else f"seed {seeds}"
    return f"Measured: {spread}, last iterate, no selection on target labels. "


def test_set(configuration: Configuration, submissions: Sequence[Path]) -> PrintedTable:
    """Table 2: the published row, and the submissions that a score is to be had for from the test server."""
    columns, rows = published(2)
    models = table_models(configuration, "table2")
    if len(models) > 1:
        raise UserError(
            f"tables.table2: this table must be of one model, found {', '.join(models)}; list one run, or RUN/stageK"
        )
    nothing = tuple(Statistic(math.nan, None) for _ in columns)
    lines = [_published_line(row, columns) for row in rows]
    submitted = {path: _submitted(path, models[0]) for path in submissions}
    seeds = sorted(made["provenance"]["seed"] for made in submitted.values())
    if seeds != sorted(configuration.seeds):
        raise UserError(f"{submissions[0]}: table 2 must have one submission of each seed {list(configuration.seeds)}, found "
                        f"seeds {seeds}; name those")  # fmt: skip
    for path, made in submitted.items():
        name = f"seed {made['provenance']['seed']}: {made['images']} frames, SHA-256 {made['sha256'][:12]}"
        lines.append(Line(name, name, f"to be scored, {path.with_suffix('.zip')}", nothing))
    note = (
        "Published: Zhang et al., NeurIPS 2019, Table 2. The labels of the test set are not public: Cityscapes' server "
        f"scores the zip of each seed. Those listed hold predictions of the set {submitted[submissions[0]]['set']}."
    )
    return PrintedTable(f"Table 2, test set: {configuration.experiment}", note, columns, 1, tuple(lines))


def _submitted(path: Path, wanted: str) -> dict[str, Any]:
    """The JSON of a submission; UserError unless its zip is as it says, by the model that the table lists."""
    made = read_artifact(path, KINDS["submission"])
    if sha256(path.with_suffix(".zip")) != made["sha256"]:
        raise UserError(f"{path.with_suffix('.zip')}: the zip must have the SHA-256 that {path.name} gives, found another; make "
                        "it again")  # fmt: skip
    predictions = next(item.path for item in inputs_of(path) if "predictions" in read_json(item.path).get("format", ""))
    model = next(item.path for item in inputs_of(predictions, recorded_sha256) if item.path.suffix == ".safetensors")
    refuse_other_model(model, provenance_of(model), wanted)
    return made


BUILDERS = {
    1: _comparison(1, "GTA5 -> Cityscapes", "gta5"),
    2: test_set,
    3: _comparison(3, "SYNTHIA -> Cityscapes", "synthia"),
    4: ablation,
}
