"""GTA5: images/00001.png ... and labels/ with the same names. `split.mat` is not needed."""

from caguda.config_frames import Domain
from caguda.datasets.layout import Layout
from caguda.registry import register


@register("layout", "gta5")
class GTA5(Layout):
    """Labels are palette PNGs that hold Cityscapes' label ids. All defaults of `Layout` are those of this data set."""

    published_size = (1052, 1914)

    def published(self, domain: Domain) -> int | None:
        return 24_966
