"""The three parts of every segmentation network of the paper, after the normalisation of its input."""

from jaxtyping import Float
from torch import Tensor, nn

from caguda.config import Normalisation
from caguda.models.inputs import InputNormalisation


class SegmentationNetwork(nn.Module):
    """Enc, f_D and Cls of the paper's Figure 1: the features f_D, not negative, and the classifier's logits.

    `encoder` gives its last map and a map of lower level, `transformer` makes f_D of the two. Images are RGB in 0..1 of
    any size; h and w depend on the network, ceil(H / 4) and ceil(W / 4) unless it says otherwise.
    """

    def __init__(
        self, normalisation: Normalisation, encoder: nn.Module, transformer: nn.Module, classifier: nn.Conv2d
    ) -> None:
        super().__init__()
        self.normalisation = InputNormalisation() if normalisation == "imagenet" else nn.Identity()
        self.encoder = encoder
        self.transformer = transformer
        self.classifier = classifier

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> tuple[Float[Tensor, "n d h w"], Float[Tensor, "n c h w"]]:
        features = self.transformer(*self.encoder(self.normalisation(images)))
        return features, self.classifier(features)
