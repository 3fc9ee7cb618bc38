"""DeepLab v3+ as the authors name and compute it, written out: names, shapes, and the function of a state dict."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

RESNET50, RESNET101 = (3, 4, 6, 3), (3, 4, 23, 3)


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    values = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{value}": (channels,) for value in values} | {f"{name}.num_batches_tracked": ()}


def shapes(blocks: tuple[int, ...], categories: int) -> dict[str, tuple[int, ...]]:
    """The shape of every entry of the authors' state dict by its name."""
    found: dict[str, tuple[int, ...]] = {"backbone.conv1.weight": (64, 3, 7, 7), **_norm("backbone.bn1", 64)}
    inputs = 64
    for layer, count in enumerate(blocks, 1):
        width = 32 * 2**layer
        for block in range(count):
            name = f"backbone.layer{layer}.{block}"
            found |= {f"{name}.conv1.weight": (width, inputs, 1, 1), **_norm(f"{name}.bn1", width)}
            found |= {f"{name}.conv2.weight": (width, width, 3, 3), **_norm(f"{name}.bn2", width)}
            found |= {f"{name}.conv3.weight": (4 * width, width, 1, 1), **_norm(f"{name}.bn3", 4 * width)}
            if block == 0:
                found[f"{name}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                found |= _norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    for branch, size in enumerate((1, 3, 3, 3), 1):
        found[f"aspp.aspp{branch}.atrous_conv.weight"] = (256, 2048, size, size)
        found |= _norm(f"aspp.aspp{branch}.bn", 256)
    found |= {"aspp.global_avg_pool.1.weight": (256, 2048, 1, 1), **_norm("aspp.global_avg_pool.2", 256)}
    found |= {"aspp.conv1.weight": (256, 1280, 1, 1), **_norm("aspp.bn1", 256)}
    found |= {"decoder.conv1.weight": (48, 256, 1, 1), **_norm("decoder.bn1", 48)}
    found |= {"decoder.last_conv.0.weight": (256, 304, 3, 3), **_norm("decoder.last_conv.1", 256)}
    found |= {"decoder.last_conv.4.weight": (256, 256, 3, 3), **_norm("decoder.last_conv.5", 256)}
    found |= {"decoder.last_conv.8.weight": (categories, 256, 1, 1), "decoder.last_conv.8.bias": (categories,)}
    return found


def random_state(blocks: tuple[int, ...], categories: int) -> dict[str, Tensor]:
    """Weights and statistics such that no layer explodes, dies, or could be left out without a trace."""
    state: dict[str, Tensor] = {}
    for name, shape in shapes(blocks, categories).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) == 4:
            state[name] = torch.randn(shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        elif name.endswith(("running_var", "weight")):
            state[name] = 0.5 + torch.rand(shape)
        else:
            state[name] = 0.2 * torch.randn(shape)
    return state


def features_and_logits(state: Mapping[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """f_D and the logits in evaluation mode, both at stride 4, for RGB in 0..1."""

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias, mean, var = (
            state[f"{name}.{value}"][:, None, None] for value in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def conv(x: Tensor, name: str, stride: int = 1, rate: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=rate * (weight.shape[-1] // 2), dilation=rate)

    def bottleneck(x: Tensor, name: str, stride: int, rate: int) -> Tensor:
        out = F.relu(norm(conv(x, f"{name}.conv1"), f"{name}.bn1"))
        out = F.relu(norm(conv(out, f"{name}.conv2", stride, rate), f"{name}.bn2"))
        out = norm(conv(out, f"{name}.conv3"), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in state:
            x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return F.relu(out + x)

    def enlarge(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)

    x = F.relu(norm(conv(images, "backbone.conv1", 2), "backbone.bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    low = x
    for layer, stride, rates in ((1, 1, (1,) * 3), (2, 2, (1,) * 4), (3, 2, (1,) * 23), (4, 1, (2, 4, 8))):
        for block, rate in enumerate(rates):
            if f"backbone.layer{layer}.{block}.conv1.weight" in state:
                x = bottleneck(x, f"backbone.layer{layer}.{block}", stride if block == 0 else 1, rate)
        low = x if layer == 1 else low
    maps = [
        F.relu(norm(conv(x, f"aspp.aspp{branch}.atrous_conv", 1, rate), f"aspp.aspp{branch}.bn"))
        for branch, rate in enumerate((1, 6, 12, 18), 1)
    ]
    pooled = conv(F.adaptive_avg_pool2d(x, 1), "aspp.global_avg_pool.1")
    maps.append(enlarge(F.relu(norm(pooled, "aspp.global_avg_pool.2")), x))
    context = F.relu(norm(conv(torch.cat(maps, 1), "aspp.conv1"), "aspp.bn1"))
    low = F.relu(norm(conv(low, "decoder.conv1"), "decoder.bn1"))
    features = torch.cat([enlarge(context, low), low], 1)
    for convolution, normalisation in ((0, 1), (4, 5)):
        features = conv(features, f"decoder.last_conv.{convolution}")
        features = F.relu(norm(features, f"decoder.last_conv.{normalisation}"))
    bias = state["decoder.last_conv.8.bias"][:, None, None]
    return features, conv(features, "decoder.last_conv.8") + bias
