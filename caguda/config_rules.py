"""The key `pseudo_labels` of a run: rules by name, each with its settings. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from caguda.complaints import complaint
from caguda.config_types import UNKNOWN_NAMES_ALLOWED
from caguda.errors import UserError, did_you_mean
from caguda.pseudo_labels import EVIDENCE_ARRAYS, Rule
from caguda.registry import classes_by_name

LONGEST_LABELLING = 200
"""The letters of the name of a labelling: the name of a file has at most 255, with its ending."""


class UnknownRule(Rule, extra="allow"):
    """The unchecked settings of a plugin's rule, for commands that look at artifacts and run no plugin."""


def rule_classes() -> dict[str, type[Rule]]:
    """The settings of every known rule by its name. UserError if one lacks a member, or reads other arrays than evidence has."""
    classes = classes_by_name("rule", Rule, "name", ["reads", "labels"])
    for name, cls in classes.items():
        if not isinstance(cls.reads, tuple) or not set(cls.reads) <= set(EVIDENCE_ARRAYS):
            raise UserError(
                f"{cls.__module__}: `reads` of the rule {name} must be a tuple of names among {', '.join(EVIDENCE_ARRAYS)}, "
                f"found {cls.reads!r:.60}; correct it"
            )
    return classes


def _rule(name: Any, settings: Any, info: ValidationInfo) -> Rule:
    """A rule of the YAML; ValueError names the first fault."""
    rules = rule_classes()
    if isinstance(settings, Rule):
        return settings
    if not isinstance(settings, Mapping):
        raise ValueError(f"{name}: must be keys with values, found {settings!r:.60}")  # noqa: TRY004
    if name not in rules:
        if info.context == UNKNOWN_NAMES_ALLOWED:
            return UnknownRule.model_construct(**{str(key): value for key, value in settings.items()})
        raise ValueError(
            f"{name}: must be one of {', '.join(rules)}{did_you_mean(name, rules)} (the key plugins brings others)"
        )
    try:
        rule: Rule = rules[name].model_validate(settings, context=info.context)
    except ValidationError as error:
        raise ValueError(f"{name}.{complaint(error.errors()[0])}") from None
    return rule


def _rules(values: Any, info: ValidationInfo) -> Any:
    if not isinstance(values, Mapping):
        raise PydanticCustomError("dict_type", "Input should be rules with their settings")
    rules = {name: _rule(name, settings, info) for name, settings in values.items()}
    known = [rule for rule in rules.values() if not isinstance(rule, UnknownRule)]
    if len("+".join(rule.folder for rule in known)) > LONGEST_LABELLING:
        raise PydanticCustomError(
            "labelling_too_long",
            f"Input should be rules whose folders joined by + have at most {LONGEST_LABELLING} letters",
        )
    return rules


PseudoLabels = Annotated[
    dict[str, SerializeAsAny[Rule]],
    BeforeValidator(_rules),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "object"}}),
]
"""Rules by name, as `{anchor: {margin: 0.15, unit: mean_anchor_distance}, probability: {p0: 0.95}}`."""
