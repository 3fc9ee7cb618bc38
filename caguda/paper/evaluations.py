"""The evaluations and label reports of an experiment, and the conditions under which they may share a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.chain import inputs_of, recorded_sha256
from caguda.artifacts.identity import KIND_BY_VERB, contents_of_inputs, kind_of, read_artifact
from caguda.classes import class_table, smaller_sets
from caguda.config import Configuration
from caguda.errors import UserError


@dataclass(frozen=True)
class Score:
    """The (c,) IoU on the evaluation frames, nan for an absent category, and their mean; 0..1.

    `smaller` has the means over Cityscapes' smaller sets of categories, by the size of the set; see smaller_sets.
    """

    iou: NDArray[np.float64]
    miou: float
    smaller: Mapping[int, float]

    def mean(self, categories: int) -> float:
        """The mean IoU over all categories, or over the smaller set of this size."""
        return self.miou if categories == len(self.iou) else self.smaller[categories]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.json: the scores of one model, RUN or RUN/stageK, of one seed.

    `target_statistics` is the score with batch normalisation statistics re-estimated on target training frames; it is
    None for a network without batch normalisation.
    """

    path: Path
    model: str
    seed: int
    frames: int
    classes: tuple[str, ...]
    as_trained: Score
    target_statistics: Score | None


def _score(values: Mapping[str, Any], classes: tuple[str, ...]) -> Score:
    iou = np.array([np.nan if value is None else value for value in values["iou"]], dtype=np.float64)
    if len(iou) != len(classes):
        raise ValueError(f"{len(classes)} classes but {len(iou)} IoU values")
    smaller = {n: _mean(iou[indices]) for n, indices in smaller_sets(classes).items()}
    return Score(iou, float(np.nan if values["miou"] is None else values["miou"]), smaller)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are not nan; nan if all are."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if numbers.size else float("nan")


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file; a missing key or a wrong number of values raises UserError."""
    values = read_artifact(path, KIND_BY_VERB["evaluate"])
    try:
        classes = tuple(str(name) for name in values["classes"])
        target = values["target_statistics"]
        return Evaluation(
            path=path,
            model=str(values["model"]),
            seed=int(values["seed"]),
            frames=int(values["frames"]),
            classes=classes,
            as_trained=_score(values["as_trained"], classes),
            target_statistics=None if target is None else _score(target, classes),
        )
    except KeyError as error:
        raise UserError(f"{path}: an evaluation must hold the key {error}; move it away and evaluate again") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: this is not an evaluation ({error}); move it away and evaluate again") from None


def read_evaluations(configuration: Configuration, models: Sequence[str], paths: Sequence[Path]) -> list[Evaluation]:
    """The evaluations in some files, one of every model and seed; see refuse_incomplete."""
    evaluations = [read_evaluation(path) for path in paths]
    refuse_incomplete(configuration, models, evaluations)
    return evaluations


def refuse_incomplete(configuration: Configuration, models: Sequence[str], evaluations: Sequence[Evaluation]) -> None:
    """Raises UserError unless there is one evaluation of every model and every seed of the experiment, and no other.

    All must have the categories of the configuration, and the same number of frames.
    """
    if not evaluations:
        raise UserError("a table needs evaluations, found none; name the evaluation.json files")
    classes, seeds = class_table(configuration).names, ", ".join(map(str, configuration.seeds))
    first = evaluations[0]
    paths: dict[tuple[str, int], Path] = {}
    for item in evaluations:
        if item.classes != classes:
            differences = sorted(set(item.classes) ^ set(classes)) or ["their order"]
            raise UserError(
                f"{item.path}: the classes must be those of the configuration, but these differ: {', '.join(differences)}; "
                "evaluate again with this configuration"
            )
        if item.frames != first.frames:
            raise UserError(
                f"{item.path}: the frames must be those of {first.path} ({first.frames}), found {item.frames}; "
                "evaluate both with one manifest"
            )
        if item.model not in models:
            raise UserError(
                f"{item.path}: the model must be one of {', '.join(models)}, found {item.model!r}; leave it out"
            )
        if item.seed not in configuration.seeds:
            raise UserError(f"{item.path}: the seed must be one of {seeds}, found {item.seed}")
        if earlier := paths.get((item.model, item.seed)):
            raise UserError(f"{item.path}: {item.model}, seed {item.seed} is already in {earlier}; name one of them")
        paths[item.model, item.seed] = item.path
    for model in models:
        missing = [seed for seed in configuration.seeds if (model, seed) not in paths]
        if missing:
            files = ", ".join(str(path) for (name, _), path in paths.items() if name == model) or "no file"
            raise UserError(
                f"{model}: an evaluation of every seed ({seeds}) must be given, missing seed "
                f"{', '.join(map(str, missing))}, found {files}; evaluate the missing seeds first"
            )


def by_model(evaluations: Sequence[Evaluation], models: Sequence[str]) -> dict[str, list[Evaluation]]:
    """The evaluations of some models, in the order of `models`, seeds ascending."""
    ordered = sorted(evaluations, key=lambda item: item.seed)
    return {model: [item for item in ordered if item.model == model] for model in models}


def input_of_kind(path: Path, kind: str) -> Path:
    """The file of this kind that an artifact was made of, by its provenance."""
    return next(item.path for item in inputs_of(path, recorded_sha256) if kind_of(item.path) == kind)


def label_contents(report: Path) -> set[str]:
    """The digests of the label stores that a label report is about; UserError for another file."""
    return set(_content_by_label_file(report).values())


def _content_by_label_file(report: Path) -> dict[str, str]:
    """The digests of the label stores that a label report is about, by the paths that it recorded."""
    content = read_artifact(report, KIND_BY_VERB["diagnose"])
    inputs, labels = content["provenance"]["inputs"], content["labels"].values()
    return {path: recorded["content"] for path, recorded in inputs.items() if recorded["from_here"] in labels}


def match_label_reports(models: Mapping[Path, Mapping[str, Any]], reports: Sequence[Path]) -> dict[Path, Path]:
    """The label report of the pseudo-labels that each model was trained on.

    `models` maps a file of a model to the provenance of its checkpoint; the result maps the same files to reports. Of reports
    on equal labels, it is the one that names the files that the model names. Raises UserError unless every model has exactly
    one report, and every report a model.
    """
    files = {report: _content_by_label_file(report) for report in reports}
    contents = {report: set(labels.values()) for report, labels in files.items()}
    matches: dict[Path, Path] = {}
    for path, provenance in models.items():
        inputs, rules = contents_of_inputs(provenance), provenance["settings"].get("run", {}).get("pseudo_labels", {})
        fitting = [report for report, labels in contents.items() if labels <= inputs and len(labels) == len(rules)]
        if len(fitting) > 1:
            fitting = [r for r in fitting if files[r].keys() <= provenance["inputs"].keys()] or fitting
        if len(fitting) != 1:
            raise UserError(
                f"{path}: the statistics of the labels that a model was trained on must be given once, found "
                f"{'the same twice' if fitting else 'none'}; name the JSON of `diagnose`"
            )
        matches[path] = fitting[0]
    if unused := [report for report in reports if report not in matches.values()]:
        raise UserError(f"{unused[0]}: labels must be those that a model was trained on, found others; leave them out")
    return matches
