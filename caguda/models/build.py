"""The network that a configuration names."""

from torch import nn

from caguda.config import Network
from caguda.models.small import SmallDeepLab


def build_network(network: Network, categories: int) -> nn.Module:
    """The segmentation network with fresh weights; forward returns f_D's features and the classifier's logits."""
    return SmallDeepLab(network.width, network.blocks, network.feature_channels, categories)
