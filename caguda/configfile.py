"""Reading an experiment's YAML: every fault is one line that names the file and the key."""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from caguda.complaints import complaint
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.files import SEAL, is_sealed, read_regular

SHOWN = 5
LARGEST = 100_000


def _one_line(error: ValidationError, path: Path) -> str:
    """The first faults of a YAML on one line; of a class table only those of the form that it has, a name or a list."""
    faults = [
        complaint(item)
        for item in error.errors()
        if not (item["type"] == "literal_error" and item["loc"][0] == "classes" and isinstance(item["input"], list))
        and not (item["type"] == "tuple_type" and item["loc"][0] == "classes" and isinstance(item["input"], str))
    ]
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return f"{path}: " + "; ".join(faults[:SHOWN] + more)


def parse_configuration(values: Any, path: Path) -> Configuration:
    """The validated experiment of a mapping; `path` is where it came from, for messages."""
    if values is None:
        raise UserError(f"{path}: the configuration is empty")
    if not isinstance(values, dict):
        raise UserError(f"{path}: the file must hold keys and values, found a {type(values).__name__}")
    content = {key: value for key, value in values.items() if key != SEAL}  # in the workflow's JSON
    try:
        configuration = Configuration.model_validate(content)
    except ValidationError as error:
        raise UserError(_one_line(error, path)) from None
    brought = {run: _expanded(given, f"start_from.{run}", path) for run, given in configuration.start_from.items()}
    data_root = _expanded(configuration.data_root, "data_root", path)
    return configuration.model_copy(update={"data_root": data_root, "start_from": brought})


def configuration_beside(path: Path) -> Configuration | None:
    """The `config.json` of the experiment that an artifact lies in, where the workflow leaves it; None without one."""
    found = (folder / "config.json" for folder in path.absolute().parents)
    return next(
        (load_configuration(file) for file in found if file.is_file() and SEAL.encode() in file.read_bytes()), None
    )


def _expanded(given: str, key: str, path: Path) -> str:
    """A path of the YAML with its environment variables and `~` replaced."""
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


def load_configuration(path: Path) -> Configuration:
    """The validated experiment of a YAML file (or of the JSON that the workflow writes)."""
    return parse_configuration(read_yaml(path), path)


def print_schema() -> None:
    """Print the JSON schema of an experiment's YAML: names, types and ranges, not what several keys must hold together."""
    print(json.dumps(Configuration.model_json_schema(), indent=2))
