"""Segmentation metrics from the confusion matrix, which adds up over images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from caguda.equations import IGNORE

BLOCK = 2**17  # pixels that are counted at once: their intermediate values stay in the processor's cache


def confusion_matrix(
    prediction: UInt8[Tensor, "n H W"], truth: UInt8[Tensor, "n H W"], categories: int
) -> Int64[Tensor, "c c"]:
    """The confusion matrix: the number of pixels of each true category (rows) and predicted category (columns).

    Pixels whose truth is IGNORE do not count; elsewhere both must be in 0..c-1.
    """
    counts = counts_by_value(prediction, truth, categories)
    assert not counts[categories:IGNORE].any(), f"categories must lie in 0..{categories - 1}"
    return counts[:categories]


def counts_by_value(
    prediction: UInt8[Tensor, "n H W"], values: UInt8[Tensor, "n H W"], categories: int
) -> Int64[Tensor, "256 c"]:
    """The number of pixels of each raw label value (rows) and predicted category (columns).

    Predictions must be in 0..c-1. In row IGNORE other predictions may occur and do not count.
    """
    columns, cells = categories + 1, 256 * (categories + 1)  # the last column counts predictions of no category
    small = torch.int16 if cells <= 2**15 else torch.int32
    total = torch.zeros(cells, dtype=torch.int64, device=values.device)
    for rows, predicted in zip(values.flatten().split(BLOCK), prediction.flatten().split(BLOCK), strict=True):
        code = rows.to(small).mul_(columns).add_(predicted.clamp(max=categories))
        total += torch.bincount(code, minlength=cells)
    counts = total.view(256, columns)
    assert not counts[:IGNORE, categories].any(), f"categories must lie in 0..{categories - 1}"
    return counts[:, :categories]


def iou(confusion: Int64[Tensor, "c c"]) -> Float64[Tensor, " c"]:
    """The intersection over union TP / (TP + FP + FN) of each category, in 0..1.

    nan for a category that is neither in the truth nor in the predictions.
    """
    hits = confusion.diagonal().double()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


def mean_iou(confusion: Int64[Tensor, "c c"], among: Sequence[int] | None = None) -> Float64[Tensor, ""]:
    """The mean IoU (mIoU) over the categories that occur, in 0..1; nan where none does.

    With `among`, the mean over these categories alone. Their IoU still counts confusions with the other categories.
    """
    values = iou(confusion)
    return (values if among is None else values[list(among)]).nanmean()
