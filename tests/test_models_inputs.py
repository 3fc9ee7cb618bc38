"""How every network sees its input."""

from typing import Any

import pytest
import torch

from caguda.config import DeepLab, Network, SmallNetwork
from caguda.models.build import build_network

SMALL = {"name": "small", "width": 4, "blocks": (1, 1, 1, 1), "feature_channels": 8}
NETWORKS = [(SmallNetwork, SMALL), (DeepLab, {"name": "deeplab_v2", "backbone": "resnet50"})]
each_network = pytest.mark.parametrize(("kind", "keys"), NETWORKS)


def settings_of(kind: Any, keys: dict[str, Any], normalisation: str) -> Network:
    settings: Network = kind(**keys, normalisation=normalisation)
    return settings


@each_network
@torch.no_grad()
def test_colours_are_those_of_imagenet_or_as_they_are(kind: Any, keys: dict[str, Any]) -> None:
    usual = build_network(settings_of(kind, keys, "imagenet"), 5).eval()
    plain = build_network(settings_of(kind, keys, "unit"), 5).eval()
    plain.load_state_dict(usual.state_dict())
    images = torch.rand(2, 3, 33, 49)
    red, green, blue = images.unbind(1)
    seen = torch.stack([(red - 0.485) / 0.229, (green - 0.456) / 0.224, (blue - 0.406) / 0.225], 1)
    for ours, expected in zip(usual(images), plain(seen), strict=True):
        torch.testing.assert_close(ours, expected)
    assert not torch.allclose(usual(images)[0], plain(images)[0])


@each_network
def test_a_checkpoint_holds_the_three_parts_and_no_constants(kind: Any, keys: dict[str, Any]) -> None:
    names = list(build_network(settings_of(kind, keys, "imagenet"), 5).state_dict())
    assert list(dict.fromkeys(name.partition(".")[0] for name in names)) == ["encoder", "transformer", "classifier"]


def test_images_are_not_changed_and_stay_channels_last() -> None:
    network = build_network(settings_of(SmallNetwork, SMALL, "imagenet"), 5)
    images = torch.rand(2, 3, 8, 12).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    seen = network.normalisation(images)
    assert torch.equal(images, before) and seen.is_contiguous(memory_format=torch.channels_last)
