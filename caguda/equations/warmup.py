"""The adversarial losses of the warm-up: a discriminator tells source from target, and the network deceives it.

The discriminator's logits, one per position, are those of "this comes from the source".
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def adversarial_loss(d_target: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """What the segmentation network minimises: the mean surprise at target images being taken for source images.

    Binary cross entropy of the discriminator's logits on target images with the label "source"; log 2 at chance.
    """
    return F.softplus(-d_target).mean()


def discriminator_loss(d_source: Float[Tensor, "n 1 h w"], d_target: Float[Tensor, "m 1 h2 w2"]) -> Float[Tensor, ""]:
    """What the discriminator minimises: the mean over both domains of its surprise at where images come from.

    Binary cross entropy of its logits with the true domains, each domain weighing one half; log 2 at chance.
    """
    return (F.softplus(-d_source).mean() + F.softplus(d_target).mean()) / 2
