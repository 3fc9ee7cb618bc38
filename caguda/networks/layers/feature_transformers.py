"""f_D of the paper in each of the networks: it turns the encoder's maps into the features that Cls classifies."""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

BACKBONE_CHANNELS, SKIP_CHANNELS = 2048, 256  # of the maps of layer4 and of layer1
FEATURE_CHANNELS, SKIP_FEATURES = 256, 48
SMALL_RATES = (1, 2, 4, 8)
V2_RATES = (6, 12, 18, 24)
V3PLUS_RATES = (6, 12, 18)


class PyramidAndSkip(nn.Module):
    """f_D of `small`: atrous spatial pyramid pooling, enlarged to stride 4 and joined with the skip; ends in ReLU."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.aspp = nn.ModuleList(
            nn.Conv2d(4 * width, channels, 3, padding=rate, dilation=rate, bias=False) for rate in SMALL_RATES
        )
        self.norm = nn.BatchNorm2d(channels)
        fused = nn.Conv2d(channels + width, channels, 3, padding=1, bias=False)
        self.fuse = nn.Sequential(nn.Sequential(fused, nn.BatchNorm2d(channels)), nn.ReLU())

    def forward(self, encoded: Tensor, skip: Tensor) -> Tensor:
        context = functional.relu(self.norm(torch.stack([branch(encoded) for branch in self.aspp]).sum(0)))
        context = functional.interpolate(context, skip.shape[-2:], mode="bilinear", align_corners=False)
        features: Tensor = self.fuse(torch.cat([context, skip], dim=1))
        return features


class SummedPyramid(nn.Module):
    """f_D of `deeplab_v2`: ReLU of the sum of four 3x3 convolutions of different rates; it does not use the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.aspp = nn.ModuleList(
            nn.Conv2d(BACKBONE_CHANNELS, FEATURE_CHANNELS, 3, padding=rate, dilation=rate) for rate in V2_RATES
        )

    def forward(self, encoded: Tensor, _skip: Tensor) -> Tensor:
        return functional.relu(reduce(torch.add, (branch(encoded) for branch in self.aspp)))


def _convolution(inputs: int, outputs: int, *, size: int = 1, rate: int = 1) -> list[nn.Module]:
    padding = rate * (size // 2)
    convolution = nn.Conv2d(inputs, outputs, size, padding=padding, dilation=rate, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class ImagePooling(nn.Module):
    """The image pooling branch: the mean over the whole image, at every position.

    A batch of one image has one value per channel, which has no variance: in training it is normalised with the running
    statistics, which stay unchanged.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(BACKBONE_CHANNELS, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, encoded: Tensor) -> Tensor:
        pooled = self.convolution(encoded.mean((2, 3), keepdim=True))
        norm = self.norm
        if self.training and len(pooled) == 1 and not isinstance(norm, nn.SyncBatchNorm):
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
        self.branches = nn.ModuleList([nn.Sequential(*_convolution(BACKBONE_CHANNELS, outputs))])
        self.branches.extend(
            nn.Sequential(*_convolution(BACKBONE_CHANNELS, outputs, size=3, rate=rate)) for rate in V3PLUS_RATES
        )
        self.branches.append(ImagePooling(outputs))
        self.fuse = nn.Sequential(*_convolution(len(self.branches) * outputs, outputs), nn.Dropout(0.5))

    def forward(self, encoded: Tensor) -> Tensor:
        fused: Tensor = self.fuse(torch.cat([branch(encoded) for branch in self.branches], dim=1))
        return fused


class PyramidAndDecoder(nn.Module):
    """f_D of `deeplab_v3plus`: the pyramid's map, enlarged to stride 4 and joined with the skip; ends in dropout."""

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
