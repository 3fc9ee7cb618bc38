"""What must hold of the files that a report is made of: all of them tell of the same models and pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from caguda.artifacts.chain import provenance_of
from caguda.artifacts.identity import MODEL, contents_of_inputs, model_of, read_artifact
from caguda.errors import UserError
from caguda.paper.evaluations import Evaluation, contents_of_labels
from caguda.paper.pictures import refuse_other_picture


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
    labels_of_stages(labels, checkpoints)
    trained_on = {content for path in labels for content in contents_of_labels(path)}
    shows = {verb: refuse_other_picture(path, verb, recipe, {*weights, *trained_on}) for verb, path in pictures.items()}
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


def labels_of_stages(labels: Sequence[Path], checkpoints: Sequence[Path]) -> dict[Path, Path]:
    """What is told of the pseudo-labels that each checkpoint of a stage was trained on, by the path of the checkpoint.

    UserError unless there is one for each of them, and none of others.
    """
    contents = {path: contents_of_labels(path) for path in labels}
    found: dict[Path, Path] = {}
    for path in filter(_is_stage, checkpoints):
        inputs = contents_of_inputs(provenance_of(path))
        fitting = [file for file, of in contents.items() if of <= inputs]
        if len(fitting) != 1:
            what = "the same twice" if fitting else "none"
            raise UserError(f"{path}: the statistics of the labels that a stage was trained on must be given once, found {what}; "
                            "name the JSON of `diagnose`")  # fmt: skip
        found[path] = fitting[0]
    if unused := [path for path in labels if path not in found.values()]:
        raise UserError(f"{unused[0]}: labels must be those that a stage was trained on, found others; leave them out")
    return found
