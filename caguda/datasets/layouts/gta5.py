"""GTA5: images/00001.png ... and labels/ of the same names. `split.mat` is not needed."""

from caguda.config_frames import Domain
from caguda.datasets.layout import Layout
from caguda.kinds import register


@register("layout", "gta5")
class GTA5(Layout):
    """Labels hold Cityscapes' label ids, as palette PNGs. Every other default is that of this data set."""

    def published(self, domain: Domain) -> int | None:
        """All of it."""
        return 24_966
