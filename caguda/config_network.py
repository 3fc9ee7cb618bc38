"""The section `network` of the YAML: the base class of every network's settings, and the known networks. No torch."""

from __future__ import annotations

import operator
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from caguda.config_types import Section
from caguda.registry import classes_by_name

if TYPE_CHECKING:
    from caguda.networks.layers.network import SegmentationNetwork

Normalisation = Literal["imagenet", "unit"]


class NetworkSettings(Section):
    """The settings of a network, and the functions that build it.

    A network is a subclass in one file, registered by `@register("network", NAME)`, with a field `name: Literal[NAME]`, a
    `feature_stride` and a method `build`. The built modules must compute what `SegmentationNetwork` describes. The text key
    `weights`, where there is one, names the origin of the first weights: checkpoints that differ only in this key have the
    same network.
    """

    name: str
    normalisation: Normalisation = "imagenet"
    align_corners: bool = False
    """How cells of f_D lie on the image, for losses, evaluation and prediction; see equations/grid.py."""
    feature_stride: ClassVar[int]
    """The stride s of f_D: an image of H x W pixels has features of ceil(H / s) x ceil(W / s) pixels."""
    coarsest_stride: ClassVar[int] = 32
    """The stride, in pixels of the image, of the coarsest map inside the network.

    Frames and crops of a training must be larger: batch normalisation has no variance of a single value.
    """

    @model_validator(mode="after")
    def _feature_stride_is_a_count(self) -> Self:
        stride = getattr(self, "feature_stride", 1)  # the settings of an unknown network have none
        if not isinstance(stride, int) or isinstance(stride, bool) or stride < 1:
            raise ValueError(
                f"feature_stride of {type(self).__name__} must be a whole number from 1 on, found {stride!r:.60}"
            )
        return self

    def build(self, categories: int) -> SegmentationNetwork:
        """The network with fresh weights from torch's random numbers: the same seed gives the same bits."""
        raise NotImplementedError

    def feature_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (h, w) of the features f_D of an image of the size (H, W); a network that rounds otherwise overrides it."""
        height, width = size
        return -(-height // self.feature_stride), -(-width // self.feature_stride)

    def load_pretrained(self, network: SegmentationNetwork) -> None:
        """Load the weights that the training of a fresh network starts from; by default it keeps those of `build`."""

    def pretrained_files(self) -> tuple[Path, ...]:
        """The user's files that `load_pretrained` reads. A training records their digests."""
        return ()


class UnknownNetwork(NetworkSettings, extra="allow"):
    """The unchecked settings of a plugin's network, for commands that look at artifacts and run no plugin."""


def network_classes() -> tuple[type[NetworkSettings], ...]:
    """The settings of every known network, each class once. UserError if one has another name than it is registered by."""
    return tuple(
        dict.fromkeys(classes_by_name("network", NetworkSettings, "name", ["feature_stride", "build"]).values())
    )


@cache
def one_of(classes: tuple[type[NetworkSettings], ...]) -> Any:
    """The type of the section `network`: one of these classes, chosen by its key `name`."""
    return Annotated[reduce(operator.or_, classes), Field(discriminator="name")]
