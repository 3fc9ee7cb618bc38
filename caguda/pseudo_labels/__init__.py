"""Pseudo-label rules, one file each: they make labels from evidence, without a network. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from caguda.config_types import Section
from caguda.registry import registered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 60
BOTH_RULES = ("anchor", "probability")
"""The paper's two rules; `cag` needs both, and `inspect` and `view` show them side by side."""

Evidence = Mapping[str, "NDArray[Any]"]
"""The evidence of one image: the arrays of an evidence store by name, (h, w) each."""


class Rule(Section):
    """The settings of a rule, and the pseudo-labels that it gives.

    A rule is registered by `@register("rule", NAME)`. `reads` names the arrays of the evidence that it uses.
    """

    reads: ClassVar[tuple[str, ...]]
    name: ClassVar[str]

    def of_stage(self, stage: int) -> Self:
        """The rule for stage `stage` of a chain, from 1; the same rule by default."""
        return self

    def prepare(self, images: Iterable[Evidence], categories: int) -> Any:
        """Statistics of all images, such as thresholds, which `labels` needs, as JSON values; None by default.

        `images` yields the arrays `reads` of every image, once.
        """
        return None

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: Any) -> NDArray[np.uint8]:
        """The pseudo-labels of one image, (h, w): a category where the pixel is active, 255 elsewhere.

        `anchor_distance` is the mean distance between two anchors, in the units of the features; `prepared` is the result of
        `prepare`.
        """
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """The rule's name and settings as JSON values."""
        return {"name": self.name, **self.model_dump(mode="json")}

    @property
    def folder(self) -> str:
        """The name of the folder for labels of this rule: its name and settings, or a hash if these are long."""
        values = [str(value).removesuffix(".0") for value in self.model_dump().values()]
        text = "-".join([self.name, *values])
        if len(text) > LONGEST or not text.replace("-", "").replace("_", "").replace(".", "").isalnum():
            return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        return text


def are_both(rules: Iterable[str]) -> bool:
    """Whether these are the names of the paper's two rules and no others."""
    return sorted(rules) == sorted(BOTH_RULES)


def rule_from(described: Mapping[str, Any]) -> Rule:
    """The rule from its description by `Rule.described`."""
    settings = {key: value for key, value in described.items() if key != "name"}
    rule: Rule = registered("rule")[described["name"]].model_validate(settings)
    return rule
