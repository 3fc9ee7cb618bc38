"""Pseudo-label rules, one file each: they make labels from evidence, without a network. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from caguda.config_types import Section
from caguda.registry import registered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 60
EVIDENCE_ARRAYS = ("nearest_anchor", "margin", "predicted", "confidence")
PAPERS_RULES = ("anchor", "probability")
"""The paper's two rules; `cag` needs both, and `inspect` and `view` show them in more detail than others."""

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

        `images` yields the arrays `reads` of every image, again in every loop over it.
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
        """The name of the folder for labels of this rule: its name and settings, or a hash if these are long or ambiguous."""
        values = self.model_dump().values()
        texts = [self.name, *(f"{v}".removesuffix(".0") if isinstance(v, float) else f"{v}" for v in values)]
        if len("-".join(texts)) <= LONGEST and all(re.fullmatch(r"[A-Za-z0-9_.]+", text) for text in texts):
            return "-".join(texts)
        return f"{self.name}-{hashlib.sha256(json.dumps(self.described(), sort_keys=True).encode()).hexdigest()[:12]}"


def are_papers_rules(rules: Iterable[str]) -> bool:
    """Whether these are the names of the paper's two rules and no others."""
    return sorted(rules) == sorted(PAPERS_RULES)


def rule_from(described: Mapping[str, Any]) -> Rule:
    """The rule from its description by `Rule.described`."""
    settings = {key: value for key, value in described.items() if key != "name"}
    rule: Rule = registered("rule")[described["name"]].model_validate(settings)
    return rule
