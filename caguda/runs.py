"""The runs of an experiment as a graph: its models, the start of each, and the rules of its pseudo-labels. No torch.

The name of a model is its folder below the seed: RUN, or RUN/stageK of a run with stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from caguda.config import Configuration
from caguda.config_run import STAGE, Imported, Method, RunSettings, run_name
from caguda.errors import UserError, first
from caguda.pseudo_labels import Rule

_KEYS_THAT_CHANGE_NO_MODEL = {"title", "note", "stages"}
"""The keys of a run that do not change a model: its texts in tables, and the number of stages."""


def models_of_run(name: str, run: RunSettings) -> list[str]:
    """The models of a run, in order: one, or one for each stage."""
    stages = getattr(run, "stages", None)
    return [name] if stages is None else [f"{name}/stage{stage}" for stage in range(1, stages + 1)]


def models(configuration: Configuration) -> list[str]:
    """Every model that is made, in the order of the YAML."""
    return [model for name, run in configuration.active_runs.items() for model in models_of_run(name, run)]


def last_models(configuration: Configuration) -> list[str]:
    """The last model of every run that is made, in the order of the YAML."""
    return [models_of_run(name, run)[-1] for name, run in configuration.active_runs.items()]


def run_of(configuration: Configuration, model: str) -> RunSettings:
    """The settings of a model's run. UserError if the configuration has no such model."""
    run = configuration.active_run(run_name(model))
    if run is None or model not in models_of_run(run_name(model), run):
        raise UserError(f"{model}: the configuration has no such model, only {first(models(configuration))}")
    return run


def method_of(configuration: Configuration, model: str) -> Method:
    """The settings of a model that is trained. UserError for an imported model."""
    run = run_of(configuration, model)
    if not isinstance(run, Method):
        raise UserError(
            f"{model}: this must be a model that is trained, found one that is {run.about or 'of a plugin'}"
        )
    return run


def trained_models(configuration: Configuration) -> list[str]:
    """The models that are trained here, not imported."""
    return [model for model in models(configuration) if not isinstance(run_of(configuration, model), Imported)]


def imported_files(configuration: Configuration) -> dict[str, str]:
    """The file of every imported model, by the name of its run."""
    return {name: run.file for name, run in configuration.active_runs.items() if isinstance(run, Imported)}


def anchors_files(configuration: Configuration) -> dict[str, str]:
    """The file of anchors from elsewhere of every run that names one, by the name of the run."""
    named = {name: getattr(run, "anchors", None) for name, run in configuration.active_runs.items()}
    return {name: file for name, file in named.items() if file is not None}


def models_listed(configuration: Configuration, names: Iterable[str]) -> list[str]:
    """The models of a list of runs, each once: all stages of a chain, none of a run that is left out."""
    listed: list[str] = []
    for name in names:
        run = configuration.active_run(run_name(name))
        if run is not None:
            listed += [name] if STAGE.fullmatch(name) else models_of_run(name, run)
    return list(dict.fromkeys(listed))


def reports(configuration: Configuration) -> dict[str, list[str]]:
    """The models of every report, by its name. Without the key `reports`, one report `runs` has all models.

    A report is left out if all its runs are.
    """
    if not configuration.reports:
        return {"runs": models(configuration)}
    listed = {name: models_listed(configuration, names) for name, names in configuration.reports.items()}
    return {name: report for name, report in listed.items() if report}


def model_before(configuration: Configuration, model: str) -> str | None:
    """The model that a model starts from: the stage before it, or the last model of `start`; None for fresh weights."""
    run = run_of(configuration, model)
    stage = STAGE.fullmatch(model)
    if stage and int(stage[2]) > 1:
        return f"{stage[1]}/stage{int(stage[2]) - 1}"
    start: str | None = getattr(run, "start", None)
    return None if start is None else models_listed(configuration, [start])[-1]


def model_of_first_weights(configuration: Configuration, model: str) -> str | None:
    """The model whose weights a training begins with: with `restart` the last model of `start`, else the model before."""
    if getattr(run_of(configuration, model), "restart", False):
        return model_before(configuration, f"{run_name(model)}/stage1")
    return model_before(configuration, model)


def models_before(configuration: Configuration, model: str) -> Iterator[str]:
    """The chain of models that a model starts from, the nearest first."""
    before = model_before(configuration, model)
    while before is not None:
        yield before
        before = model_before(configuration, before)


def adaptation_number(configuration: Configuration, model: str) -> int:
    """The number of adaptations up to a model: 1 for itself, and 1 for each model before it that counts as one.

    Those are the earlier stages of the same run, and models trained with anchors or pseudo-labels.
    """
    before = [(run_name(earlier), run_of(configuration, earlier)) for earlier in models_before(configuration, model)]
    return 1 + sum(
        name == run_name(model) or (isinstance(run, Method) and run.uses_frozen_model) for name, run in before
    )


def stage_number(model: str) -> int:
    """k of RUN/stageK; 1 for a run without stages."""
    stage = STAGE.fullmatch(model)
    return int(stage[2]) if stage else 1


def rules_of(configuration: Configuration, model: str) -> dict[str, Rule]:
    """The rules of a model's pseudo-labels by name, in the stage of the model; empty if it is trained without any."""
    rules: dict[str, Rule] = getattr(run_of(configuration, model), "pseudo_labels", {})
    return {name: rule.of_stage(stage_number(model)) for name, rule in rules.items()}


def rules_by_folder(configuration: Configuration) -> dict[str, Rule]:
    """The rules of all models' pseudo-labels, by the name of their folder."""
    return {rule.folder: rule for model in models(configuration) for rule in rules_of(configuration, model).values()}


def labelling_name(configuration: Configuration, model: str) -> str:
    """The name of a model's labelling: the sorted folders of its rules, joined by +. The order of the rules is free."""
    return "+".join(sorted(rule.folder for rule in rules_of(configuration, model).values()))


def model_of_anchors(configuration: Configuration, model: str) -> str:
    """The model whose anchors make the evidence of a model: itself, or with `every_stage: false` the one before its chain.

    A chain that starts from a stage of another chain continues that chain: all stages of both have the same anchors. A run
    with anchors from elsewhere needs neither.
    """
    stage = STAGE.fullmatch(model)
    if configuration.anchors.every_stage or not stage:
        return model
    before = model_before(configuration, f"{stage[1]}/stage1")
    return model if before is None else model_of_anchors(configuration, before)


def deciding_settings(configuration: Configuration, model: str) -> dict[str, Any]:
    """The settings that decide a model, as JSON values: its name and keys of its run.

    Files from elsewhere are inputs and may be moved: `anchors` is only whether there is such a file, and absent without one.
    """
    run = run_of(configuration, model)
    excluded = _KEYS_THAT_CHANGE_NO_MODEL | ({"file", "has_seen"} if isinstance(run, Imported) else set())
    values = run.model_dump(mode="json", exclude=excluded)
    if values.pop("anchors", None) is not None:
        values["anchors"] = "from elsewhere"
    if rules := rules_of(configuration, model):
        values["pseudo_labels"] = {name: rule.model_dump(mode="json") for name, rule in rules.items()}
    return {"name": model, **values}
