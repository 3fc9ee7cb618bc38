"""The three parts of every segmentation network of the paper, after the normalisation of its input."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from caguda.config_network import Normalisation
from caguda.networks.layers.inputs import InputNormalisation


class Outputs(NamedTuple):
    """What a network says of some images."""

    features: Float[Tensor, "n d h w"]  # f_D
    logits: Float[Tensor, "n c h w"]
    auxiliary: tuple[Tensor, ...] = ()  # logits of further heads, (n, c, ...) each at a resolution of its own


class ParameterGroup(NamedTuple):
    """Weights whose learning rate is `factor` times the configured one."""

    factor: float
    weights: list[nn.Parameter]


class SegmentationNetwork(nn.Module):
    """Enc, f_D and Cls of the paper's Figure 1: the features f_D, not negative, and the classifier's logits.

    Of the parts of any network it is required that

    - `encoder` takes images (n, 3, H, W) of any size and gives a tuple of maps, as many as `transformer` takes;
    - `transformer` makes f_D of them, (n, d, h, w): not negative, so that it ends in ReLU or the like, and at `stride`:
      h and w are about H / stride and W / stride, the same for images of the same size;
    - `classifier` is a 1x1 convolution of d channels to as many as there are categories: f_D is what it sees.

    `factors` are those of the learning rate of a part, by its name (encoder, transformer, classifier), 1 where none is
    given. Blocks of the classes `recomputable` may be computed again on the way back: they draw no random numbers, have
    tensors as inputs, and none lies inside another.
    """

    def __init__(
        self, normalisation: Normalisation, encoder: nn.Module, transformer: nn.Module, classifier: nn.Conv2d, *,
        stride: int, factors: Mapping[str, float] = MappingProxyType({}), recomputable: tuple[type[nn.Module], ...] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalisation = InputNormalisation() if normalisation == "imagenet" else nn.Identity()
        self.encoder = encoder
        self.transformer = transformer
        self.classifier = classifier
        self.stride = stride
        self._factors, self._recomputable = dict(factors), recomputable
        if unknown := sorted({*factors} - {"encoder", "transformer", "classifier"}):
            raise ValueError(f"factors must be of encoder, transformer or classifier, found {unknown[0]}")

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Outputs:
        maps = self.encoder(self.normalisation(images))
        features = self.transformer(*maps)
        return Outputs(features, self.classifier(features), self.auxiliary_logits(*maps))

    def auxiliary_logits(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """The logits of heads beside the classifier, made of the encoder's maps; none unless a subclass has some."""
        return ()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every weight once, in groups of one factor of the learning rate each; one group where all factors are 1."""
        if not self._factors:
            return [ParameterGroup(1.0, list(self.parameters()))]
        return [
            ParameterGroup(self._factors.get(name, 1.0), list(part.parameters()))
            for name, part in self.named_children()
        ]

    def recomputable_blocks(self) -> list[nn.Module]:
        """The blocks of which `recompute_activations` keeps the input alone, in the network's order."""
        return [block for block in self.modules() if isinstance(block, self._recomputable)]
