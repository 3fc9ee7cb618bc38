"""The three parts of every segmentation network of the paper, after the normalisation of the input."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from caguda.config_network import Normalisation
from caguda.networks.layers.inputs import InputNormalisation


class Outputs(NamedTuple):
    """The outputs of a network for some images."""

    features: Float[Tensor, "n d h w"]  # f_D
    logits: Float[Tensor, "n c h w"]
    auxiliary: tuple[Tensor, ...] = ()  # logits of further heads, (n, c, ...) at any resolution


def coarsest(maps: Sequence[Tensor]) -> Tensor:
    """The map of the fewest pixels, of several the last one: the deepest of an encoder."""
    return min(reversed(maps), key=lambda values: values.shape[-2] * values.shape[-1])


@contextmanager
def coarsest_maps_of(encoder: nn.Module) -> Iterator[list[Tensor]]:
    """A list that gets the coarsest map of every call of an encoder in this context."""
    maps: list[Tensor] = []
    handle = encoder.register_forward_hook(lambda _module, _images, encoded: maps.append(coarsest(encoded)))
    try:
        yield maps
    finally:
        handle.remove()


class ParameterGroup(NamedTuple):
    """Weights whose learning rate is `factor` times the configured one."""

    factor: float
    weights: list[nn.Parameter]


class SegmentationNetwork(nn.Module):
    """Enc, f_D and Cls of the paper's Figure 1: the features f_D, not negative, and the classifier's logits.

    The parts of every network must fulfil:

    - `encoder` takes images (n, 3, H, W) of any size and returns a tuple of maps, the arguments of `transformer`;
    - `transformer` returns the features f_D, (n, d, h, w): not negative, so it ends in ReLU or the like, and of the size
      that `feature_stride` in the settings of the network gives;
    - `classifier` is a 1x1 convolution from d channels to the number of categories; its input is f_D.

    `factors` multiply the learning rate of a part, by its name (encoder, transformer, classifier); the default is 1.
    Blocks of the classes `recomputable` may be computed again in the backward pass: they draw no random numbers, their
    inputs are tensors, and none lies inside another. `align_corners` is the key of the settings that the network was built
    from.
    """

    align_corners: bool = False

    def __init__(
        self, normalisation: Normalisation, encoder: nn.Module, transformer: nn.Module, classifier: nn.Conv2d, *,
        factors: Mapping[str, float] = MappingProxyType({}), recomputable: tuple[type[nn.Module], ...] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalisation = InputNormalisation() if normalisation == "imagenet" else nn.Identity()
        self.encoder = encoder
        self.transformer = transformer
        self.classifier = classifier
        self._factors, self._recomputable = dict(factors), recomputable
        if unknown := sorted({*factors} - {"encoder", "transformer", "classifier"}):
            raise ValueError(f"factors must be of encoder, transformer or classifier, found {unknown[0]}")

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Outputs:
        maps = self.encoder(self.normalisation(images))
        features = self.transformer(*maps)
        return Outputs(features, self.classifier(features), self.auxiliary_logits(*maps))

    def auxiliary_logits(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """The logits of further heads on the encoder's maps, for subclasses; none by default."""
        return ()

    def parameter_groups(self) -> list[ParameterGroup]:
        """All weights, grouped by the factor of their learning rate; one group if all factors are 1."""
        if not self._factors:
            return [ParameterGroup(1.0, list(self.parameters()))]
        return [
            ParameterGroup(self._factors.get(name, 1.0), list(part.parameters()))
            for name, part in self.named_children()
        ]

    def recomputable_blocks(self) -> list[nn.Module]:
        """The blocks whose activations `recompute_activations` does not keep, in the network's order."""
        return [block for block in self.modules() if isinstance(block, self._recomputable)]
