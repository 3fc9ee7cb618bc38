"""Prototypes of target features, against loops over pixels and the public outputs of ProDA."""

import math

import numpy as np
import pytest
import torch
from frame_trees import SHARED
from hypothesis import given
from hypothesis import strategies as st
from method_cases import IGNORE, Case, cases
from torch import Tensor

from caguda.equations.anchors import distances
from caguda.equations.prototypes import (
    ClassMeans,
    category_weights,
    class_means,
    consistency_loss,
    prototype_weights,
    rectified_probabilities,
    running_prototypes,
    updated_prototypes,
)

TEMPERATURES = st.sampled_from([0.0, 0.5, 1.0, 3.0])


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    path = SHARED / "golden" / "methods" / "proda_a.npz"
    if not path.exists():
        pytest.skip(f"needs {path}; the environment variable CAGUDA_SHARED names the folder that holds golden/")
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def softmax(vector: list[float]) -> list[float]:
    exponentials = [math.exp(x - max(vector)) for x in vector]
    return [x / sum(exponentials) for x in exponentials]


def pixels(maps: Tensor) -> list[list[float]]:
    """The vectors of all pixels of (n k h w), as python numbers, image by image."""
    return [vector for image in maps.flatten(2).mT.double().tolist() for vector in image]


# The public outputs


def test_distances_and_weights_of_prototypes_are_those_of_proda(golden: dict[str, Tensor]) -> None:
    found = distances(golden["ema_feature"], golden["prototypes"])
    torch.testing.assert_close(found, golden["prototype_distance"], rtol=2e-5, atol=0)
    weights = prototype_weights(found, float(golden["temperature"]))
    torch.testing.assert_close(weights, golden["prototype_weight"], rtol=2e-5, atol=1e-8)


def test_rectified_probabilities_and_their_labels_are_those_of_proda(golden: dict[str, Tensor]) -> None:
    found = rectified_probabilities(golden["prototype_weight"], golden["soft_label_of_stage_start"])
    torch.testing.assert_close(found, golden["rectified_probability"], rtol=2e-5, atol=1e-8)
    labelled = golden["rectified_label"] != IGNORE
    assert torch.equal(found.argmax(dim=1)[labelled], golden["rectified_label"][labelled].long())
    assert 0.5 < labelled.float().mean() < 1


def test_class_means_and_moved_prototypes_are_those_of_proda(golden: dict[str, Tensor]) -> None:
    labels = golden["ema_logits"].argmax(dim=1)
    means = class_means(golden["ema_feature"], labels, len(golden["prototypes"]), at_least=10)
    assert means.present.nonzero()[:, 1].tolist() == golden["class_mean_ids"].tolist()
    torch.testing.assert_close(means.vectors[means.present], golden["class_mean_vectors"], rtol=2e-5, atol=1e-6)
    found = updated_prototypes(golden["prototypes"], means, float(golden["momentum"]))
    torch.testing.assert_close(found, golden["prototypes_after"], rtol=2e-5, atol=1e-7)
    assert not torch.equal(found, golden["prototypes"])


def test_the_consistency_loss_is_that_of_proda(golden: dict[str, Tensor]) -> None:
    student, teacher = (
        distances(golden[name], golden["prototypes_after"]) for name in ("student_feature", "ema_feature")
    )
    found = consistency_loss(student, teacher, float(golden["temperature"])).mean()
    assert found.item() == pytest.approx(golden["consistency_loss_with_updated_prototypes"].item(), rel=2e-5)


# Weights and rectified probabilities


@given(cases(), TEMPERATURES)
def test_weights_are_the_softmax_of_negative_distances(case: Case, temperature: float) -> None:
    found = prototype_weights(distances(case.features, case.anchors), temperature)
    anchors = case.anchors.double().tolist()
    for vector, weights in zip(pixels(case.features), pixels(found), strict=True):
        lengths = [math.dist(vector, anchor) for anchor in anchors]
        expected = softmax([-temperature * (length - min(lengths)) for length in lengths])
        assert weights == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_an_infinite_distance_has_no_weight_and_equal_distances_have_equal_ones() -> None:
    distance = torch.tensor([3.0, torch.inf, 3.0]).view(1, 3, 1, 1)
    assert prototype_weights(distance, 2.0).flatten().tolist() == [0.5, 0.0, 0.5]


