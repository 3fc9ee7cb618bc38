"""What an artifact says that it was made with, beside what a configuration asks for. No torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from caguda.ablations import chains, sweep
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
    but for the weights of a recipe's losses and its thresholds, which an ablation and a sweep have of their own. Where the
    `path` of labels is given, thresholds of a sweep may be in its folders alone.
    """
    current = configuration.model_dump(mode="json")
    recorded = dict(made.get("settings", {}))
    changed_plugins = _changed_plugins(configuration, recorded.pop("plugins", {}))
    recipe = recorded.get("recipe")
    if isinstance(recipe, dict):
        known = chains(configuration).get(recipe.get("name", ""))
        current["recipe"] = None if known is None else {"name": recipe["name"], **known.model_dump(mode="json")}
    if made.get("made_by") in ("labels", "label-part"):
        current["labels"] = _thresholds(configuration, recorded, path)
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


def _thresholds(configuration: Configuration, recorded: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """The thresholds that a label store may have: those of a sweep where it has them, or the configured ones."""
    configured = configuration.labels.model_dump(mode="json")
    names = [name for name in sweep(configuration.labels) if path is None or name in path.parts]
    own = [configured | dict([sweep(configuration.labels)[name]]) for name in names]
    return next((labels for labels in own if labels == recorded.get("labels")), own[0] if path and own else configured)


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
    """UserError where an artifact lies in the folder of another seed, a checkpoint in that of another run or recipe, or anchors
    or labels in that of another stage, than they say.

    Folders of other names, into which a person may have copied it, say nothing.
    """
    seeds = [int(found[1]) for part in path.parts if (found := re.fullmatch(r"seed(\d+)", part))]
    if seeds and made.get("seed") not in (None, seeds[-1]):
        raise UserError(f"{path}: the folder is of seed {seeds[-1]}, found a file of seed {made['seed']}; put it back")
    _refuse_other_stage(path, made)
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


def _refuse_other_stage(path: Path, made: Mapping[str, Any]) -> None:
    """UserError where anchors or labels lie in the folder of a stage that follows another model than the one they are of, or
    the accuracy of labels in that of other labels."""
    folder = path.parents[1] if path.parent.name == "parts" else path.parent
    stage = re.fullmatch(r"stage(\d+)", folder.name)
    if not stage or made.get("made_by") not in ("anchor-part", "anchors", "labels", "label-part", "diagnose"):
        return
    before = {f"stage{int(stage[1]) - 1}"} if int(stage[1]) > 1 else {"pretrain", "warmup"}
    known = re.compile(r"pretrain|warmup|stage\d+")
    suffix, allowed = ("labels.json", {folder.name}) if made["made_by"] == "diagnose" else (".safetensors", before)
    of = [Path(item["from_here"]).parent.name for name, item in made["inputs"].items() if name.endswith(suffix)]
    for name in of:
        if known.fullmatch(name) and name not in allowed:
            raise UserError(f"{path}: the folder is of {folder.name}, found a file of the model in {name}; put it back")
