"""Reading an experiment's YAML and its bases: every fault is one line that names the file and the key."""

import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from caguda.complaints import complaint, shown
from caguda.config import Configuration, configuration_model
from caguda.config_frames import ONLY_LOOKED_AT
from caguda.config_network import NetworkSettings, UnknownNetwork, network_classes, one_of
from caguda.config_run import Imported
from caguda.errors import UserError
from caguda.files import SEAL, is_sealed, read_regular
from caguda.kinds import known, load_plugins
from caguda.merging import Layer, Merged, merge_all, origin
from caguda.whole_runs import section_of, source_of

BASE = "base"
PLUGINS = "plugins"
SHOWN = 5
LARGEST = 100_000


def _one_line(error: ValidationError, content: Mapping[str, Any], path: Path, layers: Sequence[Layer]) -> str:
    """The first faults of a YAML on one line, one of what several runs take from one place.

    Of a class table only those of the form that it has, a name or a list.
    """
    faults = [
        complaint(item)
        for item in error.errors()
        if not (item["type"] == "literal_error" and item["loc"][0] == "classes" and isinstance(item["input"], list))
        and not (item["type"] == "tuple_type" and item["loc"][0] == "classes" and isinstance(item["input"], str))
    ]
    told = {(source_of(content, _keys(fault)), fault.partition(": ")[2]): fault for fault in reversed(faults)}
    different = [fault for fault in faults if fault in told.values()]
    more = [f"and {len(different) - SHOWN} more"] if len(different) > SHOWN else []
    return f"{path}: " + "; ".join([fault + _where(fault, content, path, layers) for fault in different[:SHOWN]] + more)


def _keys(fault: str) -> list[str]:
    """The keys of a fault, without the place in a list; a run may have a number for its name."""
    names = fault.partition(": ")[0].split(".")
    named = 2 if names[0] == "runs" else 1
    return names[:named] + list(takewhile(lambda key: not key.isdigit(), names[named:]))


def _where(fault: str, content: Mapping[str, Any], path: Path, layers: Sequence[Layer]) -> str:
    """The file that a fault is in, where that is not the one at `path`, and the section that a run has the value from.

    Empty where it is the run's own and in that file, or no file has the key.
    """
    keys = _keys(fault)
    source = source_of(content, keys)
    name = origin(layers, source)
    is_here = name is None or len(layers) == 1 or Path(name).absolute() == path.absolute()
    places = [*([] if is_here else [str(name)]), *([] if source == tuple(keys) else [section_of(source)])]
    return f" (in {': '.join(places)})" if places else ""


def parse_configuration(values: Any, path: Path, layers: Sequence[Layer] = ()) -> Configuration:
    """The validated experiment of a mapping, after its plugins were run.

    `path` is where it came from, `layers` who says what, for messages.
    """
    content = whole_plugins(_mapping(values, path), path.parent, path)
    if isinstance(files := content.get(PLUGINS), list):
        try:
            load_plugins([Path(file) for file in files if isinstance(file, str)])
        except UserError as error:
            raise UserError(f"{path}: {PLUGINS}: {error}") from error
    return _validated(content, path, layers)


def whole_plugins(content: Mapping[str, Any], folder: Path, path: Path) -> dict[str, Any]:
    """The keys of an experiment with whole paths of plugins, which are relative to a folder; `path` is for messages."""
    if not isinstance(given := content.get(PLUGINS), list):
        return dict(content)
    whole = [
        os.path.abspath(folder / _expanded(file, PLUGINS, path)) if isinstance(file, str) else file for file in given
    ]
    return {**content, PLUGINS: whole}


def _validated(
    content: Mapping[str, Any], path: Path, layers: Sequence[Layer], context: str | None = None,
    model: type[Configuration] | None = None,
) -> Configuration:  # fmt: skip
    """The experiment of some keys, of every known network unless a `model` is given; a UserError names the first faults."""
    try:
        configuration = (model or configuration_model()).model_validate(content, context=context)
    except ValidationError as error:
        raise UserError(_one_line(error, content, path, layers)) from None
    runs = {
        name: run.model_copy(update={"file": _expanded(run.file, f"runs.{name}.file", path)})
        if isinstance(run, Imported)
        else run
        for name, run in configuration.runs.items()
    }
    data_root = _expanded(configuration.data_root, "data_root", path)
    return configuration.model_copy(update={"data_root": data_root, "runs": runs})


def network_settings(values: Any, path: Path) -> NetworkSettings:
    """The validated settings of a network, as a checkpoint's JSON has them; `path` is that JSON, for messages."""
    try:
        settings: NetworkSettings = TypeAdapter(one_of(network_classes())).validate_python(values)
    except ValidationError as error:
        item = error.errors()[0]
        if item["type"] == "union_tag_invalid":
            raise UserError(
                f"{path}: the network {shown(item['ctx']['tag'])} must be one of {item['ctx']['expected_tags']}; load the "
                "plugin that defines it"
            ) from None
        item["loc"] = ("network", *item["loc"])
        raise UserError(f"{path}: {complaint(item)}") from None
    return settings


def configuration_beside(path: Path) -> Configuration | None:
    """The `config.json` of the experiment that an artifact lies in, where the workflow leaves it; None without one."""
    found = (folder / "config.json" for folder in path.absolute().parents)
    return next(
        (read_configuration(file) for file in found if file.is_file() and SEAL.encode() in file.read_bytes()), None
    )


