"""The key `pseudo_labels` of a run: rules by name, each with its settings. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from caguda.complaints import complaint
from caguda.config_frames import ONLY_LOOKED_AT
from caguda.kinds import known
from caguda.pseudo_labels import Rule


class UnknownRule(Rule, extra="allow"):
    """The settings of a rule that only a plugin knows, as who looks at artifacts and runs no plugin reads them."""


def _rule(name: Any, settings: Any, info: ValidationInfo) -> Rule:
    """A rule of the YAML; ValueError names the first fault."""
    rules = known("rule")
    if isinstance(settings, Rule):
        return settings
    if not isinstance(settings, Mapping):
        raise ValueError(f"{name}: must be keys with values, found {settings!r:.60}")  # noqa: TRY004
    if name not in rules:
        if info.context == ONLY_LOOKED_AT:
            return UnknownRule.model_construct(**settings)
        near = difflib.get_close_matches(str(name), rules, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}: must be one of {', '.join(rules)}{hint} (the key plugins brings others)")
    try:
        rule: Rule = rules[name].model_validate(settings, context=info.context)
    except ValidationError as error:
        raise ValueError(f"{name}.{complaint(error.errors()[0])}") from None
    return rule


def _rules(values: Any, info: ValidationInfo) -> Any:
    if not isinstance(values, Mapping):
        raise PydanticCustomError("dict_type", "Input should be rules with their settings")
    return {name: _rule(name, settings, info) for name, settings in values.items()}


PseudoLabels = Annotated[
    dict[str, SerializeAsAny[Rule]],
    BeforeValidator(_rules),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "object"}}),
]
"""Rules by name, as `{anchor: {margin: 0.15, unit: mean_anchor_distance}, probability: {p0: 0.95}}`."""
