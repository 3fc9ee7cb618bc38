"""The paper's network: DeepLab v2, whose atrous spatial pyramid pooling is f_D here."""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from caguda.config import DeepLab
from caguda.models.backbone import CHANNELS, Backbone
from caguda.models.network import SegmentationNetwork

RATES = (6, 12, 18, 24)
FEATURE_CHANNELS = 256


class FeatureTransformer(nn.Module):
    """f_D of the paper: the sum of four 3x3 convolutions of different rates, after ReLU; the skip has no part in it."""

    def __init__(self) -> None:
        super().__init__()
        self.aspp = nn.ModuleList(
            nn.Conv2d(CHANNELS, FEATURE_CHANNELS, 3, padding=rate, dilation=rate) for rate in RATES
        )

    def forward(self, encoded: Tensor, _skip: Tensor) -> Tensor:
        return functional.relu(reduce(torch.add, (branch(encoded) for branch in self.aspp)))


def deeplab_v2(settings: DeepLab, categories: int) -> SegmentationNetwork:
    """DeepLab v2 with fresh weights; its features are at stride 8: h = ceil(H / 8), w = ceil(W / 8)."""
    return SegmentationNetwork(
        settings.normalisation,
        Backbone(settings.backbone, output_stride=8),
        FeatureTransformer(),
        nn.Conv2d(FEATURE_CHANNELS, categories, 1),
    )
