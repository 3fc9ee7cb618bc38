"""Reading an experiment's YAML: every fault is one line that names the file and the key."""

import os
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from caguda.config import Configuration, NetworkName
from caguda.errors import UserError


def _complaint(item: ErrorDetails) -> str:
    """One fault of the YAML: its key and what is wrong with it."""
    location = [part for part in item["loc"] if not str(part).startswith(("tuple[", "literal["))]
    if location[:1] == ["network"] and location[1:2] and location[1] in get_args(NetworkName):
        del location[1]
    key = ".".join(str(part) for part in location)
    if item["type"] == "value_error":
        return ".".join(part for part in (key, item["msg"].removeprefix("Value error, ")) if part)
    if item["type"] == "union_tag_invalid":
        context = item["ctx"]
        return f"{key}.name: must be one of {context['expected_tags']}, found {context['tag']!r}"
    if item["type"] == "union_tag_not_found":
        return f"{key}.name: this key is required"
    if item["type"] == "missing":
        return f"{key}: this key is required"
    hint = "; put it in quotes" if item["type"] == "string_type" and isinstance(item["input"], int | float) else ""
    return f"{key}: {item['msg']}, found {item['input']!r}{hint}"


def _one_line(error: ValidationError, path: Path) -> str:
    """All faults of a YAML on one line; of a class table only those of the form that it has, a name or a list."""
    faults = [
        _complaint(item)
        for item in error.errors()
        if not (item["type"] == "literal_error" and item["loc"][0] == "classes" and isinstance(item["input"], list))
        and not (item["type"] == "tuple_type" and item["loc"][0] == "classes" and isinstance(item["input"], str))
    ]
    return f"{path}: " + "; ".join(faults)


def parse_configuration(values: Any, path: Path) -> Configuration:
    """The validated experiment of a mapping; `path` is where it came from, for messages."""
    if values is None:
        raise UserError(f"{path}: the configuration is empty")
    if not isinstance(values, dict):
        raise UserError(f"{path}: the file must hold keys and values, found {type(values).__name__}")
    content = {key: value for key, value in values.items() if key != "sha256_of_all_above"}  # in the workflow's JSON
    try:
        configuration = Configuration.model_validate(content)
    except ValidationError as error:
        raise UserError(_one_line(error, path)) from None
    expanded = os.path.expandvars(os.path.expanduser(configuration.data_root))
    if "$" in expanded:
        raise UserError(
            f"{path}: data_root: {configuration.data_root} names an environment variable that is not set; "
            "set it, or give the folder with --config data_root=FOLDER"
        )
    return configuration.model_copy(update={"data_root": expanded})


def _double_keys(node: Any) -> list[str]:
    """The keys that occur more than once in a mapping of a YAML tree; the loader would keep the last in silence."""
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    keys: list[str] = []
    if isinstance(node, yaml.MappingNode):
        keys = [str(key.value) for key, _ in children]
        children = [child for _, child in children]
    return [key for key in keys if keys.count(key) > 1] + [key for child in children for key in _double_keys(child)]


def load_configuration(path: Path) -> Configuration:
    """The validated experiment of a YAML file (or of the JSON that the workflow writes)."""
    try:
        text = path.read_text(encoding="utf-8")
        values, double = yaml.safe_load(text), _double_keys(yaml.compose(text, Loader=yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"{path}: the configuration cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: the configuration must be text in UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: this is not YAML: {' '.join(str(error).split())}") from None
    if double:
        raise UserError(f"{path}: {double[0]}: this key occurs twice in one section, remove one of the two")
    return parse_configuration(values, path)
