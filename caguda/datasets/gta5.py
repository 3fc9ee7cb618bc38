"""GTA5: images/00001.png ... and labels/ of the same names. `split.mat` is not needed."""

from __future__ import annotations

from pathlib import Path

from caguda.config_frames import Domain
from caguda.datasets.frame import images_in, label_in


def images(domain: Domain, root: Path) -> dict[str, Path]:
    """The images by id, the number in the file's name."""
    return images_in(root / domain.images, "images", {".png"})


def label(domain: Domain, root: Path, image: Path) -> Path | None:
    """Where the label of an image belongs, or None for an unlabelled set."""
    return None if domain.labels is None else label_in(root / domain.labels, image.stem)
