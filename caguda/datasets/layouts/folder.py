"""Any data set as two folders: {images}/STEM.png (.jpg, .jpeg) and {labels}/STEM.png."""

from caguda.datasets.layout import Layout
from caguda.registry import register


@register("layout", "folder")
class Folder(Layout):
    """An id is the stem of an image's file name, which is also that of its label."""

    suffixes = (".png", ".jpg", ".jpeg")
