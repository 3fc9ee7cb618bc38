"""The section `network` of the YAML: what the settings of every network have, and which networks there are. No torch."""

from __future__ import annotations

import operator
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from caguda.config_frames import Section
from caguda.errors import UserError
from caguda.kinds import known

if TYPE_CHECKING:
    from caguda.networks.layers.network import SegmentationNetwork

Normalisation = Literal["imagenet", "unit"]


class NetworkSettings(Section):
    """The settings of a network, and how it is built of them.

    A network is a subclass in one file, registered by `@register("network", NAME)`, with a field `name: Literal[NAME]` and
    a method `build`. `SegmentationNetwork` says what the modules that it builds must compute. A key
    `weights`, a text, says where its first weights are from: checkpoints that differ in it alone are of the same network.
    """

    name: str
    normalisation: Normalisation = "imagenet"
    coarsest_stride: ClassVar[int] = 32
    """How many pixels of an image, in either direction, the coarsest map inside the network has one value for.

    Frames and crops of a training must be larger: batch normalisation has no variance of a single value.
    """

    def build(self, categories: int) -> SegmentationNetwork:
        """The network with fresh weights, which torch's random numbers decide: the same seed, the same bits."""
        raise NotImplementedError

    def load_pretrained(self, network: SegmentationNetwork) -> None:
        """Give a fresh network the weights that its training starts from; by default it keeps those of `build`."""

    def pretrained_files(self) -> tuple[Path, ...]:
        """The user's files that `load_pretrained` reads: a training records their digests."""
        return ()


class UnknownNetwork(NetworkSettings, extra="allow"):
    """The settings of a network that only a plugin knows, as who looks at artifacts and runs no plugin reads them."""


def network_classes() -> tuple[type[NetworkSettings], ...]:
    """The settings of every known network, each class once; a UserError where one cannot be chosen by its name."""
    found = known("network")
    for name, cls in found.items():
        field = cls.model_fields.get("name") if issubclass(cls, NetworkSettings) else None
        if field is None or name not in get_args(field.annotation):
            raise UserError(
                f'{cls.__module__}: the network {name} must be a NetworkSettings with the field name: Literal["{name}"], '
                f"found {cls.__qualname__} without it; add it"
            )
    return tuple(dict.fromkeys(found.values()))


@cache
def one_of(classes: tuple[type[NetworkSettings], ...]) -> Any:
    """The type of a section that is one of these settings, chosen by its key `name`."""
    return Annotated[reduce(operator.or_, classes), Field(discriminator="name")]
