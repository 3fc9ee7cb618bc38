"""Mixtures of source and target images by their categories (ClassMix, as DACS trains on them), and masks of blocks (MIC)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Integer, Shaped
from torch import Tensor

from caguda.equations import IGNORE
from caguda.equations.grid import labels_at
from caguda.equations.losses import LossSum


def categories_to_mix(labels: Integer[Tensor, "n H W"], order: Int64[Tensor, "n c"]) -> Bool[Tensor, "n c"]:
    """The categories whose pixels each image gives to its mixture: half of those that occur in it, rounded up.

    The choice of ClassMix (Olsson et al., WACV 2021). `order` is a permutation of the categories for each image, and the
    first ones that occur are chosen. Random permutations choose uniformly. Void is not drawn, and an image without
    labelled pixels gives nothing. DACS draws void like a category (vikolss/DACS trainUDA.py:426-430). DAFormer draws from
    the categories of the whole batch for each image (lhoyer/DAFormer mmseg/models/utils/dacs_transforms.py:93).
    """
    occurs = torch.zeros(len(labels), IGNORE + 1, dtype=torch.bool, device=labels.device)
    occurs = occurs.scatter(1, labels.flatten(1).long(), True)[:, : order.shape[1]]
    in_order = occurs.gather(1, order)
    half = (occurs.sum(dim=1, keepdim=True) + 1) // 2
    return torch.zeros_like(occurs).scatter(1, order, in_order & (in_order.cumsum(dim=1) <= half))


def class_mask(labels: Integer[Tensor, "n H W"], chosen: Bool[Tensor, "n values"]) -> Bool[Tensor, "n H W"]:
    """The mask of each image's pixels whose label is chosen.

    The mask of ClassMix. Column k of `chosen` is of label k. A label beyond the last column is not chosen: void is not
    if there is one column for each category. With 256 columns void may be chosen too, as in DACS.
    """
    table = F.pad(chosen, (0, IGNORE + 1 - chosen.shape[1]))
    return table.gather(1, labels.flatten(1).long()).view(labels.shape)


def mixed(
    mask: Bool[Tensor, "n H W"], source: Shaped[Tensor, "n *k H W"], target: Shaped[Tensor, "n *k H W"]
) -> Shaped[Tensor, "n *k H W"]:
    """The mixture of images, of label maps or of weights: the source inside the mask, the target elsewhere.

    ClassMix. Source and target have one size and one type.
    """
    return source.where(mask.view(len(mask), *[1] * (source.dim() - 3), *mask.shape[1:]), target)


def confident_share(confidence: Float[Tensor, "n H W"], threshold: float) -> LossSum:
    """The share of pixels whose confidence is at least the threshold, as a number of pixels and the number of all pixels.

    The weight of the target's pixels in DACS (Tranheden et al., WACV 2021): its mean over all images of a batch together,
    as in the public code (vikolss/DACS trainUDA.py:466-468). The total is float64, so that numbers add up exactly.
    """
    confident = (confidence >= threshold).sum(dtype=torch.float64)
    return LossSum(confident, confident.new_tensor(confidence.numel(), dtype=torch.int64))


def weighted_cross_entropy(
    logits: Float[Tensor, "n c H W"], labels: Integer[Tensor, "n H W"], weights: Float[Tensor, "n H W"]
) -> LossSum:
    """The cross entropy of every pixel times its weight; the mean is over all pixels, void or not.

    The loss of the mixed images in DACS (Tranheden et al., WACV 2021). The loss of a pixel of IGNORE is 0, but the pixel
    counts, as in the public code (vikolss/DACS utils/loss.py:40-43). Adds in float32 or wider for any type of logits.
    Another label outside 0..c-1 is an IndexError.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(wide, labels.long(), ignore_index=IGNORE, reduction="none")
    return LossSum((weights * losses).sum(), labels.new_tensor(labels.numel(), dtype=torch.int64))


def block_mask(noise: Float[Tensor, "n h w"], ratio: float, size: Sequence[int]) -> Bool[Tensor, "n H W"]:
    """The mask of the pixels that stay when blocks of an image are hidden: those of blocks whose noise exceeds the ratio.

    The mask of MIC (Hoyer et al., CVPR 2023), enlarged to the size (H, W) by nearest neighbour. With noise that is uniform
    in 0..1, one number for each block, the share `ratio` of the blocks is hidden on average. Pixel p of H belongs to block
    floor(p h / H).
    """
    return labels_at((noise > ratio).to(torch.uint8), size, align_corners=True) == 1
