"""The models that a plan is of: those of models, runs or targets of the workflow, with all that they start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from caguda.config import Configuration
from caguda.config_run import Method, run_name
from caguda.datasets.manifest import SetName
from caguda.errors import UserError, did_you_mean, first
from caguda.paper.rows import main_model, rows_of, table_models
from caguda.runs import (
    anchors_files,
    model_before,
    model_of_anchors,
    models,
    models_before,
    models_listed,
    reports,
    rules_of,
    run_of,
)


class Selection(NamedTuple):
    """The models of a plan in the order of the YAML: those that are evaluated, and the sets that others predict."""

    models: list[str]
    evaluated: list[str]
    predicted: Mapping[str, list[SetName]]


Models = Callable[[Configuration], Iterable[str]]
Sets = Callable[[Configuration], list[SetName]]


def _reported(configuration: Configuration) -> list[str]:
    return [model for report in reports(configuration).values() for model in report]


def _main_models(configuration: Configuration) -> list[str]:
    return [main_model(rows_of(configuration, report)).model for report in reports(configuration).values()]


def _scored_set(configuration: Configuration) -> list[SetName]:
    """The set whose predictions a test server or Table 2 reads."""
    return ["evaluation" if configuration.test is None else "test"]


EVALUATED: Mapping[str, Models] = {
    "all": _reported,
    "demo": _reported,
    "runs": models,
    "methods": models,
    "table1": partial(table_models, table="table1"),
    "table3": partial(table_models, table="table3"),
    "table4": partial(table_models, table="table4"),
    "sweep": partial(table_models, table="sweep"),
    "figure2": lambda configuration: next(iter(reports(configuration).values())),
}
"""The targets of the workflow that evaluate models, with these."""
PREDICTED: Mapping[str, tuple[Models, Sets]] = {
    "table2": (partial(table_models, table="table2"), _scored_set),
    "predictions": (_main_models, lambda _: ["source", "target"]),
    "submission": (_main_models, _scored_set),
}
"""The targets that write predictions, with the models that predict and the sets that are predicted."""


def select(configuration: Configuration, words: Sequence[str]) -> Selection:
    """The models of some words, each a model, a run or a target, with their lineages; without words those of `runs`.

    A run goes before a target of the same name. UserError for another word.
    """
    evaluated: set[str] = set()
    predicted: dict[str, list[SetName]] = {}
    for word in words or ["runs"]:
        if run_name(word) in configuration.runs:
            evaluated |= _lineage(configuration, _of_run(configuration, word))
        elif word in EVALUATED:
            evaluated |= _lineage(configuration, EVALUATED[word](configuration))
        elif word in PREDICTED:
            predicting, sets = PREDICTED[word]
            for model in predicting(configuration):
                predicted[model] = list(dict.fromkeys([*predicted.get(model, []), *sets(configuration)]))
        else:
            choices = [*models(configuration), *configuration.active_runs, *EVALUATED, *PREDICTED]
            raise UserError(
                f"{word}: this must be a model, a run or a target, found none of this name{did_you_mean(word, choices)}; name "
                f"one of {first(models(configuration), 20)}, or of {', '.join((*EVALUATED, *PREDICTED))}"
            )
    needed = evaluated | _lineage(configuration, predicted)
    ordered = [model for model in models(configuration) if model in needed]
    return Selection(ordered, [model for model in ordered if model in evaluated], predicted)


def _of_run(configuration: Configuration, word: str) -> list[str]:
    """The models of a run, or one of them. UserError for a run that is left out, and for a stage that it does not have."""
    if configuration.active_run(run_name(word)) is None:
        raise UserError(f"{word}: this must be a run that is made, found one that is left out: "
                        f"{', '.join(configuration.left_out)}; name another")  # fmt: skip
    if word in configuration.runs:
        return models_listed(configuration, [word])
    run_of(configuration, word)
    return [word]


def _lineage(configuration: Configuration, listed: Iterable[str]) -> set[str]:
    return {model for last in listed for model in (last, *models_before(configuration, last))}


class FrozenModels(NamedTuple):
    """The models that others are trained by: those with anchors of their own, and those with pseudo-labels.

    `labels` has the folders of the pseudo-labels beside a model, by the file of anchors that their evidence is made with;
    None for anchors of a model.
    """

    with_anchors: frozenset[str]
    labels: Mapping[str, Mapping[str | None, frozenset[str]]]


def frozen_models(configuration: Configuration, chosen: Iterable[str]) -> FrozenModels:
    """The anchors, evidence and labels that the trainings of these models read, by the model that they lie beside.

    Anchors of a model are made only if a training that names no file reads them, or pseudo-labels by them.
    """
    files = anchors_files(configuration)
    anchors: set[str] = set()
    labels: dict[str, dict[str | None, frozenset[str]]] = {}
    for model in chosen:
        run, before = run_of(configuration, model), model_before(configuration, model)
        if before is None or not isinstance(run, Method) or not run.uses_frozen_model:
            continue
        file = files.get(run_name(model))
        if file is None:
            anchors.add(model_of_anchors(configuration, before))
        if run.reads_pseudo_labels:
            beside = labels.setdefault(before, {})
            folders = {rule.folder for rule in rules_of(configuration, model).values()}
            beside[file] = beside.get(file, frozenset()) | folders
    return FrozenModels(frozenset(anchors), labels)