@given(cases(), TEMPERATURES)
def test_categories_without_a_prototype_have_an_even_share_and_the_others_the_rest(
    case: Case, temperature: float
) -> None:
    found = category_weights(case.features, case.anchors, case.present, temperature)
    known = [category for category in range(case.categories) if case.present[category]]
    anchors = case.anchors.double().tolist()
    for vector, weights in zip(pixels(case.features), pixels(found), strict=True):
        expected = [1 / case.categories] * case.categories
        shares = softmax([-temperature * math.dist(vector, anchors[category]) for category in known]) if known else []
        for category, share in zip(known, shares, strict=True):
            expected[category] = share * len(known) / case.categories
        assert weights == pytest.approx(expected, rel=1e-4, abs=1e-6)
    changed = case.anchors.where(case.present[:, None], 77.0)
    assert torch.equal(category_weights(case.features, changed, case.present, temperature), found)


@given(cases(), TEMPERATURES)
def test_rectified_probabilities_are_products_that_add_up_to_one(case: Case, temperature: float) -> None:
    weights = prototype_weights(distances(case.features, case.anchors), temperature)
    probabilities = case.logits.softmax(dim=1)
    found = rectified_probabilities(weights, probabilities)
    for w, p, rectified in zip(pixels(weights), pixels(probabilities), pixels(found), strict=True):
        products = [a * b for a, b in zip(w, p, strict=True)]
        assert rectified == pytest.approx([x / sum(products) for x in products], rel=1e-5, abs=1e-7)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(case.labels.shape))
    if temperature == 0:
        torch.testing.assert_close(found, probabilities)


def test_products_of_zero_stay_zero_and_tiny_ones_are_normalised() -> None:
    weights = torch.tensor([[1.0, 0.0], [1e-30, 1e-30]]).T.reshape(1, 2, 1, 2)
    probabilities = torch.tensor([[0.0, 1.0], [3e-8, 1e-8]]).T.reshape(1, 2, 1, 2)
    found = rectified_probabilities(weights, probabilities)
    assert found[..., 0].flatten().tolist() == [0.0, 0.0]
    assert found[..., 1].flatten().tolist() == pytest.approx([0.75, 0.25], rel=1e-5)


# Class means and prototypes


@given(cases(), st.integers(1, 4))
def test_class_means_are_those_of_each_image(case: Case, at_least: int) -> None:
    found = class_means(case.features, case.labels, case.categories, at_least)
    assert found.vectors.dtype == case.features.dtype
    for i, (image, labels) in enumerate(zip(case.features, case.labels.flatten(1).tolist(), strict=True)):
        for category in range(case.categories):
            members = [v for v, label in zip(pixels(image[None]), labels, strict=True) if label == category]
            enough = len(members) >= at_least
            mean = [sum(values) / len(members) for values in zip(*members, strict=True)] if enough else 0
            assert found.present[i, category].item() == enough
            assert found.vectors[i, category].tolist() == pytest.approx(
                mean if enough else [0.0] * image.shape[0], rel=1e-5, abs=1e-6
            )


@given(cases(), st.sampled_from([0.0, 1e-4, 0.3, 1.0]))
def test_prototypes_move_towards_the_means_of_one_image_after_another(case: Case, momentum: float) -> None:
    means = class_means(case.features, case.labels, case.categories, 1)
    expected = case.anchors.double().tolist()
    for vectors, present in zip(means.vectors.double().tolist(), means.present.tolist(), strict=True):
        for category in range(case.categories):
            if present[category]:
                pairs = zip(expected[category], vectors[category], strict=True)
                expected[category] = [(1 - momentum) * old + momentum * new for old, new in pairs]
    found = updated_prototypes(case.anchors, means, momentum)
    for row, values in zip(found.tolist(), expected, strict=True):
        assert row == pytest.approx(values, rel=1e-5, abs=1e-6)
    first = ClassMeans(means.vectors[:1], means.present[:1])
    rest = ClassMeans(means.vectors[1:], means.present[1:])
    in_parts = updated_prototypes(updated_prototypes(case.anchors, first, momentum), rest, momentum)
    assert torch.equal(in_parts, found)


def test_an_absent_category_does_not_move_and_the_given_prototypes_are_left_alone() -> None:
    prototypes = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan], [5.0, 6.0]])
    means = ClassMeans(torch.full((1, 3, 2), 9.0), torch.tensor([[True, True, False]]))
    found = updated_prototypes(prototypes, means, 0.5)
    assert found[0].tolist() == [5.0, 5.5] and found[1].isnan().all() and found[2].tolist() == [5.0, 6.0]
    assert prototypes[0].tolist() == [1.0, 2.0]


