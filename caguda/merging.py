"""Merges the YAMLs of one experiment, and tells which of them sets a value. Reads no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

KEYS_OF_A_KIND = ("name", "layout", "method")
"""Keys of a section on which its other keys depend."""


class Layer(NamedTuple):
    """The values of one file, or of the command line."""

    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Merged:
    """The merged values of several layers, and the layers; a later layer overrides an earlier one."""

    values: Mapping[str, Any]
    layers: tuple[Layer, ...]


def merge(lower: Any, upper: Any) -> Any:
    """Two mappings merged key by key at every depth; `upper` if either value is no mapping.

    A mapping with another `name`, `layout` or `method` replaces the lower one as a whole.
    """
    if not (isinstance(lower, Mapping) and isinstance(upper, Mapping)) or _is_of_another_kind(lower, upper):
        return upper
    return merge_keys(lower, upper)


def merge_keys(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings of one kind merged key by key at every depth."""
    return {**lower, **{key: merge(lower[key], value) if key in lower else value for key, value in upper.items()}}


def _is_of_another_kind(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> bool:
    pairs = ((lower.get(key), upper.get(key)) for key in KEYS_OF_A_KIND)
    return any(isinstance(one, str) and isinstance(other, str) and one != other for one, other in pairs)


def merge_all(parts: Iterable[Merged]) -> Merged:
    """Several parts as one; a later part overrides an earlier one."""
    return reduce(lambda lower, upper: Merged(merge(lower.values, upper.values), lower.layers + upper.layers), parts)


def layer_of(layers: Sequence[Layer], keys: Sequence[str]) -> str | None:
    """The name of the layer that sets a value of the merged mapping; None if no layer does."""
    return next((layer.name for layer in reversed(layers) if has(layer.values, keys)), None)


def with_nulls(values: Any) -> Any:
    """Mappings with None for the text `null`: Snakemake reads every value below a key of `--config` as text."""
    if isinstance(values, Mapping):
        return {key: with_nulls(value) for key, value in values.items()}
    return None if values == "null" else values


def has(values: Any, keys: Sequence[str]) -> bool:
    """Whether nested mappings have a value under a path of keys."""
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True
