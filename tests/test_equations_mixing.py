"""Mixtures of images by their categories and masks of blocks, against loops over pixels and public outputs."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from frame_trees import SHARED
from hypothesis import given
from hypothesis import strategies as st
from method_cases import IGNORE, Case, cases
from torch import Tensor

from caguda.equations.losses import cross_entropy
from caguda.equations.mixing import (
    block_mask,
    categories_to_mix,
    class_mask,
    confident_share,
    mixed,
    weighted_cross_entropy,
)

VALUES = 256


def golden(name: str) -> dict[str, Tensor]:
    path = SHARED / "golden" / "methods" / f"{name}_a.npz"
    if not path.exists():
        pytest.skip(f"needs {path}; the environment variable CAGUDA_SHARED names the folder that holds golden/")
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def drawn(categories: list[list[int]], seed: int) -> Tensor:
    """Half of the categories that each image draws from, rounded up, as the public codes draw them with numpy."""
    random, chosen = np.random.RandomState(seed), torch.zeros(len(categories), VALUES, dtype=torch.bool)
    for row, own in zip(chosen, categories, strict=True):
        row[[own[k] for k in random.choice(len(own), (len(own) + 1) // 2, replace=False)]] = True
    return chosen


def orders(case: Case) -> Tensor:
    """A random permutation of the categories for each image."""
    return torch.stack([torch.randperm(case.categories, generator=case.generator) for _ in case.labels])


def random_mask(case: Case) -> Tensor:
    return torch.rand(case.labels.shape, generator=case.generator) < 0.5


def random_weights(case: Case) -> Tensor:
    return torch.rand(case.labels.shape, generator=case.generator)


# The public outputs


def test_masks_and_mixtures_are_those_of_dacs() -> None:
    """Its void is a value that can be drawn."""
    arrays = golden("dacs")
    labels = arrays["source_label"]
    chosen = drawn([image.unique().tolist() for image in labels], int(arrays["numpy_seed_of_choice"]))
    mask = class_mask(labels, chosen)
    assert torch.equal(mask, arrays["mix_mask"].bool())
    assert torch.equal(mixed(mask, arrays["source_image"], arrays["target_image"]), arrays["mixed_image"])
    assert torch.equal(mixed(mask, labels, arrays["teacher_label"]), arrays["mixed_label"])
    confidence = arrays["teacher_logits"].softmax(dim=1).amax(dim=1)
    torch.testing.assert_close(confidence, arrays["teacher_confidence"], rtol=2e-5, atol=0)
    share = confident_share(confidence, float(arrays["threshold"])).mean()
    assert share.item() == pytest.approx(float(arrays["confident_share"]), rel=1e-12)
    weights = mixed(mask, torch.ones_like(confidence), share.float().expand_as(confidence))
    torch.testing.assert_close(weights, arrays["pixel_weight"], rtol=2e-5, atol=0)


def test_the_choice_has_the_size_that_dacs_draws() -> None:
    """With void as one more category, in an order that begins with what was drawn."""
    arrays = golden("dacs")
    labels, void = arrays["source_label"], 6
    seed = int(arrays["numpy_seed_of_choice"])
    chosen = drawn([image.unique().tolist() for image in labels], seed)
    own = torch.cat([chosen[:, :void], chosen[:, IGNORE:]], dim=1)
    order = own.int().argsort(dim=1, descending=True)
    assert torch.equal(categories_to_mix(labels.masked_fill(labels == IGNORE, void), order), own)


def test_the_loss_of_mixed_images_is_that_of_dacs() -> None:
    arrays = golden("dacs")
    logits = arrays["student_logits"].requires_grad_()
    loss = weighted_cross_entropy(logits, arrays["mixed_label"], arrays["pixel_weight"]).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(arrays["mixed_loss"].item(), rel=2e-5)
    torch.testing.assert_close(gradient, arrays["mixed_loss_grad"], rtol=2e-5, atol=1e-9)


def test_masks_are_those_of_daformer() -> None:
    """It draws from the values of the whole batch for each image."""
    arrays = golden("daformer")
    labels = arrays["label"]
    chosen = drawn([labels.unique().tolist()] * len(labels), int(arrays["numpy_seed_of_choice"]))
    assert torch.equal(class_mask(labels, chosen), arrays["mix_mask_classes_of_whole_batch"].bool())


def test_masks_of_blocks_are_those_of_mic() -> None:
    arrays = golden("daformer")
    expected = arrays["mic_mask"][:, 0].bool()
    assert torch.equal(block_mask(arrays["mic_noise"][:, 0], 0.7, expected.shape[1:]), expected)


# The choice of categories


@given(cases())
def test_half_of_an_images_categories_are_chosen_the_first_in_its_order(case: Case) -> None:
    order = orders(case)
    found = categories_to_mix(case.labels, order)
    for image, own_order, chosen in zip(case.labels, order.tolist(), found, strict=True):
        occur = {value for value in image.flatten().tolist() if value != IGNORE}
        expected = [k for k in own_order if k in occur][: math.ceil(len(occur) / 2)]
        assert chosen.nonzero().flatten().tolist() == sorted(expected)


def test_all_permutations_together_choose_every_half_equally_often() -> None:
    labels = torch.tensor([[[0, 1, 2, 4, 4, IGNORE]]], dtype=torch.uint8)  # not 3
    found = [
        tuple(categories_to_mix(labels, torch.tensor([order]))[0].nonzero().flatten().tolist())
        for order in permutations(range(5))
    ]
    halves = {(0, 1), (0, 2), (0, 4), (1, 2), (1, 4), (2, 4)}
    assert {half: found.count(half) for half in found} == dict.fromkeys(halves, 120 // len(halves))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_void_is_never_chosen_and_an_odd_number_is_rounded_up(dtype: torch.dtype) -> None:
    labels = torch.tensor([[[IGNORE, IGNORE]], [[2, IGNORE]]], dtype=dtype)
    chosen = categories_to_mix(labels, torch.tensor([[0, 1, 2]] * 2))
    assert chosen.tolist() == [[False] * 3, [False, False, True]]
    assert class_mask(labels, chosen).tolist() == [[[False, False]], [[True, False]]]


# The mask and the mixture


@given(cases(), st.booleans())
def test_a_mask_has_the_pixels_of_the_chosen_values(case: Case, of_every_value: bool) -> None:
    width = VALUES if of_every_value else case.categories
    chosen = torch.rand(len(case.labels), width, generator=case.generator) < 0.5
    found = class_mask(case.labels, chosen)
    for image, values, mask in zip(
        case.labels.flatten(1).tolist(), chosen.tolist(), found.flatten(1).tolist(), strict=True
    ):
        assert mask == [label < width and values[label] for label in image]


@given(cases())
def test_a_mixture_is_the_source_inside_the_mask_and_the_target_elsewhere(case: Case) -> None:
    mask, other = random_mask(case), case.features.flip(1) + 1
    images, labels = mixed(mask, case.features, other), mixed(mask, case.labels, case.labels + 1)
    for (i, y, x), inside in np.ndenumerate(mask.numpy()):
        assert torch.equal(images[i, :, y, x], (case.features if inside else other)[i, :, y, x])
        assert labels[i, y, x] == (case.labels if inside else case.labels + 1)[i, y, x]
    assert labels.dtype == torch.uint8


# The weight of the target


@given(cases(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_confident_share_counts_the_pixels_of_all_images_together(case: Case, threshold: float) -> None:
    confidence = torch.randint(0, 5, case.labels.shape, generator=case.generator) / 4  # many lie at the threshold
    found = confident_share(confidence, threshold)
    values = confidence.flatten().tolist()
    assert found.total.item() == sum(value >= threshold for value in values) and found.count.item() == len(values)
    parts = [confident_share(image, threshold) for image in confidence.split(1)]
    total, count = (sum(getattr(part, name) for part in parts) for name in ("total", "count"))
    assert total / count == found.mean()


def test_a_share_of_more_pixels_than_float32_counts_is_exact() -> None:
    found = confident_share(torch.ones(1, 1, 2**24 + 1), 0.5)
    assert found.total.item() == 2**24 + 1


# The loss


def brute_weighted(case: Case, weights: Tensor) -> float:
    """The sum of the weighted losses of all labelled pixels."""
    total = 0.0
    for (i, y, x), label in np.ndenumerate(case.labels.numpy()):
        if label != IGNORE:
            vector = case.logits[i, :, y, x].double().tolist()
            total += weights[i, y, x].item() * (math.log(sum(map(math.exp, vector))) - vector[label])
    return total


@given(cases())
def test_the_weighted_loss_adds_labelled_pixels_and_counts_all(case: Case) -> None:
    weights = random_weights(case)
    found, expected = weighted_cross_entropy(case.logits, case.labels, weights), brute_weighted(case, weights)
    assert found.count.item() == case.labels.numel()
    assert found.total.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert found.mean().item() == pytest.approx(expected / case.labels.numel(), rel=1e-5, abs=1e-6)


@given(cases())
def test_the_weighted_loss_adds_up_over_images_and_grows_with_its_weights(case: Case) -> None:
    weights = random_weights(case)
    whole = weighted_cross_entropy(case.logits, case.labels, weights)
    images = zip(case.logits.split(1), case.labels.split(1), weights.split(1), strict=True)
    parts = [weighted_cross_entropy(*image) for image in images]
    assert sum(part.count.item() for part in parts) == whole.count.item()
    assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-5, abs=1e-5)
    twice = weighted_cross_entropy(case.logits, case.labels, 2 * weights)
    torch.testing.assert_close(twice.total, 2 * whole.total)
    plain = weighted_cross_entropy(case.logits, case.labels, torch.ones_like(weights))
    torch.testing.assert_close(plain.total, cross_entropy(case.logits, case.labels).total, rtol=1e-5, atol=1e-5)


def test_the_weighted_loss_of_void_alone_is_zero_with_a_zero_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    found = weighted_cross_entropy(logits, torch.full((1, 2, 2), IGNORE), torch.ones(1, 2, 2))
    (gradient,) = torch.autograd.grad(found.mean(), logits)
    assert found.total.item() == 0.0 and found.count.item() == 4 and not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_a_probability_is_zero(dtype: torch.dtype) -> None:
    logits = torch.tensor([1e4, -1e4], dtype=dtype).view(1, 2, 1, 1).requires_grad_()
    loss = weighted_cross_entropy(logits, torch.ones(1, 1, 1, dtype=torch.uint8), torch.full((1, 1, 1), 0.5)).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 1e4 and gradient.flatten().tolist() == [0.5, -0.5] and gradient.dtype == dtype


def test_the_gradients_of_the_weighted_loss_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[[0, 1, 2], [IGNORE, 1, 0]], [[IGNORE, IGNORE, 2], [2, 2, 0]]], dtype=torch.uint8)
    weights = torch.rand(2, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: weighted_cross_entropy(z, labels, weights).mean(), (logits,))


def test_a_label_that_is_no_category_is_refused() -> None:
    with pytest.raises(IndexError):
        weighted_cross_entropy(
            torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1), 254, dtype=torch.uint8), torch.ones(1, 1, 1)
        )


# Blocks


@given(cases(), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 7), st.integers(0, 7))
def test_a_pixel_stays_where_the_noise_of_its_block_exceeds_the_ratio(
    case: Case, ratio: float, higher: int, wider: int
) -> None:
    noise = torch.randint(0, 5, case.labels.shape, generator=case.generator) / 4  # many lie at the ratio
    n, h, w = noise.shape
    height, width = h + higher, w + wider
    found = block_mask(noise, ratio, (height, width))
    assert found.shape == (n, height, width)
    for (i, y, x), stays in np.ndenumerate(found.numpy()):
        assert stays == (noise[i, y * h // height, x * w // width].item() > ratio)


def test_the_ratio_is_the_share_of_hidden_blocks() -> None:
    noise = torch.rand(4, 100, 100, generator=torch.Generator().manual_seed(0))
    assert 1 - block_mask(noise, 0.7, (200, 300)).float().mean().item() == pytest.approx(0.7, abs=0.01)
    assert not block_mask(noise, 1.0, (100, 100)).any()
