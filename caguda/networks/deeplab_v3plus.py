"""The network of the authors' code: DeepLab v3+ at output stride 16. No torch until it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.networks.layers.resnet_settings import ResNetSettings
from caguda.registry import register

if TYPE_CHECKING:
    from caguda.networks.layers.network import SegmentationNetwork

MULTI_GRID = (1, 2, 4)


@register("network", "deeplab_v3plus")
class DeepLabV3Plus(ResNetSettings):
    """DeepLab v3+ on a torchvision backbone; `weights` are "imagenet", "none", or a file of the backbone's weights."""

    name: Literal["deeplab_v3plus"]
    feature_stride: ClassVar[int] = 4
    coarsest_stride: ClassVar[int] = 16

    def build(self, categories: int) -> SegmentationNetwork:
        """DeepLab v3+ with fresh weights, drawn after the encoder as in the authors' code; its features are at stride 4.

        The last layer of the encoder has a multi-grid: its three blocks have rates 2, 4, 8.
        """
        from torch import nn
        from torchvision.models.resnet import Bottleneck

        from caguda.networks.layers.backbone import Backbone
        from caguda.networks.layers.feature_transformers import FEATURE_CHANNELS, PyramidAndDecoder
        from caguda.networks.layers.network import SegmentationNetwork

        backbone = Backbone(self.backbone, output_stride=16)
        for block, grid in zip(backbone.layer4, MULTI_GRID, strict=True):
            block.conv2.dilation = block.conv2.padding = (2 * grid, 2 * grid)
        transformer, classifier = PyramidAndDecoder(), nn.Conv2d(FEATURE_CHANNELS, categories, 1)
        for module in (*transformer.modules(), classifier):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return SegmentationNetwork(self.normalisation, backbone, transformer, classifier, recomputable=(Bottleneck,))
