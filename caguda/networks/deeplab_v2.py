"""The paper's network: DeepLab v2, whose atrous spatial pyramid pooling is f_D here. No torch until it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.networks.layers.resnet_settings import ResNetSettings
from caguda.registry import register

if TYPE_CHECKING:
    from caguda.networks.layers.network import SegmentationNetwork


@register("network", "deeplab_v2")
class DeepLabV2(ResNetSettings):
    """DeepLab v2 on a torchvision backbone; `weights` are "imagenet", "none", or a file of the backbone's weights."""

    name: Literal["deeplab_v2"]
    feature_stride: ClassVar[int] = 8
    coarsest_stride: ClassVar[int] = 8

    def build(self, categories: int) -> SegmentationNetwork:
        """DeepLab v2 with fresh weights: a ResNet at output stride 8, f_D (ASPP) at the same stride, classifier."""
        from torch import nn
        from torchvision.models.resnet import Bottleneck

        from caguda.networks.layers.backbone import Backbone
        from caguda.networks.layers.feature_transformers import FEATURE_CHANNELS, SummedPyramid
        from caguda.networks.layers.network import SegmentationNetwork

        return SegmentationNetwork(
            self.normalisation,
            Backbone(self.backbone, output_stride=8),
            SummedPyramid(),
            nn.Conv2d(FEATURE_CHANNELS, categories, 1),
            recomputable=(Bottleneck,),
        )
