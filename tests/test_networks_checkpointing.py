"""Recomputed activations: less memory, and the same results to the last bit."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from caguda.config_network import NetworkSettings
from caguda.networks.deeplab_v2 import DeepLabV2
from caguda.networks.deeplab_v3plus import DeepLabV3Plus
from caguda.networks.layers.batch_norm import freeze
from caguda.networks.layers.checkpointing import recompute_activations
from caguda.networks.small import SmallNetwork

SMALL = SmallNetwork(name="small", width=8, blocks=(1, 2, 1, 1), feature_channels=8)
NETWORKS: list[NetworkSettings] = [
    SMALL,
    DeepLabV2(name="deeplab_v2", backbone="resnet50"),
    DeepLabV3Plus(name="deeplab_v3plus", backbone="resnet50"),
]


def trained(settings: NetworkSettings, *, recompute: bool, frozen: bool) -> tuple[nn.Module, int]:
    """A network with the gradients of two passes, both alive at once, and how many values they kept for the way back.

    Weights are kept in any case and do not count.
    """
    torch.manual_seed(0)
    network = settings.build(5).train()
    if frozen:
        freeze(network)
    if recompute:
        recompute_activations(network)
    weights = {value.untyped_storage().data_ptr() for value in network.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        place = value.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = value.numel()
        return value

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        passes = [network(torch.rand(2, 3, 33, 49)) for _ in range(2)]
    torch.stack([output.square().mean() for outputs in passes for output in outputs[:2]]).sum().backward()
    return network, sum(kept.values())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("settings", NETWORKS, ids=lambda settings: settings.name)
def test_gradients_and_statistics_are_the_same_and_less_is_kept(settings: NetworkSettings, frozen: bool) -> None:
    plain, much = trained(settings, recompute=False, frozen=frozen)
    spared, little = trained(settings, recompute=True, frozen=frozen)
    assert little < 0.7 * much
    for (name, one), (other_name, other) in zip(plain.named_parameters(), spared.named_parameters(), strict=True):
        assert name == other_name and one.requires_grad == other.requires_grad
        assert (one.grad is None) == (other.grad is None) == frozen or one.grad is not None
        if one.grad is not None and other.grad is not None:
            assert torch.equal(one.grad, other.grad), name
    for (name, one), (other_name, other) in zip(plain.state_dict().items(), spared.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other), name
    tracked = [int(value) for name, value in spared.state_dict().items() if name.endswith("num_batches_tracked")]
    assert set(tracked) == ({0} if frozen else {2})


def outputs_of(network: nn.Module, images: Tensor) -> list[Any]:
    with torch.inference_mode():
        return list(network(images)[:2])


def test_inference_and_copies_are_as_before() -> None:
    torch.manual_seed(0)
    network = SMALL.build(5).eval()
    images = torch.rand(1, 3, 33, 49)
    before = outputs_of(network, images)
    recompute_activations(network)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs_of(network, images), strict=True))
    other = copy.deepcopy(network)
    for weight in network.parameters():
        weight.detach().zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, outputs_of(other, images), strict=True))
