"""CBST: class-balanced self-training (Zou et al., ECCV 2018)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from caguda.methods.self_training import SelfTraining
from caguda.registry import register


@register("method", "cbst")
class Cbst(SelfTraining):
    """Self-training on class-balanced pseudo-labels, those of the rule `class_balanced`; a larger share in each stage."""

    method: Literal["cbst"]  # type: ignore[assignment]
    about: ClassVar[str] = "class-balanced pseudo-labels"

    @model_validator(mode="after")
    def _has_its_rule(self) -> Self:
        if {*self.pseudo_labels} != {"class_balanced"}:
            raise ValueError(
                f"pseudo_labels: must be the rule class_balanced, found {', '.join(self.pseudo_labels) or 'none'}"
            )
        return self
