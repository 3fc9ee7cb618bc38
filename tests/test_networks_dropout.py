"""Dropout that draws its random numbers by seed, iteration, layer, call and sample."""

import pytest
import torch
from torch import Tensor, nn

from caguda.networks.layers.dropout import Noise, SampleDropout, draw_by_sample, seed_of

P = 0.3


def network(noise: Noise) -> nn.Sequential:
    module = nn.Sequential(nn.Dropout(P), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout2d(P)))
    nn.init.eye_(module[1][0].weight[:, :, 0, 0])
    nn.init.zeros_(module[1][0].bias)
    draw_by_sample(module, "network", noise)
    return module


def outputs(noise: Noise, images: Tensor) -> Tensor:
    return network(noise)(images)


IMAGES = torch.ones(4, 3, 20, 30)


def test_a_part_of_the_batch_is_as_in_the_whole_batch() -> None:
    """Two processes with two samples each draw what one process with all four draws."""
    whole = outputs(Noise(seed=5), IMAGES)
    parts = [outputs(Noise(seed=5, rank=rank), IMAGES[:2]) for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)


def test_seed_iteration_call_layer_and_sample_all_count() -> None:
    drawn = []
    for seed in (0, 1):
        for iteration in (3, 4):
            noise = Noise(seed)
            noise.begin(iteration)
            module = network(noise)[0]
            drawn += [*module(IMAGES[:2]), *module(IMAGES[:2])]
    drawn.append(outputs(Noise(0), IMAGES[:1])[0])
    assert len({tuple(values.flatten().tolist()) for values in drawn}) == len(drawn)
    assert len({seed_of(*parts) for parts in ((1, 2), (12,), (2, 1), ("1", 2))}) == 4


def test_an_iteration_draws_the_same_again() -> None:
    noise = Noise(seed=1)
    module = network(noise)
    noise.begin(7)
    first = [module(IMAGES), module(IMAGES)]
    noise.begin(8)
    assert not torch.equal(module(IMAGES), first[0])
    noise.begin(7)
    assert all(torch.equal(module(IMAGES), values) for values in first)


def test_values_are_dropped_with_the_probability_and_the_mean_stays() -> None:
    values = network(Noise(0))[0](torch.ones(2, 8, 100, 100))
    assert values.unique().tolist() == pytest.approx([0.0, 1 / (1 - P)])
    assert float((values == 0).float().mean()) == pytest.approx(P, abs=0.01)
    assert float(values.mean()) == pytest.approx(1, abs=0.02)


def test_channels_are_dropped_as_a_whole() -> None:
    values = network(Noise(0))[1](torch.ones(50, 3, 4, 5)).flatten(2)
    assert torch.equal(values.amin(2), values.amax(2))
    assert 0.2 < float((values[..., 0] == 0).float().mean()) < 0.4


def test_gradients_are_those_of_the_kept_values() -> None:
    values = torch.ones(2, 3, 4, 5, requires_grad=True)
    dropped = network(Noise(0))[0](values)
    dropped.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, dropped.detach())


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_none_and_all(p: float) -> None:
    module = nn.Sequential(nn.Dropout(p))
    draw_by_sample(module, "network", Noise(0))
    assert torch.equal(module(IMAGES), IMAGES * (1 - p))


def test_evaluation_drops_nothing_and_no_global_random_number_is_drawn() -> None:
    module = network(Noise(0))
    before = torch.get_rng_state()
    module(IMAGES)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(module.eval()(IMAGES), IMAGES)
    assert [*module.state_dict()] == ["1.0.weight", "1.0.bias"]


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_a_layer_in_two_places_is_replaced_in_both(kind: type[nn.Module]) -> None:
    shared = kind(0.5)
    network = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))
    draw_by_sample(network, "network", Noise(0))
    assert [type(part[0]) for part in network] == [SampleDropout] * 2
    assert network[0][0].layer != network[1][0].layer
