"""Rare class sampling of source images, and the feature distance to a frozen network: two parts of DAFormer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Integer
from torch import Tensor

from caguda.equations import IGNORE
from caguda.equations.losses import LossSum


def rare_class_probabilities(
    pixels: Integer[Tensor, "images c"], temperature: float, least_pixels: int = 0
) -> Float64[Tensor, " c"]:
    """The probability to draw each category, the larger the rarer it is in the labels of the source.

    Rare class sampling of DAFormer (Hoyer et al., CVPR 2022): softmax((1 - f_c) / temperature), f_c being the share of
    category c in all labelled pixels. `pixels` counts them by image and category, at least one; temperature > 0, there
    0.01. A category has probability 0 unless some image has more than `least_pixels` pixels of it; one at least must be
    left. The public code (mmseg/datasets/uda_dataset.py:17) lists categories from rare to frequent and computes in float32.
    """
    counts = pixels.sum(dim=0)
    share = counts / counts.sum().double()
    is_drawn = (pixels > least_pixels).any(dim=0)
    return ((1 - share) / temperature).masked_fill(~is_drawn, -torch.inf).softmax(dim=0)


def labels_by_share(labels: Integer[Tensor, "n H W"], cell: int, share: float) -> Integer[Tensor, "n h w"]:
    """The label of every cell of cell x cell pixels that at least this share of them has; IGNORE where none does.

    As DAFormer reduces labels to features (mmseg/utils/utils.py:18-39; share 0.75); 0.5 < share <= 1, so that one label
    at most has it. Pixels of IGNORE count in the share. Rows and columns that fill no cell are left out: h = H // cell.
    """
    assert 0.5 < share <= 1, f"share must be above 0.5 and at most 1, found {share}"
    pixels = labels.unfold(1, cell, cell).unfold(2, cell, cell).flatten(start_dim=3)
    middle = pixels.median(dim=-1).values  # the label of more than half of the pixels, if there is one
    shares = (pixels == middle[..., None]).double().mean(dim=-1)
    return middle.where(shares >= share, IGNORE)


def labels_of_cells(labels: Integer[Tensor, "n H W"], size: Sequence[int], share: float) -> Integer[Tensor, "n h w"]:
    """The labels of the cells of a map of features of the size (h, w), by `labels_by_share`; DAFormer's image is a multiple.

    A cell has ceil(H / h) or ceil(W / w) pixels a side, the larger of both. Cells at the end that lie beyond the image in
    part count the missing pixels as IGNORE.
    """
    (height, width), (rows, columns) = labels.shape[1:], size
    cell = max(-(-height // rows), -(-width // columns))
    padded = F.pad(labels, (0, columns * cell - width, 0, rows * cell - height), value=IGNORE)
    return labels_by_share(padded, cell, share)


def feature_distance(
    features: Float[Tensor, "n d h w"],
    reference: Float[Tensor, "n d h w"],
    labels: Integer[Tensor, "n h w"],
    categories: Integer[Tensor, " k"],
) -> LossSum:
    """The L2 distances of features to those of a frozen network, over the pixels of some categories.

    The feature distance of DAFormer (Hoyer et al., CVPR 2022; mmseg/models/uda/dacs.py:153-189), where the categories are
    things, the labels those of `labels_by_share`, and the weight 0.005. Other pixels do not count; without any the mean is
    0, where the public code's is nan. The gradient of equal features is 0. Adds in float32 or wider for any type.
    """
    counted = (labels[..., None] == categories).any(dim=-1)
    offsets = features.movedim(1, -1)[counted] - reference.movedim(1, -1)[counted]
    wide = torch.promote_types(offsets.dtype, torch.float32)
    lengths: Tensor = torch.linalg.vector_norm(offsets, dim=1, dtype=wide)
    return LossSum(lengths.sum(), counted.sum())
