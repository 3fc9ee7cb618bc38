"""The paper's tables: its published rows, and the same rows as they were measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.ablations import PREFIX, ablations
from caguda.artifacts.atomic import read_json, sha256, write_atomically
from caguda.artifacts.chain import inputs_of, provenance_of, recorded_sha256
from caguda.artifacts.identity import KINDS, ModelOf, read_artifact, refuse_other_model
from caguda.artifacts.ownership import refuse_foreign
from caguda.classes import CITYSCAPES_19, class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.evaluations import Evaluation, Model, by_model, read_evaluation, refuse_others
from caguda.paper.formats import Line, PrintedTable, to_csv, to_html, to_latex, to_markdown
from caguda.paper.published import Published, published
from caguda.paper.table import Statistic, statistic

Key = tuple[str | None, str]
"""What a row of a table shows: the recipe, None for what recipes share, and the row of its evaluations."""
FORMATS: Mapping[str, Callable[[PrintedTable], str]] = {
    ".csv": to_csv,
    ".md": to_markdown,
    ".tex": to_latex,
    ".html": to_html,
}
LOSSES = {
    "probability": ("+ CE(tP)", r"$+\mathcal{L}_{CE}^{tP}$"),
    "anchor": ("+ CE(t)", r"$+\mathcal{L}_{CE}^{t}$"),
    "probability-distance": ("+ dis(sP) + dis(tP)", r"$+\mathcal{L}_{dis}^{sP}+\mathcal{L}_{dis}^{tP}$"),
    "distance": ("+ dis(s) + dis(t)", r"$+\mathcal{L}_{dis}^{s}+\mathcal{L}_{dis}^{t}$"),
    "distance-anchor": (
        "+ dis(s) + dis(t) + CE(t)",
        r"$+\mathcal{L}_{dis}^{s}+\mathcal{L}_{dis}^{t}+\mathcal{L}_{CE}^{t}$",
    ),
    "anchor-probability": ("+ CE(t) + CE(tP)", r"$+\mathcal{L}_{CE}^{t}+\mathcal{L}_{CE}^{tP}$"),
    "no-warm-up": ("stage 1 without warm-up", "stage 1 without warm-up"),
    "every-iteration": ("stage 1, labels renewed at every iteration", "stage 1, labels renewed at every iteration"),
}
"""How the ablations are printed; CE(tP) is the cross entropy on labels by probability, CE(t) on labels by anchors."""


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
    recipe = next(iter(configuration.recipes))
    names = list(ablations(configuration.recipes[recipe]))
    losses, ways = names[:-2], names[-2:]
    stages = [f"stage {k}" for k in range(1, configuration.stages.count + 2)]
    keys: list[Key] = [(None, "source only"), (None, "warm-up"), *((name, "stage 1") for name in losses)]
    keys += [*((recipe, stage) for stage in stages), *((name, "stage 1") for name in ways)]
    printed = {row.label: row for row in published(4)[1]}
    evaluations, lines = [read_evaluation(path) for path in paths], []
    for line, (name, row) in zip(_measured(configuration, evaluations, keys, ("mIoU",)), keys, strict=True):
        short = name.removeprefix(PREFIX) if name in names else row
        label, latex = LOSSES.get(short, (row, row))
        beside = [
            printed[short].values.get(what, math.nan) if short in printed else math.nan for what in ("mIoU", "gain")
        ]
        values = (*line.values, *(Statistic(value, None) for value in beside))
        lines.append(Line(label, latex, line.origin, values))
    columns = (*class_table(configuration).names, "mIoU", "gain", "published mIoU", "published gain")
    note = (
        measured_note(configuration)
        + "Every ablation is one stage from the same warm-up, anchors and pseudo-labels as stage 1 (without warm-up: from source "
        "only). CE(t) and CE(tP) are the cross entropies on target labels by anchors and by probability, dis the distances to "
        "the anchors. Gain in points over source only, paired by seed. Published: Zhang et al., NeurIPS 2019, Table 4, "
        "GTA5 -> Cityscapes."
    )
    return PrintedTable(f"Table 4, ablations: {configuration.experiment}", note, columns, 4, tuple(lines))


def _comparison(number: int, scenario: str, layout: str) -> Callable[..., PrintedTable]:
    """The builder of Table 1 or 3: our source only, warm-up and last stage among the published rows of a scenario."""

    def build(configuration: Configuration, paths: Sequence[Path]) -> PrintedTable:
        columns, rows = published(number)
        names = tuple(name for name in columns if name in CITYSCAPES_19.names)
        means = columns[len(names) :]
        if missing := sorted(set(names) - set(class_table(configuration).names)):
            raise UserError(
                f"table {number}: the experiment must have the categories of {scenario}, but {missing[0]} is missing from "
                f"{configuration.experiment}; use a configuration with cityscapes{len(names)}"
            )
        recipe, last = next(iter(configuration.recipes)), f"stage {configuration.stages.count}"
        keys: list[Key] = [(None, "source only"), (None, "warm-up"), (recipe, last)]
        stages: list[Key] = [(recipe, f"stage {k}") for k in range(1, configuration.stages.count + 1)]
        read = [read_evaluation(path) for path in paths]
        lines = _measured(configuration, read, keys, means, names, [*keys, *stages])
        comparable = configuration.street is None and configuration.source.layout == layout
        known = [_published_line(row, (*columns, "gain")) for row in rows] if comparable else []
        note = measured_note(configuration) + "Gain in points over our own source only, paired by seed. "
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
    evaluations: Sequence[Evaluation],
    keys: Sequence[Key],
    means: Sequence[str],
    names: Sequence[str] = (),
    known: Collection[Key] = (),
) -> list[Line]:
    """Our lines: IoU of the named categories (all if none are named), the means, and the gain in the first of them.

    `known` are the rows that there may be evaluations of; those of `keys` if none are given.
    """
    classes = class_table(configuration).names
    models = by_model(evaluations, known or keys, configuration.seeds)
    places = [classes.index(name) for name in names or classes]
    base = [_mean(item, means[0], len(places)) for item in _row(configuration, models, (None, "source only"))]
    lines = []
    for key in keys:
        items = _row(configuration, models, key)
        each = [statistic([100.0 * float(item.as_trained.iou[place]) for item in items]) for place in places]
        each += [statistic([_mean(item, name, len(places)) for item in items]) for name in means]
        gains = [_mean(item, means[0], len(places)) - start for item, start in zip(items, base, strict=True)]
        gain = statistic([math.nan if key == (None, "source only") else gain for gain in gains])
        lines.append(Line(key[1], key[1], "measured", (*each, gain)))
    return lines


def _row(configuration: Configuration, models: Mapping[Model, Evaluation], key: Key) -> list[Evaluation]:
    """The evaluations of a row, one for every seed in their order, on the frames and classes that all share."""
    found = {seed: item for (*of, seed), item in models.items() if tuple(of) == key}
    if missing := [seed for seed in configuration.seeds if seed not in found]:
        raise UserError(
            f"{key[0] or 'all recipes'}, {key[1]}: a table needs an evaluation for every seed, found none for seed "
            f"{missing[0]}; make it first"
        )
    items, first = [found[seed] for seed in configuration.seeds], next(iter(models.values()))
    for item in items:
        if item.classes != class_table(configuration).names or item.frames != first.frames:
            raise UserError(
                f"{item.path}: the evaluations of a table must have the same classes and frames, found other ones than in "
                f"{first.path}; evaluate again with this configuration"
            )
    return items


def _mean(item: Evaluation, name: str, categories: int) -> float:
    """The mean IoU in percent over the `categories` of the table for `mIoU`, over 13 of them for `mIoU*`."""
    wanted = 13 if name == "mIoU*" else categories
    score = item.as_trained
    return 100.0 * (score.miou if wanted == len(item.classes) else score.smaller[wanted])


def _published_line(row: Published, columns: Sequence[str]) -> Line:
    values = tuple(Statistic(row.values.get(name, math.nan), None) for name in columns)
    return Line(row.label, row.label, f"published, {row.source}", values)


def measured_note(configuration: Configuration) -> str:
    """What a measured value is."""
    seeds = ", ".join(str(seed) for seed in configuration.seeds)
    spread = f"mean ± sample standard deviation of seeds {seeds}" if len(configuration.seeds) > 1 else f"seed {seeds}"
    return f"Measured: {spread}, last iterate, no selection on target labels. "


def test_set(configuration: Configuration, submissions: Sequence[Path]) -> PrintedTable:
    """Table 2: the published row, and the submissions that a score is to be had for from the test server."""
    columns, rows = published(2)
    nothing = tuple(Statistic(math.nan, None) for _ in columns)
    lines = [_published_line(row, columns) for row in rows]
    submitted = {path: _submitted(configuration, path) for path in submissions}
    seeds = sorted(made["provenance"]["seed"] for made in submitted.values())
    if seeds != sorted(configuration.seeds):
        raise UserError(f"{submissions[0]}: table 2 must have one submission of each seed {list(configuration.seeds)}, found "
                        f"seeds {seeds}; name those")  # fmt: skip
    for path, made in submitted.items():
        name = f"seed {made['provenance']['seed']}: {made['images']} frames, SHA-256 {made['sha256'][:12]}"
        lines.append(Line(name, name, f"to be scored, {path.with_suffix('.zip')}", nothing))
    note = (
        "Published: Zhang et al., NeurIPS 2019, Table 2. The labels of the test set are not public: Cityscapes' server "
        f"scores the zip of each seed. Those listed hold predictions of the set `{submitted[submissions[0]]['set']}`."
    )
    return PrintedTable(f"Table 2, test set: {configuration.experiment}", note, columns, 1, tuple(lines))


def _submitted(configuration: Configuration, path: Path) -> dict[str, Any]:
    """The JSON of a submission; UserError unless its zip is as it says, by the last model of the first recipe."""
    made = read_artifact(path, KINDS["submission"])
    if sha256(path.with_suffix(".zip")) != made["sha256"]:
        raise UserError(f"{path.with_suffix('.zip')}: the zip must have the SHA-256 that {path.name} gives, found another; make "
                        "it again")  # fmt: skip
    predictions = next(item.path for item in inputs_of(path) if "predictions" in read_json(item.path).get("format", ""))
    model = next(item.path for item in inputs_of(predictions, recorded_sha256) if item.path.suffix == ".safetensors")
    wanted = ModelOf(f"stage {configuration.stages.count}", next(iter(configuration.recipes)))
    refuse_other_model(model, provenance_of(model), wanted)
    return made


BUILDERS = {
    1: _comparison(1, "GTA5 -> Cityscapes", "gta5"),
    2: test_set,
    3: _comparison(3, "SYNTHIA -> Cityscapes", "synthia"),
    4: ablation,
}
