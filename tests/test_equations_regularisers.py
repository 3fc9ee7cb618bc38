"""The losses of target pixels against loops over pixels, what holds for any input, and the public code."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import IGNORE, Case, cases, reorder
from references import assert_golden, golden_tensors, softmaxes
from torch import Tensor

from caguda.equations.losses import LossSum, cross_entropy, objective
from caguda.equations.regularisers import (
    entropy_loss,
    focal_cross_entropy,
    image_wise_max_square_loss,
    max_square_loss,
    negative_entropy_loss,
    power_entropy_loss,
    reverse_cross_entropy_loss,
    soft_label_cross_entropy,
    uniform_divergence_loss,
)

Loss = Callable[[Tensor, Tensor], LossSum]
OfPixel = Callable[[list[float], int], float]


def nats(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p)


def smoothed(labels: Tensor, logits: Tensor) -> Tensor:
    """Soft labels (n c h w): 0.7 and its share of 0.3 for the label, all zero where there is none."""
    labelled, categories = labels != IGNORE, logits.shape[1]
    one_hot = torch.nn.functional.one_hot(labels.where(labelled, 0).long(), categories).movedim(-1, 1)
    one_hot = one_hot.to(torch.promote_types(logits.dtype, torch.float32))
    return (0.7 * one_hot + 0.3 / categories) * labelled[:, None]


OF_ALL_PIXELS: dict[str, tuple[Loss, OfPixel]] = {
    "entropy": (lambda z, _: entropy_loss(z), lambda p, _: nats(p) / math.log(len(p))),
    "entropy to the 4": (
        lambda z, _: power_entropy_loss(z, 2.0), lambda p, _: ((nats(p) / math.log(len(p))) ** 2 + 1e-8) ** 2
    ),
    "root of squared entropy": (
        lambda z, _: power_entropy_loss(z, 0.5), lambda p, _: math.sqrt((nats(p) / math.log(len(p))) ** 2 + 1e-8)
    ),
    "maximum squares": (lambda z, _: max_square_loss(z), lambda p, _: -sum(x * x for x in p) / len(p) / 2),
}  # fmt: skip
OF_LABELLED_PIXELS: dict[str, tuple[Loss, OfPixel]] = {
    "uniform divergence": (uniform_divergence_loss, lambda p, _: -sum(math.log(x) for x in p) / len(p)),
    "negative entropy": (negative_entropy_loss, lambda p, _: -nats(p)),
    "soft labels": (
        lambda z, y: soft_label_cross_entropy(z, smoothed(y, z)),
        lambda p, y: -sum((0.3 / len(p) + 0.7 * (k == y)) * math.log(x) for k, x in enumerate(p)),
    ),
    "reverse cross entropy": (
        reverse_cross_entropy_loss, lambda p, y: -sum(x * math.log(1.0 if k == y else 1e-4) for k, x in enumerate(p))
    ),
    "focal, 2": (lambda z, y: focal_cross_entropy(z, y, 2.0), lambda p, y: -((1 - p[y]) ** 2) * math.log(p[y])),
    "focal, 1/2": (lambda z, y: focal_cross_entropy(z, y, 0.5), lambda p, y: -math.sqrt(1 - p[y]) * math.log(p[y])),
}  # fmt: skip
OF_PIXELS = OF_ALL_PIXELS | OF_LABELLED_PIXELS
LOSSES: dict[str, Loss] = {
    **{name: loss for name, (loss, _) in OF_PIXELS.items()},
    "image-wise": lambda z, _: image_wise_max_square_loss(z, 0.2),
}
"""Tests of all losses draw few cases: each case is one for every loss."""
EVERY = pytest.mark.parametrize("name", LOSSES)


def agree(found: LossSum, terms: list[float]) -> None:
    assert found.count.item() == len(terms) and found.count.dtype == torch.int64
    assert found.total.item() == pytest.approx(sum(terms), rel=1e-9, abs=1e-12)
    assert found.mean().item() == pytest.approx(sum(terms) / max(len(terms), 1), rel=1e-9, abs=1e-12)


@settings(max_examples=12)
@given(cases())
def test_losses_add_the_pixels_that_count(case: Case) -> None:
    pixels = list(zip(softmaxes(case.logits), case.labels.flatten().tolist(), strict=True))
    for name, (loss, of_pixel) in OF_PIXELS.items():
        terms = [of_pixel(p, label) for p, label in pixels if name in OF_ALL_PIXELS or label != IGNORE]
        agree(loss(case.logits.double(), case.labels), terms)


@given(cases(integers=True), st.sampled_from([0.0, 0.2, 1.0]))
def test_image_wise_loss_weighs_every_image_by_its_own_predictions(case: Case, ratio: float) -> None:
    terms = []
    for image in case.logits.split(1):
        vectors = softmaxes(image)
        predicted = [z.index(max(z)) for z in image.flatten(2).mT[0].tolist()]
        shares = {k: predicted.count(k) ** ratio * len(predicted) ** (1 - ratio) for k in predicted}
        squares = [sum(x * x for x in p) / len(p) for p in vectors]
        terms.append(-sum(square / shares[k] for square, k in zip(squares, predicted, strict=True)))
    agree(image_wise_max_square_loss(case.logits.double(), ratio), terms)


@given(cases())
def test_image_wise_loss_of_ratio_0_is_twice_the_plain_one(case: Case) -> None:
    found = image_wise_max_square_loss(case.logits, 0.0).mean()
    torch.testing.assert_close(found, 2 * max_square_loss(case.logits).mean())


def test_image_wise_loss_of_ratio_1_gives_all_predicted_categories_one_weight() -> None:
    logits = 1e4 * torch.nn.functional.one_hot(torch.tensor([[[0, 0, 0, 2]]]), 3).movedim(-1, 1).float()
    assert image_wise_max_square_loss(logits, 1.0).total.item() == pytest.approx(-2 / 3)
    assert image_wise_max_square_loss(logits, 0.5).total.item() == pytest.approx(-(3 / 12**0.5 + 1 / 4**0.5) / 3)


@settings(max_examples=12)
@given(cases())
def test_losses_add_up_over_images(case: Case) -> None:
    logits = case.logits.double()
    for loss in LOSSES.values():
        parts = [loss(*image) for image in zip(logits.split(1), case.labels.split(1), strict=True)]
        whole = loss(logits, case.labels)
        assert sum(part.count.item() for part in parts) == whole.count.item()
        assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-9, abs=1e-12)


@settings(max_examples=12)
@given(cases())
def test_losses_depend_neither_on_order_of_pixels_nor_type_of_labels_nor_a_shift_of_logits(case: Case) -> None:
    order, logits = case.permutation(), case.logits.double()
    labels, shift = case.labels.long(), 5 * torch.randn(logits[:, :1].shape, generator=case.generator)
    for loss in LOSSES.values():
        found = loss(reorder(logits + shift, order), reorder(labels, order))
        plain = loss(logits, case.labels)
        assert found.count == plain.count
        assert found.total.item() == pytest.approx(plain.total.item(), rel=1e-9, abs=1e-12)


@settings(max_examples=12)
@given(cases())
def test_pixels_without_a_label_have_no_gradient_and_alone_a_loss_of_zero(case: Case) -> None:
    logits = case.logits.clone().requires_grad_()
    for loss, _ in OF_LABELLED_PIXELS.values():
        (gradient,) = torch.autograd.grad(loss(logits, case.labels).total, logits)
        assert torch.equal((gradient != 0).any(dim=1), case.labels != IGNORE)
        found = loss(logits, torch.full_like(case.labels, IGNORE))
        (gradient,) = torch.autograd.grad(found.mean(), logits)
        assert found.count.item() == 0 and found.total.item() == 0.0 and found.mean().item() == 0.0
        assert not gradient.any()


LABELS = torch.tensor([[[0, 1, 2], [255, 1, 0]], [[255, 255, 2], [2, 2, 0]]], dtype=torch.uint8)


@EVERY
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, LABELS).mean(), (logits,))


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_are_finite_where_probabilities_reach_zero_and_one(name: str, dtype: torch.dtype) -> None:
    columns = [[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4], [30.0, 0.0, -200.0], [0.0, 0.0, 0.0]]
    logits = torch.tensor(columns, dtype=dtype).T.reshape(1, 3, 1, 4).repeat(1, 1, 3, 1).requires_grad_()
    labels = torch.arange(3, dtype=torch.uint8)[None, :, None].repeat(1, 1, 4)
    found = LOSSES[name](logits, labels)
    (gradient,) = torch.autograd.grad(found.mean(), logits)
    assert found.total.dtype == dtype
    assert found.total.isfinite() and gradient.isfinite().all()


@EVERY
def test_losses_take_tensors_without_values(name: str) -> None:
    """As they are followed to plan an experiment; a tensor of another device would be refused."""
    logits = torch.zeros(2, 3, 4, 5, device="meta", requires_grad=True)
    found = LOSSES[name](logits, torch.zeros(2, 4, 5, dtype=torch.uint8, device="meta"))
    assert found.total.is_meta and found.total.shape == () and found.count.is_meta
    (gradient,) = torch.autograd.grad(found.mean(), logits)
    assert gradient.shape == logits.shape


@EVERY
def test_sums_of_narrow_types_do_not_overflow(name: str) -> None:
    labels = torch.zeros(1, 400, 400, dtype=torch.uint8)
    found = LOSSES[name](torch.zeros(1, 2, 400, 400, dtype=torch.float16), labels)
    expected = LOSSES[name](torch.zeros(1, 2, 400, 400, dtype=torch.float64), labels)
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "uniform", "certain"),
    [
        ("entropy", 1.0, 0.0),
        ("entropy to the 4", 1.0, 1e-16),
        ("root of squared entropy", 1.0, 1e-4),
        ("maximum squares", -1 / 32, -1 / 8),
        ("negative entropy", -math.log(4), 0.0),
        ("reverse cross entropy", 0.75 * math.log(1e4), math.log(1e4)),
        ("focal, 2", 0.75**2 * math.log(4), 1e4),
        ("image-wise", -1 / 16, -1 / 4),
    ],
)
def test_losses_of_equal_and_of_certain_wrong_predictions(name: str, uniform: float, certain: float) -> None:
    labels, logits = torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 4, 2, 2)
    assert LOSSES[name](logits, labels).mean().item() == pytest.approx(uniform, rel=1e-5)
    logits[:, 3] = 1e4
    assert LOSSES[name](logits, labels).mean().item() == pytest.approx(certain, rel=1e-5)


@pytest.mark.parametrize("name", ["reverse cross entropy", "focal, 2", "focal, 1/2"])
def test_certain_right_predictions_have_no_loss(name: str) -> None:
    logits = torch.tensor([1e4, 0.0, 0.0]).view(1, 3, 1, 1)
    assert LOSSES[name](logits, torch.zeros(1, 1, 1, dtype=torch.uint8)).total.item() == 0.0


@given(cases())
def test_divergence_is_least_and_log_c_where_all_categories_are_equal(case: Case) -> None:
    labels = torch.zeros_like(case.labels)
    least = uniform_divergence_loss(torch.zeros_like(case.logits), labels).mean().item()
    assert least == pytest.approx(math.log(case.categories))
    assert uniform_divergence_loss(case.logits, labels).mean().item() >= least - 1e-6


@given(cases())
def test_relations_to_the_cross_entropy(case: Case) -> None:
    logits, labels = case.logits.double(), case.labels
    plain = cross_entropy(logits, labels)
    labelled = labels != IGNORE
    one_hot = torch.nn.functional.one_hot(labels.where(labelled, 0).long(), case.categories).movedim(-1, 1)
    soft = soft_label_cross_entropy(logits, (one_hot * labelled[:, None]).double())
    for found in (focal_cross_entropy(logits, labels, 0.0), soft):
        assert found.count == plain.count
        torch.testing.assert_close(found.total, plain.total)
    assert focal_cross_entropy(logits, labels, 2.0).total <= plain.total


@pytest.mark.parametrize("name", ["reverse cross entropy", "focal, 2"])
def test_a_label_that_is_no_category_is_refused(name: str) -> None:
    with pytest.raises(IndexError):
        LOSSES[name](torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1), 254, dtype=torch.uint8))


Value = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""A loss of the arrays of a golden file at some logits."""


