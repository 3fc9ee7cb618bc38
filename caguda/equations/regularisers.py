"""The losses of target pixels without labels, or with pseudo-labels, that the compared methods add to the cross entropy.

They add in float32 or wider for any type of logits.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from caguda.equations import IGNORE
from caguda.equations.adversary import self_information
from caguda.equations.losses import LossSum


def entropy_loss(logits: Float[Tensor, "n c h w"]) -> LossSum:
    """The entropy of every pixel's softmax divided by log c, so that it lies in 0..1; over all pixels.

    L_ent of MinEnt (Vu et al., CVPR 2019). The maximum squares code has it as a mean over pixels and categories, in nats:
    log c / c of ours (ZJULearning/MaxSquareLoss utils/loss.py:17).
    """
    return _over_all_pixels(_entropy(logits))


def power_entropy_loss(logits: Float[Tensor, "n c h w"], eta: float) -> LossSum:
    """The entropy H of every pixel, in 0..1, in the robust form (H^2 + 1e-8)^eta; over all pixels.

    The Charbonnier penalty of FDA (Yang and Soatto, CVPR 2020), eta > 0; about H for eta 1/2, and H^4 for the eta 2 of its
    code, which also has log 19 in place of log c (YanchaoYang/FDA model/deeplab.py:168-181).
    """
    return _over_all_pixels((_entropy(logits).square() + 1e-8) ** eta)


def max_square_loss(logits: Float[Tensor, "n c h w"]) -> LossSum:
    """The negative squares of every pixel's probabilities, -sum p^2 / (2 c), in -1/(2 c)..-1/(2 c^2); over all pixels.

    The maximum squares loss (Chen et al., ICCV 2019). The mean is also over categories, as in the public code
    (ZJULearning/MaxSquareLoss utils/loss.py:106-121).
    """
    return _over_all_pixels(-_wide(logits).softmax(dim=1).square().mean(dim=1) / 2)


def image_wise_max_square_loss(logits: Float[Tensor, "n c h w"], ratio: float) -> LossSum:
    """The negative squares of an image's probabilities, where pixels of rarely predicted categories weigh more; over images.

    The image-wise weighting of the maximum squares loss (Chen et al., ICCV 2019). The sum over the pixels of an image of
    -sum p^2 / (c n_k^ratio (h w)^(1 - ratio)), where n_k pixels of the image have the prediction k of the pixel; ratio in
    0..1. Ties of logits go to the lowest category. Twice `max_square_loss` for ratio 0. Gradients do not flow through the
    weights. The public code takes one image only (ZJULearning/MaxSquareLoss utils/loss.py:69-104).
    """
    n, c, h, w = logits.shape
    squares = _wide(logits).softmax(dim=1).square().mean(dim=1)
    image = torch.arange(n, device=logits.device)[:, None, None]
    prediction = logits.argmax(dim=1) + c * image
    counts = prediction.new_zeros(n * c).index_add_(0, prediction.flatten(), torch.ones_like(prediction).flatten())
    pixels = counts[prediction].to(squares.dtype)
    total = -(squares / (pixels**ratio * (h * w) ** (1 - ratio))).sum()
    return LossSum(total, prediction.new_tensor(n))


def uniform_divergence_loss(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n h w"]) -> LossSum:
    """The divergence of every labelled pixel's softmax from the uniform distribution, -1/c sum log p.

    The regulariser MRKLD of CRST (Zou et al., ICCV 2019). It is the Kullback-Leibler divergence plus log c, so log c where
    all p are equal. Pixels of IGNORE do not count. CRST has pseudo-labelled pixels of target images only, and applies its
    weight 0.1 twice (yzou2/CRST crst_seg.py:824-865); ProDA has all pixels (microsoft/ProDA models/utils.py:269-276).
    """
    return _over_labelled_pixels(-F.log_softmax(_wide(logits), dim=1).mean(dim=1), labels)


def negative_entropy_loss(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n h w"]) -> LossSum:
    """The negative entropy of every labelled pixel's softmax, sum p log p, in -log c..0.

    The regulariser MRENT of CRST (Zou et al., ICCV 2019). Pixels of IGNORE do not count. ProDA has all pixels
    (microsoft/ProDA models/utils.py:269-276).
    """
    return _over_labelled_pixels(-math.log(logits.shape[1]) * _entropy(logits), labels)


def soft_label_cross_entropy(logits: Float[Tensor, "n c h w"], soft_labels: Float[Tensor, "n c h w"]) -> LossSum:
    """The cross entropy of every pixel with its soft label q, -sum q log p.

    The loss of the network in LRENT of CRST (Zou et al., ICCV 2019), whose other term, the entropy of q, has no gradient.
    Pixels where q is 0 for all categories do not count (yzou2/CRST crst_seg.py:867-907).
    """
    total = -(soft_labels * F.log_softmax(_wide(logits), dim=1)).sum()
    return LossSum(total, (soft_labels != 0).any(dim=1).sum())


def reverse_cross_entropy_loss(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n h w"]) -> LossSum:
    """The cross entropy of every labelled pixel's softmax p with its one-hot label y, -sum p log y, where log 0 is log 1e-4.

    The reverse cross entropy of symmetric cross entropy learning (Wang et al., ICCV 2019), with the constant of ProDA
    (Zhang et al., CVPR 2021). It is 1 - p of the label, times -log 1e-4; bounded. Pixels of IGNORE do not count. Another
    label outside 0..c-1 is an IndexError. ProDA also raises every p to 1e-7 (microsoft/ProDA models/utils.py:278-286).
    """
    return LossSum(-math.log(1e-4) * _doubt(_surprise(logits, labels)).sum(), (labels != IGNORE).sum())


def focal_cross_entropy(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n h w"], gamma: float) -> LossSum:
    """The cross-entropy loss over the labelled pixels, each with the weight (1 - p)^gamma, where p is that of its label.

    The focal loss (Lin et al., ICCV 2017); with gamma 2 the segmentation loss in the code of CLAN (Luo et al., CVPR 2019).
    gamma is at least 0; `cross_entropy` for 0. Pixels of IGNORE do not count. Another label outside 0..c-1 is an
    IndexError. CLAN clamps p to 1e-9..1 - 1e-9 (RoyalVane/CLAN utils/loss.py:47-82); ours clamps 1 - p from below only, so
    that a pixel keeps its gradient when p vanishes.
    """
    surprise = _surprise(logits, labels)
    return LossSum((_doubt(surprise).clamp(min=1e-9) ** gamma * surprise).sum(), (labels != IGNORE).sum())


def _surprise(logits: Float[Tensor, "n c h w"], labels: Integer[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """-log p of every pixel's label; 0, without a gradient, where the label is IGNORE."""
    return F.cross_entropy(_wide(logits), labels.long(), ignore_index=IGNORE, reduction="none")


def _doubt(surprise: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """1 - p for -log p, exact also where p is nearly 1."""
    return -torch.expm1(-surprise)


def _entropy(logits: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """The entropy of every pixel's softmax, divided by log c."""
    return self_information(_wide(logits)).sum(dim=1)


def _wide(logits: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The logits in float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _over_all_pixels(loss: Float[Tensor, "n h w"]) -> LossSum:
    """The sum of a loss over all pixels."""
    return LossSum(loss.sum(), loss.new_tensor(loss.numel(), dtype=torch.int64))


def _over_labelled_pixels(loss: Float[Tensor, "n h w"], labels: Integer[Tensor, "n h w"]) -> LossSum:
    """The sum of a loss over the pixels that have a label."""
    labelled = labels != IGNORE
    return LossSum(loss.where(labelled, 0).sum(), labelled.sum())
