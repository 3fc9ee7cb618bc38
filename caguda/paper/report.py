"""The report: one HTML file with everything in it, made from an experiment's JSON files and pictures."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, StrictUndefined

from caguda.artifacts.atomic import read_json, write_atomically
from caguda.artifacts.chain import inputs_of, provenance_of, recorded_sha256
from caguda.artifacts.identity import KINDS, kind_of, model_of, read_artifact
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.files import read_regular
from caguda.paper.charts import PART_COLORS, label_parts
from caguda.paper.evaluations import refuse_others
from caguda.paper.report_files import labels_of_models, refuse_other_files
from caguda.paper.rows import ModelRow, main_model, models_of_figure
from caguda.paper.table import ABSENT, Row, best, note, read_evaluations, report_rows, show, table_rows, to_csv


@dataclass(frozen=True)
class Artifact:
    """A file of the experiment, and what its provenance says; empty where it has none."""

    name: str
    seed: str
    path: Path
    href: str
    seconds: float | None
    created: str
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class LabelsOfModel:
    """The pseudo-labels that one model of one seed was trained on, as `diagnose` found them."""

    name: str
    seed: int
    summary: Mapping[str, Any]

    @property
    def of_both(self) -> bool:
        """Whether they are by anchors and by probability, which are told of together."""
        return sorted(self.summary["labels"]) == ["anchor", "probability"]

    @property
    def rules(self) -> list[str]:
        """The rules that they are by."""
        return sorted(self.summary["labels"])

    @property
    def accuracy(self) -> Mapping[str, Any]:
        """How right they are; empty where no truth is known."""
        return self.summary["accuracy"] or {}

    @property
    def parts(self) -> dict[str, float]:
        """Disjoint shares of target pixels in percent: both kinds, one only, none."""
        return {name: 100.0 * share for name, share in label_parts(self.summary["share"]).items()}

    def right(self, kind: str, what: str = "accuracy") -> float | None:
        """How right one kind of label is, in 0..1; None where no truth is known."""
        found = self.accuracy.get(kind)
        return None if found is None else found.get(what)

    def per_category(self) -> list[dict[str, Any]]:
        """For every category its shares of all pixels, and precision and recall of both kinds."""
        result = []
        for index, entry in enumerate(self.summary["per_category"]):
            row = dict(entry)
            for kind in ("anchor", "probability"):
                known = (self.accuracy.get(kind) or {}).get("per_category")
                for what in ("precision", "recall"):
                    row[f"{kind}_{what}"] = known[index][what] if known else None
            result.append(row)
        return result


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
    """A PNG file as a data URI; a UserError if it is not whole."""
    content = path.read_bytes()
    if not (content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")):
        raise UserError(
            f"{path}: the picture must be a whole PNG file, found a part of one; move it away and make it again"
        )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def artifact(path: Path, folder: Path, names: Mapping[str, str]) -> Artifact:
    """The entry of a file in the list of artifacts; its link is relative to the report's folder.

    `names` are what rows are called, by the model; a file of a model says itself of which.
    """
    content = read_json(path) if path.suffix == ".json" else {}
    made = content.get("provenance", {})
    href = quote(os.path.relpath(path, folder).replace(os.sep, "/"))
    model = content.get("run") or (_model_behind(path, made) if made else "")
    what = path.stem.replace("_", " ")
    name = f"{names.get(model, model)}: {what}" if model else (what if made else path.name)
    seed = "" if made.get("seed") is None else str(made["seed"])
    return Artifact(name, seed, path, href, made.get("seconds"), made.get("created", ""), made)


def _model_behind(path: Path, made: Mapping[str, Any]) -> str:
    """The model that an artifact is, or whose evidence its pseudo-labels are made of; empty where it tells of none."""
    if made["made_by"] != "diagnose":
        return model_of(made)
    evidence = [file for file in _inputs(path) if kind_of(file) == KINDS["evidence"]]
    models = [file for each in evidence for file in _inputs(each) if file.suffix == ".safetensors"]
    return "".join(model_of(provenance_of(file)) for file in models[:1])


def _inputs(path: Path) -> list[Path]:
    return [item.path for item in inputs_of(path, recorded_sha256)]


def labels_of_rows(
    configuration: Configuration, rows: Sequence[ModelRow], labels: Sequence[Path], checkpoints: Sequence[Path]
) -> list[LabelsOfModel]:
    """What is told of the pseudo-labels that each checkpoint was trained on, in the order of the rows, then of seeds."""
    read = {path: read_artifact(path, KINDS["diagnose"]) for path in labels}
    trained = labels_of_models(configuration, labels, checkpoints)
    made = {path: provenance_of(path) for path in trained}
    names = {row.model: row.name for row in rows}
    order = sorted(trained, key=lambda path: (list(names).index(model_of(made[path])), made[path]["seed"]))
    return [LabelsOfModel(names[model_of(made[path])], made[path]["seed"], read[trained[path]]) for path in order]


def headline(rows: Sequence[Row], main: ModelRow) -> dict[str, Any]:
    """The rows that the report opens with, and the share of the distance to the reference that the main one closes."""
    first, last = rows[0], next(row for row in rows if row.of is main and not row.is_adabn)
    reference = next((row for row in rows if row.of.is_reference), None)
    assert first.as_trained is not None and last.as_trained is not None
    closed = None
    if reference is not None and reference.as_trained is not None and reference.as_trained.gain.mean > 0:
        closed = last.as_trained.gain.mean / reference.as_trained.gain.mean
    if last is first or main.is_reference:
        closed = None
    adabn = next((row for row in rows if row.is_adabn), None)
    return {"source": first, "last": last, "oracle": reference, "adabn": adabn, "closed": closed}


def shown_rows(rows: Sequence[Row], models: Sequence[str]) -> list[Row]:
    """The rows of the per-class pictures as trained: the first one, those of some models, and references."""
    trained = [row for row in rows if row.as_trained is not None]
    return [row for row in trained if row is rows[0] or row.of.model in models or row.of.is_reference]


def per_class(table: ClassTable, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every category, and for their mean, its colour and its IoU as trained in each of some rows."""
    shown = [(row, row.as_trained) for row in rows if row.as_trained is not None]
    entries: list[dict[str, Any]] = [
        {
            "name": name,
            "color": "rgb({}, {}, {})".format(*color),
            "values": [(row, summary.iou[index]) for row, summary in shown],
        }
        for index, (name, color) in enumerate(zip(table.names, table.colors, strict=True))
    ]
    return [*entries, {"name": "mIoU", "color": None, "values": [(row, summary.miou) for row, summary in shown]}]


