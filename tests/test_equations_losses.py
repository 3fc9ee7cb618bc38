"""The losses against double loops over pixels, and what must hold for any input."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_cases import IGNORE, Case, cases, reorder
from torch import Tensor

from caguda.equations.losses import (
    LossSum,
    class_mean_distance_loss,
    cross_entropy,
    distance_loss,
    feature_cross_entropy,
    image_cross_entropy,
    objective,
    squared_distance_loss,
)

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], LossSum]


def pixels(maps: Tensor) -> list[list[float]]:
    """The vectors of all pixels of (n k h w), as python numbers, image by image."""
    return [vector for image in maps.flatten(2).mT.double().tolist() for vector in image]


def brute_cross_entropy(logits: Tensor, labels: Tensor) -> list[float]:
    """The loss of every pixel that counts."""
    return [
        math.log(sum(math.exp(z) for z in vector)) - vector[label]
        for vector, label in zip(pixels(logits), labels.flatten().tolist(), strict=True)
        if label != IGNORE
    ]


def brute_distance(features: Tensor, anchors: Tensor, labels: Tensor, present: Tensor) -> list[float]:
    """The distance of every pixel that counts."""
    return [
        math.dist(vector, anchors[label].double().tolist())
        for vector, label in zip(pixels(features), labels.flatten().tolist(), strict=True)
        if label != IGNORE and bool(present[label])
    ]


def brute_class_mean(features: Tensor, anchors: Tensor, labels: Tensor, present: Tensor, at_least: int) -> list[float]:
    """The term of every image and category that count, as the authors' code arrives at it."""
    terms = []
    for image, truth in zip(features, labels.flatten(1).tolist(), strict=True):
        vectors = pixels(image[None])
        for category, anchor in enumerate(anchors.double().tolist()):
            members = [vector for vector, label in zip(vectors, truth, strict=True) if label == category]
            if len(members) < at_least or not present[category]:
                continue
            offsets = [sum(values) / len(members) - a for values, a in zip(zip(*members, strict=True), anchor)]
            term = sum(0.5 * x * x if abs(x) < 1 else abs(x) - 0.5 for x in offsets) / len(offsets)
            while term > 5:
                term /= 10
            terms.append(10 * term)
    return terms


def agree(found: LossSum, expected: list[float]) -> None:
    assert found.count.item() == len(expected)
    assert found.total.item() == pytest.approx(sum(expected), rel=1e-5, abs=1e-6)
    assert found.mean().item() == pytest.approx(sum(expected) / max(len(expected), 1), rel=1e-5, abs=1e-6)


def class_mean(features: Tensor, anchors: Tensor, labels: Tensor, present: Tensor) -> LossSum:
    """The distance loss of the authors' code where two pixels make a mean."""
    return class_mean_distance_loss(features, anchors, labels, present, at_least=2)


DISTANCES = pytest.mark.parametrize("loss", [distance_loss, squared_distance_loss, class_mean])


@given(cases())
def test_cross_entropy_adds_labelled_pixels(case: Case) -> None:
    agree(cross_entropy(case.logits, case.labels), brute_cross_entropy(case.logits, case.labels))


@given(cases())
def test_distance_losses_add_labelled_pixels_of_present_categories(case: Case) -> None:
    anchors = case.anchors.masked_fill(~case.present[:, None], torch.nan)
    lengths = brute_distance(case.features, anchors, case.labels, case.present)
    agree(distance_loss(case.features, anchors, case.labels, case.present), lengths)
    agree(squared_distance_loss(case.features, anchors, case.labels, case.present), [x * x for x in lengths])


@given(cases(), st.integers(1, 5), st.sampled_from([1.0, 10.0, 400.0]))
def test_class_mean_distance_loss_adds_class_means_of_images(case: Case, at_least: int, scale: float) -> None:
    features, anchors = scale * case.features, scale * case.anchors.masked_fill(~case.present[:, None], torch.nan)
    found = class_mean_distance_loss(features, anchors, case.labels, case.present, at_least)
    agree(found, brute_class_mean(features, anchors, case.labels, case.present, at_least))


