"""The losses of adversarial alignment: a discriminator tells source from target, and the network misleads it.

The discriminator's logits, one per position, are of the class "source", but for least squares. In AdaptSegNet, AdvEnt and
CLAN they are of the class "target" (label 0 for source, 1 for target), and so the negatives of ours. A discriminator with a
logit for each domain, as CyCADA's, has the same losses with its logit of "source" minus that of "target".
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def self_information(logits: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The weighted self-information of every category, -p log p / log c, where p is the softmax of the logits.

    The maps I_x that AdvEnt's discriminator sees (Vu et al., CVPR 2019). At least 0, and 0 where p is 0 or 1. Their sum over
    c is the entropy of a pixel, in 0..1. There are two categories or more. The public code takes the logarithm of
    p + 1e-30 (valeoai/ADVENT advent/utils/func.py:48-52).
    """
    log_probability = F.log_softmax(logits, dim=1)
    return -log_probability.exp() * log_probability / math.log(logits.shape[1])


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


def least_squares_adversarial_loss(d_target: Float[Tensor, "n 1 h w"]) -> Float[Tensor, ""]:
    """The loss of the segmentation network: the mean square of the discriminator's outputs for target images.

    The least-squares objective of AdaptSegNet (Tsai et al., CVPR 2018), as its public code has it: the label is 0 for
    source, 1 for target (wasidennis/AdaptSegNet train_gta2cityscapes_multi.py:252-262, 323-332). So these outputs are of the
    class "target"; an output d of the class "source" would be 1 - d here. The loss is 1/4 at an output of 1/2.
    """
    return d_target.square().mean()


def least_squares_discriminator_loss(
    d_source: Float[Tensor, "n 1 h w"], d_target: Float[Tensor, "m 1 h2 w2"]
) -> Float[Tensor, ""]:
    """The loss of the discriminator: the mean squared difference between its outputs and 0 for source, 1 for target.

    The least-squares objective of AdaptSegNet; see `least_squares_adversarial_loss`. Each domain has the weight one half.
    """
    return (d_source.square().mean() + (d_target - 1).square().mean()) / 2


ADVERSARIES = {
    "cross_entropy": (adversarial_loss, discriminator_loss),
    "least_squares": (least_squares_adversarial_loss, least_squares_discriminator_loss),
}
"""The objectives by name: the loss of the segmentation network, and that of the discriminator."""


def prediction_discrepancy(
    logits1: Float[Tensor, "n c h w"], logits2: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n 1 h w"]:
    """The discrepancy of two classifiers at every pixel: 1 - the cosine of their softmax vectors, in 0..1.

    The local alignment score M(p1, p2) of CLAN (Luo et al., CVPR 2019). Computed as half the squared distance of the unit
    vectors, which is the same and exactly 0, with a zero gradient, for equal predictions. The public code takes one image
    only (RoyalVane/CLAN CLAN_train.py:194-197).
    """
    unit1, unit2 = (F.normalize(logits.softmax(dim=1), dim=1) for logits in (logits1, logits2))
    return (unit1 - unit2).square().sum(dim=1, keepdim=True) / 2


def weighted_adversarial_loss(
    d_target: Float[Tensor, "n 1 h w"], discrepancy: Float[Tensor, "n 1 h w"], epsilon: float, local: float
) -> Float[Tensor, ""]:
    """The loss of the segmentation network: `adversarial_loss` with the weight epsilon + local * discrepancy per pixel.

    The self-adaptive adversarial loss of CLAN (Luo et al., CVPR 2019). Both maps have one size: the public code enlarges
    the discriminator's logits to the image. Gradients also flow through the discrepancy, as there
    (RoyalVane/CLAN CLAN_train.py:331-342, utils/loss.py:25-38). It is `adversarial_loss` for epsilon 1 and local 0.
    """
    return (F.softplus(-d_target) * (epsilon + local * discrepancy)).mean()


def weighted_discriminator_loss(
    d_source: Float[Tensor, "n 1 h w"],
    d_target: Float[Tensor, "m 1 h2 w2"],
    discrepancy: Float[Tensor, "m 1 h2 w2"],
    epsilon: float,
    local: float,
) -> Float[Tensor, ""]:
    """The loss of the discriminator: `discriminator_loss` whose target term is weighted as in `weighted_adversarial_loss`.

    The public code of CLAN detaches the discrepancy here, and does not halve: its loss is twice ours
    (RoyalVane/CLAN CLAN_train.py:376-397). It is `discriminator_loss` for epsilon 1 and local 0.
    """
    target = F.softplus(d_target) * (epsilon + local * discrepancy)
    return (F.softplus(-d_source).mean() + target.mean()) / 2


def classifier_similarity(
    weights1: Sequence[Float[Tensor, "..."]], weights2: Sequence[Float[Tensor, "..."]]
) -> Float[Tensor, ""]:
    """The similarity of two classifiers: the cosine of all their weights and biases, each as one vector, plus 1; in 0..2.

    The weight discrepancy loss of CLAN (Luo et al., CVPR 2019) plus 1, without a factor: the public code multiplies it by
    2, by the weight of the loss and by the damping (RoyalVane/CLAN CLAN_train.py:345-360). Weights of the same shapes in the
    same order. 1 where all weights of a classifier are 0.
    """
    vector1, vector2 = (torch.cat([weight.flatten() for weight in weights]) for weights in (weights1, weights2))
    return F.cosine_similarity(vector1, vector2, dim=0) + 1