def best_values(rows: Sequence[Row], which: str) -> list[bool]:
    """Which rows have the best adapted mIoU, `which` being as_trained or target_statistics."""
    summaries = [getattr(row, which) for row in rows]
    return best(rows, [None if summary is None else summary.miou for summary in summaries])


def render(context: Mapping[str, Any]) -> str:
    """The report's HTML; text is escaped, and a value that the template lacks raises."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(show=show, percent=percent, duration=duration)
    template = files("caguda.paper").joinpath("report.html.in").read_text(encoding="utf-8")
    return environment.from_string(template).render(context)


def write_report(
    configuration: Configuration,
    report: str,
    *,
    table: Path,
    figure: Path,
    curves: Path,
    evaluations: Sequence[Path],
    labels: Sequence[Path],
    checkpoints: Sequence[Path],
    output: Path,
) -> None:
    """Writes the page of a report. Refuses what write_table refuses.

    `checkpoints` are the JSON files beside the weights, `labels` what `diagnose` wrote of the pseudo-labels of every model that
    was trained on some.

    The file needs no other: pictures are inside, nothing is fetched. Links to artifacts are relative. The same inputs
    give the same bytes.
    """
    models = report_rows(configuration, report)
    read = read_evaluations(configuration, models, evaluations)
    refuse_others([*evaluations, *labels, *checkpoints], configuration)
    _require_table(table, to_csv(read, models))
    refuse_other_files(configuration, models, read, labels, checkpoints, {"figure": figure, "curves": curves})
    files = [*checkpoints, *evaluations, *labels, table, figure, curves]
    names = {row.model: row.name for row in models}
    artifacts = [artifact(path, output.parent, names) for path in files]
    context = {
        "config": configuration,
        "report": report,
        "frames": read[0].frames,
        "note": note(configuration, models),
        "names": class_table(configuration).names,
        "labels": labels_of_rows(configuration, models, labels, checkpoints),
        "part_colors": PART_COLORS,
        "figure": data_uri(figure),
        "curves": data_uri(curves),
        "artifacts": artifacts,
        "spent": spent(artifacts),
        "versions": versions(artifacts),
        "settings": yaml.safe_dump(decisive(configuration), sort_keys=False, width=100, default_flow_style=None),
        **_results(configuration, models, table_rows(read, models)),
    }
    with write_atomically(output) as temporary:
        temporary.write_text(render(context), encoding="utf-8")


def _results(configuration: Configuration, models: Sequence[ModelRow], rows: Sequence[Row]) -> dict[str, Any]:
    """What the page says of scores."""
    shown = shown_rows(rows, models_of_figure(configuration, models))
    return {
        "rows": rows,
        "best_trained": best_values(rows, "as_trained"),
        "best_target": best_values(rows, "target_statistics"),
        "headline": headline(rows, main_model(models)),
        "shown": shown,
        "classes": per_class(class_table(configuration), shown),
    }


def decisive(configuration: Configuration) -> dict[str, Any]:
    """The settings less those that may differ from what the results were made with: where frames lie, how jobs are run."""
    roots = {name: {"root"} for name in ("source", "target", "evaluation", "test")}
    run = {"save_every", "threads", "workers", "processes", "parts", "inference_batch_size", "recompute_activations"}
    return configuration.model_dump(mode="json", exclude={"data_root": True, "cache": True, "compute": run, **roots})


def spent(artifacts: Sequence[Artifact]) -> list[tuple[str, int, float]]:
    """The verbs that made the artifacts, how many each, and their seconds in all, the longest first."""
    seconds: dict[str, list[float]] = {}
    for item in artifacts:
        if item.seconds is not None:
            seconds.setdefault(str(item.provenance["made_by"]), []).append(item.seconds)
    return sorted(((verb, len(each), sum(each)) for verb, each in seconds.items()), key=lambda entry: -entry[2])


def _require_table(path: Path, expected: str) -> None:
    """UserError unless the file is the table of the evaluations, to the last byte."""
    if read_regular(path) != expected.encode():
        raise UserError(
            f"{path}: the table must be that of the evaluations, found another; move it away and make it again"
        )


def versions(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """The versions that made the artifacts; several of one library, or several machines, are all named."""
    found: dict[str, dict[str, None]] = {}
    for made in (item.provenance for item in artifacts):
        machine = made.get("machine", {})
        parts = {"caguda": made.get("caguda"), "method": made.get("method_version"), **made.get("libraries", {})}
        parts["machine"] = ", ".join(f"{key} {value}" for key, value in machine.items())
        for name, version in parts.items():
            if version:
                found.setdefault(name, {})[str(version)] = None
    return {name: " / ".join(values) for name, values in found.items()}
