"""What must hold of the files that a report is made of: all of them tell of the same models and pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.chain import provenance_of
from caguda.artifacts.identity import KINDS, MODEL, contents_of_inputs, model_of, read_artifact
from caguda.artifacts.provenance import content_of
from caguda.errors import UserError
from caguda.paper.evaluations import Evaluation
from caguda.paper.pictures import refuse_other_picture, shown


def refuse_other_files(
    recipe: str,
    evaluations: Sequence[Evaluation],
    labels: Sequence[Path],
    checkpoints: Sequence[Path],
    pictures: Mapping[str, Path],
) -> None:
    """UserError unless checkpoints are those that were evaluated, labels those that they were trained on.

    `pictures` are those of the recipe by the verb that drew them; they show some of these models and labels.
    """
    weights = {read_artifact(path, MODEL)["weights_sha256"]: path for path in checkpoints}
    evaluated = {sha256: item.path for item in evaluations for sha256 in _inputs(item.path)}
    for sha256, path in weights.items():
        if sha256 not in evaluated:
            raise UserError(f"{path}: a checkpoint must be one that was evaluated, found another; leave it out")
    for item in evaluations:
        if _inputs(item.path).isdisjoint(weights):
            raise UserError(f"{item.path}: the checkpoint that was evaluated must be given too, found none; name it")
    contents = {content_of(path): path for path in labels}
    if len(contents) < len(labels) and (seen := list(contents.values())):
        twice = next(path for path in labels if path not in seen)
        raise UserError(f"{twice}: labels must be given once, found the same under another name; leave them out")
    trained_on = {path: contents_of_inputs(provenance_of(path)) for path in checkpoints if _is_stage(path)}
    for content, path in contents.items():
        if not any(content in inputs for inputs in trained_on.values()):
            raise UserError(f"{path}: labels must be those that a stage was trained on, found others; leave them out")
    for path, inputs in trained_on.items():
        if inputs.isdisjoint(contents):
            raise UserError(f"{path}: the labels that a stage was trained on must be given too, found none; name them")
    shows = {
        verb: refuse_other_picture(path, verb, recipe, {*weights, *shown(labels)}) for verb, path in pictures.items()
    }
    if missing := _missing_curves(shows["curves"], weights):
        raise UserError(f"{pictures['curves']}: the curves must be of all models of a seed that were trained here, found none of "
                        f"{missing}; draw them again")  # fmt: skip


def _missing_curves(seen: set[str], weights: Mapping[str, Path]) -> Path | None:
    """A model without curves, trained here with a seed of which others have some; the bounds need none."""
    made = {sha256: provenance_of(path) for sha256, path in weights.items()}
    seeds = {made[sha256]["seed"] for sha256 in seen}
    wanted = [
        sha256
        for sha256, of in made.items()
        if of["seed"] in seeds and of["made_by"] not in ("import", "control", "oracle")
    ]
    return next((weights[sha256] for sha256 in wanted if sha256 not in seen), None)


def _inputs(path: Path) -> set[str]:
    """The SHA-256 of all that an artifact was made of."""
    return {recorded["sha256"] for recorded in provenance_of(path)["inputs"].values()}


def _is_stage(checkpoint: Path) -> bool:
    return model_of(provenance_of(checkpoint)).name.startswith("stage")


def accuracy_of_labels(labels: Sequence[Path], accuracy: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """How right the labels in each file were; empty where no accuracies are given.

    UserError unless there is one for each of the labels then, and none of others.
    """
    read = {path: read_artifact(path, KINDS["diagnose"]) for path in accuracy}
    contents = {content_of(path): path for path in labels}
    found: dict[Path, dict[str, Any]] = {}
    for path, values in read.items():
        of = [contents[content] for content in contents_of_inputs(values["provenance"]) if content in contents]
        if not of or of[0] in found:
            raise UserError(f"{path}: an accuracy must be of labels of the report that have no other, found one of others or a "
                            "second one; leave it out")  # fmt: skip
        found[of[0]] = values
    if found and (missing := [path for path in labels if path not in found]):
        raise UserError(f"{missing[0]}: the accuracy of all labels or of none must be given, found none of these; make it by "
                        "`diagnose`, and name it")  # fmt: skip
    return found
