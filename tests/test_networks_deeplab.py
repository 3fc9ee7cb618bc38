"""The large networks: what they compute, on any backbone, for images of any size."""

from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from caguda.configfile import network_settings
from caguda.networks.layers.batch_norm import batch_norms, estimate_statistics, freeze
from caguda.networks.layers.feature_transformers import ImagePooling
from caguda.networks.layers.network import SegmentationNetwork
from caguda.networks.layers.resnet_settings import ResNet

BACKBONES = get_args(ResNet)
STRIDE = {"deeplab_v2": 8, "deeplab_v3plus": 4}
each_name = pytest.mark.parametrize("name", list(STRIDE))


def build(name: str, **keys: str) -> SegmentationNetwork:
    settings = network_settings({"name": name, "backbone": "resnet50", **keys}, Path("test.json"))
    torch.manual_seed(0)
    return settings.build(5)


def quietly_random(network: nn.Module) -> None:
    """Statistics of batch normalisation that no layer can be left out with unnoticed."""
    for norm in batch_norms(network):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.8, 1.2)


def is_bottleneck_resnet(name: str) -> bool:
    if torchvision.models.get_model_builder(name).__module__ != "torchvision.models.resnet":
        return False
    with torch.device("meta"):
        return any(isinstance(part, Bottleneck) for part in torchvision.models.get_model(name).modules())


def test_backbones_are_the_bottleneck_resnets_of_torchvision() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert {name for name in names if is_bottleneck_resnet(name)} == set(BACKBONES)


@each_name
@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_and_logits_for_any_backbone_and_size(name: str, backbone: str) -> None:
    with torch.device("meta"):
        network = build(name, backbone=backbone).eval()
        for height, width in ((64, 128), (65, 97), (66, 63), (31, 8), (1, 1)):
            features, logits, _ = network(torch.empty(2, 3, height, width))
            at = (-(-height // STRIDE[name]), -(-width // STRIDE[name]))
            assert features.shape == (2, 256, *at) and logits.shape == (2, 5, *at)


@pytest.mark.parametrize(
    ("name", "after_encoder"),
    [("deeplab_v2", 4 * (9 * 2048 * 256 + 256) + 256 * 19 + 19), ("deeplab_v3plus", 59_343_795 - 42_500_160)],
)
def test_number_of_parameters(name: str, after_encoder: int) -> None:
    with torch.device("meta"):
        network = network_settings({"name": name}, Path("test.json")).build(19)
        resnet = torchvision.models.resnet101()
    encoder = sum(weight.numel() for weight in resnet.parameters()) - (2048 * 1000 + 1000)
    assert encoder == 42_500_160
    assert sum(weight.numel() for weight in network.parameters()) == encoder + after_encoder


@each_name
def test_features_are_what_the_classifier_sees_and_not_negative(name: str) -> None:
    network = build(name).eval()
    with torch.no_grad():
        features, logits, _ = network(torch.rand(1, 3, 65, 97))
    assert float(features.min()) == 0 < float(features.max())
    weight, bias = network.classifier.weight[:, :, 0, 0], network.classifier.bias
    assert bias is not None
    expected = torch.einsum("ndhw,cd->nchw", features, weight) + bias[:, None, None]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_v2_is_torchvisions_dilated_encoder_and_four_convolutions() -> None:
    network = build("deeplab_v2", normalisation="unit").eval()
    quietly_random(network)
    oracle = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None).backbone.eval()
    oracle.load_state_dict(network.encoder.state_dict())
    images = torch.rand(1, 3, 33, 225)
    encoded = oracle(images)["out"]
    assert torch.equal(network.encoder(images)[0], encoded)
    assert encoded.shape[2:] == (5, 29), "wide enough for the largest rate to reach across"
    state = network.transformer.state_dict()
    total = sum(
        F.conv2d(encoded, state[f"aspp.{i}.weight"], state[f"aspp.{i}.bias"], padding=rate, dilation=rate)
        for i, rate in enumerate((6, 12, 18, 24))
    )
    assert isinstance(total, Tensor)
    torch.testing.assert_close(network(images)[0], total.relu())


@torch.no_grad()
def test_v3plus_encoder_is_torchvisions_up_to_the_last_layer() -> None:
    network = build("deeplab_v3plus").eval()
    quietly_random(network)
    resnet = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True]).eval()
    resnet.load_state_dict(network.encoder.state_dict(), strict=False)
    seen: list[Tensor] = []
    for part in (resnet.layer1, resnet.layer3, network.get_submodule("encoder.layer3")):
        part.register_forward_hook(lambda _part, _inputs, output: seen.append(output))
    images = torch.rand(1, 3, 65, 97)
    resnet(images)
    encoded, skip = network.encoder(images)
    assert torch.equal(skip, seen[0]) and torch.equal(seen[1], seen[2])
    assert skip.shape == (1, 256, 17, 25) and encoded.shape == (1, 2048, 5, 7)


