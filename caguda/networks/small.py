"""A DeepLab small enough to be trained from scratch on a CPU. No torch until it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_network import NetworkSettings
from caguda.config_types import Count
from caguda.registry import register

if TYPE_CHECKING:
    from caguda.networks.layers.network import SegmentationNetwork


@register("network", "small")
class SmallNetwork(NetworkSettings):
    """A DeepLab that is trained from scratch."""

    name: Literal["small"]
    width: Count
    blocks: tuple[Count, Count, Count, Count]
    feature_channels: Count
    feature_stride: ClassVar[int] = 4
    coarsest_stride: ClassVar[int] = 8

    def build(self, categories: int) -> SegmentationNetwork:
        """The small DeepLab with fresh weights: residual encoder, f_D (ASPP and a skip) at stride 4, classifier."""
        from torch import nn

        from caguda.networks.layers.encoders import Encoder, Residual
        from caguda.networks.layers.feature_transformers import PyramidAndSkip
        from caguda.networks.layers.network import SegmentationNetwork

        return SegmentationNetwork(
            self.normalisation,
            Encoder(self.width, self.blocks),
            PyramidAndSkip(self.width, self.feature_channels),
            nn.Conv2d(self.feature_channels, categories, 1),
            recomputable=(Residual,),
        )
