"""The report: one HTML file with everything in it, made from an experiment's JSON files and pictures."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from caguda.artifacts.atomic import read_json, write_atomically
from caguda.artifacts.chain import provenance_of
from caguda.artifacts.checks import refuse_broken_chain
from caguda.artifacts.given_anchors import folder_around
from caguda.artifacts.identity import CHECKPOINT, KIND_BY_VERB, model_of
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.charts import PART_COLORS, label_parts
from caguda.paper.evaluations import Evaluation, input_of_kind, read_evaluations
from caguda.paper.formats import ABSENT, render, show
from caguda.paper.report_files import (
    label_reports_of,
    refuse_other_checkpoints,
    refuse_other_pictures,
    refuse_other_table,
)
from caguda.paper.rows import ModelRow, main_model, models_of_figure
from caguda.paper.table import HEADINGS, Row, best_rows, note, report_rows, rows_with, table_rows, to_csv
from caguda.pseudo_labels import are_papers_rules
from caguda.runs import labelling_name


@dataclass(frozen=True)
class Artifact:
    """A file of the experiment, the link to it, and its provenance; empty for a file that has none."""

    name: str
    path: Path
    link: str
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class LabelsOfModel:
    """The pseudo-labels that one model of one seed was trained on: the content of their label report."""

    name: str
    seed: int
    report: Mapping[str, Any]

    @property
    def are_by_both_rules(self) -> bool:
        """Whether they are by anchors and by probability, which the page shows side by side."""
        return are_papers_rules(self.report["labels"])

    @property
    def rules(self) -> list[str]:
        """The rules that made them."""
        return sorted(self.report["labels"])

    @property
    def parts(self) -> dict[str, float]:
        """Disjoint shares of target pixels in percent; see label_parts."""
        return {name: 100.0 * share for name, share in label_parts(self.report["share"]).items()}

    def score(self, kind: str, measure: str = "accuracy") -> Any:
        """The accuracy, or another measure, of one kind of labels; None where no truth is known."""
        return ((self.report["accuracy"] or {}).get(kind) or {}).get(measure)

    def per_category(self) -> list[dict[str, Any]]:
        """For every category its shares of all pixels, and precision and recall of the labels by each rule."""
        rows = [dict(entry) for entry in self.report["per_category"]]
        for rule in ("anchor", "probability"):
            scores = self.score(rule, "per_category")
            for index, row in enumerate(rows):
                for measure in ("precision", "recall"):
                    row[f"{rule}_{measure}"] = scores[index][measure] if scores else None
        return rows


def percent(share: float | None) -> str:
    """A share in 0..1 as percent with one decimal; "-" for None."""
    return ABSENT if share is None else f"{100.0 * share:.1f}"


def duration(seconds: float | None) -> str:
    """Seconds in words, such as `2 min 5 s`; "-" for None."""
    if seconds is None:
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else (f"{rest} s" if seconds >= 10 else f"{seconds:.1f} s")


def data_uri(path: Path) -> str:
    """A PNG file as a data URI; UserError if it is not whole."""
    content = path.read_bytes()
    if not (content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")):
        raise UserError(
            f"{path}: the picture must be a whole PNG file, found a part of one; move it away and make it again"
        )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def names_of_artifacts(
    configuration: Configuration,
    rows: Sequence[ModelRow],
    checkpoints: Sequence[Path],
    evaluations: Sequence[Evaluation],
    report_by_checkpoint: Mapping[Path, Path],
) -> dict[Path, str]:
    """The names of checkpoints, evaluations and label reports in the list of artifacts: the row, and the kind of file.

    Label reports have the row whose evidence the labels are made of, the names of the rules, and the folder of anchors from
    elsewhere if there is one. `report_by_checkpoint` has the label report of each checkpoint trained on pseudo-labels.
    """
    row_names = {row.model: row.name for row in rows}
    names = {path: f"{row_names[model_of(provenance_of(path))]}: checkpoint" for path in checkpoints}
    names |= {item.path: f"{row_names[item.model]}: evaluation" for item in evaluations}
    for checkpoint, report in report_by_checkpoint.items():
        evidence = input_of_kind(report, KIND_BY_VERB["evidence"])
        labeller = model_of(provenance_of(input_of_kind(evidence, CHECKPOINT)))
        labelling = labelling_name(configuration, model_of(provenance_of(checkpoint))).replace("_", " ")
        parts = [f"{row_names.get(labeller, labeller)}: {labelling}" if labeller else labelling, folder_around(report)]
        names[report] = ", ".join(filter(None, parts))
    return names


def artifact(path: Path, name: str, folder: Path) -> Artifact:
    """The entry of a file in the list of artifacts; its link is relative to the report's folder."""
    link = quote(os.path.relpath(path, folder).replace(os.sep, "/"))
    return Artifact(name, path, link, provenance_of(path))


def labels_of_rows(rows: Sequence[ModelRow], report_by_checkpoint: Mapping[Path, Path]) -> list[LabelsOfModel]:
    """The pseudo-labels of the models, in the order of the rows, then of seeds; `report_by_checkpoint` as in names_of_artifacts."""
    names = {row.model: row.name for row in rows}
    order = list(names)
    labels = []
    for checkpoint, report in report_by_checkpoint.items():
        provenance = provenance_of(checkpoint)
        labels.append((model_of(provenance), provenance["seed"], read_json(report)))
    labels.sort(key=lambda item: (order.index(item[0]), item[1]))
    return [LabelsOfModel(names[model], seed, content) for model, seed, content in labels]


