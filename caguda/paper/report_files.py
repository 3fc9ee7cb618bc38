"""The checks that all files of a report are of the same models and pseudo-labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from caguda.artifacts.chain import provenance_of
from caguda.artifacts.identity import CHECKPOINT, model_of, read_artifact
from caguda.config import Configuration
from caguda.config_run import Method
from caguda.errors import UserError
from caguda.files import read_regular
from caguda.paper.evaluations import Evaluation, label_contents, match_label_reports
from caguda.paper.pictures import refuse_other_picture
from caguda.paper.rows import ModelRow, main_model, models_of_curves, models_of_figure
from caguda.runs import run_of


def refuse_other_checkpoints(evaluations: Sequence[Evaluation], checkpoints: Sequence[Path]) -> None:
    """Raises UserError unless the checkpoints, named by their JSON, are those that were evaluated."""
    weights = {_weights_of(path): path for path in checkpoints}
    inputs = {
        item.path: {recorded["sha256"] for recorded in provenance_of(item.path)["inputs"].values()}
        for item in evaluations
    }
    evaluated = set[str]().union(*inputs.values())
    for digest, path in weights.items():
        if digest not in evaluated:
            raise UserError(f"{path}: a checkpoint must be one that was evaluated, found another; leave it out")
    for path, digests in inputs.items():
        if digests.isdisjoint(weights):
            raise UserError(f"{path}: the checkpoint that was evaluated must be given too, found none; name it")


def _weights_of(checkpoint: Path) -> str:
    return str(read_artifact(checkpoint, CHECKPOINT)["weights_sha256"])


def label_reports_of(
    configuration: Configuration, label_reports: Sequence[Path], checkpoints: Sequence[Path]
) -> dict[Path, Path]:
    """The label report of each checkpoint that was trained on pseudo-labels; see match_label_reports."""
    trained = {}
    for path in checkpoints:
        provenance = provenance_of(path)
        run = run_of(configuration, model_of(provenance))
        if isinstance(run, Method) and run.reads_pseudo_labels:
            trained[path] = provenance
    return match_label_reports(trained, label_reports)


def refuse_other_pictures(
    configuration: Configuration,
    rows: Sequence[ModelRow],
    label_reports: Sequence[Path],
    checkpoints: Sequence[Path],
    figure: Path,
    curves: Path,
) -> None:
    """Raises UserError unless the pictures show the models that a report needs, and no others than its models and labels.

    Two models may have the same weights: a picture of these shows both.
    """
    models: dict[str, set[str]] = {}
    for path in checkpoints:
        models.setdefault(_weights_of(path), set()).add(model_of(provenance_of(path)))
    allowed = {*models, *(content for path in label_reports for content in label_contents(path))}
    of_figure, of_curves = models_of_figure(configuration, rows), models_of_curves(configuration, rows)

    def models_in(digests: Iterable[str]) -> list[set[str]]:
        return [models[digest] for digest in digests if digest in models]

    in_figure = models_in(refuse_other_picture(figure, "figure", allowed))
    in_curves = set[str]().union(
        *models_in(refuse_other_picture(curves, "curves", allowed, may_be_empty=not of_curves))
    )
    if not set[str]().union(*in_figure) >= set(of_figure) or any(alike.isdisjoint(of_figure) for alike in in_figure):
        found = sorted(" or ".join(sorted(alike)) for alike in in_figure)
        raise UserError(f"{figure}: the figure must be of {', '.join(of_figure)}, found one of {', '.join(found)}; "
                        "draw it again")  # fmt: skip
    if missing := [model for model in of_curves if model not in in_curves]:
        raise UserError(f"{curves}: the curves must be of all models of the report that led to {main_model(rows).model}, "
                        f"found none of {missing[0]}; draw them again")  # fmt: skip


def refuse_other_table(path: Path, text: str) -> None:
    """Raises UserError unless the file is the table of the evaluations, to the last byte."""
    if read_regular(path) != text.encode():
        raise UserError(
            f"{path}: the table must be that of the evaluations, found another; move it away and make it again"
        )
