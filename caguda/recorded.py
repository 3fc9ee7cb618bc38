"""What an artifact says that it was made with, beside what a configuration asks for. No torch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from caguda.config import Configuration
from caguda.config_run import Method
from caguda.errors import UserError, first
from caguda.files import read_regular
from caguda.kinds import known, plugin_digests
from caguda.pseudo_labels import Rule
from caguda.runs import described, expanded, models, place_in_chain, run_of
from caguda.version import METHOD_VERSION
from caguda.whole_runs import EARLIER

_FREE = ("anchors.every_stage", "source.root", "target.root", "evaluation.root", "test.root")
"""Keys that do not change what was made: which stages have anchors of their own, and where frames lay."""
_BEFORE = {*EARLIER, "recipe"}
"""Sections of settings that an earlier version recorded, which had none of runs."""
_LONGEST = 120


def other_settings(configuration: Configuration, made: Mapping[str, Any], path: Path | None = None) -> list[str]:
    """The keys in which a provenance differs from the configuration, each with both values; none where they agree.

    `made` is a provenance. Only what it records is compared. What is no section of the configuration says nothing, but for
    the run that a model is of, the rule of labels, and sections of an earlier version. Where their `path` is given, the rule is
    that of their folder.
    """
    current = configuration.model_dump(mode="json")
    recorded = dict(made.get("settings", {}))
    changed_plugins = _changed_plugins(configuration, recorded.pop("plugins", {}))
    found = [f"{section}, settings of an earlier version" for section in recorded if section in _BEFORE]
    if (run := recorded.pop("run", None)) is not None:
        found += _other_run(configuration, run) if isinstance(run, dict) else [f"run {run} of an earlier version"]
    if isinstance(rule := recorded.get("rule"), dict):
        current["rule"] = _rule(configuration, rule, path)
    found += [
        line
        for section, value in recorded.items()
        if section in current
        for line in _differences(section, value, current[section])
    ]
    found = changed_plugins + [line for line in found if not line.startswith(_FREE)]
    if made.get("method_version") != METHOD_VERSION:
        found.append(f"method_version {made.get('method_version')}, not {METHOD_VERSION}")
    return found


def _other_run(configuration: Configuration, recorded: Mapping[str, Any]) -> list[str]:
    """The keys in which a recorded run differs from that of the same name, each with both values.

    Pseudo-labels must be by the same rules; the settings of a rule are compared where it is known, as only it can say what
    they are in a stage.
    """
    model = recorded["name"]
    if model not in models(configuration):
        return [f"run {model}, which the configuration has not"]
    key, current = f"runs.{model.partition('/')[0]}", _of_run(configuration, model)
    found = _differences(key, {**recorded, "pseudo_labels": None}, {**current, "pseudo_labels": None})
    rules = current.get("pseudo_labels", {})
    told = recorded.get("pseudo_labels", rules)
    compared = {*known("rule"), *(told.keys() ^ rules.keys())}
    for name in sorted(compared & {*told, *rules}):
        found += _differences(f"{key}.pseudo_labels.{name}", told.get(name), rules.get(name))
    return found


def plugins_of(configuration: Configuration, sets: Iterable[str]) -> dict[str, dict[str, str]]:
    """The section `plugins` of settings that the layouts of some sets decide: SHA-256 by file name; none without plugins."""
    digests = plugin_digests("layout", [getattr(configuration, name).layout for name in sets])
    return {"plugins": digests} if digests else {}


_DECISIVE = {"precision", "tf32", "compile"}
"""What decides weights among the keys of `compute`, beside the number of threads, which moves last digits."""


def settings_of_run(configuration: Configuration, model: str) -> dict[str, Any]:
    """What decides a model, as far as the configuration says it: what its training records."""
    return {
        **configuration.model_dump(mode="json", include={"network": True, "compute": _DECISIVE}),
        "run": _of_run(configuration, model),
        **_plugins_of_run(configuration, model),
    }


def _of_run(configuration: Configuration, model: str) -> dict[str, Any]:
    """What decides a model of its run's keys; `start` as the model that it is: the last stage of a run is another when it has more."""
    values = described(configuration, model)
    start = values.get("start")
    return values if start is None else {**values, "start": expanded(configuration, [start])[-1]}


def _plugins_of_run(configuration: Configuration, model: str) -> dict[str, dict[str, str]]:
    """The section `plugins` of what decides a model: those of its network, and of its method."""
    digests = plugin_digests("network", [configuration.network.name])
    run = run_of(configuration, model)
    if isinstance(run, Method):
        digests |= plugin_digests("method", [run.method])
    return {"plugins": digests} if digests else {}


def plugins_of_rule(rule: Rule) -> dict[str, dict[str, str]]:
    """The same section of labels: the plugin that their rule comes from."""
    digests = plugin_digests("rule", [rule.name])
    return {"plugins": digests} if digests else {}


def _changed_plugins(configuration: Configuration, recorded: Mapping[str, str]) -> list[str]:
    """The recorded plugins that none of the configured files is now, wherever they lie and whatever they are called.

    They are read and not run. None where a configured file is not there, as beside results that were copied.
    """
    files = [Path(file) for file in configuration.plugins]
    if not recorded or not all(file.is_file() for file in files):
        return []
    now = {hashlib.sha256(read_regular(file)).hexdigest() for file in files}
    return [f"another content of the plugin {name}" for name, digest in recorded.items() if digest not in now]