@given(cases())
def test_running_prototypes_are_the_means_over_all_images_in_any_parts(case: Case) -> None:
    means = class_means(case.features, case.labels, case.categories, 1)
    nothing = torch.zeros_like(case.anchors), torch.zeros(case.categories, dtype=torch.int64)
    whole = running_prototypes(*nothing, means.vectors.sum(dim=0), means.present.sum(dim=0), 1.0)
    by_image, images = nothing
    for vectors, present in zip(means.vectors, means.present, strict=True):
        by_image = running_prototypes(by_image, images, vectors, present.long(), 1.0)
        images = images + present
    for category in range(case.categories):
        seen = means.vectors[means.present[:, category], category].double().tolist()
        mean = [sum(values) / len(seen) for values in zip(*seen, strict=True)] or [0.0] * case.anchors.shape[1]
        assert whole[category].tolist() == pytest.approx(mean, rel=1e-5, abs=1e-6)
        assert by_image[category].tolist() == pytest.approx(mean, rel=1e-5, abs=1e-6)


@given(cases())
def test_after_many_images_running_prototypes_move_as_those_of_proda(case: Case) -> None:
    means = class_means(case.features, case.labels, case.categories, 1)
    found, images = case.anchors, torch.full((case.categories,), 10)
    for vectors, present in zip(means.vectors, means.present, strict=True):
        found = running_prototypes(found, images, vectors, present.long(), 0.9)
        images = images + present
    torch.testing.assert_close(found, updated_prototypes(case.anchors, means, 0.1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "added", "kept"), [(0, 1, 0.0), (2, 1, 2 / 3), (3, 1, 0.75), (9, 1, 0.75), (3, 3, 0.75**3), (1, 3, 0.25)]
)
def test_a_prototype_keeps_the_smaller_of_both_shares(images: int, added: int, kept: float) -> None:
    prototypes = torch.tensor([[1.0, 5.0], [3.0, 7.0]])
    sums = torch.tensor([[2.0 * added, 2.0 * added], [0.0, 0.0]])
    found = running_prototypes(prototypes, torch.tensor([images, images]), sums, torch.tensor([added, 0]), 0.75)
    assert found[0].tolist() == pytest.approx([2 - kept, 2 + 3 * kept], abs=1e-6)
    assert torch.equal(found[1], prototypes[1])


# Consistency


@given(cases(), TEMPERATURES)
def test_the_consistency_loss_is_the_divergence_of_both_weights(case: Case, temperature: float) -> None:
    teacher = distances(case.features, case.anchors)
    student = distances(case.features.flip(0, 2, 3) + 0.5, case.anchors)
    found = consistency_loss(student, teacher, temperature)
    expected = 0.0
    for near, far in zip(pixels(teacher), pixels(student), strict=True):
        p, q = (softmax([-temperature * x for x in vector]) for vector in (near, far))
        expected += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    assert found.count.item() == teacher.numel()
    assert found.total.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert found.mean().item() == pytest.approx(expected / teacher.numel(), rel=1e-4, abs=1e-5)


@given(cases())
def test_the_consistency_loss_adds_up_over_images_and_is_zero_for_equal_views(case: Case) -> None:
    teacher, student = (distances(maps, case.anchors) for maps in (case.features, case.features + 1))
    whole = consistency_loss(student, teacher, 1.0)
    parts = [consistency_loss(a, b, 1.0) for a, b in zip(student.split(1), teacher.split(1), strict=True)]
    assert sum(part.count.item() for part in parts) == whole.count.item()
    assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-5, abs=1e-5)
    assert consistency_loss(student, student, 1.0).total.item() == 0.0
    assert consistency_loss(student, teacher, 0.0).total.item() == pytest.approx(0.0, abs=1e-5)


def test_the_gradients_of_the_consistency_loss_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    student, teacher = (torch.rand(2, 3, 2, 2, dtype=torch.float64) * 4 for _ in range(2))
    assert torch.autograd.gradcheck(lambda d: consistency_loss(d, teacher, 1.5).mean(), (student.requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_a_weight_is_zero(dtype: torch.dtype) -> None:
    near, far = (torch.tensor(values, dtype=dtype).view(1, 2, 1, 1) for values in ([0.0, 1e4], [1e4, 0.0]))
    loss = consistency_loss(far.requires_grad_(), near, 1.0)
    (gradient,) = torch.autograd.grad(loss.total, far)
    assert loss.total.item() == 1e4 and gradient.flatten().tolist() == [1.0, -1.0]
