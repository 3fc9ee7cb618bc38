"""What a step of a stage is given in `step.py`: a configured network, its anchors, and labels that it gives itself."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.resnet import Bottleneck

from caguda.artifacts.anchors import Anchors
from caguda.config import Compute, Configuration
from caguda.configfile import load_configuration
from caguda.datasets.loader import enlarge
from caguda.equations.labels import by_anchor, by_probability, pseudo_labels
from caguda.methods.cag import Cag
from caguda.networks.layers.batch_norm import estimate_statistics
from caguda.networks.layers.network import SegmentationNetwork
from caguda.runs import method_of
from caguda.stages.runtime import build_network, configure_torch
from caguda.stages.session import AnchorTensors, Batch, Session

CONFIG = Path(__file__).parents[1] / "config"
FILES = {
    "small": "demo.yaml",
    "deeplab_v3plus": "gta5_cityscapes_official.yaml",
    "deeplab_v2": "gta5_cityscapes_paper.yaml",
}
CATEGORIES, OCCURRING = 19, 12  # about as many occur in a crop of Cityscapes
ACTIVE, CERTAIN = 0.8, 0.75  # shares of pixels that get a label, about as in the demo


class Setting(NamedTuple):
    """What the step of a stage is given: its method, a network, anchors, thresholds and one batch of either domain."""

    method: Cag
    compute: Compute
    network: SegmentationNetwork
    anchors: AnchorTensors
    thresholds: dict[str, float]
    batch: Batch

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.classifier.weight.device

    def session(self) -> Session:
        """A training of the network as the method says; it opens nothing."""
        return Session(self.method, self.compute, self.network, self.device, self.anchors, 0)


def configured(network: str, **compute: Any) -> Configuration:
    """The configuration with this network, and with aligned corners as in the authors' code.

    The two large networks get a thread for each core.
    """
    os.environ.setdefault("DATA_ROOT", "nowhere")
    made = load_configuration(CONFIG / FILES[network])
    threads = made.compute.threads if made.street else os.cpu_count()
    changed = made.compute.model_copy(update={"threads": threads, **compute})
    aligned = made.network.model_copy(update={"align_corners": True})
    return made.model_copy(update={"compute": changed, "network": aligned})


def method_in(configuration: Configuration) -> Cag:
    """The method of a configuration's stages."""
    method = method_of(configuration, "cag/stage1")
    assert isinstance(method, Cag)
    return method


def frame_images(configuration: Configuration, batch: int) -> tuple[int, int, int]:
    """How many images a batch has, their height and width."""
    method = method_in(configuration)
    if street := configuration.street:
        return method.batch_size, street.height, street.width
    assert method.augmentation.crop is not None
    return batch, *method.augmentation.crop


@torch.no_grad()
def setting(configuration: Configuration, shape: tuple[int, int, int]) -> Setting:
    """A network that labels its images much as a trained one does: by regions, with categories that do not occur."""
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    torch.manual_seed(0)
    network = build_network(configuration.network, CATEGORIES).to(device)
    for module in network.modules():
        if isinstance(module, Bottleneck):  # whole branches of random weights magnify rounding a thousandfold
            module.bn3.weight.fill_(0.2)
    count, *size = shape
    blocks = torch.randint(256, (2 * count, 3, size[0] // 32, size[1] // 32), dtype=torch.uint8)
    images = functional.interpolate(blocks, size, mode="nearest").to(device)
    scaled = (images.float() / 255).split(count)
    estimate_statistics(network, scaled)
    features = network(scaled[1]).features
    pixels = features.movedim(1, -1).flatten(0, 2)
    vectors = pixels[torch.randperm(len(pixels))[:CATEGORIES].to(device)]
    vectors[OCCURRING:] *= -1  # far from every feature
    network.classifier.weight.copy_((vectors - vectors[:OCCURRING].mean(0))[:, :, None, None])
    assert network.classifier.bias is not None
    network.classifier.bias.copy_(-vectors.square().sum(1) / 2)
    first, second = network.classifier(features).topk(2, dim=1).values.unbind(1)
    sharpness = 3.0 / (first - second).flatten().quantile(1 - CERTAIN)  # a softmax of 0.95 is a lead of 3
    for weight in network.classifier.parameters():
        weight.mul_(sharpness)
    present = torch.ones(CATEGORIES, dtype=torch.bool, device=device)
    gap = by_anchor(features, vectors, present, 0.0).margin
    confidence = by_probability(network.classifier(features), 0.0).confidence
    thresholds = {"margin": between(gap, ACTIVE), "p0": between(confidence, CERTAIN)}
    anchored = by_anchor(features, vectors, present, thresholds["margin"])
    probable = by_probability(network.classifier(features), thresholds["p0"])
    label_maps = {
        "source": {"label": network(scaled[0]).logits.argmax(1).to(torch.uint8)},
        "target": {
            "anchor_label": pseudo_labels(anchored.nearest, anchored.active),
            "probability_label": pseudo_labels(probable.predicted, probable.active),
        },
    }
    batch = {
        domain: {"image": part.cpu(), **at_size(maps, size)}
        for part, (domain, maps) in zip(images.split(count), label_maps.items(), strict=True)
    }
    pairwise = torch.cdist(vectors, vectors).cpu().numpy()
    pixel_count = torch.full((CATEGORIES,), 1000).numpy()
    mean_distance = Anchors(vectors.cpu().numpy(), pixel_count, pairwise[0], pairwise).mean_distance
    anchors = AnchorTensors(vectors, present, mean_distance)
    return Setting(method_in(configuration), configuration.compute, network, anchors, thresholds, batch)


def between(values: Tensor, share: float) -> float:
    """A threshold that about this share of the values exceeds, amid the widest gap there, so that rounding moves none."""
    ordered = values.flatten().sort().values
    first, last = (int(len(ordered) * (1 - share + shift)) for shift in (-0.01, 0.01))
    at = first + int(ordered[first : last + 1].diff().argmax())
    return float(ordered[at : at + 2].mean())


def at_size(maps: Mapping[str, Tensor], size: Sequence[int]) -> dict[str, Tensor]:
    """Label maps (n, h, w) as a loader gives them."""
    return {
        name: torch.stack([enlarge(one, size, True)[..., :, :] for one in labels.cpu()])
        for name, labels in maps.items()
    }
