"""The encoder of the large DeepLabs: a ResNet of torchvision with dilated last layers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from caguda.errors import UserError
from caguda.networks.layers.weights import misfit, read_pickle


class Backbone(nn.Module):
    """Enc of a DeepLab: the map of layer4, 2048 channels at stride 8 or 16, and that of layer1, 256 at stride 4.

    Weights have torchvision's names. Dilation takes the place of stride in the last layers. The first block of such a
    layer still has the dilation of the layer before, because its input has the same resolution as there.
    """

    def __init__(self, name: str, output_stride: int) -> None:
        super().__init__()
        assert output_stride in (8, 16), output_stride
        dilated = [False, output_stride == 8, True]
        resnet = torchvision.models.get_model(name, weights=None, replace_stride_with_dilation=dilated)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        return self.layer4(self.layer3(self.layer2(skip))), skip


def load_backbone(network: nn.Module, backbone: str, origin: str) -> None:
    """Load the weights of the backbone into the encoder of a network; `origin` is "imagenet", "none" or a file.

    ImageNet's weights are downloaded at their first use. A file is a state dict of the backbone, with or without its
    classifier, by torch.save or as safetensors. UserError if the file is missing or of another network.
    """
    if origin == "none":
        return
    if origin == "imagenet":
        weights, origin = _imagenet_weights(backbone)
    else:
        weights = _local_weights(Path(origin))
    encoder = network.get_submodule("encoder")
    without_classifier = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    needed = {
        name: value
        for name, value in encoder.state_dict().items()
        if name in without_classifier or not name.endswith("num_batches_tracked")  # older files lack these
    }
    if faults := misfit(without_classifier, needed):
        raise UserError(
            f"{origin}: network.weights must be the state dict of a {backbone} of torchvision, "
            f"found {faults}; check network.backbone, or take another file"
        )
    encoder.load_state_dict(without_classifier)


def _imagenet_weights(backbone: str) -> tuple[Mapping[str, Any], str]:
    weights = torchvision.models.get_model_weights(backbone).IMAGENET1K_V1
    try:
        return weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        ), weights.url
    except Exception as error:  # noqa: BLE001  no network, a full disk, a damaged file: a dozen types
        folder = Path(torch.hub.get_dir(), "checkpoints")
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"network.weights: ImageNet's weights must be there or come by download, found: {reason}; get {weights.url} "
            f"where there is a network and put it in {folder}, or give its path as network.weights"
        ) from None


def _local_weights(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: network.weights must be imagenet, none or a file, found no such file; check the path")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: network.weights must be whole safetensors, found: {error}; get it again"
            ) from None
    weights = read_pickle(path)
    if not isinstance(weights, dict):
        raise UserError(
            f"{path}: network.weights must be a state dict, found {type(weights).__name__}; take another file"
        )
    return weights
