"""What must hold of the files that a report is made of: all of them tell of the same models and pseudo-labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from caguda.artifacts.chain import provenance_of
from caguda.artifacts.identity import MODEL, contents_of_inputs, model_of, read_artifact
from caguda.config import Configuration
from caguda.config_run import Method
from caguda.errors import UserError
from caguda.paper.evaluations import Evaluation, contents_of_labels
from caguda.paper.pictures import refuse_other_picture
from caguda.paper.rows import ModelRow, main_model, models_of_curves, models_of_figure
from caguda.runs import rules_of, run_of


def refuse_other_files(
    configuration: Configuration,
    rows: Sequence[ModelRow],
    evaluations: Sequence[Evaluation],
    labels: Sequence[Path],
    checkpoints: Sequence[Path],
    pictures: Mapping[str, Path],
) -> None:
    """UserError unless checkpoints are those that were evaluated, labels those that they were trained on.

    `pictures` are those of the report by the verb that drew them; they show some of these models and labels.
    """
    weights = {read_artifact(path, MODEL)["weights_sha256"]: path for path in checkpoints}
    evaluated = {sha256: item.path for item in evaluations for sha256 in _inputs(item.path)}
    for sha256, path in weights.items():
        if sha256 not in evaluated:
            raise UserError(f"{path}: a checkpoint must be one that was evaluated, found another; leave it out")
    for item in evaluations:
        if _inputs(item.path).isdisjoint(weights):
            raise UserError(f"{item.path}: the checkpoint that was evaluated must be given too, found none; name it")
    labels_of_models(configuration, labels, checkpoints)
    trained_on = {content for path in labels for content in contents_of_labels(path)}
    wanted, known = models_of_curves(configuration, rows), {*weights, *trained_on}
    empty = [] if wanted else ["curves"]
    shows = {verb: refuse_other_picture(path, verb, known, verb in empty) for verb, path in pictures.items()}
    models = {sha256: model_of(provenance_of(path)) for sha256, path in weights.items()}
    drawn = {verb: {model for sha256, model in models.items() if sha256 in shows[verb]} for verb in shows}
    wanted = models_of_figure(configuration, rows)
    if drawn["figure"] != set(wanted):
        raise UserError(f"{pictures['figure']}: the figure must be of {', '.join(wanted)}, found one of {', '.join(sorted(drawn['figure']))}; "
                        "draw it again")  # fmt: skip
    if missing := [model for model in models_of_curves(configuration, rows) if model not in drawn["curves"]]:
        raise UserError(f"{pictures['curves']}: the curves must be of all models of the report that led to {main_model(rows).model}, "
                        f"found none of {missing[0]}; draw them again")  # fmt: skip


def _inputs(path: Path) -> set[str]:
    """The SHA-256 of all that an artifact was made of."""
    return {recorded["sha256"] for recorded in provenance_of(path)["inputs"].values()}


def labels_of_models(
    configuration: Configuration, labels: Sequence[Path], checkpoints: Sequence[Path]
) -> dict[Path, Path]:
    """What is told of the pseudo-labels that each checkpoint was trained on, by its path; none of those that were trained on none.

    UserError unless there is one for each of them, and none of others.
    """
    contents = {path: contents_of_labels(path) for path in labels}
    found: dict[Path, Path] = {}
    for path in checkpoints:
        model = model_of(provenance_of(path))
        run, rules = run_of(configuration, model), rules_of(configuration, model)
        if not isinstance(run, Method) or not run.reads_pseudo_labels:
            continue
        inputs = contents_of_inputs(provenance_of(path))
        fitting = [file for file, of in contents.items() if of <= inputs and len(of) == len(rules)]
        if len(fitting) != 1:
            what = "the same twice" if fitting else "none"
            raise UserError(f"{path}: the statistics of the labels that a model was trained on must be given once, found {what}; "
                            "name the JSON of `diagnose`")  # fmt: skip
        found[path] = fitting[0]
    if unused := [path for path in labels if path not in found.values()]:
        raise UserError(f"{unused[0]}: labels must be those that a model was trained on, found others; leave them out")
    return found
