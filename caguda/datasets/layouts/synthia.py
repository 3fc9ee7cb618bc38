"""SYNTHIA-RAND-CITYSCAPES: RGB/0000000.png ... and GT/LABELS/ with the same names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from caguda.config_frames import Domain, LabelValues
from caguda.datasets.frame import label_in
from caguda.datasets.layout import Layout
from caguda.errors import UserError
from caguda.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@register("layout", "synthia")
class Synthia(Layout):
    """Labels are RGB PNGs with 16 bits per channel; the red channel holds SYNTHIA's class ids."""

    key = "root"
    label_choices = ("labels",)
    published_size = (760, 1280)

    def image_folders(self, domain: Domain, root: Path) -> list[Path]:
        return [root / "RGB"]

    def label_path(self, domain: Domain, root: Path, image: Path) -> Path:
        return label_in(root / "GT" / "LABELS", image.stem)

    def label_values(self, domain: Domain) -> LabelValues:
        return "synthia ids"

    def published(self, domain: Domain) -> int | None:
        return 9_400

    def decode_label(self, content: bytes, path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The red channel; a PNG of any other kind is a UserError."""
        from caguda.datasets.header import label_header
        from caguda.datasets.io import first_channel  # torch

        header = label_header(content, path)
        if (header.bits, header.kind) != (16, 2):
            raise UserError(
                f"{path}: a SYNTHIA label must be an RGB PNG of 16 bits a channel (type 2), as GT/LABELS has them, "
                f"found {header.bits} bits and type {header.kind}; take the original file"
            )
        return first_channel(content, path)
