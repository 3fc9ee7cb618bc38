"""CBST: class-balanced self-training (Zou et al., ECCV 2018)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from caguda.config_rules import PseudoLabels
from caguda.methods.self_training import SelfTraining
from caguda.registry import register


@register("method", "cbst")
class Cbst(SelfTraining):
    """Self-training on class-balanced pseudo-labels: by default those of the rule `class_balanced`, a larger share each stage."""

    method: Literal["cbst"]  # type: ignore[assignment]
    pseudo_labels: PseudoLabels = Field(default_factory=lambda: {"class_balanced": {}})
    about: ClassVar[str] = "class-balanced pseudo-labels"
