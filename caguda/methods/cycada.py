"""CyCADA's adaptation: adversarial alignment of the network's scores, pixel by pixel (Hoffman et al., ICML 2018).

Its translated source images are a data set of their own: see `source` of the YAML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from caguda.config_run import DomainName, ExtraModule, Method, Read
from caguda.config_types import Count, Fraction, NonNegative
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Batch, Objective, Session


@register("method", "cycada")
class Cycada(Method):
    """Training on source labels and target images, while a discriminator of single pixels is right often enough.

    The network is trained in an iteration only if the discriminator was right, on average over the last `window` iterations,
    for a larger share of the pixels than `gate`.
    """

    method: Literal["cycada"]
    weight: NonNegative = 0.1
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-5
    width: Count = 512
    gate: Fraction = 0.6
    window: Count = 100
    about: ClassVar[str] = "adversarial alignment of scores"
