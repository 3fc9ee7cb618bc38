"""How every network sees its input."""

from typing import Any

import pytest
import torch

from caguda.config_network import NetworkSettings
from caguda.networks.deeplab_v2 import DeepLabV2
from caguda.networks.small import SmallNetwork

SMALL = {"name": "small", "width": 4, "blocks": (1, 1, 1, 1), "feature_channels": 8}
NETWORKS = [(SmallNetwork, SMALL), (DeepLabV2, {"name": "deeplab_v2", "backbone": "resnet50"})]
each_network = pytest.mark.parametrize(("kind", "keys"), NETWORKS)


def settings_of(kind: Any, keys: dict[str, Any], normalisation: str) -> NetworkSettings:
    settings: NetworkSettings = kind(**keys, normalisation=normalisation)
    return settings


@each_network
@torch.no_grad()
def test_colours_are_those_of_imagenet_or_as_they_are(kind: Any, keys: dict[str, Any]) -> None:
    usual = settings_of(kind, keys, "imagenet").build(5).eval()
    plain = settings_of(kind, keys, "unit").build(5).eval()
    plain.load_state_dict(usual.state_dict())
    images = torch.rand(2, 3, 33, 49)
    red, green, blue = images.unbind(1)
    seen = torch.stack([(red - 0.485) / 0.229, (green - 0.456) / 0.224, (blue - 0.406) / 0.225], 1)
    for ours, expected in zip(usual(images)[:2], plain(seen)[:2], strict=True):
        torch.testing.assert_close(ours, expected)
    assert not torch.allclose(usual(images)[0], plain(images)[0])


@each_network
def test_a_checkpoint_holds_the_three_parts_and_no_constants(kind: Any, keys: dict[str, Any]) -> None:
    names = list(settings_of(kind, keys, "imagenet").build(5).state_dict())
    assert list(dict.fromkeys(name.partition(".")[0] for name in names)) == ["encoder", "transformer", "classifier"]


def test_images_are_not_changed_and_stay_channels_last() -> None:
    network = settings_of(SmallNetwork, SMALL, "imagenet").build(5)
    images = torch.rand(2, 3, 8, 12).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    seen = network.normalisation(images)
    assert torch.equal(images, before) and seen.is_contiguous(memory_format=torch.channels_last)
