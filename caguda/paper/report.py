"""The report: one HTML file with everything in it, made from an experiment's JSON files and pictures."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, StrictUndefined

from caguda.artifacts.atomic import read_json, write_atomically
from caguda.artifacts.identity import KINDS, read_artifact
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.files import read_regular
from caguda.paper.charts import PART_COLORS, job_title, label_parts, shown_rows
from caguda.paper.evaluations import Evaluation, refuse_others
from caguda.paper.report_files import labels_of_stages, refuse_other_files
from caguda.paper.table import ABSENT, Row, best, note, read_evaluations, show, table_rows, to_csv

ROW_NOTES = {
    "source only": "no adaptation",
    "AdaBN": "target statistics, no training",
    "warm-up": "adversarial global alignment",
    "control": "from the warm-up, no target",
    "oracle": "trained with target labels",
}


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
class StageLabels:
    """The pseudo-labels of one stage and seed, as `diagnose` found them."""

    stage: str
    seed: str
    summary: Mapping[str, Any]

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


def seed_of(path: Path) -> str:
    """The seed that a path names in a folder `seedS`; empty where it names none."""
    found = [match[1] for part in path.parts if (match := re.fullmatch(r"seed(\d+)", part))]
    return found[-1] if found else ""


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


def artifact(path: Path, folder: Path) -> Artifact:
    """The entry of a file in the list of artifacts; its link is relative to the report's folder."""
    made = read_json(path).get("provenance", {}) if path.suffix == ".json" else {}
    href = quote(os.path.relpath(path, folder).replace(os.sep, "/"))
    inside, of = seed_of(path) != "", path.parent if path.parent.name == "labels" else path
    name = f"{job_title(of)}: {path.stem.replace('_', ' ')}" if inside else path.name
    return Artifact(name, seed_of(path), path, href, made.get("seconds"), made.get("created", ""), made)


def stage_labels(labels: Sequence[Path], checkpoints: Sequence[Path]) -> list[StageLabels]:
    """What is told of the pseudo-labels that each checkpoint of a stage was trained on, by stage and seed."""
    read = {path: read_artifact(path, KINDS["diagnose"]) for path in labels}
    trained = labels_of_stages(labels, checkpoints)
    found = [StageLabels(job_title(path), seed_of(path), read[told]) for path, told in trained.items()]
    return sorted(found, key=lambda item: (len(item.stage), item.stage, len(item.seed), item.seed))


def headline(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows that the report opens with, and the share of the distance to the oracle that the last stage closes."""
    named = {row.name: row for row in rows}
    source, last = rows[0], [row for row in rows if row.name.startswith("stage")][-1]
    oracle = named.get("oracle")
    assert source.as_trained is not None and last.as_trained is not None
    closed = None
    if oracle is not None and oracle.as_trained is not None and oracle.as_trained.gain.mean > 0:
        closed = last.as_trained.gain.mean / oracle.as_trained.gain.mean
    return {"source": source, "last": last, "oracle": oracle, "adabn": named.get("AdaBN"), "closed": closed}


def per_class(table: ClassTable, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every category, and for their mean, its colour and its IoU as trained in each row of the chart."""
    shown = [(row, row.as_trained) for row in shown_rows(rows) if row.as_trained is not None]
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
    recipe: str,
    *,
    table: Path,
    figure: Path,
    curves: Path,
    evaluations: Sequence[Path],
    labels: Sequence[Path],
    checkpoints: Sequence[Path],
    output: Path,
) -> None:
    """Writes the report of a recipe. Refuses what write_table refuses.

    `checkpoints` are the JSON files beside the weights, `labels` what `diagnose` wrote of the pseudo-labels of every stage.

    The file needs no other: pictures are inside, nothing is fetched. Links to artifacts are relative. The same inputs
    give the same bytes.
    """
    read = read_evaluations(configuration, recipe, evaluations)
    refuse_others([*evaluations, *labels, *checkpoints], configuration)
    _require_table(table, read)
    refuse_other_files(recipe, read, labels, checkpoints, {"figure": figure, "curves": curves})
    rows, classes = table_rows(read), class_table(configuration)
    files = [*checkpoints, *evaluations, *labels, table, figure, curves]
    context = {
        "config": configuration,
        "recipe": recipe,
        "frames": read[0].frames,
        "rows": rows,
        "row_notes": ROW_NOTES,
        "best_trained": best_values(rows, "as_trained"),
        "best_target": best_values(rows, "target_statistics"),
        "headline": headline(rows),
        "note": note(configuration),
        "classes": per_class(classes, rows),
        "shown": [row for row in shown_rows(rows) if row.as_trained is not None],
        "names": classes.names,
        "labels": stage_labels(labels, checkpoints),
        "part_colors": PART_COLORS,
        "figure": data_uri(figure),
        "curves": data_uri(curves),
        "artifacts": (artifacts := [artifact(path, output.parent) for path in files]),
        "spent": spent(artifacts),
        "versions": versions(artifacts),
        "settings": yaml.safe_dump(decisive(configuration), sort_keys=False, width=100, default_flow_style=None),
    }
    with write_atomically(output) as temporary:
        temporary.write_text(render(context), encoding="utf-8")


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


def _require_table(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """UserError unless the file is the table of these evaluations, to the last byte."""
    if read_regular(path) != to_csv(evaluations).encode():
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
