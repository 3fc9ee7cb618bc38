"""Prints an experiment as one complete YAML: every key, its value, and the file that sets it.

For a value that a run inherits, the other run or `training` is named too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from caguda.configfile import parse_configuration, read_merged
from caguda.errors import is_plain, printable
from caguda.merging import has, layer_of, merge_all
from caguda.run_inheritance import section_of, source_of, with_inherited_keys

WIDTH = 120
DEFAULT = "default"
FileOfKeys = Callable[[tuple[str, ...]], str]
"""The file that says the value of a path of keys, as it is named in a comment."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text with control characters in double quotes, which keep it on one line."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain(text) else '"')


_Dumper: Any = type("_Dumper", (yaml.SafeDumper,), {})
_Dumper.add_representer(str, _text)


def print_configuration(files: Sequence[Path]) -> None:
    """Print the experiment of several YAMLs as one complete YAML; a later file overrides an earlier one."""
    merged = merge_all(map(read_merged, files))
    name = Path(" + ".join(map(str, files)))
    configuration = parse_configuration(merged.values, name, merged.layers)
    short_names, inherited = _names([layer.name for layer in merged.layers]), with_inherited_keys(merged.values)

    def file_of(keys: tuple[str, ...]) -> str:
        source = source_of(merged.values, keys)
        file = layer_of(merged.layers, source) if has(inherited, keys) else None
        if file is None:
            return DEFAULT
        return short_names[file] if source == keys else f"{short_names[file]}: {section_of(source)}"

    print("\n".join(_lines(configuration.model_dump(mode="json"), (), file_of)))


def _names(files: Sequence[str]) -> dict[str, str]:
    """The name of each file in comments: its path if two files have the same name."""
    by_file = {file: Path(file).name for file in files}
    names = list(by_file.values())
    return {file: printable(name if names.count(name) == 1 else file) for file, name in by_file.items()}


def _lines(values: Mapping[str, Any], above: tuple[str, ...], file_of: FileOfKeys) -> Iterator[str]:
    """The lines of a section. A short value from one file is on one line."""
    indent = "  " * len(above)
    for name, value in values.items():
        keys = (*above, name)
        key = f"{indent}{_flow(name)}:"
        files = {file_of(leaf) for leaf in _leaves(value, keys)}
        comment = f"  # {' '.join(files)}"
        line = f"{key} {_flow(value)}{comment}"
        if not _divisible(value) or (len(files) == 1 and len(line) <= WIDTH):
            yield line
        elif isinstance(value, Mapping):
            yield key
            yield from _lines(value, keys, file_of)
        else:
            yield key + comment
            yield from (f"{indent}  - {_flow(entry)}" for entry in value)


def _divisible(value: Any) -> bool:
    return isinstance(value, Mapping | list) and len(value) > 0


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of keys to all values that are no mapping, or an empty one."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*keys, name))
    else:
        yield keys


def _flow(value: Any) -> str:
    """A value on one line."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")
