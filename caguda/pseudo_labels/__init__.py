"""Rules that make pseudo-labels of evidence, one file each. No torch: another rule needs no network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from caguda.config_frames import Section
from caguda.kinds import known

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 60

Evidence = Mapping[str, "NDArray[Any]"]
"""What a frozen model says of one image, by the names of the arrays of an evidence store, (h, w) each."""


class Rule(Section):
    """The settings of a rule, and the pseudo-labels that it gives the pixels of an image.

    A rule is registered by `@register("rule", NAME)`. `reads` names the arrays of the evidence that it looks at.
    """

    reads: ClassVar[tuple[str, ...]]
    name: ClassVar[str]

    def of_stage(self, stage: int) -> Self:
        """The rule as stage `stage` of a chain is labelled with, from 1: the same one unless its settings grow by stages."""
        return self

    def prepare(self, images: Iterable[Evidence], categories: int) -> Any:
        """What the rule must know of all images together before it labels one, such as thresholds, as JSON values.

        `images` gives the arrays `reads` of every image, one after another, and may be gone through once. None by default.
        """
        return None

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: Any) -> NDArray[np.uint8]:
        """The pseudo-label of every pixel, (h, w): a category where the pixel is active, 255 elsewhere.

        `anchor_distance` is the mean distance between two anchors, in the units of the features; `prepared` is what `prepare`
        has given.
        """
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """The name and the settings as JSON values."""
        return {"name": self.name, **self.model_dump(mode="json")}

    @property
    def folder(self) -> str:
        """The name of the folder with the labels of this rule under these settings: rule and values, or a digest of them."""
        values = [str(value).removesuffix(".0") for value in self.model_dump().values()]
        text = "-".join([self.name, *values])
        if len(text) > LONGEST or not text.replace("-", "").replace("_", "").replace(".", "").isalnum():
            return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        return text


def rule_from(described: Mapping[str, Any]) -> Rule:
    """The rule that `Rule.described` told of."""
    rule: Rule = known("rule")[described["name"]].model_validate({k: v for k, v in described.items() if k != "name"})
    return rule
