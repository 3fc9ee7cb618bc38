"""The section `runs` before it is validated: keys that a run takes from others, and what runs must hold together. No torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from caguda.complaints import shown
from caguda.config_run import RunSettings, Training
from caguda.merging import has, merge_keys

LIKE = "like"
OWN = ("title", "note")
"""Keys that a run does not take from the run that it is like."""
EARLIER = ("pretrain", "warmup", "labels", "losses", "stages", "recipes", "bounds", "start_from")
"""Keys of YAMLs of an earlier version, which knew one chain of runs."""


def with_whole_runs(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an experiment, each run with those that it takes from `like: RUN` and from `training`.

    ValueError for a run that is like none or like itself, and for a `training` of other keys.
    """
    if found := [key for key in EARLIER if key in values]:
        raise ValueError(
            f"{', '.join(found)}: keys of an earlier version, in which stages were sections; write them as entries of runs, as "
            "config/demo.yaml and docs/runs.md show"
        )
    runs, training = values.get("runs"), values.get("training", {})
    if not isinstance(training, Mapping):
        raise ValueError(f"training: must be keys with values, found {shown(training)}")  # noqa: TRY004
    if not isinstance(runs, Mapping):
        return dict(values)
    if unknown := [key for key in training if key not in Training.model_fields]:
        near = difflib.get_close_matches(str(unknown[0]), Training.model_fields, n=1)
        raise ValueError(f"training.{unknown[0]}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
    return {**values, "runs": {name: _whole(name, runs, training, ()) for name in runs}}


def _whole(name: str, runs: Mapping[str, Any], training: Mapping[str, Any], seen: tuple[str, ...]) -> Any:
    """All keys of a run; `seen` are the runs that are like it, one after another."""
    own = runs[name]
    if not isinstance(own, Mapping):
        return own
    if own.get(LIKE) is None:
        own = {key: value for key, value in own.items() if key != LIKE}
        return own if own.get("method") == "imported" else merge_keys(training, own)
    key, other = f"runs.{name}.{LIKE}", own[LIKE]
    if other in (*seen, name):
        raise ValueError(f"{key}: no run may be like itself, found the circle {' -> '.join((*seen, name, other))}")
    if not isinstance(other, str) or other not in runs:
        raise ValueError(f"{key}: must be another run of this YAML, found {shown(other)}{_near(other, runs)}")
    if not isinstance(runs[other], Mapping):
        what = "left out" if runs[other] is None else shown(runs[other])
        raise ValueError(f"{key}: must be a run with keys, found {other}, which is {what}; name another")  # noqa: TRY004
    lower = {k: value for k, value in _whole(other, runs, training, (*seen, name)).items() if k not in OWN}
    return merge_keys(lower, {k: value for k, value in own.items() if k != LIKE})


def _near(name: Any, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), map(str, known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def sources_of(values: Mapping[str, Any], keys: Sequence[str]) -> list[tuple[str, ...]]:
    """The keys under which the files may say a value of a run: the run's own, those of the runs that it is like, `training`'s."""
    runs = values.get("runs")
    if len(keys) < 3 or keys[0] != "runs" or not isinstance(runs, Mapping):
        return [tuple(keys)]
    names, rest = [keys[1]], tuple(keys[2:])
    while isinstance(run := runs.get(names[-1]), Mapping) and isinstance(other := run.get(LIKE), str):
        if other in names:
            break
        names.append(other)
    return [*(("runs", name, *rest) for name in names), ("training", *rest)]


def source_of(values: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """The keys under which the files say a value that an experiment has; the value's own where none says it."""
    return next((source for source in sources_of(values, keys) if has(values, source)), tuple(keys))


def section_of(source: Sequence[str]) -> str:
    """What a run takes a value from, as messages call it: `training`, or runs.NAME."""
    return ".".join(source[: 2 if source[0] == "runs" else 1])


def refuse_impossible_runs(
    made: Mapping[str, RunSettings], runs: Mapping[str, RunSettings | None], lists: Mapping[str, Sequence[str]]
) -> None:
    """ValueError unless every run that is made starts from another that is, and every report and table lists runs of the YAML.

    `lists` are those of reports and tables by their key. They may name runs that are left out.
    """
    if taken := [name for name in runs if re.fullmatch(r"seed\d+", name)]:
        raise ValueError(f"runs: {taken[0]} is the name of a seed's folder, choose another name")
    starts = {name: start for name, run in made.items() if (start := getattr(run, "start", None)) is not None}
    for name, start in starts.items():
        _refuse_other_model(f"runs.{name}.start", start, made, runs)
        _refuse_circle(name, starts)
    for key, models in lists.items():
        for place, model in enumerate(models):
            if runs.get(model.partition("/")[0], ...) is not None:
                _refuse_other_model(f"{key}.{place}", model, runs, runs)
            if model in models[:place]:
                raise ValueError(f"{key}: every run must be named once, found {model} twice")


def _refuse_other_model(
    key: str, model: str, there: Mapping[str, RunSettings | None], runs: Mapping[str, RunSettings | None]
) -> None:
    """ValueError unless a model is one of a run that is there; `runs` are all runs, for messages."""
    name, _, stage = model.partition("/stage")
    if name not in runs:
        raise ValueError(f"{key}: must be a run, found {name}{_near(name, runs)}")
    if name not in there:
        raise ValueError(f"{key}: must be a run that is made, found {name}, which is left out; name another")
    stages = getattr(there[name], "stages", None)
    if stage and int(stage) > (stages or 0):
        has = f"has {stages} stages" if stages else "has no stages"
        raise ValueError(f"{key}: must be a model that is made, found {model} where {name} {has}")


def _refuse_circle(name: str, starts: Mapping[str, str]) -> None:
    path = [name]
    while path[-1] in starts:
        path.append(starts[path[-1]].partition("/")[0])
        if path[-1] in path[:-1]:
            raise ValueError(f"runs.{name}.start: no run may start from itself, found the circle {' -> '.join(path)}")
