"""How segmentations are judged: everything follows from the confusion matrix, which adds up over images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

BLOCK = 2**17
"""How many pixels are counted at once: what is between their two maps and the matrix stays in the processor's cache."""


def confusion_matrix(
    prediction: UInt8[Tensor, "n H W"], truth: UInt8[Tensor, "n H W"], categories: int
) -> Int64[Tensor, "c c"]:
    """The number of pixels of each true category (rows) that were predicted as each category (columns).

    Pixels whose truth is IGNORE take no part; everywhere else both must lie in 0..c-1. Both are counted as one small
    number: row 0 is what is ignored (IGNORE + 1 is 0 in a byte), the last row and column are what is no category.
    """
    c, cells = categories, (categories + 2) * (categories + 1)
    small = torch.int16 if cells <= 2**15 else torch.int32
    total = torch.zeros(cells, dtype=torch.int64, device=truth.device)
    for rows, columns in zip(truth.flatten().split(BLOCK), prediction.flatten().split(BLOCK), strict=True):
        code = (rows + 1).clamp_(max=c + 1).to(small).mul_(c + 1).add_(columns.clamp(max=c))
        total += torch.bincount(code, minlength=cells)
    counts = total.view(c + 2, c + 1)
    assert not (counts[c + 1].any() or counts[1:, c].any()), f"categories must lie in 0..{c - 1}"
    return counts[1 : c + 1, :c]


def iou(confusion: Int64[Tensor, "c c"]) -> Float64[Tensor, " c"]:
    """The intersection over union TP / (TP + FP + FN) of each category, in 0..1.

    nan for a category that occurs neither in the truth nor in the predictions.
    """
    hits = confusion.diagonal().double()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


def mean_iou(confusion: Int64[Tensor, "c c"], among: Sequence[int] | None = None) -> Float64[Tensor, ""]:
    """The mean intersection over union (mIoU) of the categories that occur, in 0..1; nan where none does.

    `among`: the mean over these categories alone, with their IoU among all c. A pixel that is taken for a category
    outside `among`, or is of one and taken for one inside, remains an error.
    """
    values = iou(confusion)
    return (values if among is None else values[list(among)]).nanmean()


def pixel_accuracy(confusion: Int64[Tensor, "c c"]) -> Float64[Tensor, ""]:
    """The share of judged pixels whose predicted category is the true one, in 0..1; nan where none is judged."""
    return confusion.diagonal().sum().double() / confusion.sum()
