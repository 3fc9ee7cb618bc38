"""How segmentations are judged: everything follows from the confusion matrix, which adds up over images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64, Integer
from torch import Tensor

from caguda.method import IGNORE


def confusion_matrix(
    prediction: Integer[Tensor, "n H W"], truth: Integer[Tensor, "n H W"], categories: int
) -> Int64[Tensor, "c c"]:
    """The number of pixels of each true category (rows) that were predicted as each category (columns).

    Pixels whose truth is IGNORE take no part; everywhere else both must lie in 0..c-1.
    """
    judged = truth != IGNORE
    rows, columns = truth[judged].int(), prediction[judged].int()
    assert not ((rows >= categories) | (columns >= categories)).any(), f"categories must lie in 0..{categories - 1}"
    return torch.bincount(rows * categories + columns, minlength=categories**2).view(categories, categories)


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
