"""GTA5: images/00001.png ... and labels/ of the same names. `split.mat` is not needed."""

from __future__ import annotations

from pathlib import Path

from caguda.config_frames import Domain
from caguda.datasets.frame import label_in

KEY = "images"


def folders(domain: Domain, root: Path) -> list[Path]:
    """The folders that hold images."""
    return [root / domain.images]


def image_id(path: Path) -> str | None:
    """The id of an image, the number in its name; None for any other file."""
    return path.stem if path.suffix.lower() == ".png" else None


def label(domain: Domain, root: Path, image: Path) -> Path | None:
    """Where the label of an image belongs, or None for an unlabelled set."""
    return None if domain.labels is None else label_in(root / domain.labels, image.stem)