def key_results(rows: Sequence[Row], main: ModelRow) -> dict[str, Any]:
    """The rows at the top of the page, and the share of the distance to the reference that the main row closes.

    The share is None without a better reference, or where the main row is the first one or a reference itself.
    """
    base, result = rows[0], next(row for row in rows if row.model_row is main and not row.is_adabn)
    reference = next((row for row in rows if row.model_row.is_reference), None)
    adabn = next((row for row in rows if row.is_adabn), None)
    assert result.as_trained is not None
    closed = None
    if reference is not None and result is not base and not main.is_reference:
        assert reference.as_trained is not None
        if reference.as_trained.gain.mean > 0:
            closed = result.as_trained.gain.mean / reference.as_trained.gain.mean
    return {"base": base, "main": result, "reference": reference, "adabn": adabn, "closed": closed}


def per_class(table: ClassTable, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every category, and for their mean, its colour and its IoU as trained in each of some rows."""
    scored = rows_with("as_trained", rows)
    entries: list[dict[str, Any]] = [
        {
            "name": name,
            "color": "rgb({}, {}, {})".format(*color),
            "values": [(row, summary.iou[index]) for row, summary in scored],
        }
        for index, (name, color) in enumerate(zip(table.names, table.colors, strict=True))
    ]
    return [*entries, {"name": "mIoU", "color": None, "values": [(row, summary.miou) for row, summary in scored]}]


def _scores(configuration: Configuration, models: Sequence[ModelRow], rows: Sequence[Row]) -> dict[str, Any]:
    """The scores of the page. Its charts have the first row, those of the figure, and references."""
    in_figure = models_of_figure(configuration, models)
    charted = [
        row
        for row, _ in rows_with("as_trained", rows)
        if row is rows[0] or row.model_row.model in in_figure or row.model_row.is_reference
    ]
    return {
        "rows": rows,
        "best_trained": best_rows(rows, "as_trained"),
        "best_target": best_rows(rows, "target_statistics"),
        "class_tables": {heading: rows_with(statistics, rows) for statistics, heading in HEADINGS.items()},
        "key_results": key_results(rows, main_model(models)),
        "charted": charted,
        "classes": per_class(class_table(configuration), charted),
    }


def write_report(
    configuration: Configuration,
    report: str,
    *,
    table: Path,
    figure: Path,
    curves: Path,
    evaluations: Sequence[Path],
    label_reports: Sequence[Path],
    checkpoints: Sequence[Path],
    output: Path,
) -> None:
    """Writes the page of a report, or raises UserError where its files are not all of one experiment, complete and current.

    `checkpoints` are the JSON files beside the weights, `label_reports` are of all models that were trained on
    pseudo-labels. The page needs no other file: pictures are inside. Links to artifacts are relative. The same inputs give
    the same bytes.
    """
    models = report_rows(configuration, report)
    refuse_broken_chain([*evaluations, *label_reports, *checkpoints], configuration)
    read = read_evaluations(configuration, [row.model for row in models], evaluations)
    refuse_other_table(table, to_csv(read, models))
    refuse_other_checkpoints(read, checkpoints)
    report_by_checkpoint = label_reports_of(configuration, label_reports, checkpoints)
    refuse_other_pictures(configuration, models, label_reports, checkpoints, figure, curves)
    names = names_of_artifacts(configuration, models, checkpoints, read, report_by_checkpoint)
    files = [*checkpoints, *evaluations, *label_reports, table, figure, curves]
    artifacts = [artifact(path, names.get(path, path.name), output.parent) for path in files]
    settings = settings_of_results(configuration)
    context = {
        "config": configuration,
        "report": report,
        "frames": read[0].frames,
        "note": note(configuration, models),
        "names": class_table(configuration).names,
        "labels": labels_of_rows(models, report_by_checkpoint),
        "part_colors": PART_COLORS,
        "figure": data_uri(figure),
        "curves": data_uri(curves),
        "artifacts": artifacts,
        "times": times_by_verb(artifacts),
        "versions": versions(artifacts),
        "settings": yaml.safe_dump(settings, sort_keys=False, width=100, default_flow_style=None),
        **_scores(configuration, models, table_rows(read, models)),
    }
    with write_atomically(output) as temporary:
        html = render("report.html.in", context, show=show, percent=percent, duration=duration)
        temporary.write_text(html, encoding="utf-8")


def settings_of_results(configuration: Configuration) -> dict[str, Any]:
    """The settings that decide the results: without the places of frames and the way that jobs are run."""
    roots = {name: {"root"} for name in ("source", "target", "evaluation", "test", "translated")}
    run = {"save_every", "threads", "workers", "processes", "parts", "inference_batch_size", "recompute_activations"}
    return configuration.model_dump(mode="json", exclude={"data_root": True, "cache": True, "compute": run, **roots})


def times_by_verb(artifacts: Sequence[Artifact]) -> list[tuple[str, int, float]]:
    """For every verb the number of its artifacts and their seconds in all, the longest first."""
    seconds: dict[str, list[float]] = {}
    for item in artifacts:
        if item.provenance.get("seconds") is not None:
            seconds.setdefault(str(item.provenance["made_by"]), []).append(item.provenance["seconds"])
    return sorted(((verb, len(times), sum(times)) for verb, times in seconds.items()), key=lambda entry: -entry[2])


def versions(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """The versions that made the artifacts; several of one library, or several machines, are all named."""
    values: dict[str, dict[str, None]] = {}
    for provenance in (item.provenance for item in artifacts):
        machine = provenance.get("machine", {})
        parts = {"caguda": provenance.get("caguda"), "method": provenance.get("method_version")}
        parts |= provenance.get("libraries", {})
        parts["machine"] = ", ".join(f"{key} {value}" for key, value in machine.items())
        for name, version in parts.items():
            if version:
                values.setdefault(name, {})[str(version)] = None
    return {name: " / ".join(several) for name, several in values.items()}
