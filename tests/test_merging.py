"""How several files of one experiment are merged, and which of them a value comes from."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from caguda.merging import KEYS_OF_A_KIND, Layer, Merged, layer_of, merge, merge_all

KEYS = st.sampled_from(["a", "b", "c", "runs"])
LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.just("text") | st.lists(st.integers(0, 3), max_size=2)


def mappings(keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Nested mappings with a few keys, so that those of two of them often meet."""
    return st.recursive(LEAVES, lambda inner: st.dictionaries(keys, inner, max_size=4), max_leaves=12).flatmap(
        lambda value: st.just(value) if isinstance(value, dict) else st.just({})
    )


ONE_KIND = mappings(KEYS)
ANY_KIND = mappings(KEYS | st.sampled_from(KEYS_OF_A_KIND))


def leaves(values: Any, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is no mapping, or an empty one, by its keys."""
    if not isinstance(values, Mapping) or not values:
        return {above: values}
    return {keys: leaf for key, inner in values.items() for keys, leaf in leaves(inner, (*above, key)).items()}


@settings(max_examples=40)
@given(ONE_KIND, ONE_KIND, ONE_KIND)
def test_merging_is_associative(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    """As long as no section becomes one of another kind."""
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(ANY_KIND)
def test_nothing_changes_nothing(values: dict[str, Any]) -> None:
    assert merge(values, {}) == merge({}, values) == merge(values, values) == values


@given(ANY_KIND, ANY_KIND)
def test_what_the_upper_file_says_holds(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    """And what is not said there is said in the lower one."""
    before = json.dumps([lower, upper])
    merged = leaves(merge(lower, upper))
    for keys, value in leaves(upper).items():
        assert merged.get(keys) == value or value == {}
    for keys, value in merged.items():
        assert {**leaves(lower), **leaves(upper)}.get(keys, "nothing") == value or value == {}
    assert json.dumps([lower, upper]) == before


@given(st.lists(ANY_KIND, min_size=1, max_size=4))
def test_the_origin_of_a_value_is_the_last_layer_that_has_it(said: list[dict[str, Any]]) -> None:
    """Of each value a copy says which layer it is of: merged like the values, these tell the origin."""
    layers = [Layer(str(place), values) for place, values in enumerate(said)]

    def marked(values: Any, name: str) -> Any:
        if isinstance(values, dict):
            return {key: marked(value, name) for key, value in values.items()}
        return values if isinstance(values, str) else [name, values]

    parts = [Merged(marked(layer.values, layer.name), (layer,)) for layer in layers]
    merged = merge_all(parts)
    assert merged.layers == tuple(layers)
    for keys, value in leaves(merged.values).items():
        if isinstance(value, list):
            assert layer_of(layers, keys) == value[0]
    assert layer_of(layers, ("no such key",)) is None


def test_a_section_of_another_kind_replaces_the_whole() -> None:
    small = {"name": "small", "width": 16, "blocks": [1]}
    for kind in KEYS_OF_A_KIND:
        lower = {"section": small | {kind: "one"}, "other": 1}
        assert merge(lower, {"section": {kind: "two", "x": 1}}) == {"section": {kind: "two", "x": 1}, "other": 1}
        assert merge(lower, {"section": {kind: "one", "x": 1}})["section"] == lower["section"] | {"x": 1}
        assert merge(lower, {"section": {"x": 1}})["section"] == lower["section"] | {"x": 1}
    runs = {"name": {"weight": 1}, "layout": {"weight": 2}, "method": {"method": "cag", "weight": 3}}
    assert merge(runs, {"name": {"start": "warmup"}}) == runs | {"name": {"weight": 1, "start": "warmup"}}
    assert merge(runs, {"method": {"method": "cag", "start": "x"}})["method"] == runs["method"] | {"start": "x"}
    assert merge(runs, {"method": {"method": "supervised"}})["method"] == {"method": "supervised"}
