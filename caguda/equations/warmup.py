"""The adversarial losses of the warm-up: a discriminator tells source from target, and the network misleads it.

The discriminator's logits, one per position, are of the class "source".
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def adversarial_loss(d_target: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """The loss of the segmentation network: binary cross entropy of target images with the label "source".

    `d_target` are the discriminator's logits of target images. The loss is log 2 at chance.
    """
    return F.softplus(-d_target).mean()


def discriminator_loss(d_source: Float[Tensor, "n 1 h w"], d_target: Float[Tensor, "m 1 h2 w2"]) -> Float[Tensor, ""]:
    """The loss of the discriminator: binary cross entropy of its logits with the true domains.

    Each domain has the weight one half. The loss is log 2 at chance.
    """
    return (F.softplus(-d_source).mean() + F.softplus(d_target).mean()) / 2
