"""The losses of adversarial alignment against loops over positions, what holds for any input, and the public code."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from method_cases import Case, cases
from references import assert_golden, golden_tensors, named, softmaxes
from torch import Tensor

from caguda.equations.adversary import (
    ADVERSARIES,
    adversarial_loss,
    classifier_similarity,
    discriminator_loss,
    least_squares_adversarial_loss,
    least_squares_discriminator_loss,
    prediction_discrepancy,
    self_information,
    weighted_adversarial_loss,
    weighted_discriminator_loss,
)

EXTREME = torch.tensor([1e4, -1e4, 0.0, 1e-3, 60.0, -60.0]).view(1, 3, 1, 2)


def surprise(logit: float, source: bool) -> float:
    """- log of the probability that a logit gives to the truth."""
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if source else 1 - probability)


logits = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=6)


@given(logits, logits)
def test_adversarial_losses_are_mean_surprises(source: list[float], target: list[float]) -> None:
    d_source, d_target = (torch.tensor(values).view(1, 1, 1, -1) for values in (source, target))
    deceived = [surprise(logit, source=True) for logit in target]
    told_source = [surprise(logit, source=True) for logit in source]
    told_target = [surprise(logit, source=False) for logit in target]
    expected = (sum(told_source) / len(source) + sum(told_target) / len(target)) / 2
    assert adversarial_loss(d_target).item() == pytest.approx(sum(deceived) / len(target), rel=1e-4)
    assert discriminator_loss(d_source, d_target).item() == pytest.approx(expected, rel=1e-4)


def test_adversarial_losses_at_chance_and_without_overflow() -> None:
    chance = torch.zeros(2, 1, 3, 3)
    assert adversarial_loss(chance).item() == pytest.approx(math.log(2))
    assert discriminator_loss(chance, chance).item() == pytest.approx(math.log(2))
    certain = torch.full((1, 1, 1, 1), 1e4)
    assert discriminator_loss(certain, -certain).item() == 0.0
    assert adversarial_loss(-certain).item() == 1e4


def test_the_two_players_pull_target_logits_in_opposite_directions() -> None:
    target = torch.tensor([0.3, -0.7]).view(1, 1, 1, 2).requires_grad_()
    (network,) = torch.autograd.grad(adversarial_loss(target), target)
    (discriminator,) = torch.autograd.grad(discriminator_loss(torch.zeros(1, 1, 1, 1), target), target)
    assert (network < 0).all() and (discriminator > 0).all()


@given(logits, logits)
def test_least_squares_losses_are_mean_squared_differences(source: list[float], target: list[float]) -> None:
    d_source, d_target = (torch.tensor(values).view(1, 1, 1, -1) for values in (source, target))
    deceived = sum((d - 0) ** 2 for d in target) / len(target)
    told = (sum((d - 0) ** 2 for d in source) / len(source) + sum((d - 1) ** 2 for d in target) / len(target)) / 2
    assert least_squares_adversarial_loss(d_target).item() == pytest.approx(deceived, rel=1e-5)
    assert least_squares_discriminator_loss(d_source, d_target).item() == pytest.approx(told, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "chance", "loss"), [("cross_entropy", 0.0, math.log(2)), ("least_squares", 0.5, 0.25)]
)
def test_objectives_by_name_have_one_loss_of_both_players_at_chance(name: str, chance: float, loss: float) -> None:
    network, discriminator = ADVERSARIES[name]
    maps = torch.full((2, 1, 3, 3), chance)
    assert network(maps).item() == pytest.approx(loss) and discriminator(maps, maps).item() == pytest.approx(loss)


@given(cases())
def test_self_information_is_that_of_every_category(case: Case) -> None:
    expected = [[-p * math.log(p) / math.log(len(vector)) for p in vector] for vector in softmaxes(case.logits)]
    found = self_information(case.logits.double())
    assert found.shape == case.logits.shape
    torch.testing.assert_close(found.flatten(2).mT.flatten(0, 1), torch.tensor(expected, dtype=torch.float64))
    assert (found >= 0).all() and (found.sum(dim=1) <= 1 + 1e-12).all()


def test_self_information_of_equal_and_of_certain_predictions() -> None:
    torch.testing.assert_close(self_information(torch.zeros(1, 5, 1, 1)), torch.full((1, 5, 1, 1), 0.2))
    assert not self_information(torch.tensor([1e4, 0.0, -1e4]).view(1, 3, 1, 1)).any()


def brute_discrepancy(first: Tensor, second: Tensor) -> list[float]:
    """1 - the cosine of the softmax vectors of every pixel."""
    return [
        1 - sum(p * q for p, q in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
        for one, other in zip(softmaxes(first), softmaxes(second), strict=True)
    ]


def pair_of(case: Case) -> tuple[Tensor, Tensor]:
    """The logits of two classifiers."""
    other = case.logits + 2 * torch.randn(case.logits.shape, generator=case.generator)
    return case.logits.double(), other.double()


@given(cases())
def test_prediction_discrepancy_is_one_minus_the_cosine(case: Case) -> None:
    first, second = pair_of(case)
    found = prediction_discrepancy(first, second)
    assert found.shape == (len(first), 1, *first.shape[2:])
    assert found.flatten().tolist() == pytest.approx(brute_discrepancy(first, second), abs=1e-14)
    assert torch.equal(found, prediction_discrepancy(second, first))
    assert (found >= 0).all() and (found <= 1 + 1e-14).all()
    images = [prediction_discrepancy(*image) for image in zip(first.split(1), second.split(1), strict=True)]
    torch.testing.assert_close(torch.cat(images), found, rtol=1e-12, atol=1e-15)


@given(cases())
def test_equal_predictions_have_no_discrepancy_and_no_gradient(case: Case) -> None:
    first, second = case.logits.clone().requires_grad_(), case.logits.clone().requires_grad_()
    found = prediction_discrepancy(first, second)
    assert not found.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(found.sum(), (first, second)))


def test_certain_predictions_of_two_categories_have_discrepancy_one() -> None:
    first, second = (torch.tensor(values).view(1, 2, 1, 1) for values in ([1e4, -1e4], [-1e4, 1e4]))
    assert prediction_discrepancy(first, second).item() == pytest.approx(1.0)


factors = st.sampled_from([0.0, 0.4, 1.0, 40.0])


@given(logits, st.integers(0, 2**31), factors, factors)
def test_weighted_losses_weigh_every_position(d_values: list[float], seed: int, epsilon: float, local: float) -> None:
    d_target = torch.tensor(d_values, dtype=torch.float64).view(1, 1, 1, -1)
    discrepancy = torch.rand(d_target.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = [epsilon + local * m for m in discrepancy.flatten().tolist()]
    deceived, told = (
        [surprise(d, source) * weight for d, weight in zip(d_values, weights, strict=True)] for source in (True, False)
    )
    d_source = torch.full((2, 1, 2, 2), 0.3, dtype=torch.float64)
    found = weighted_adversarial_loss(d_target, discrepancy, epsilon, local)
    assert found.item() == pytest.approx(sum(deceived) / len(deceived), rel=1e-9)
    found = weighted_discriminator_loss(d_source, d_target, discrepancy, epsilon, local)
    assert found.item() == pytest.approx((surprise(0.3, source=True) + sum(told) / len(told)) / 2, rel=1e-9)


@given(logits, logits)
def test_weights_of_one_leave_the_losses_as_they_are(source: list[float], target: list[float]) -> None:
    d_source, d_target = (torch.tensor(values).view(1, 1, 1, -1) for values in (source, target))
    map_of_nothing = torch.full_like(d_target, 0.7)
    assert torch.equal(weighted_adversarial_loss(d_target, map_of_nothing, 1.0, 0.0), adversarial_loss(d_target))
    found = weighted_discriminator_loss(d_source, d_target, map_of_nothing, 1.0, 0.0)
    assert torch.equal(found, discriminator_loss(d_source, d_target))


values = st.floats(-3, 3, width=32).filter(lambda value: abs(value) > 1e-2)
weights = st.tuples(st.lists(values, min_size=4, max_size=4), st.lists(values, min_size=2, max_size=2))


@given(weights, weights)
def test_classifier_similarity_is_the_cosine_of_all_weights_plus_one(
    one: tuple[list[float], list[float]], other: tuple[list[float], list[float]]
) -> None:
    u, v = one[0] + one[1], other[0] + other[1]
    cosine = sum(x * y for x, y in zip(u, v, strict=True)) / (math.hypot(*u) * math.hypot(*v))
    first, second = (
        [torch.tensor(parts[0], dtype=torch.float64).view(2, 2, 1, 1), torch.tensor(parts[1], dtype=torch.float64)]
        for parts in (one, other)
    )
    assert classifier_similarity(first, second).item() == pytest.approx(cosine + 1, abs=1e-12)
    assert classifier_similarity(first, [7 * weight for weight in first]).item() == pytest.approx(2.0)
    assert classifier_similarity(first, [-weight for weight in first]).item() == pytest.approx(0.0, abs=1e-12)


def test_the_similarity_to_a_classifier_of_zeros_is_one_with_a_finite_gradient() -> None:
    zeros, ones = torch.zeros(3, 2, requires_grad=True), torch.ones(3, 2)
    found = classifier_similarity([zeros], [ones])
    (gradient,) = torch.autograd.grad(found, zeros)
    assert found.item() == 1.0 and gradient.isfinite().all()


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    first, second = (torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    source, target, discrepancy = (torch.rand(2, 1, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(self_information, (first,))
    assert torch.autograd.gradcheck(prediction_discrepancy, (first, second))
    assert torch.autograd.gradcheck(lambda one, other: classifier_similarity([one], [other]), (first, second))
    for network, discriminator in (
        *ADVERSARIES.values(),
        (
            lambda d: weighted_adversarial_loss(d, discrepancy, 0.4, 40.0),
            lambda s, d: weighted_discriminator_loss(s, d, discrepancy, 0.4, 40.0),
        ),
    ):
        assert torch.autograd.gradcheck(network, (target,))
        assert torch.autograd.gradcheck(discriminator, (source, target))
    weighted = partial(weighted_adversarial_loss, epsilon=0.4, local=40.0)
    assert torch.autograd.gradcheck(weighted, (target, discrepancy))


def test_gradients_are_finite_where_probabilities_reach_zero_and_one() -> None:
    maps = EXTREME.clone().requires_grad_()
    for found in (
        self_information(maps).sum(),
        prediction_discrepancy(maps, -maps.detach()).sum(),
        prediction_discrepancy(maps, maps.detach()).sum(),
        adversarial_loss(maps[:, :1]),
        weighted_adversarial_loss(maps[:, :1], prediction_discrepancy(maps, maps.flip(1)), 0.4, 40.0),
    ):
        (gradient,) = torch.autograd.grad(found, maps)
        assert found.isfinite() and gradient.isfinite().all()


def test_losses_take_tensors_without_values() -> None:
    """As they are followed to plan an experiment; a tensor of another device would be refused."""
    logits, d = torch.zeros(2, 3, 4, 5, device="meta"), torch.zeros(2, 1, 4, 5, device="meta")
    discrepancy = prediction_discrepancy(logits, self_information(logits))
    assert discrepancy.is_meta and discrepancy.shape == d.shape
    for found in (
        *(loss for network, discriminator in ADVERSARIES.values() for loss in (network(d), discriminator(d, d))),
        weighted_adversarial_loss(d, discrepancy, 0.4, 40.0),
        weighted_discriminator_loss(d, d, discrepancy, 0.4, 40.0),
        classifier_similarity([logits, d], [logits, d]),
    ):
        assert found.is_meta and found.shape == ()


def discriminated(layers: list[Tensor], maps: Tensor) -> Tensor:
    """The output of the discriminator of AdaptSegNet and AdvEnt: weight and bias of convolutions 4x4 of stride 2."""
    pairs = list(zip(layers[::2], layers[1::2], strict=True))
    for weight, bias in pairs[:-1]:
        maps = F.leaky_relu(F.conv2d(maps, weight, bias, stride=2, padding=1), 0.2)
    return F.conv2d(maps, *pairs[-1], stride=2, padding=1)


@pytest.mark.parametrize(
    ("system", "objective", "suffix"),
    [
        ("advent", "cross_entropy", ""),
        ("adaptsegnet", "cross_entropy", "_vanilla"),
        ("adaptsegnet", "least_squares", "_ls"),
    ],
)
def test_both_players_have_the_losses_and_gradients_of_the_public_code(
    system: str, objective: str, suffix: str
) -> None:
    arrays = golden_tensors(system)
    network, discriminator = ADVERSARIES[objective]
    sign, certain = (
        (-1, torch.full((1, 1, 1, 1), 1e4)) if objective == "cross_entropy" else (1, torch.zeros(1, 1, 1, 1))
    )
    seen = self_information if system == "advent" else partial(torch.softmax, dim=1)
    layers = list(named(arrays, "D.").values())
    logits = arrays["target_logits"].requires_grad_()
    d_target = discriminated(layers, seen(logits))
    assert_golden(d_target, arrays["d_target"])
    loss = network(sign * d_target)
    assert_golden(loss, arrays[f"adv_loss{suffix}"])
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_golden(gradient, arrays[f"adv_loss{suffix}_grad_logits"])
    d_source = discriminated(layers, seen(arrays["source_logits"]))
    d_target = discriminated(layers, seen(logits.detach()))
    of_source = discriminator(sign * d_source, -certain if objective == "cross_entropy" else certain + 1)
    of_target = discriminator(certain, sign * d_target)
    assert_golden(of_source, arrays[f"d_loss_source_half{suffix}"])
    assert_golden(of_target, arrays[f"d_loss_target_half{suffix}"])
    gradients = torch.autograd.grad(discriminator(sign * d_source, sign * d_target), layers)
    for found, expected in zip(gradients, named(arrays, f"Dgrad{suffix}.").values(), strict=True):
        assert_golden(found, expected.detach())


def test_self_information_is_that_of_the_public_code() -> None:
    arrays = golden_tensors("advent")
    assert_golden(self_information(arrays["target_logits"]), arrays["self_information"])


@pytest.mark.parametrize("label", ["source", "target"])
def test_clan_weighs_by_the_discrepancy_as_its_public_code(label: str) -> None:
    arrays = golden_tensors("clan")
    inputs = [arrays[name].requires_grad_() for name in ("discriminator_logits", "logits1", "logits2")]
    d_of_target, first, second = inputs
    discrepancy = prediction_discrepancy(first, second)
    assert_golden(discrepancy, arrays["weight_map"])
    weighting = discrepancy, arrays["epsilon"].item(), arrays["lambda_local"].item()
    if label == "source":
        found = weighted_adversarial_loss(-d_of_target, *weighting)
    else:
        found = 2 * weighted_discriminator_loss(torch.full((1, 1, 1, 1), 1e4), -d_of_target, *weighting)
    assert_golden(found, arrays[f"weighted_bce_as_{label}"])
    for gradient, name in zip(torch.autograd.grad(found, inputs), ("d", "logits1", "logits2"), strict=True):
        assert_golden(gradient, arrays[f"weighted_bce_as_{label}_grad_{name}"])


def test_clan_has_the_similarity_of_its_public_code() -> None:
    arrays = golden_tensors("clan")
    first, second = (list(named(arrays, name).values()) for name in ("layer5.", "layer6."))
    factor = 2 * arrays["weight_loss_lambda"].item() * arrays["weight_loss_damping"].item()
    found = factor * classifier_similarity(first, second)
    assert_golden(found, arrays["weight_loss"])
    expected = named(arrays, "weight_loss_grad.layer5.").values()
    for gradient, wanted in zip(torch.autograd.grad(found, first), expected, strict=True):
        assert_golden(gradient, wanted.detach())


def test_two_logits_of_a_discriminator_are_one_by_their_difference() -> None:
    """CyCADA's discriminator has a logit for each domain, the second for source; both domains have as many pixels."""
    arrays = golden_tensors("cycada")
    layers = list(named(arrays, "D.D.").values())

    def both_logits(maps: Tensor) -> Tensor:
        pairs = list(zip(layers[::2], layers[1::2], strict=True))
        for weight, bias in pairs[:-1]:
            maps = F.conv2d(maps, weight, bias).relu()
        return F.conv2d(maps, *pairs[-1])

    score = arrays["target_score"].requires_grad_()
    source, target = both_logits(arrays["source_score"]), both_logits(score)
    assert_golden(source, arrays["d_source"])
    assert_golden(target, arrays["d_target"])
    d_source, d_target = (maps[:, 1:] - maps[:, :1] for maps in (source, target))
    assert_golden(discriminator_loss(d_source, d_target), arrays["d_loss"])
    found = adversarial_loss(d_target)
    assert_golden(found, arrays["g_loss"])
    (gradient,) = torch.autograd.grad(found, score)
    assert_golden(gradient, arrays["g_loss_grad_score"])
