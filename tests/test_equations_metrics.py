"""The confusion matrix and what follows from it, against double loops and torchmetrics."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_cases import IGNORE, Case, cases, reorder
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from caguda.equations.metrics import confusion_matrix, iou, mean_iou


@given(cases())
def test_confusion_counts_pixels_by_truth_and_prediction(case: Case) -> None:
    prediction = case.logits.argmax(1).to(torch.uint8)
    expected = [[0] * case.categories for _ in range(case.categories)]
    for truth, guess in zip(case.labels.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if truth != IGNORE:
            expected[truth][guess] += 1
    assert confusion_matrix(prediction, case.labels, case.categories).tolist() == expected


@given(cases())
def test_torchmetrics_agrees(case: Case) -> None:
    prediction, truth, c = case.logits.argmax(1), case.labels.long(), case.categories
    found = confusion_matrix(prediction.to(torch.uint8), case.labels, c)
    assert torch.equal(found, multiclass_confusion_matrix(prediction, truth, c, ignore_index=IGNORE))
    theirs = multiclass_jaccard_index(prediction, truth, c, average=None, ignore_index=IGNORE)
    torch.testing.assert_close(iou(found).nan_to_num(0.0).float(), theirs)
    if found.any():
        macro = multiclass_jaccard_index(prediction, truth, c, average="macro", ignore_index=IGNORE)
        torch.testing.assert_close(mean_iou(found).float(), macro)


@given(cases())
def test_confusions_add_up_over_images_and_do_not_depend_on_order(case: Case) -> None:
    prediction, c = case.logits.argmax(1).to(torch.uint8), case.categories
    whole = confusion_matrix(prediction, case.labels, c)
    parts = [confusion_matrix(p[None], t[None], c) for p, t in zip(prediction, case.labels, strict=True)]
    assert torch.equal(sum(parts, torch.zeros_like(whole)), whole)
    order = case.permutation()
    assert torch.equal(confusion_matrix(reorder(prediction, order), reorder(case.labels, order), c), whole)


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_scores_follow_from_the_counts(seed: int, c: int) -> None:
    confusion = torch.randint(0, 3, (c, c), generator=torch.Generator().manual_seed(seed))
    rows = confusion.tolist()
    scores = []
    for k in range(c):
        hits, missed, wrong = rows[k][k], sum(rows[k]) - rows[k][k], sum(row[k] for row in rows) - rows[k][k]
        union = hits + missed + wrong
        scores.append(hits / union if union else math.nan)
    known = [score for score in scores if not math.isnan(score)]
    assert iou(confusion).tolist() == pytest.approx(scores, nan_ok=True)
    assert mean_iou(confusion).item() == pytest.approx(sum(known) / len(known) if known else math.nan, nan_ok=True)


def test_a_category_that_occurs_nowhere_has_no_iou_and_one_only_predicted_has_zero() -> None:
    confusion = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 0]])
    assert iou(confusion).tolist() == pytest.approx([0.5, 0.0, math.nan], nan_ok=True)
    assert mean_iou(confusion).item() == 0.25


def test_nothing_judged_gives_nan() -> None:
    ignored = torch.full((1, 2, 2), IGNORE, dtype=torch.uint8)
    confusion = confusion_matrix(torch.zeros_like(ignored), ignored, 3)
    assert not confusion.any()
    assert mean_iou(confusion).isnan()


@pytest.mark.parametrize("c", [2, 19, 179, 180, 254])
def test_any_number_of_categories_and_any_prediction_where_nothing_is_judged(c: int) -> None:
    generator = torch.Generator().manual_seed(c)
    truth, prediction = (torch.randint(0, c, (2, 9, 70), generator=generator, dtype=torch.uint8) for _ in range(2))
    truth[:, :3], prediction[:, :2] = IGNORE, IGNORE
    expected = torch.zeros(c, c, dtype=torch.int64)
    for row, column in zip(truth[:, 3:].flatten().tolist(), prediction[:, 3:].flatten().tolist(), strict=True):
        expected[row, column] += 1
    assert torch.equal(confusion_matrix(prediction, truth, c), expected)


@pytest.mark.parametrize(("prediction", "truth"), [(IGNORE, 0), (3, 0), (0, 3), (0, 254)])
def test_a_value_that_is_no_category_is_refused(prediction: int, truth: int) -> None:
    one = torch.ones(1, 1, 1, dtype=torch.uint8)
    with pytest.raises(AssertionError, match=r"0\.\.2"):
        confusion_matrix(one * prediction, one * truth, 3)
