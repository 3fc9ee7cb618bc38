"""The network of the authors' code: DeepLab v3+ at output stride 16, with a multi-grid in its last layer."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from caguda.config import DeepLab
from caguda.models.backbone import CHANNELS, SKIP_CHANNELS, Backbone
from caguda.models.network import SegmentationNetwork

RATES = (6, 12, 18)
MULTI_GRID = (1, 2, 4)
FEATURE_CHANNELS, SKIP_FEATURES = 256, 48


def _convolution(inputs: int, outputs: int, *, size: int = 1, rate: int = 1) -> list[nn.Module]:
    padding = rate * (size // 2)
    convolution = nn.Conv2d(inputs, outputs, size, padding=padding, dilation=rate, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class ImagePooling(nn.Module):
    """The branch that sees the whole image: its mean, which is the same everywhere.

    In training, one image alone gives one value per channel, which has no variance: it is normalised with the running
    statistics and leaves them as they are.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(CHANNELS, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, encoded: Tensor) -> Tensor:
        pooled = self.convolution(encoded.mean((2, 3), keepdim=True))
        norm = self.norm
        if len(pooled) == 1 and not isinstance(norm, nn.SyncBatchNorm):
            normalised = functional.batch_norm(
                pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        else:
            normalised = norm(pooled)
        return functional.relu(normalised).expand(-1, -1, *encoded.shape[2:])


class PyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 convolution, three 3x3 ones of different rates, and the image's mean."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(*_convolution(CHANNELS, outputs))])
        self.branches.extend(nn.Sequential(*_convolution(CHANNELS, outputs, size=3, rate=rate)) for rate in RATES)
        self.branches.append(ImagePooling(outputs))
        self.fuse = nn.Sequential(*_convolution(len(self.branches) * outputs, outputs), nn.Dropout(0.5))

    def forward(self, encoded: Tensor) -> Tensor:
        fused: Tensor = self.fuse(torch.cat([branch(encoded) for branch in self.branches], dim=1))
        return fused


class FeatureTransformer(nn.Module):
    """f_D of the paper: the pyramid's map, enlarged to stride 4 and joined with the skip; ends in ReLU and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.aspp = PyramidPooling(FEATURE_CHANNELS)
        self.skip = nn.Sequential(*_convolution(SKIP_CHANNELS, SKIP_FEATURES))
        self.fuse = nn.Sequential(
            *_convolution(FEATURE_CHANNELS + SKIP_FEATURES, FEATURE_CHANNELS, size=3),
            nn.Dropout(0.5),
            *_convolution(FEATURE_CHANNELS, FEATURE_CHANNELS, size=3),
            nn.Dropout(0.1),
        )

    def forward(self, encoded: Tensor, skip: Tensor) -> Tensor:
        context = functional.interpolate(self.aspp(encoded), skip.shape[-2:], mode="bilinear", align_corners=True)
        features: Tensor = self.fuse(torch.cat([context, self.skip(skip)], dim=1))
        return features


def deeplab_v3plus(settings: DeepLab, categories: int) -> SegmentationNetwork:
    """DeepLab v3+ with fresh weights, those after the encoder as the authors draw them; its features are at stride 4."""
    backbone = Backbone(settings.backbone, output_stride=16)
    for block, grid in zip(backbone.layer4, MULTI_GRID, strict=True):
        block.conv2.dilation = block.conv2.padding = (2 * grid, 2 * grid)
    transformer, classifier = FeatureTransformer(), nn.Conv2d(FEATURE_CHANNELS, categories, 1)
    for module in (*transformer.modules(), classifier):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return SegmentationNetwork(settings.normalisation, backbone, transformer, classifier)
