"""A network of another family: depthwise convolutions with maps at strides 4, 8, 16 and 32, and an all-MLP head."""

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from caguda.config_network import NetworkSettings
from caguda.config_types import Count
from caguda.networks.layers.network import SegmentationNetwork
from caguda.registry import register


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.layers = nn.Sequential(spatial, nn.GroupNorm(1, width), nn.Conv2d(width, width, 1), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Encoder(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        first = nn.Conv2d(3, widths[0], 7, stride=4, padding=3)
        others = [nn.Conv2d(before, width, 3, stride=2, padding=1) for before, width in pairwise(widths)]
        self.layers = nn.ModuleList(nn.Sequential(layer, Block(layer.out_channels)) for layer in (first, *others))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = [images]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return tuple(maps[1:])


class AllMLP(nn.Module):
    def __init__(self, widths: list[int], channels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.fuse = nn.Sequential(nn.Conv2d(len(widths) * channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, *maps: Tensor) -> Tensor:
        projected = [layer(x) for layer, x in zip(self.project, maps, strict=True)]
        size = maps[0].shape[-2:]
        return self.fuse(torch.cat([functional.interpolate(x, size, mode="bilinear") for x in projected], 1))


@register("network", "depthwise")
class Depthwise(NetworkSettings):
    name: Literal["depthwise"]
    width: Count = 32
    feature_channels: Count = 64
    feature_stride: ClassVar[int] = 4

    def build(self, categories: int) -> SegmentationNetwork:
        widths, channels = [self.width * factor for factor in (1, 2, 4, 8)], self.feature_channels
        return SegmentationNetwork(
            self.normalisation, Encoder(widths), AllMLP(widths, channels), nn.Conv2d(channels, categories, 1),
            factors={"transformer": 10.0, "classifier": 10.0}, recomputable=(Block,),
        )  # fmt: skip
