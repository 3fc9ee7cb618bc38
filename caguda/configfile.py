"""Reads an experiment from a YAML and its bases. Every fault is one line that names the file and the key."""

import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from caguda.complaints import complaint, shown
from caguda.config import Configuration, configuration_model
from caguda.config_network import NetworkSettings, UnknownNetwork, network_classes, one_of
from caguda.config_run import Imported, RunSettings
from caguda.config_types import UNKNOWN_NAMES_ALLOWED
from caguda.errors import UserError
from caguda.files import SEAL, is_sealed, read_regular
from caguda.merging import Layer, Merged, layer_of, merge_all
from caguda.registry import load_plugins, registered
from caguda.run_inheritance import section_of, source_of

BASE = "base"
PLUGINS = "plugins"
FAULTS_SHOWN = 5
MOST_VALUES = 100_000
# libyaml's parser, where PyYAML was built with it: every job of the workflow reads the experiment.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _one_line(error: ValidationError, content: Mapping[str, Any], path: Path, layers: Sequence[Layer]) -> str:
    """The first faults of a YAML on one line. A fault in a value that several runs inherit is named once.

    pydantic tries a class table as a name and as a list; only the faults of the form in the YAML are shown.
    """
    faults = [
        complaint(item)
        for item in error.errors()
        if not (item["type"] == "literal_error" and item["loc"][0] == "classes" and isinstance(item["input"], list))
        and not (item["type"] == "tuple_type" and item["loc"][0] == "classes" and isinstance(item["input"], str))
    ]
    first = {(source_of(content, _keys(fault)), fault.partition(": ")[2]): fault for fault in reversed(faults)}
    distinct = [fault for fault in faults if fault in first.values()]
    shown_faults = [fault + _where_it_is_said(fault, content, path, layers) for fault in distinct[:FAULTS_SHOWN]]
    more = [f"and {len(distinct) - FAULTS_SHOWN} more"] if len(distinct) > FAULTS_SHOWN else []
    return f"{path}: {'; '.join([*shown_faults, *more])}"


def _keys(fault: str) -> list[str]:
    """The path of keys in a fault, up to the index in a list; a run's name may be a number."""
    keys = fault.partition(": ")[0].split(".")
    first = 2 if keys[0] == "runs" else 1
    return keys[:first] + list(takewhile(lambda key: not key.isdigit(), keys[first:]))


def _where_it_is_said(fault: str, content: Mapping[str, Any], path: Path, layers: Sequence[Layer]) -> str:
    """The file of a fault if it is not `path`, and the section that a run inherits the value from.

    Empty if the run itself has the value in `path`, or no file has the key.
    """
    keys = _keys(fault)
    source = source_of(content, keys)
    file = layer_of(layers, source)
    places = []
    if file is not None and len(layers) > 1 and Path(file).absolute() != path.absolute():
        places.append(file)
    if source != tuple(keys):
        places.append(section_of(source))
    return f" (in {': '.join(places)})" if places else ""


def parse_configuration(values: Any, path: Path, layers: Sequence[Layer] = ()) -> Configuration:
    """The validated experiment of a mapping, after its plugins were run; `path` and `layers` are for messages."""
    content = with_absolute_plugins(_mapping(values, path), path.parent, path)
    if isinstance(files := content.get(PLUGINS), list):
        try:
            load_plugins([Path(file) for file in files if isinstance(file, str)])
        except UserError as error:
            raise UserError(f"{path}: {PLUGINS}: {error}") from error
    return _validated(content, path, layers)


def with_absolute_plugins(content: Mapping[str, Any], folder: Path, path: Path) -> dict[str, Any]:
    """The keys of an experiment with absolute paths of plugins, given relative to a folder; `path` is for messages."""
    if not isinstance(files := content.get(PLUGINS), list):
        return dict(content)
    absolute = [
        os.path.abspath(folder / _expanded(file, PLUGINS, path)) if isinstance(file, str) else file for file in files
    ]
    return {**content, PLUGINS: absolute}


def _validated(
    content: Mapping[str, Any], path: Path, layers: Sequence[Layer], context: str | None = None,
    model: type[Configuration] | None = None,
) -> Configuration:  # fmt: skip
    """The validated experiment; by default its network is one that is known. UserError names the first faults."""
    try:
        configuration = (model or configuration_model()).model_validate(content, context=context)
    except ValidationError as error:
        raise UserError(_one_line(error, content, path, layers)) from None
    runs = {name: _with_expanded_path(run, f"runs.{name}", path) for name, run in configuration.runs.items()}
    data_root = _expanded(configuration.data_root, "data_root", path)
    return configuration.model_copy(update={"data_root": data_root, "runs": runs})


def network_settings(values: Any, path: Path) -> NetworkSettings:
    """The validated settings of a network from the JSON of a checkpoint; `path` is that JSON, for messages."""
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
    """The experiment of an artifact: the workflow's `config.json` in the nearest folder above it; None without one."""
    files = (folder / "config.json" for folder in path.absolute().parents)
    return next(
        (read_configuration(file) for file in files if file.is_file() and SEAL.encode() in file.read_bytes()), None
    )