@each_name
@pytest.mark.parametrize("frozen", [False, True])
def test_every_trained_weight_gets_a_gradient(name: str, frozen: bool) -> None:
    network = build(name).train()
    if frozen:
        freeze(network)
    features, logits, _ = network(torch.rand(2, 3, 65, 97))
    (features.square().mean() + F.cross_entropy(logits, torch.zeros(2, *logits.shape[2:], dtype=torch.long))).backward()
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert len(trained) == len(list(network.parameters())) - (2 * len(batch_norms(network)) if frozen else 0)
    without = [name for name, weight in trained.items() if weight.grad is None or not weight.grad.any()]
    assert without == []


@each_name
def test_the_network_works_in_the_type_of_its_weights(name: str) -> None:
    network = build(name).double().eval()
    with torch.no_grad():
        assert {output.dtype for output in network(torch.rand(1, 3, 33, 47, dtype=torch.float64))[:2]} == {
            torch.float64
        }


def test_f_d_of_v3plus_is_dropped_out_in_training_alone() -> None:
    network = build("deeplab_v3plus")
    freeze(network.train())
    shares: list[float] = []
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(
                lambda _part, given, output: shares.append(float((output == 0)[given[0] > 0].float().mean()))
            )
    with torch.no_grad():
        network(torch.rand(1, 3, 65, 97))
        assert shares == pytest.approx([0.5, 0.5, 0.1], abs=0.03)
        shares.clear()
        network.eval()(torch.rand(1, 3, 65, 97))
    assert shares == [0, 0, 0]


def test_weights_of_v3plus_after_the_encoder_are_drawn_as_the_authors_draw_them() -> None:
    network = build("deeplab_v3plus")
    assert network.classifier.bias is not None and not network.classifier.bias.any()
    for module in network.transformer.modules():
        if isinstance(module, nn.Conv2d):
            deviation = float(module.weight.detach().std())
            assert deviation == pytest.approx((2 / module.weight[0].numel()) ** 0.5, rel=0.05)


def test_one_image_in_training_is_pooled_with_running_statistics() -> None:
    pooling = ImagePooling(4)
    quietly_random(pooling)
    before = [value.clone() for value in pooling.state_dict().values()]
    encoded = torch.rand(1, 2048, 3, 5)
    alone = pooling.train()(encoded)
    assert alone.shape == (1, 4, 3, 5) and torch.equal(alone, pooling.eval()(encoded))
    assert all(torch.equal(a, b) for a, b in zip(before, pooling.state_dict().values(), strict=True))
    pooling.train()(torch.cat([encoded, encoded.flip(1)]))
    assert int(pooling.norm.num_batches_tracked) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pooled_statistics_are_those_of_all_images(size: int) -> None:
    pooling = ImagePooling(4)
    quietly_random(pooling)
    before = [value.clone() for value in pooling.norm.state_dict().values()]
    images = torch.rand(3, 2048, 3, 5)
    estimate_statistics(pooling, [images[:1]])
    assert all(torch.equal(a, b) for a, b in zip(before, pooling.norm.state_dict().values(), strict=True)), (
        "no variance"
    )
    estimate_statistics(pooling, images.split(size))
    pooled = pooling.convolution(images.mean((2, 3), keepdim=True))
    assert pooling.norm.running_mean is not None and pooling.norm.running_var is not None
    torch.testing.assert_close(pooling.norm.running_mean, pooled.mean((0, 2, 3)))
    torch.testing.assert_close(pooling.norm.running_var, pooled.var((0, 2, 3)))
