"""The warm-up's adversarial losses and the schedule of the learning rate."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caguda.equations.schedule import poly
from caguda.equations.warmup import adversarial_loss, discriminator_loss


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


def test_adversarial_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    source, target = (torch.randn(2, 1, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(adversarial_loss, (target,))
    assert torch.autograd.gradcheck(discriminator_loss, (source, target))


def test_the_two_players_pull_target_logits_in_opposite_directions() -> None:
    target = torch.tensor([0.3, -0.7]).view(1, 1, 1, 2).requires_grad_()
    (network,) = torch.autograd.grad(adversarial_loss(target), target)
    (discriminator,) = torch.autograd.grad(discriminator_loss(torch.zeros(1, 1, 1, 1), target), target)
    assert (network < 0).all() and (discriminator > 0).all()


@given(st.integers(1, 1000), st.floats(0.1, 3))
def test_poly_falls_from_one_to_zero(iterations: int, power: float) -> None:
    factors = [poly(iteration, iterations, power) for iteration in range(iterations + 1)]
    assert factors[0] == 1.0 and factors[-1] == 0.0
    assert all(later < earlier for earlier, later in pairwise(factors))


def test_poly_has_known_values() -> None:
    assert poly(75, 100, 0.5) == pytest.approx(0.5)
    assert poly(1, 4, 2.0) == pytest.approx(0.5625)
    assert poly(3, 4, 0.0) == 1.0


@pytest.mark.parametrize("iteration", [-1, 11])
def test_poly_refuses_an_iteration_outside_the_run(iteration: int) -> None:
    with pytest.raises(AssertionError, match=r"0\.\.10"):
        poly(iteration, 10, 0.9)
