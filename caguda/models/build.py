"""The network that a configuration names."""

from caguda.config import Network
from caguda.models.deeplab_v2 import deeplab_v2
from caguda.models.deeplab_v3plus import deeplab_v3plus
from caguda.models.network import SegmentationNetwork
from caguda.models.small import small_network


def build_network(network: Network, categories: int) -> SegmentationNetwork:
    """The segmentation network with fresh weights: RGB in 0..1 in, f_D's features and the classifier's logits out."""
    match network.name:
        case "small":
            return small_network(network, categories)
        case "deeplab_v2":
            return deeplab_v2(network, categories)
        case "deeplab_v3plus":
            return deeplab_v3plus(network, categories)