@pytest.mark.parametrize(
    ("error", "term"), [(0.25, 2.5), (4.0, 40.0), (5.0, 50.0), (5.5, 5.5), (50.0, 50.0), (51.0, 5.1), (4321.0, 43.21)]
)
def test_a_class_mean_far_from_its_anchor_is_divided_by_ten_until_it_is_at_most_five(error: float, term: float) -> None:
    # The smooth L1 distance of x is |x| - 0.5 from 1 on, and x * x / 2 below.
    offset = error + 0.5 if error >= 0.5 else math.sqrt(2 * error)
    features = torch.full((1, 1, 1, 10), offset, dtype=torch.float64, requires_grad=True)
    labels, anchors = torch.zeros(1, 1, 10, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.float64)
    found = class_mean_distance_loss(features, anchors, labels, torch.tensor([True]))
    (gradient,) = torch.autograd.grad(found.total, features)
    assert found.total.item() == pytest.approx(term)
    # All of the image is of the category: its gradient is doubled, and shared by its ten pixels.
    assert gradient.flatten().tolist() == pytest.approx([2 * min(offset, 1.0) * term / error / 10] * 10)


def test_ten_pixels_make_a_class_mean_and_every_image_has_its_own() -> None:
    features = torch.tensor([[1.0, 3.0]] * 10 + [[5.0, 9.0]]).T.reshape(2, 1, 1, 11)
    labels = torch.zeros(2, 1, 11, dtype=torch.uint8)
    labels[1, 0, 9:] = 1
    found = class_mean_distance_loss(features, torch.zeros(2, 1), labels, torch.tensor([True, True]))
    assert found.count.item() == 1
    assert found.total.item() == pytest.approx(10 * (15 / 11 - 0.5))
    labels[1, 0, 9] = 0
    both = class_mean_distance_loss(features, torch.zeros(2, 1), labels, torch.tensor([True, True]))
    assert both.count.item() == 2
    assert both.total.item() == pytest.approx(10 * (15 / 11 - 0.5) + 10 * (3.0 - 0.5))


def test_a_class_mean_that_is_not_finite_does_not_hang() -> None:
    features, labels = torch.full((1, 1, 1, 10), torch.inf), torch.zeros(1, 1, 10, dtype=torch.uint8)
    found = class_mean_distance_loss(features, torch.zeros(1, 1), labels, torch.tensor([True]))
    assert found.count.item() == 1 and not found.total.isfinite()


@DISTANCES
@given(case=cases())
def test_losses_do_not_depend_on_the_order_of_pixels_or_the_type_of_labels(loss: Loss, case: Case) -> None:
    order = case.permutation()
    labels = reorder(case.labels, order).long()
    for other, plain in (
        (cross_entropy(reorder(case.logits, order), labels), cross_entropy(case.logits, case.labels)),
        (
            loss(reorder(case.features, order), case.anchors, labels, case.present),
            loss(case.features, case.anchors, case.labels, case.present),
        ),
    ):
        assert other.count == plain.count
        torch.testing.assert_close(other.total, plain.total, rtol=1e-5, atol=1e-5)


@DISTANCES
@given(case=cases())
def test_losses_add_up_over_images(loss: Loss, case: Case) -> None:
    images = list(zip(case.logits.split(1), case.features.split(1), case.labels.split(1), strict=True))
    for parts, whole in (
        ([cross_entropy(z, y) for z, _, y in images], cross_entropy(case.logits, case.labels)),
        (
            [loss(f, case.anchors, y, case.present) for _, f, y in images],
            loss(case.features, case.anchors, case.labels, case.present),
        ),
    ):
        assert sum(part.count.item() for part in parts) == whole.count.item()
        assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-5, abs=1e-5)


@given(cases())
def test_distances_grow_with_their_unit(case: Case) -> None:
    for loss, factor in ((distance_loss, 4), (squared_distance_loss, 16)):
        plain = loss(case.features, case.anchors, case.labels, case.present)
        other = loss(4 * case.features, 4 * case.anchors, case.labels, case.present)
        torch.testing.assert_close(other.total, factor * plain.total)


@DISTANCES
@given(case=cases())
def test_nothing_that_counts_is_exactly_zero_with_a_zero_gradient(loss: Loss, case: Case) -> None:
    logits, features = case.logits.requires_grad_(), case.features.requires_grad_()
    ignored = torch.full_like(case.labels, IGNORE)
    absent = torch.zeros_like(case.present)
    for found, maps in (
        (cross_entropy(logits, ignored), logits),
        (loss(features, case.anchors, ignored, case.present), features),
        (loss(features, torch.full_like(case.anchors, torch.nan), case.labels, absent), features),
    ):
        (gradient,) = torch.autograd.grad(found.mean(), maps)
        assert found.count.item() == 0 and found.total.item() == 0.0 and found.mean().item() == 0.0
        assert gradient.shape == maps.shape and not gradient.any()