def _expanded(given: str, key: str, path: Path) -> str:
    """A path of the YAML with its environment variables and `~` replaced."""
    if "\0" in given:
        raise UserError(
            f"{path}: {key}: a path must be text without control characters, found {given!r:.60}; write the path"
        )
    expanded = os.path.expandvars(os.path.expanduser(given))
    if "$" in expanded:
        raise UserError(
            f"{path}: {key}: {given} names an environment variable that is not set; set it, or write the path itself"
        )
    return expanded


def _double_keys(node: Any) -> list[str]:
    """The keys that occur more than once in a mapping of a YAML tree; the loader would keep the last in silence."""
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    keys: list[str] = []
    if isinstance(node, yaml.MappingNode):
        keys = [str(key.value) for key, _ in children]
        children = [child for _, child in children]
    return [key for key in keys if keys.count(key) > 1] + [key for child in children for key in _double_keys(child)]


def _size(node: Any, known: dict[int, int]) -> int:
    """How many values a YAML tree has once its aliases stand for what they repeat."""
    if id(node) not in known:
        known[id(node)] = 1
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        pairs = [child for pair in children for child in pair] if isinstance(node, yaml.MappingNode) else children
        known[id(node)] = 1 + sum(_size(child, known) for child in pairs)
    return known[id(node)]


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; a UserError where it is none, repeats itself without end, or has a key twice."""
    try:
        raw = read_regular(path, "correct the name")
        text = raw.decode("utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is not None and (size := _size(tree, {})) > LARGEST:
            raise UserError(
                f"{path}: a configuration must have at most {LARGEST} values, found {size} with its aliases"
            )
        double = _double_keys(tree)
        values = yaml.safe_load(text)
    except UnicodeDecodeError:
        raise UserError(f"{path}: the configuration must be text in UTF-8") from None
    except RecursionError:
        raise UserError(f"{path}: a configuration must not be nested so deep; write it plainly") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: this is not YAML: {' '.join(str(error).split())}") from None
    if double:
        raise UserError(f"{path}: {double[0]}: this key occurs twice in one section; keep one of the two")
    if isinstance(values, dict) and SEAL in values and not is_sealed(raw):
        raise UserError(
            f"{path}: the configuration must be as the workflow wrote it, found another content than {SEAL} tells; change "
            "the YAML instead, and start the workflow again, which writes this file anew"
        )
    return values


def _mapping(values: Any, path: Path) -> dict[str, Any]:
    """The keys and values of a file, without the seal of the workflow's JSON."""
    if values is None:
        raise UserError(f"{path}: the configuration is empty")
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: the file must hold keys and values, found a {type(values).__name__}")
    return {key: value for key, value in values.items() if key != SEAL}


def _read_one(path: Path) -> dict[str, Any]:
    """The keys and values of one file, perhaps with a base, and whole paths of plugins; what the workflow writes is complete and can have none."""
    values = read_yaml(path)
    content = _mapping(values, path)
    if SEAL in values and BASE in content:
        raise UserError(
            f"{path}: {BASE}: a file with the key {SEAL} must be complete, found a base; start the workflow again"
        )
    return whole_plugins(content, path.parent, path)


def read_merged(path: Path) -> Merged:
    """A YAML merged with its base, which may have a base in turn; the key `base` itself is left out."""
    files, layers = [path], [_read_one(path)]
    while BASE in layers[-1]:
        base = base_of(layers[-1].pop(BASE), files[-1].parent, str(files[-1]))
        try:
            layers.append(_read_one(base))
        except UserError as error:
            raise UserError(f"{files[-1]}: {BASE}: {error}") from None
        files.append(base)
        if os.path.realpath(base) in map(os.path.realpath, files[:-1]):
            circle = " -> ".join(map(str, files))
            raise UserError(
                f"{path}: {BASE}: no file may be below itself, found the circle {circle}; name another base"
            )
    parts = [Layer(str(file), values) for file, values in zip(files, layers, strict=True)]
    return merge_all(Merged(layer.values, (layer,)) for layer in reversed(parts))


def base_of(named: Any, folder: Path, where: str) -> Path:
    """The file that a key `base` names, relative to a folder; `where` the key stands is for the message."""
    if not isinstance(named, str) or not named:
        raise UserError(
            f"{where}: {BASE}: must be the path of one YAML, found {shown(named)}; name one, or leave the key out"
        )
    return folder / named


def load_configuration(path: Path) -> Configuration:
    """The validated experiment of a YAML file and its bases (or of the JSON that the workflow writes), after its plugins were run."""
    merged = read_merged(path)
    return parse_configuration(merged.values, path, merged.layers)


def read_configuration(path: Path) -> Configuration:
    """The same for looking at artifacts: no plugin is run, and a name that only one of them knows is let through."""
    merged = read_merged(path)
    network = merged.values.get("network")
    if not isinstance(network, dict) or not isinstance(name := network.get("name"), str) or name in known("network"):
        return _validated(merged.values, path, merged.layers, ONLY_LOOKED_AT)
    named = {**merged.values, "network": {"name": name}}
    found = _validated(named, path, merged.layers, ONLY_LOOKED_AT, Configuration)
    return found.model_copy(update={"network": UnknownNetwork.model_construct(**network)})
