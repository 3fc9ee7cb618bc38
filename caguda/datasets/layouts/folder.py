"""Any data set as two folders: {images}/STEM.png (.jpg, .jpeg) and {labels}/STEM.png."""

from caguda.datasets.layout import Layout
from caguda.kinds import register


@register("layout", "folder")
class Folder(Layout):
    """An id is the stem of an image's name, which its label has too."""

    suffixes = (".png", ".jpg", ".jpeg")