@DISTANCES
@pytest.mark.parametrize("absent", [0.0, torch.nan])
@given(case=cases())
def test_only_pixels_that_count_get_a_gradient_whatever_the_anchor_of_an_absent_category(
    loss: Loss, absent: float, case: Case
) -> None:
    logits, features = case.logits.requires_grad_(), case.features.requires_grad_()
    anchors = case.anchors.masked_fill(~case.present[:, None], absent)
    labelled = case.labels != IGNORE
    counted = labelled & case.present[case.labels.where(labelled, 0).long()]
    if loss is class_mean:
        member = torch.nn.functional.one_hot(case.labels.where(labelled, 0).long(), case.categories)
        pixels_of = (member * labelled[..., None]).sum((1, 2))
        counted &= (member * pixels_of[:, None, None]).sum(-1) >= 2
    for total, maps, expected in (
        (cross_entropy(logits, case.labels).total, logits, labelled),
        (loss(features, anchors, case.labels, case.present).total, features, counted),
    ):
        (gradient,) = torch.autograd.grad(total, maps)
        assert torch.equal((gradient != 0).any(1), expected)


LABELS = torch.tensor([[[0, 1, 2], [255, 1, 0]], [[255, 255, 2], [2, 2, 0]]], dtype=torch.uint8)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    anchors = torch.randn(3, 4, dtype=torch.float64)
    present = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, LABELS).mean(), (logits,))
    for loss in (distance_loss, squared_distance_loss):
        assert torch.autograd.gradcheck(lambda f, loss=loss: loss(f, anchors, LABELS, present).mean(), (features,))


@pytest.mark.parametrize("far", [1.0, 100.0])
def test_gradients_of_class_means_are_scaled_by_twice_their_share_of_the_image(far: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    anchors = far * torch.randn(3, 4, dtype=torch.float64)
    present = torch.tensor([True, True, True])
    share = torch.ones(2, 1, 2, 3, dtype=torch.float64)
    for category in range(3):
        member = (LABELS == category)[:, None]
        share = torch.where(member, member.sum((1, 2, 3), keepdim=True) / 6, share)

    def unscaled(maps: Tensor) -> Tensor:
        """The loss of the same maps, with the gradient of every pixel divided by twice its category's share."""
        return class_mean(maps.detach() + (maps - maps.detach()) / (2 * share), anchors, LABELS, present).total

    assert torch.autograd.gradcheck(unscaled, (features,))


def test_a_feature_on_its_anchor_has_distance_and_gradient_zero() -> None:
    anchors = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    features = anchors[1].view(1, 2, 1, 1).repeat(1, 1, 1, 2)
    features[0, 0, 0, 1] += 2.0
    features.requires_grad_()
    labels, present = torch.ones(1, 1, 2, dtype=torch.uint8), torch.tensor([True, True])
    for loss, value, slope in ((distance_loss, 1.0, 0.5), (squared_distance_loss, 2.0, 2.0)):
        found = loss(features, anchors, labels, present).mean()
        (gradient,) = torch.autograd.grad(found, features)
        assert found.item() == value
        assert gradient.flatten(1).tolist() == [[0.0, slope, 0.0, 0.0]]


def test_sums_of_narrow_types_do_not_overflow() -> None:
    labels = torch.zeros(1, 400, 400, dtype=torch.uint8)
    entropy = cross_entropy(torch.zeros(1, 2, 400, 400, dtype=torch.float16), labels)
    assert entropy.total.item() == pytest.approx(160_000 * math.log(2), rel=1e-5)
    for loss in (distance_loss, squared_distance_loss):
        maps = torch.ones(1, 1, 400, 400, dtype=torch.float16)
        found = loss(maps, torch.zeros(1, 1), labels, torch.tensor([True]))
        assert found.total.item() == 160_000.0


def test_a_label_that_is_no_category_is_refused() -> None:
    labels = torch.full((1, 1, 1), 254, dtype=torch.uint8)
    features, anchors, present = torch.zeros(1, 2, 1, 1), torch.zeros(3, 2), torch.ones(3, dtype=torch.bool)
    with pytest.raises(IndexError):
        cross_entropy(torch.zeros(1, 3, 1, 1), labels)
    for loss, error in ((distance_loss, IndexError), (squared_distance_loss, IndexError), (class_mean, RuntimeError)):
        with pytest.raises(error):
            loss(features, anchors, labels, present)


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


@given(cases(), st.integers(1, 3))
def test_labels_are_compared_at_either_resolution(case: Case, stride: int) -> None:
    """Labels of the image, of which a feature's pixel has the one at its place; logits are enlarged between pixels."""
    labels = case.labels.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
    agree(feature_cross_entropy(case.logits, labels), brute_cross_entropy(case.logits, case.labels))
    enlarged = torch.nn.Upsample(labels.shape[1:], mode="bilinear")(case.logits)
    agree(image_cross_entropy(case.logits, labels), brute_cross_entropy(enlarged, labels))