def _with_expanded_path(run: RunSettings | None, section: str, path: Path) -> RunSettings | None:
    """A run with the expanded path of its file from elsewhere, a checkpoint or anchors; unchanged without one."""
    key = "file" if isinstance(run, Imported) else "anchors"
    value = getattr(run, key, None)
    if run is None or not isinstance(value, str):
        return run
    return run.model_copy(update={key: _expanded(value, f"{section}.{key}", path)})


def _expanded(text: str, key: str, path: Path) -> str:
    """A path of the YAML with its environment variables and `~` replaced."""
    if "\0" in text:
        raise UserError(
            f"{path}: {key}: a path must be text without control characters, found {text!r:.60}; write the path"
        )
    expanded = os.path.expandvars(home := os.path.expanduser(text))
    if home.startswith("~"):
        raise UserError(
            f"{path}: {key}: {text} must begin with the home folder of a known user, found none; write the path itself"
        )
    if "$" in expanded:
        raise UserError(
            f"{path}: {key}: {text} names an environment variable that is not set; set it, or write the path itself"
        )
    return expanded


def _double_keys(node: Any) -> list[str]:
    """The keys that a mapping of a YAML tree has more than once; the loader would keep the last without a word."""
    keys = [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    inner = [key for child in _children(node) for key in _double_keys(child)]
    return [key for key in keys if keys.count(key) > 1] + inner


def _size(node: Any, sizes: dict[int, int]) -> int:
    """The number of values in a YAML tree. An alias counts as all that it repeats. `sizes` are those of nodes by id."""
    if id(node) not in sizes:
        sizes[id(node)] = 1
        sizes[id(node)] += sum(_size(child, sizes) for child in _children(node))
    return sizes[id(node)]


def _children(node: Any) -> list[Any]:
    """The nodes of a YAML sequence, or the keys and values of a mapping."""
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. UserError if it is no YAML, grows too large by its aliases, or has a key twice."""
    try:
        raw = read_regular(path, "correct the name")
        text = raw.decode("utf-8")
        loader = _Loader(text)
        tree = loader.get_single_node()
        if tree is not None and (size := _size(tree, {})) > MOST_VALUES:
            raise UserError(
                f"{path}: a configuration must have at most {MOST_VALUES} values, found {size} with its aliases"
            )
        double = _double_keys(tree)
        values = None if tree is None else loader.construct_document(tree)
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
    """The keys and values of a file, without the checksum of the workflow's JSON."""
    if values is None:
        raise UserError(f"{path}: the configuration is empty")
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: the file must hold keys and values, found a {type(values).__name__}")
    return {key: value for key, value in values.items() if key != SEAL}


def _read_one(path: Path) -> dict[str, Any]:
    """The keys and values of one file, with absolute paths of plugins. The workflow's JSON is complete and has no base."""
    values = read_yaml(path)
    content = _mapping(values, path)
    if SEAL in values and BASE in content:
        raise UserError(
            f"{path}: {BASE}: a file with the key {SEAL} must be complete, found a base; start the workflow again"
        )
    return with_absolute_plugins(content, path.parent, path)


def read_merged(path: Path) -> Merged:
    """A YAML merged with its base, which may have a base in turn; without the key `base`."""
    files, contents = [path], [_read_one(path)]
    while BASE in contents[-1]:
        base = base_of(contents[-1].pop(BASE), files[-1].parent, str(files[-1]))
        try:
            contents.append(_read_one(base))
        except UserError as error:
            raise UserError(f"{files[-1]}: {BASE}: {error}") from None
        files.append(base)
        if os.path.realpath(base) in map(os.path.realpath, files[:-1]):
            circle = " -> ".join(map(str, files))
            raise UserError(
                f"{path}: {BASE}: no file may be below itself, found the circle {circle}; name another base"
            )
    layers = [Layer(str(file), values) for file, values in zip(files, contents, strict=True)]
    return merge_all(Merged(layer.values, (layer,)) for layer in reversed(layers))


def base_of(base: Any, folder: Path, file: str) -> Path:
    """The path of a base, given relative to a folder; `file` has the key, for messages."""
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{file}: {BASE}: must be the path of one YAML, found {shown(base)}; name one, or leave the key out"
        )
    return folder / base


def load_configuration(path: Path) -> Configuration:
    """The validated experiment of a YAML and its bases, or of the workflow's JSON, after its plugins were run."""
    merged = read_merged(path)
    return parse_configuration(merged.values, path, merged.layers)


def read_configuration(path: Path) -> Configuration:
    """The same for looking at artifacts: no plugin is run, and names that only a plugin defines are allowed."""
    merged = read_merged(path)
    values, layers = merged.values, merged.layers
    network = section if isinstance(section := values.get("network"), dict) else {}
    name = network.get("name")
    if not isinstance(name, str) or name in registered("network"):
        return _validated(values, path, layers, UNKNOWN_NAMES_ALLOWED)
    named = {**values, "network": {"name": name}}
    configuration = _validated(named, path, layers, UNKNOWN_NAMES_ALLOWED, Configuration)
    return configuration.model_copy(
        update={"network": UnknownNetwork.model_construct(**{str(key): value for key, value in network.items()})}
    )
