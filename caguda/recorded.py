"""What an artifact says that it was made with, beside what a configuration asks for. No torch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from caguda.ablations import chains, known_rules, rules_of, thresholds_of
from caguda.config import Configuration
from caguda.errors import UserError, first
from caguda.files import read_regular
from caguda.kinds import plugin_digests
from caguda.version import METHOD_VERSION

_FREE = (
    "stages.count",
    "anchors.every_stage",
    "source.root",
    "target.root",
    "evaluation.root",
    "test.root",
)
"""Keys that do not change what was made: how many stages follow, which have anchors of their own, and where frames lay."""


_LONGEST = 120


def other_settings(configuration: Configuration, made: Mapping[str, Any], path: Path | None = None) -> list[str]:
    """The keys in which a provenance differs from the configuration, each with both values; none where they agree.

    `made` is a provenance. Only what it records is compared. What is no section of the configuration says nothing,
    but for the weights of a recipe's losses and its thresholds, which an ablation and a sweep have of their own, and the rule of
    labels. Where their `path` is given, the rule is that of their folder.
    """
    current = configuration.model_dump(mode="json")
    recorded = dict(made.get("settings", {}))
    changed_plugins = _changed_plugins(configuration, recorded.pop("plugins", {}))
    recipe = recorded.get("recipe")
    if isinstance(recipe, dict):
        known = chains(configuration).get(recipe.get("name", ""))
        current["recipe"] = None if known is None else {"name": recipe["name"], **known.model_dump(mode="json")}
        current["labels"] = thresholds_of(configuration, recipe.get("name", "")).model_dump(mode="json")
    if isinstance(rule := recorded.get("rule"), dict):
        current["rule"] = _rule(configuration, rule, path)
    free = tuple(key for key in _FREE if key != "stages.count" or made.get("made_by") != "control")
    found = [
        line
        for section, value in recorded.items()
        if section in current
        for line in _differences(section, value, current[section])
    ]
    found = changed_plugins + [line for line in found if not line.startswith(free)]
    if made.get("method_version") != METHOD_VERSION:
        found.append(f"method_version {made.get('method_version')}, not {METHOD_VERSION}")
    return found


def plugins_of(configuration: Configuration, sets: Iterable[str]) -> dict[str, dict[str, str]]:
    """The section `plugins` of settings that the layouts of some sets decide: SHA-256 by file name; none without plugins."""
    digests = plugin_digests("layout", [getattr(configuration, name).layout for name in sets])
    return {"plugins": digests} if digests else {}


def network_plugin(configuration: Configuration) -> dict[str, dict[str, str]]:
    """The same section of what the network decides; none where the network is one of the package."""
    digests = plugin_digests("network", [configuration.network.name])
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
    """The rule that labels may be made by: that of their folder, or the recorded one if some chain is labelled with it, or the
    configured one of the same name."""
    rules = known_rules(configuration)
    own = [rules[part] for part in path.parts if part in rules] if path else []
    same = [rule for rule in rules.values() if rule.described() == recorded]
    configured = [rule for name, rule in rules_of(configuration.labels).items() if name == recorded.get("name")]
    return next((rule.described() for rule in (*own[-1:], *same, *configured)), None)


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
    """UserError where an artifact lies in the folder of another seed, a checkpoint in that of another run or recipe, or anchors,
    evidence or labels in that of another model, than they say.

    Folders of other names, into which a person may have copied it, say nothing.
    """
    seeds = [int(found[1]) for part in path.parts if (found := re.fullmatch(r"seed(\d+)", part))]
    if seeds and made.get("seed") not in (None, seeds[-1]):
        raise UserError(f"{path}: the folder is of seed {seeds[-1]}, found a file of seed {made['seed']}; put it back")
    _refuse_other_model(path, made)
    settings = made.get("settings", {})
    run = str(settings.get("run", made.get("made_by", ""))).replace(" ", "")
    known = re.compile(r"pretrain|warmup|control|oracle|stage\d+")
    if known.fullmatch(path.parent.name) and known.fullmatch(run) and run != path.parent.name:
        raise UserError(f"{path}: the folder is of {path.parent.name}, found a file of {run}; put it back")
    recipe = settings.get("recipe", {}).get("name")
    if seeds and recipe and run.startswith("stage") and path.parents[1].name not in (recipe, f"seed{seeds[-1]}"):
        raise UserError(
            f"{path}: the folder is of recipe {path.parents[1].name}, found a file of {recipe}; put it back"
        )


def _refuse_other_model(path: Path, made: Mapping[str, Any]) -> None:
    """UserError where anchors, evidence or labels lie beside another model than the one that they are of: where their inputs lie
    now, or lay by the names that these were given."""
    run = _run_folder(path.absolute())
    if run is None or made.get("made_by") not in _OF_A_MODEL:
        return
    for name, item in made["inputs"].items():
        for of in (Path(os.path.normpath(path.absolute().parent / item["from_here"])), Path(name)):
            other = of.parent if of.suffix == ".safetensors" else _run_folder(of)
            is_anchors_of_another = of.suffix == ".h5"  # stages may share those of the first one
            if other is None or is_anchors_of_another or not _RUN.fullmatch(other.name):
                continue
            here, there = _called(run, other)
            if here != there:
                raise UserError(f"{path}: the folder is of {here}, found a file of the model in {there}; put it back")


def _run_folder(path: Path) -> Path | None:
    """The folder of the run in whose `evidence` or `labels` a file lies; None where it lies elsewhere."""
    above = (folder for folder in path.parents if folder.name in ("evidence", "labels"))
    run = next((folder.parent for folder in above), None)
    return run if run is not None and _RUN.fullmatch(run.name) else None


def _called(*runs: Path) -> list[str]:
    """What the folders of runs are called: from the folder of their seed on where all lie in one, else by their names."""
    found = [re.split(r"/(?=seed\d+/)", run.as_posix())[-1] for run in runs]
    return found if all(re.match(r"seed\d+/", name) for name in found) else [run.name for run in runs]


_RUN = re.compile(r"pretrain|warmup|stage\d+")
_OF_A_MODEL = ("anchor-part", "anchors", "evidence-store", "evidence", "evidence-part", "labels", "diagnose")
