"""An experiment as one complete YAML: every key with its value, and the file that the value comes from.

Of a value that a run takes from another run or from `training`, that as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from caguda.configfile import parse_configuration, read_merged
from caguda.errors import is_plain, printable
from caguda.merging import has, merge_all, origin
from caguda.whole_runs import section_of, source_of, with_whole_runs

WIDTH = 120
DEFAULT = "default"
Origin = Callable[[tuple[str, ...]], str]


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text with control characters in double quotes, which keep it on one line."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain(text) else '"')


_Dumper: Any = type("_Dumper", (yaml.SafeDumper,), {})
_Dumper.add_representer(str, _text)


def print_configuration(files: Sequence[Path]) -> None:
    """Print the experiment of YAMLs, a later one above those before it, as one YAML that says all of it."""
    merged = merge_all(map(read_merged, files))
    name = Path(" + ".join(map(str, files)))
    configuration = parse_configuration(merged.values, name, merged.layers)
    short, whole = _names([layer.name for layer in merged.layers]), with_whole_runs(merged.values)

    def origin_of(keys: tuple[str, ...]) -> str:
        source = source_of(merged.values, keys)
        file = origin(merged.layers, source) if has(whole, keys) else None
        if file is None:
            return DEFAULT
        return short[file] if source == keys else f"{short[file]}: {section_of(source)}"

    print("\n".join(_lines(configuration.model_dump(mode="json"), (), origin_of)))


def _names(files: Sequence[str]) -> dict[str, str]:
    """How comments call each file: by its name alone, or by its path where two have one name."""
    known = {file: Path(file).name for file in files}
    names = list(known.values())
    return {file: printable(name if names.count(name) == 1 else file) for file, name in known.items()}


def _lines(values: Mapping[str, Any], above: tuple[str, ...], origin_of: Origin) -> Iterator[str]:
    """The lines of a section; what is short and comes from one file stands on one line."""
    indent = "  " * len(above)
    for name, value in values.items():
        keys = (*above, name)
        key = f"{indent}{_flow(name)}:"
        origins = {origin_of(leaf) for leaf in _leaves(value, keys)}
        comment = f"  # {' '.join(origins)}"
        line = f"{key} {_flow(value)}{comment}"
        if not _divisible(value) or (len(origins) == 1 and len(line) <= WIDTH):
            yield line
        elif isinstance(value, Mapping):
            yield key
            yield from _lines(value, keys, origin_of)
        else:
            yield key + comment
            yield from (f"{indent}  - {_flow(entry)}" for entry in value)


def _divisible(value: Any) -> bool:
    return isinstance(value, Mapping | list) and len(value) > 0


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The keys of every value below some keys that is no mapping, or an empty one."""
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
