"""The settings that artifacts record, compared with those of a configuration. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from caguda.config import Configuration
from caguda.config_run import Method
from caguda.errors import UserError, first
from caguda.files import read_regular, sha256
from caguda.pseudo_labels import Rule
from caguda.registry import plugin_digests, registered
from caguda.run_inheritance import EARLIER_KEYS
from caguda.runs import deciding_settings, model_before, models, models_listed, run_of, stage_number
from caguda.version import METHOD_VERSION

_NOT_COMPARED = ("source.root", "target.root", "evaluation.root", "test.root")
"""Keys that are not compared: folders of frames may be moved."""
_EARLIER_SECTIONS = {*EARLIER_KEYS, "recipe"}
"""Sections of settings that versions before `runs` recorded."""
_DECISIVE_COMPUTE_KEYS = {"precision", "tf32", "compile"}
"""The keys of `compute` that decide weights; the number of threads, which changes last digits, is not recorded."""
_LONGEST_VALUE = 120


def differing_settings(
    configuration: Configuration, provenance: Mapping[str, Any], path: Path | None = None
) -> list[str]:
    """The keys in which recorded settings differ from the configuration, each with both values; empty if they agree.

    Only what a provenance records is compared. A section that the configuration lacks is ignored, except for the run of a
    model, the rule of labels, and sections of earlier versions. For labels, the configured
    rule is the one that the folder in `path` names.
    """
    current = {**configuration.model_dump(mode="json"), "network": _network(configuration)}
    recorded = dict(provenance.get("settings", {}))
    changed_files = _changed_plugins(configuration, recorded.pop("plugins", {}))
    changed_files += _changed_pretrained(configuration, recorded.pop("pretrained", {}))
    lines = [f"{section}, settings of an earlier version" for section in recorded if section in _EARLIER_SECTIONS]
    if (run := recorded.pop("run", None)) is not None:
        lines += _run_differences(configuration, run) if isinstance(run, dict) else [f"run {run} of an earlier version"]
    if isinstance(rule := recorded.get("rule"), dict):
        current["rule"] = _rule_to_compare(configuration, rule, path)
    for section, value in recorded.items():
        if section in current:
            lines += _differences(section, value, current[section])
    lines = changed_files + [line for line in lines if not line.startswith(_NOT_COMPARED)]
    if provenance.get("method_version") != METHOD_VERSION:
        lines.append(f"method_version {provenance.get('method_version')}, not {METHOD_VERSION}")
    return lines


def refuse_other_settings(path: Path, configuration: Configuration, provenance: Mapping[str, Any]) -> None:
    """Raises UserError unless an artifact was made with the settings of the configuration, as far as it records them."""
    if lines := differing_settings(configuration, provenance, path):
        raise UserError(
            f"{path}: this must be made with the settings of the configuration, found {first(lines)}; make it again, or "
            "give the configuration that it was made with"
        )


def settings_of_run(configuration: Configuration, model: str) -> dict[str, Any]:
    """All settings that decide a model: its training records them.

    `pretrained` has the SHA-256 of the files of first weights by name, if the model starts from these; None for a missing one.
    """
    run = run_of(configuration, model)
    plugins = plugin_digests("network", [configuration.network.name])
    if isinstance(run, Method):
        plugins |= plugin_digests("method", [run.method])
    files = configuration.network.pretrained_files() if model_before(configuration, model) is None else ()
    pretrained = {path.name: sha256(path) if path.is_file() else None for path in files}
    return {
        **recorded_network(configuration),
        **configuration.model_dump(mode="json", include={"compute": _DECISIVE_COMPUTE_KEYS}),
        "run": _deciding_keys(configuration, model),
        **({"pretrained": pretrained} if pretrained else {}),
        **_plugins_section(plugins),
    }


def recorded_network(configuration: Configuration) -> dict[str, Any]:
    """The section `network`, and `plugins` with that of the network. Of a file of first weights only the name is recorded.

    Such a file may be moved: its content decides, which a training records in `pretrained`.
    """
    return {
        "network": _network(configuration),
        **_plugins_section(plugin_digests("network", [configuration.network.name])),
    }


def _network(configuration: Configuration) -> dict[str, Any]:
    network: dict[str, Any] = configuration.network.model_dump(mode="json")
    weights = network.get("weights")
    return network | {"weights": Path(weights).name} if isinstance(weights, str) else network


def settings_of_pass(configuration: Configuration) -> dict[str, Any]:
    """The settings beside its network's that decide a pass of a trained model over frames: `compute.tf32` and its plugin.

    A changed plugin may leave the weights of a model as they are.
    """
    compute = configuration.model_dump(mode="json", include={"compute": {"tf32"}})
    return compute | _plugins_section(plugin_digests("network", [configuration.network.name]))


def plugins_of(configuration: Configuration, sets: Iterable[str]) -> dict[str, dict[str, str]]:
    """The section `plugins` of the layouts of some sets: SHA-256 by file name; without plugins no section."""
    return _plugins_section(plugin_digests("layout", [getattr(configuration, name).layout for name in sets]))


def plugins_of_rule(rule: Rule) -> dict[str, dict[str, str]]:
    """The section `plugins` of the labels of a rule."""
    return _plugins_section(plugin_digests("rule", [rule.name]))


def _plugins_section(digests: dict[str, str]) -> dict[str, dict[str, str]]:
    return {"plugins": digests} if digests else {}


def _deciding_keys(configuration: Configuration, model: str) -> dict[str, Any]:
    """The keys of a run that decide its model.

    `start: RUN` is recorded as the model that it means now: with more stages, RUN would mean a later one.
    """
    values = deciding_settings(configuration, model)
    start = values.get("start")
    return values if start is None else {**values, "start": models_listed(configuration, [start])[-1]}


def _run_differences(configuration: Configuration, recorded: Mapping[str, Any]) -> list[str]:
    """The keys in which a recorded run differs from the configured one of the same model, each with both values.

    Of a rule of a plugin only the name is compared: its settings in a stage are known to the plugin alone.
    """
    model = recorded["name"]
    if model not in models(configuration):
        return [f"run {model}, which the configuration does not have"]
    key, current = f"runs.{model.partition('/')[0]}", _deciding_keys(configuration, model)
    recorded = {
        "anchors": None,
        "source_images": None,
        **recorded,
    }  # absent: anchors of the frozen model, original images
    lines = _differences(key, {**recorded, "pseudo_labels": None}, {**current, "pseudo_labels": None})
    rules = current.get("pseudo_labels", {})
    recorded_rules = recorded.get("pseudo_labels", rules)
    for name in sorted(recorded_rules.keys() | rules.keys()):
        if name in registered("rule") or name not in recorded_rules or name not in rules:
            lines += _differences(f"{key}.pseudo_labels.{name}", recorded_rules.get(name), rules.get(name))
    return lines


def _changed_plugins(configuration: Configuration, recorded: Mapping[str, str]) -> list[str]:
    """The recorded plugins whose content no configured file has, whatever its name; none if a configured file is missing.

    Files may be missing where results were copied. They are read and not run.
    """
    files = [Path(file) for file in configuration.plugins]
    if not recorded or not all(file.is_file() for file in files):
        return []
    current = {hashlib.sha256(read_regular(file)).hexdigest() for file in files}
    return [f"another content of the plugin {name}" for name, digest in recorded.items() if digest not in current]


def _changed_pretrained(configuration: Configuration, recorded: Mapping[str, str]) -> list[str]:
    """The recorded files of first weights whose content no configured file has, wherever it lies.

    None if a configured file is missing, or if there is none: then the key `weights` differs.
    """
    files = configuration.network.pretrained_files()
    if not recorded or not files or not all(file.is_file() for file in files):
        return []
    current = {sha256(file) for file in files}
    return [f"another content of network.weights {name}" for name, digest in recorded.items() if digest not in current]


def _rule_to_compare(
    configuration: Configuration, recorded: Mapping[str, Any], path: Path | None
) -> dict[str, Any] | None:
    """The configured rule to compare a recorded one with: that of the labels' folder, an equal one, or one of its name.

    A rule that only a plugin knows is compared with itself, if a model is labelled with it. None if there is no such rule.
    """
    rules_by_name = list(_configured_rules(configuration))
    by_folder = {rule.folder: rule for _, rule in rules_by_name if rule is not None}
    of_folder = [by_folder[part] for part in path.parts if part in by_folder] if path else []
    equal = [rule for rule in by_folder.values() if rule.described() == recorded]
    of_name = [rule for rule in by_folder.values() if rule.name == recorded.get("name")]
    if candidates := [*of_folder[-1:], *equal, *of_name]:
        return candidates[0].described()
    return dict(recorded) if (recorded.get("name"), None) in rules_by_name else None


def _configured_rules(configuration: Configuration) -> Iterator[tuple[str, Rule | None]]:
    """Yields the name and the rule, in its stage, of all labels of all models; None for a rule that only a plugin knows."""
    for model in models(configuration):
        for name, rule in getattr(run_of(configuration, model), "pseudo_labels", {}).items():
            if name not in registered("rule"):
                yield name, None
            else:
                validated = rule if isinstance(rule, Rule) else registered("rule")[name].model_validate(rule)
                yield name, validated.of_stage(stage_number(model))


def _differences(key: str, recorded: Any, current: Any) -> list[str]:
    """The keys in which a recorded JSON value differs from the current one, each with both values."""
    if isinstance(recorded, dict) and isinstance(current, dict):
        return [
            line for name, value in recorded.items() for line in _differences(f"{key}.{name}", value, current.get(name))
        ]
    return [] if recorded == current else [f"{key} {_shortened(recorded)}, not {_shortened(current)}"]


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
