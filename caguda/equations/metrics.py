"""How segmentations are judged: everything follows from the confusion matrix, which adds up over images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from caguda.equations import IGNORE

BLOCK = 2**17
"""How many pixels are counted at once: what is between their two maps and the matrix stays in the processor's cache."""


def confusion_matrix(
    prediction: UInt8[Tensor, "n H W"], truth: UInt8[Tensor, "n H W"], categories: int
) -> Int64[Tensor, "c c"]:
    """The number of pixels of each true category (rows) that were predicted as each category (columns).

    Pixels whose truth is IGNORE take no part; everywhere else both must lie in 0..c-1.
    """
    counts = counts_by_value(prediction, truth, categories)
    assert not counts[categories:IGNORE].any(), f"categories must lie in 0..{categories - 1}"
    return counts[:categories]


def counts_by_value(
    prediction: UInt8[Tensor, "n H W"], values: UInt8[Tensor, "n H W"], categories: int
) -> Int64[Tensor, "256 c"]:
    """The number of pixels of each value of a label file (rows) that were predicted as each category (columns).

    Row IGNORE may hold any prediction: what is no category is not counted there, and must not occur elsewhere.
    """
    columns, cells = categories + 1, 256 * (categories + 1)  # the last column is what is no category
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
