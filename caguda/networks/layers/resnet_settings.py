"""The settings of a network with a ResNet of torchvision as encoder. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from caguda.config_network import NetworkSettings

if TYPE_CHECKING:
    from caguda.networks.layers.network import SegmentationNetwork

ResNet = Literal[
    "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    "wide_resnet50_2", "wide_resnet101_2",
]  # fmt: skip


class ResNetSettings(NetworkSettings):
    """A network with a `Backbone` as encoder; `weights` are "imagenet", "none", or a file of the backbone's weights."""

    backbone: ResNet = "resnet101"
    weights: str = "imagenet"

    def load_pretrained(self, network: SegmentationNetwork) -> None:
        from caguda.networks.layers.backbone import load_backbone

        load_backbone(network, self.backbone, self.weights)

    def pretrained_files(self) -> tuple[Path, ...]:
        return () if self.weights in ("imagenet", "none") else (Path(self.weights),)
