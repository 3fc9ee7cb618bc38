"""The losses against double loops over pixels, and what must hold for any input."""

import math

import pytest
import torch
from hypothesis import given
from method_cases import IGNORE, Case, cases, reorder
from torch import Tensor

from caguda.method.losses import cross_entropy, distance_loss, objective


def pixels(maps: Tensor) -> list[list[float]]:
    """The vectors of all pixels of (n k h w), as python numbers, image by image."""
    return [vector for image in maps.flatten(2).mT.double().tolist() for vector in image]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def brute_cross_entropy(logits: Tensor, labels: Tensor) -> float:
    return mean(
        [
            math.log(sum(math.exp(z) for z in vector)) - vector[label]
            for vector, label in zip(pixels(logits), labels.flatten().tolist(), strict=True)
            if label != IGNORE
        ]
    )


def brute_distance(features: Tensor, anchors: Tensor, labels: Tensor, present: Tensor) -> float:
    return mean(
        [
            math.dist(vector, anchors[label].double().tolist())
            for vector, label in zip(pixels(features), labels.flatten().tolist(), strict=True)
            if label != IGNORE and bool(present[label])
        ]
    )


@given(cases())
def test_cross_entropy_is_the_mean_over_labelled_pixels(case: Case) -> None:
    found = cross_entropy(case.logits, case.labels)
    assert found.item() == pytest.approx(brute_cross_entropy(case.logits, case.labels), rel=1e-5, abs=1e-6)


@given(cases())
def test_distance_loss_is_the_mean_over_labelled_pixels_of_present_categories(case: Case) -> None:
    anchors = case.anchors.masked_fill(~case.present[:, None], torch.nan)
    found = distance_loss(case.features, anchors, case.labels, case.present, scale=2.5)
    expected = brute_distance(case.features, anchors, case.labels, case.present) / 2.5
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(cases())
def test_losses_do_not_depend_on_the_order_of_pixels_or_the_type_of_labels(case: Case) -> None:
    order = case.permutation()
    labels = reorder(case.labels, order).long()
    torch.testing.assert_close(
        cross_entropy(reorder(case.logits, order), labels), cross_entropy(case.logits, case.labels)
    )
    torch.testing.assert_close(
        distance_loss(reorder(case.features, order), case.anchors, labels, case.present),
        distance_loss(case.features, case.anchors, case.labels, case.present),
    )


@given(cases())
def test_nothing_labelled_is_exactly_zero_with_a_zero_gradient(case: Case) -> None:
    logits, features = case.logits.requires_grad_(), case.features.requires_grad_()
    ignored = torch.full_like(case.labels, IGNORE)
    absent = torch.zeros_like(case.present)
    for loss, maps in (
        (cross_entropy(logits, ignored), logits),
        (distance_loss(features, case.anchors, ignored, case.present), features),
        (distance_loss(features, case.anchors, case.labels, absent), features),
    ):
        (gradient,) = torch.autograd.grad(loss, maps)
        assert loss.item() == 0.0
        assert gradient.shape == maps.shape and not gradient.any()


@given(cases())
def test_ignored_pixels_get_no_gradient(case: Case) -> None:
    logits, features = case.logits.requires_grad_(), case.features.requires_grad_()
    present = torch.ones_like(case.present)
    loss = cross_entropy(logits, case.labels) + distance_loss(features, case.anchors, case.labels, present)
    labelled = (case.labels != IGNORE)[:, None]
    for gradient in torch.autograd.grad(loss, (logits, features)):
        assert torch.equal((gradient != 0).any(1, keepdim=True), labelled)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    anchors = torch.randn(3, 4, dtype=torch.float64)
    labels = torch.tensor([[[0, 1, 2], [255, 1, 0]], [[255, 255, 2], [2, 2, 0]]], dtype=torch.uint8)
    present = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, labels), (logits,))
    assert torch.autograd.gradcheck(lambda f: distance_loss(f, anchors, labels, present, 0.7), (features,))


def test_a_feature_on_its_anchor_has_distance_and_gradient_zero() -> None:
    anchors = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    features = anchors[1].view(1, 2, 1, 1).repeat(1, 1, 1, 2)
    features[0, 0, 0, 1] += 2.0
    features.requires_grad_()
    loss = distance_loss(features, anchors, torch.ones(1, 1, 2, dtype=torch.uint8), torch.tensor([True, True]))
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.item() == 1.0
    assert gradient.flatten(1).tolist() == [[0.0, 0.5, 0.0, 0.0]]


def test_a_label_that_is_no_category_is_refused() -> None:
    labels = torch.full((1, 1, 1), 254, dtype=torch.uint8)
    with pytest.raises(IndexError):
        cross_entropy(torch.zeros(1, 3, 1, 1), labels)
    with pytest.raises(IndexError):
        distance_loss(torch.zeros(1, 2, 1, 1), torch.zeros(3, 2), labels, torch.ones(3, dtype=torch.bool))


def test_objective_weighs_every_term() -> None:
    terms = {"source": torch.tensor(2.0, requires_grad=True), "distance": torch.tensor(10.0, requires_grad=True)}
    total = objective(terms, {"distance": 0.3, "source": 1.0})
    gradients = torch.autograd.grad(total, tuple(terms.values()))
    assert total.item() == pytest.approx(5.0)
    assert [gradient.item() for gradient in gradients] == pytest.approx([1.0, 0.3])


@pytest.mark.parametrize("weights", [{}, {"a": 1.0, "b": 1.0}, {"b": 1.0}])
def test_objective_wants_one_weight_per_term(weights: dict[str, float]) -> None:
    with pytest.raises(AssertionError, match="must be the same"):
        objective({"a": torch.tensor(1.0)}, weights)
