"""Faults that pydantic finds in a YAML, in plain words."""

from __future__ import annotations

from typing import Any

from pydantic_core import ErrorDetails

from caguda.registry import registered

LONGEST = 60  # characters of a value in a message
WORDS_BY_TYPE = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of at most 4300 digits", "float_type": "a number",
    "float_parsing": "a number", "finite_number": "a finite number", "bool_type": "true or false",
    "bool_parsing": "true or false", "string_type": "text", "string_unicode": "text", "tuple_type": "a list", "list_type": "a list",
    "dict_type": "keys with values", "model_type": "keys with values", "model_attributes_type": "keys with values",
}  # fmt: skip
LIMITS = {
    "greater_than": ("gt", "greater than"), "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"), "less_than_equal": ("le", "at most"),
}  # fmt: skip


def complaint(item: ErrorDetails) -> str:
    """A fault as one message: the key, what its value must be, and what it is."""
    key = _key(item)
    if item["type"] == "value_error":
        return ".".join(part for part in (key, item["msg"].removeprefix("Value error, ")) if part)
    if item["type"] == "missing":
        position = str(item["loc"][-1]).isdigit()
        return f"{key}: must be given, found a shorter list" if position else f"{key}: this key is required"
    if item["type"] == "union_tag_not_found":
        return f"{key}.name: this key is required"
    if item["type"] == "union_tag_invalid":
        context = item["ctx"]
        return f"{key}.name: must be one of {context['expected_tags']}, found {shown(context['tag'])} (the key plugins brings others)"
    hint = "; put it in quotes" if item["type"] == "string_type" and isinstance(item["input"], int | float) else ""
    return f"{key}: must be {_expected(item)}, found {shown(item['input'])}{hint}"


def _key(item: ErrorDetails) -> str:
    location = [part for part in item["loc"] if not str(part).startswith(("tuple[", "literal["))]
    if location[:1] == ["network"] and location[1:2] and location[1] in registered("network"):
        del location[1]
    return ".".join(str(part) for part in location if part != "[key]")


def _expected(item: ErrorDetails) -> str:
    """The values that a key may have, in words."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in WORDS_BY_TYPE:
        return WORDS_BY_TYPE[kind]
    if kind in LIMITS:
        name, words = LIMITS[kind]
        return f"{words} {context[name]}"
    if kind == "literal_error":
        return f"one of {context['expected'].replace(' or ', ', ')}"
    if kind == "too_long":
        return f"a list of {context['max_length']}"
    if kind == "too_short":
        return f"at least {context['min_length']} of them"
    if kind == "string_too_long":
        return f"text of at most {context['max_length']} characters"
    if kind == "string_too_short":
        return "text that is not empty"
    if kind == "string_pattern_mismatch":
        of_stage = ", or RUN/stageK" if "/stage" in context["pattern"] else ""
        return f"a name of letters, digits, _ and - that begins with a letter or digit{of_stage}"
    return str(item["msg"]).replace("Input should be ", "").replace("a valid ", "a ")


def shown(value: Any) -> str:
    """A value for a message: on one line, and cut if it is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # of a whole number too long to be printed
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
