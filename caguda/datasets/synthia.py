"""SYNTHIA-RAND-CITYSCAPES: RGB/0000000.png ... and GT/LABELS/ of the same names."""

from __future__ import annotations

from pathlib import Path

from caguda.config_frames import Domain
from caguda.datasets.frame import images_in, label_in


def images(domain: Domain, root: Path) -> dict[str, Path]:
    """The images by id, the number in the file's name."""
    return images_in(root / "RGB", "root", {".png"})


def label(domain: Domain, root: Path, image: Path) -> Path | None:
    """Where the label of an image belongs, or None for an unlabelled set."""
    return None if domain.labels is None else label_in(root / "GT" / "LABELS", image.stem)
