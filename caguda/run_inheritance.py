"""The section `runs`: keys that a run inherits from other sections, and checks of all runs together. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from caguda.complaints import shown
from caguda.config_run import RunSettings, Training, run_name
from caguda.errors import did_you_mean
from caguda.merging import has, merge_keys

LIKE = "like"
NOT_INHERITED = ("title", "note")
"""Keys that a run does not inherit from the run that it is like."""
EARLIER_KEYS = ("pretrain", "warmup", "labels", "losses", "stages", "recipes", "bounds", "start_from")
"""Keys of YAMLs of an earlier version, which had one chain of runs."""


def with_inherited_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an experiment, where each run has also those that it inherits from `like: RUN` and from `training`.

    ValueError for a run that is like itself or like no run, and for an unknown key of `training`.
    """
    if earlier := [key for key in EARLIER_KEYS if key in values]:
        raise ValueError(
            f"{', '.join(earlier)}: keys of an earlier version, in which stages were sections; write them as entries of runs, as "
            "config/demo.yaml and docs/runs.md show"
        )
    runs, training = values.get("runs"), values.get("training", {})
    if not isinstance(training, Mapping):
        raise ValueError(f"training: must be keys with values, found {shown(training)}")  # noqa: TRY004
    if not isinstance(runs, Mapping):
        return dict(values)
    if numbers := [name for name in runs if not isinstance(name, str)]:
        raise ValueError(
            f"runs: the name of a run must be text, found {shown(numbers[0])}; write it in quotes, or choose another"
        )
    if unknown := [key for key in training if key not in Training.model_fields]:
        raise ValueError(f"training.{unknown[0]}: unknown key{did_you_mean(unknown[0], Training.model_fields)}")
    return {**values, "runs": {name: _all_keys_of(name, runs, training) for name in runs}}


def _all_keys_of(name: str, runs: Mapping[str, Any], training: Mapping[str, Any]) -> Any:
    """All keys of a run: those of `training`, then those of the runs that it is like, then its own."""
    if not isinstance(runs[name], Mapping):
        return runs[name]
    line = _line_of(name, runs)
    keys: Mapping[str, Any] = {} if runs[line[-1]].get("method") == "imported" else training
    for each in reversed(line):
        inherited = {key: value for key, value in keys.items() if key not in NOT_INHERITED}
        keys = merge_keys(inherited, {key: value for key, value in runs[each].items() if key != LIKE})
    return keys


def _line_of(name: str, runs: Mapping[str, Any]) -> list[str]:
    """A run and the runs that it is like, directly or through others, the furthest last."""
    line = [name]
    while (parent := runs[line[-1]].get(LIKE)) is not None:
        key = f"runs.{line[-1]}.{LIKE}"
        if parent in line:
            raise ValueError(f"{key}: no run may be like itself, found the circle {' -> '.join((*line, parent))}")
        if not isinstance(parent, str) or parent not in runs:
            raise ValueError(
                f"{key}: must be another run of this YAML, found {shown(parent)}{did_you_mean(parent, runs)}"
            )
        if not isinstance(runs[parent], Mapping):
            fault = "left out" if runs[parent] is None else shown(runs[parent])
            raise ValueError(f"{key}: must be a run with keys, found {parent}, which is {fault}; name another")  # noqa: TRY004
        line.append(parent)
    return line


def source_of(values: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """The path of keys at which a YAML sets a value of an experiment; `keys` itself if none sets it.

    A run's value may be set by the run, by a run that it is like, or by `training`.
    """
    sources, runs = [tuple(keys)], values.get("runs")
    if len(keys) >= 3 and keys[0] == "runs" and isinstance(runs, Mapping):
        rest, names = keys[2:], [keys[1]]
        while isinstance(run := runs.get(names[-1]), Mapping) and isinstance(parent := run.get(LIKE), str):
            if parent in names:
                break
            names.append(parent)
        sources = [*(("runs", name, *rest) for name in names), ("training", *rest)]
    return next((source for source in sources if has(values, source)), tuple(keys))


def section_of(source: Sequence[str]) -> str:
    """The section that a run inherits a value from, for messages: `training`, or runs.NAME."""
    return ".".join(source[: 2 if source[0] == "runs" else 1])


def refuse_impossible_runs(
    active: Mapping[str, RunSettings], runs: Mapping[str, RunSettings | None], lists: Mapping[str, Sequence[str]]
) -> None:
    """ValueError unless every active run starts from an active run, and every report and table lists runs of the YAML.

    Also if runs or reports have names that differ in case only, or are those of a seed's folder. `lists` has the reports and tables by key. They may name runs that are left out.
    """
    if seeds := [name for name in runs if re.fullmatch(r"seed\d+", name)]:
        raise ValueError(f"runs: {seeds[0]} is the name of a seed's folder, choose another name")
    _refuse_one_folder("runs", [name for name, run in runs.items() if run is not None])
    _refuse_one_folder("reports", [key.removeprefix("reports.") for key in lists if key.startswith("reports.")])
    starts = {name: start for name, run in active.items() if (start := getattr(run, "start", None)) is not None}
    for name, start in starts.items():
        _refuse_no_such_model(f"runs.{name}.start", start, active, runs)
        _refuse_circle(name, starts)
    for key, models in lists.items():
        for index, model in enumerate(models):
            if runs.get(run_name(model), ...) is not None:
                _refuse_no_such_model(f"{key}.{index}", model, runs, runs)
            if model in models[:index]:
                raise ValueError(f"{key}: every run must be named once, found {model} twice")


def _refuse_one_folder(key: str, names: Iterable[str]) -> None:
    """ValueError if a disk that ignores upper and lower case has one folder for two of these names."""
    by_folder: dict[str, str] = {}
    for name in names:
        if (twin := by_folder.setdefault(name.casefold(), name)) != name:
            raise ValueError(
                f"{key}: names must differ in more than upper and lower case, since they become names of folders, found "
                f"{twin} and {name}; rename one"
            )


def _refuse_no_such_model(
    key: str, model: str, allowed: Mapping[str, RunSettings | None], runs: Mapping[str, RunSettings | None]
) -> None:
    """ValueError unless a model belongs to one of the `allowed` runs; `runs` are all runs, for messages."""
    name, _, stage = model.partition("/stage")
    if name not in runs:
        raise ValueError(f"{key}: must be a run, found {name}{did_you_mean(name, runs)}")
    if name not in allowed:
        raise ValueError(f"{key}: must be a run that is made, found {name}, which is left out; name another")
    stages = getattr(allowed[name], "stages", None) or 0
    if stage and int(stage) > stages:
        count = f"{stages or 'no'} stages"
        raise ValueError(f"{key}: must be a model that is made, found {model} where {name} has {count}")


def _refuse_circle(name: str, starts: Mapping[str, str]) -> None:
    path = [name]
    while path[-1] in starts:
        path.append(run_name(starts[path[-1]]))
        if path[-1] in path[:-1]:
            raise ValueError(f"runs.{name}.start: no run may start from itself, found the circle {' -> '.join(path)}")
