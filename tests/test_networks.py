"""The network, the discriminator and what is done to batch normalisation."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from caguda.configfile import load_configuration
from caguda.networks.layers.batch_norm import batch_norms, estimate_statistics, freeze
from caguda.networks.layers.discriminator import discriminator

DEMO = Path(__file__).parents[1] / "config" / "demo.yaml"


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    settings = load_configuration(DEMO).network.model_copy(update={"width": 4, "feature_channels": 12})
    return settings.build(5)


def quarter(size: int) -> int:
    return -(-size // 4)


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (31, 62), (30, 29), (8, 8), (5, 9), (1, 1)])
def test_features_and_logits_are_at_stride_4_for_any_size(network: nn.Module, size: tuple[int, int]) -> None:
    features, logits, _ = network.eval()(torch.randn(2, 3, *size))
    at = (quarter(size[0]), quarter(size[1]))
    assert features.shape == (2, 12, *at) and logits.shape == (2, 5, *at)


def test_features_are_what_the_classifier_sees_and_not_negative(network: nn.Module) -> None:
    features, logits, _ = network(torch.randn(2, 3, 32, 48))
    assert float(features.detach().min()) == 0 < float(features.detach().max())
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    (classifier,) = (module for module in convolutions if module.bias is not None)
    weight, bias = classifier.weight[:, :, 0, 0], classifier.bias
    assert bias is not None
    torch.testing.assert_close(logits, torch.einsum("ndhw,cd->nchw", features, weight) + bias[:, None, None])


def test_a_feature_depends_on_the_pixels_around_its_own_place(network: nn.Module) -> None:
    images = torch.randn(1, 3, 64, 640, requires_grad=True)
    network.eval()
    for norm in batch_norms(network):
        nn.init.ones_(norm.bias)
    network(images)[0][0, :, 10, 16].sum().backward()
    assert images.grad is not None
    strength = images.grad.abs().sum((0, 1))
    row, column = divmod(int(strength.flatten().argmax()), 640)
    assert abs(row - 40) <= 4 and abs(column - 64) <= 4
    seen = strength.any(0).nonzero().flatten()
    assert int(seen[0]) < 32 and 96 < int(seen[-1]) < 320, "context, and from its own side of the image"


def test_the_demo_network_has_the_documented_number_of_parameters() -> None:
    demo = load_configuration(DEMO).network
    w, d, c = demo.width, demo.feature_channels, 19
    assert (w, d, demo.blocks) == (16, 64, (1, 1, 2, 1))

    def block(inputs: int, outputs: int, shortcut: bool) -> int:
        convolutions = 9 * inputs * outputs + 9 * outputs * outputs + shortcut * inputs * outputs
        return convolutions + (4 + 2 * shortcut) * outputs

    encoder = (27 * w + 2 * w) + block(w, w, True) + block(w, 2 * w, True) + block(2 * w, 4 * w, True)
    encoder += 2 * block(4 * w, 4 * w, False)
    transformer = 4 * 9 * 4 * w * d + 2 * d + 9 * (d + w) * d + 2 * d
    expected = encoder + transformer + d * c + c
    assert sum(weight.numel() for weight in demo.build(c).parameters()) == expected == 420_675


def test_the_discriminator_is_the_papers() -> None:
    layers = list(discriminator(19, 64))
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256, 512, 1]
    assert [layer.in_channels for layer in convolutions] == [19, 64, 128, 256, 512]
    assert {(layer.kernel_size, layer.stride) for layer in convolutions} == {((3, 3), (2, 2))}
    activations = [type(layer) for layer in layers[1::2]]
    assert activations == [nn.ReLU, nn.ReLU, nn.ReLU, nn.LeakyReLU] and len(layers) == 9
    assert isinstance(layers[7], nn.LeakyReLU) and layers[7].negative_slope == 0.2


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 16), (32, 64), (33, 65)])
def test_the_discriminator_judges_patches_of_any_map(size: tuple[int, int]) -> None:
    judged = discriminator(4, 2)(torch.rand(2, 4, *size))
    assert judged.shape == (2, 1, -(-size[0] // 32), -(-size[1] // 32))
    assert bool(judged.isfinite().all())


def train_a_little(network: nn.Module) -> None:
    optimiser = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], lr=0.1)
    for _ in range(3):
        logits = network(torch.randn(2, 3, 16, 16) + 2).logits
        functional.cross_entropy(logits, torch.ones(2, 4, 4, dtype=torch.long)).backward()
        optimiser.step()
        optimiser.zero_grad()


def state_of(modules: list[nn.Module]) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def is_unchanged(modules: list[nn.Module], before: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, state_of(modules), strict=True))


@pytest.mark.parametrize("change", [freeze, lambda network: None])
def test_frozen_batch_normalisation_alone_stays_as_it_is(
    network: nn.Module, change: Callable[[nn.Module], None]
) -> None:
    norms: list[nn.Module] = list(batch_norms(network))
    convolutions: list[nn.Module] = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(norms) == 16
    network.train()
    change(network)
    before, weights = state_of(norms), state_of(convolutions)
    train_a_little(network)
    assert is_unchanged(norms, before) == (change is freeze)
    assert not is_unchanged(convolutions, weights) and network.training


def test_statistics_are_those_of_all_values_of_all_images() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.3)
    nn.init.constant_(norm.weight, 1.5)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean += 7
    weights = [weight.clone() for weight in norm.parameters()]
    batches = [torch.randn(n, 3, 4, 5, dtype=torch.float32) * (k + 1) + k for k, n in enumerate((4, 4, 1))]
    estimate_statistics(norm, iter(batches))
    for channel in range(3):
        values = [float(value) for batch in batches for value in batch[:, channel].flatten()]
        mean, variance = statistics.fmean(values), statistics.variance(values)
        assert float(norm.running_mean[channel]) == pytest.approx(mean, rel=1e-5, abs=1e-6)
        assert float(norm.running_var[channel]) == pytest.approx(variance, rel=1e-5, abs=1e-6)
    assert norm.momentum == 0.3 and not norm.training
    assert all(torch.equal(a, b) for a, b in zip(weights, norm.parameters(), strict=True))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_statistics_do_not_depend_on_the_sizes_of_batches(network: nn.Module, size: int) -> None:
    images = torch.stack([(k + 1) * torch.randn(3, 24, 40) / 3 + k for k in range(7)])
    estimate_statistics(network, images.split(1))
    alone = [value.clone() for norm in batch_norms(network) for value in norm.state_dict().values()]
    estimate_statistics(network, images.split(size))
    together = [value for norm in batch_norms(network) for value in norm.state_dict().values()]
    for before, after in zip(alone, together, strict=True):
        torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)


def test_an_image_alone_is_normalised_with_its_own_statistics() -> None:
    norms = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False))
    nn.init.uniform_(norms[0].weight, 0.5, 2)
    nn.init.uniform_(norms[0].bias)
    images, seen = torch.randn(4, 3, 6, 5) * 3 + 1, []
    norms[1].register_forward_pre_hook(lambda _norm, inputs: seen.append(inputs[0]))
    expected = torch.cat([norms[0].train()(image) for image in images.split(1)])
    estimate_statistics(norms, [images])
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_a_network_change_no_weight_and_forget_what_was_before(network: nn.Module) -> None:
    freeze(network.train())
    weights = [weight.clone() for weight in network.parameters()]
    images = [torch.randn(2, 3, 16, 16) + 1 for _ in range(3)]
    estimate_statistics(network, images)
    first = state_of([network])
    network.train()
    network(torch.randn(4, 3, 16, 16) * 9)
    assert not is_unchanged([network], first)
    estimate_statistics(network, images)
    assert is_unchanged([network], first)
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))
    assert not any(module.training for module in network.modules())
    assert {norm.momentum for norm in batch_norms(network)} == {0.1}


@pytest.mark.parametrize(("count", "close"), [(1, 0.1), (4, 0.2)])
def test_every_layer_has_the_statistics_of_what_reaches_it(network: nn.Module, count: int, close: float) -> None:
    """With the statistics of an image, it is normalised to mean 0 and variance 1 in every layer; about so, with several."""
    images = 3 * torch.randn(count, 3, 64, 64) + 1
    estimate_statistics(network, [images])
    seen: list[Tensor] = []
    for norm in batch_norms(network):
        norm.register_forward_hook(lambda _norm, _inputs, output: seen.append(output))
    with torch.no_grad():
        network(images)
    assert len(seen) == 16
    for output in seen:
        assert float(output.mean((0, 2, 3)).abs().max()) < close
        assert float((output.var((0, 2, 3)) - 1).abs().max()) < close


def test_estimating_from_nothing_is_refused(network: nn.Module) -> None:
    with pytest.raises(AssertionError, match="no image"):
        estimate_statistics(network, [])