def crst(arrays: Mapping[str, Tensor], logits: Tensor, alpha: float) -> Tensor:
    """Cross entropy on all labels, and MRKLD on those of target images."""
    labels, is_target = arrays["label"], arrays["is_target"].bool()
    of_target = labels.where(is_target[:, None, None], IGNORE)
    return cross_entropy(logits, labels).mean() + alpha * uniform_divergence_loss(logits, of_target).mean()


def everywhere(logits: Tensor) -> Tensor:
    """A label at every pixel."""
    return torch.zeros_like(logits[:, 0], dtype=torch.uint8)


def stage1_label_loss(arrays: Mapping[str, Tensor], logits: Tensor) -> Tensor:
    """ProDA's loss of rectified labels."""
    terms = {
        "sce_alpha": cross_entropy(logits, arrays["rectified_label"]).mean(),
        "sce_beta": reverse_cross_entropy_loss(logits, arrays["rectified_label"]).mean(),
        "mrkld_weight": uniform_divergence_loss(logits, everywhere(logits)).mean(),
    }
    return objective(terms, {name: arrays[name].item() for name in terms})


PUBLIC: dict[tuple[str, str, str], Value] = {
    ("advent", "entropy_loss", "target_logits"): lambda a, z: entropy_loss(z).mean(),
    ("advent", "seg_loss_source", "source_logits"): lambda a, z: cross_entropy(z, a["source_label"]).mean(),
    ("adaptsegnet", "seg_loss_source", "source_logits"): lambda a, z: cross_entropy(z, a["source_label"]).mean(),
    ("clan", "focal_cross_entropy_gamma2", "logits1"): lambda a, z: focal_cross_entropy(z, a["label"], 2.0).mean(),
    ("maxsquare", "max_square", "logits"): lambda a, z: max_square_loss(z).mean(),
    # Its image-wise weights are right for one image; it takes the mean over categories and nats for the entropy.
    ("maxsquare", "iw_max_square", "logits"): lambda a, z: image_wise_max_square_loss(z[:1], a["ratio"].item()).mean(),
    ("maxsquare", "entropy_mean_over_channels", "logits"): lambda a, z: (
        entropy_loss(z).mean() * math.log(z.shape[1]) / z.shape[1]
    ),
    ("crst", "loss_ce_only", "logits"): lambda a, z: crst(a, z, 0.0),
    ("crst", "loss_mrkld_weight_once", "logits"): lambda a, z: crst(a, z, a["mr_weight_kld"].item()),
    ("crst", "loss_mrkld_as_released", "logits"): lambda a, z: crst(a, z, a["mr_weight_kld"].item() ** 2),
    ("crst", "loss_soft_label", "logits"): lambda a, z: soft_label_cross_entropy(z, a["soft_label"]).mean(),
    ("fda", "charbonnier_entropy_loss", "entropy_logits"): lambda a, z: power_entropy_loss(z, a["eta"].item()).mean(),
    ("proda", "cross_entropy", "student_logits"): lambda a, z: cross_entropy(z, a["rectified_label"]).mean(),
    ("proda", "reverse_cross_entropy", "student_logits"): lambda a, z: reverse_cross_entropy_loss(
        z, a["rectified_label"]
    ).mean(),
    ("proda", "regular_mrkld", "student_logits"): lambda a, z: uniform_divergence_loss(z, everywhere(z)).mean(),
    ("proda", "regular_mrent", "student_logits"): lambda a, z: negative_entropy_loss(z, everywhere(z)).mean(),
    ("proda", "stage1_label_loss", "student_logits"): stage1_label_loss,
    # DISE's cross entropy divides by all pixels, those without a label too.
    ("dise", "cross_entropy_void_in_the_mean", "logits"): lambda a, z: (
        cross_entropy(z, a["label"]).total / a["label"].numel()
    ),
}
GRADIENTS = {
    "entropy_loss": "entropy_loss_grad_logits",
    "focal_cross_entropy_gamma2": "focal_cross_entropy_grad_logits1",
}
WITHOUT_GRADIENT = {"seg_loss_source", "cross_entropy", "reverse_cross_entropy", "regular_mrkld", "regular_mrent",
                    "cross_entropy_void_in_the_mean"}  # fmt: skip


@pytest.mark.parametrize(("system", "name", "logits"), PUBLIC, ids="-".join)
def test_losses_and_gradients_are_those_of_the_public_code(system: str, name: str, logits: str) -> None:
    arrays = golden_tensors(system)
    inputs = arrays[logits].requires_grad_()
    found = PUBLIC[system, name, logits](arrays, inputs)
    assert_golden(found, arrays[name])
    if name not in WITHOUT_GRADIENT:
        (gradient,) = torch.autograd.grad(found, inputs)
        assert_golden(gradient, arrays[GRADIENTS.get(name, f"{name}_grad")])
