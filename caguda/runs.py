"""The runs of an experiment as a graph: its models, where each starts, and what it is labelled with. No torch.

A model is called by the folder that it lies in below its seed: RUN, or RUN/stageK where the run is a chain of stages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from caguda.config import Configuration
from caguda.config_run import Imported, Method, RunSettings
from caguda.errors import UserError, first
from caguda.pseudo_labels import Rule

STAGE = re.compile(r"(.+)/stage([1-9]\d*)")
_NOT_DECISIVE = {"title", "note", "stages"}
"""The keys of a run that do not change a model: how tables call it, and how many stages follow."""


def models_of(name: str, run: RunSettings) -> list[str]:
    """The models of a run, in order: one, or one for every stage."""
    stages = getattr(run, "stages", None)
    return [name] if stages is None else [f"{name}/stage{stage}" for stage in range(1, stages + 1)]


def models(configuration: Configuration) -> list[str]:
    """Every model that is made, in the order of the YAML."""
    return [model for name, run in configuration.made.items() for model in models_of(name, run)]


def run_of(configuration: Configuration, model: str) -> RunSettings:
    """The settings of the run that a model is of; UserError where the configuration has no such model."""
    run = configuration.made.get(model.partition("/")[0])
    if run is None or model not in models_of(model.partition("/")[0], run):
        raise UserError(f"{model}: the configuration has no such model, only {first(models(configuration))}")
    return run


def method_of(configuration: Configuration, model: str) -> Method:
    """The method that a model is trained by; UserError for a model that is brought."""
    run = run_of(configuration, model)
    if not isinstance(run, Method):
        raise UserError(
            f"{model}: this must be a model that is trained, found one that is {run.about or 'of a plugin'}"
        )
    return run


def trained_models(configuration: Configuration) -> list[str]:
    """The models that are trained here."""
    return [model for model in models(configuration) if not isinstance(run_of(configuration, model), Imported)]


def imported_files(configuration: Configuration) -> dict[str, str]:
    """The file of every model that is brought, by the name of its run."""
    return {name: run.file for name, run in configuration.made.items() if isinstance(run, Imported)}


def expanded(configuration: Configuration, names: Iterable[str]) -> list[str]:
    """The models that a list of runs stands for, each once: all stages of a chain, none of a run that is left out."""
    found: list[str] = []
    for name in names:
        run = configuration.made.get(name.partition("/")[0])
        if run is not None:
            found += [name] if STAGE.fullmatch(name) else models_of(name, run)
    return list(dict.fromkeys(found))


def reports(configuration: Configuration) -> dict[str, list[str]]:
    """The models of every report, by its name; without the key `reports` one report, `runs`, of all.

    A report whose runs are all left out is none.
    """
    if not configuration.reports:
        return {"runs": models(configuration)}
    listed = {name: expanded(configuration, names) for name, names in configuration.reports.items()}
    return {name: found for name, found in listed.items() if found}


def model_before(configuration: Configuration, model: str) -> str | None:
    """The model that another one starts from: the stage before it, or the last model of `start`; None for fresh weights."""
    run = run_of(configuration, model)
    stage = STAGE.fullmatch(model)
    if stage and int(stage[2]) > 1:
        return f"{stage[1]}/stage{int(stage[2]) - 1}"
    start: str | None = getattr(run, "start", None)
    return None if start is None else expanded(configuration, [start])[-1]


def models_before(configuration: Configuration, model: str) -> Iterator[str]:
    """The models that led to another one, the nearest first."""
    before = model_before(configuration, model)
    while before is not None:
        yield before
        before = model_before(configuration, before)


def adaptation_stage(configuration: Configuration, model: str) -> int:
    """1, and one more for every model before it of the same chain, or that was trained with anchors or pseudo-labels."""
    own = model.partition("/")[0]
    before = [(other.partition("/")[0], run_of(configuration, other)) for other in models_before(configuration, model)]
    return 1 + sum(
        name == own or (isinstance(run, Method) and (run.uses_anchors or run.reads_pseudo_labels))
        for name, run in before
    )


def place_in_chain(model: str) -> int:
    """k of RUN/stageK; 1 for a run without stages."""
    stage = STAGE.fullmatch(model)
    return int(stage[2]) if stage else 1


def rules_of(configuration: Configuration, model: str) -> dict[str, Rule]:
    """The rules of the pseudo-labels that a model is trained with, by name; none where its method has none."""
    run = run_of(configuration, model)
    rules: dict[str, Rule] = getattr(run, "pseudo_labels", {})
    return {name: rule.of_stage(place_in_chain(model)) for name, rule in rules.items() if isinstance(rule, Rule)}


def known_rules(configuration: Configuration) -> dict[str, Rule]:
    """Every rule that some model is labelled with, by the name of its folder."""
    every = [rules_of(configuration, model) for model in models(configuration)]
    return {rule.folder: rule for rules in every for rule in rules.values()}


def labelling_of(configuration: Configuration, model: str) -> str:
    """The name of the pseudo-labels that a model is trained with: the folders of its rules."""
    return "+".join(rule.folder for rule in rules_of(configuration, model).values())


def anchors_of_evidence(configuration: Configuration, model: str) -> str:
    """The model whose anchors the evidence beside a model is made with: its own, or those that its chain started from."""
    stage = STAGE.fullmatch(model)
    if configuration.anchors.every_stage or not stage:
        return model
    before = model_before(configuration, f"{stage[1]}/stage1")
    return model if before is None else before


def described(configuration: Configuration, model: str) -> dict[str, Any]:
    """The settings that decide a model, as JSON values: its name and the keys of its run."""
    run = run_of(configuration, model)
    left = _NOT_DECISIVE | ({"file", "has_seen"} if isinstance(run, Imported) else set())
    values = run.model_dump(mode="json", exclude=left)
    if rules := rules_of(configuration, model):
        values["pseudo_labels"] = {name: rule.model_dump(mode="json") for name, rule in rules.items()}
    return {"name": model, **values}
