"""The YAMLs of one experiment merged into one mapping, and which of them says each value. Nothing is read here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

KINDS = ("name", "layout", "method")
"""Keys of a section that say which other keys it has."""


class Layer(NamedTuple):
    """What one file says, or the command line."""

    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Merged:
    """The values of several layers, and the layers themselves: a later one overrides those before it."""

    values: Mapping[str, Any]
    layers: tuple[Layer, ...]


def merge(lower: Any, upper: Any) -> Any:
    """Two mappings merged key by key at every depth; of anything else, `upper`.

    A mapping with another `name`, `layout` or `method` replaces the lower one as a whole.
    """
    if not (isinstance(lower, Mapping) and isinstance(upper, Mapping)) or _is_of_another_kind(lower, upper):
        return upper
    return merge_keys(lower, upper)


def merge_keys(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings of one kind merged key by key at every depth."""
    return {**lower, **{key: merge(lower[key], value) if key in lower else value for key, value in upper.items()}}


def _is_of_another_kind(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> bool:
    pairs = ((lower.get(key), upper.get(key)) for key in KINDS)
    return any(isinstance(one, str) and isinstance(other, str) and one != other for one, other in pairs)


def merge_all(parts: Iterable[Merged]) -> Merged:
    """Several parts as one; a later one overrides those before it."""
    return reduce(lambda lower, upper: Merged(merge(lower.values, upper.values), lower.layers + upper.layers), parts)


def origin(layers: Sequence[Layer], keys: Sequence[str]) -> str | None:
    """The name of the layer that a value of the merged mapping comes from; None where no layer has it."""
    return next((layer.name for layer in reversed(layers) if has(layer.values, keys)), None)


def has(values: Any, keys: Sequence[str]) -> bool:
    """Whether nested mappings have a value under some keys."""
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True