def _rule(configuration: Configuration, recorded: Mapping[str, Any], path: Path | None) -> dict[str, Any] | None:
    """The rule that labels may be made by: that of their folder, or the recorded one if some model is labelled with it, or the
    first of the same name.

    A rule that only a plugin knows, where none is run, is that which is recorded.
    """
    named = list(_rules(configuration))
    rules = {rule.folder: rule for _, rule in named if rule is not None}
    own = [rules[part] for part in path.parts if part in rules] if path else []
    same = [rule for rule in rules.values() if rule.described() == recorded]
    of_its_name = [rule for rule in rules.values() if rule.name == recorded.get("name")]
    if found := [*own[-1:], *same, *of_its_name]:
        return found[0].described()
    return dict(recorded) if (recorded.get("name"), None) in named else None


def _rules(configuration: Configuration) -> Iterator[tuple[str, Rule | None]]:
    """Every rule that some model is labelled with, after its name; None in the place of one that only a plugin knows."""
    for model in models(configuration):
        for name, rule in getattr(run_of(configuration, model), "pseudo_labels", {}).items():
            if name not in known("rule"):
                yield name, None
            else:
                whole = rule if isinstance(rule, Rule) else known("rule")[name].model_validate(rule)
                yield name, whole.of_stage(place_in_chain(model))


def _differences(key: str, recorded: Any, current: Any) -> list[str]:
    """Of two JSON values, the keys in which the first differs from the second."""
    if isinstance(recorded, dict) and isinstance(current, dict):
        return [
            line for name, value in recorded.items() for line in _differences(f"{key}.{name}", value, current.get(name))
        ]
    if key == "network.weights" and {recorded, current}.isdisjoint({"none", "imagenet"}):
        recorded, current = Path(recorded).name, Path(current).name  # a file that was moved
    return [] if recorded == current else [f"{key} {_short(recorded)}, not {_short(current)}"]


def _short(value: Any) -> str:
    """A value as a message can hold it."""
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def refuse_other_settings(path: Path, configuration: Configuration, made: Mapping[str, Any]) -> None:
    """UserError unless an artifact was made with what the configuration says, as far as it records it."""
    if found := other_settings(configuration, made, path):
        raise UserError(
            f"{path}: this must be made with the settings of the configuration, found {first(found)}; make it again, or "
            "give the configuration that it was made with"
        )


def refuse_misplaced(path: Path, made: Mapping[str, Any]) -> None:
    """UserError where an artifact lies in the folder of another seed, a checkpoint in that of another run, or anchors, evidence
    or labels in that of another model, than they say.

    Outside of a folder `seedS`, into which a person may have copied it, the place says nothing.
    """
    place = _place(path.absolute())
    if place is None:
        return
    if made.get("seed") not in (None, place.seed):
        raise UserError(f"{path}: the folder is of seed {place.seed}, found a file of seed {made['seed']}; put it back")
    run = made.get("settings", {}).get("run")
    if isinstance(run, dict) and run["name"] != place.folder:
        raise UserError(
            f"{path}: the folder is of {place.folder or 'no run'}, found a file of {run['name']}; put it back"
        )
    if made.get("made_by") in _OF_A_MODEL and place.is_beside:
        _refuse_other_model(path, place, made)


class _Place(NamedTuple):
    """Where a file lies: the seed, the folder below it, and the folder of the model there or above, RUN or RUN/stageK."""

    seed: int
    folder: str
    run: str

    @property
    def is_beside(self) -> bool:
        """Whether it lies beside its model, in a folder of what that says."""
        return self.folder != self.run

    @property
    def model(self) -> str:
        """The model that lies there, as `seed0/warmup`; empty where it is no folder of one."""
        return f"seed{self.seed}/{self.run}" if self.run else ""


def _place(path: Path) -> _Place | None:
    """Where a file lies; None outside of a folder `seedS`."""
    seeds = [number for number, part in enumerate(path.parts[:-1]) if re.fullmatch(r"seed\d+", part)]
    if not seeds:
        return None
    below = path.parts[seeds[-1] + 1 : -1]
    ends = [number for number, part in enumerate(below) if part in ("evidence", "labels", "predictions") and number > 0]
    run = below[: ends[0]] if ends else below
    return _Place(int(path.parts[seeds[-1]].removeprefix("seed")), "/".join(below), "/".join(run))


def _refuse_other_model(path: Path, here: _Place, made: Mapping[str, Any]) -> None:
    """UserError where anchors, evidence or labels lie beside another model than the one that they are of: where their inputs lie
    now, or lay by the names that these were given."""
    for name, item in made["inputs"].items():
        for of in (Path(os.path.normpath(path.absolute().parent / item["from_here"])), Path(name).absolute()):
            there = _place(of)
            if there is None or not (there.is_beside or of.suffix == ".safetensors"):
                continue  # no file of a model, such as the manifest
            may_be_shared = of.suffix == ".h5" and "parts" not in of.parts  # anchors, by all stages of a chain
            if not may_be_shared and there.model not in ("", here.model):
                raise UserError(
                    f"{path}: the folder is of {here.model}, found a file of the model in {there.model}; put it back"
                )


_OF_A_MODEL = ("anchor-part", "anchors", "evidence-store", "evidence", "evidence-part", "labels", "diagnose")
