"""Cityscapes: {leftImg8bit,gtFine}/{split}/{city}/{city}_{sequence}_{frame}_{leftImg8bit,gtFine_labelIds}.png.

Labels are `labelIds`, or with `labels: labelTrainIds` what cityscapesScripts makes of them."""

from __future__ import annotations

from pathlib import Path

from caguda.config_frames import Domain
from caguda.datasets.frame import entries_of, label_in

KEY = "split"
_IMAGE = "_leftImg8bit"


def folders(domain: Domain, root: Path) -> list[Path]:
    """The folders that hold images: the cities of the split."""
    assert domain.split is not None, "the configuration refuses a Cityscapes set without a split"
    return [path for path in entries_of(root / "leftImg8bit" / domain.split, KEY) if path.is_dir()]


def image_id(path: Path) -> str | None:
    """The id of an image, {city}_{sequence}_{frame}; None for any other file."""
    is_image = path.suffix.lower() == ".png" and path.stem.endswith(_IMAGE)
    return path.stem.removesuffix(_IMAGE) if is_image else None


def label(domain: Domain, root: Path, image: Path) -> Path | None:
    """Where the label ids or train ids of an image belong, or None for an unlabelled set."""
    if domain.labels is None:
        return None
    assert domain.split is not None
    ending = "_gtFine_labelTrainIds" if domain.labels == "labelTrainIds" else "_gtFine_labelIds"
    return label_in(root / "gtFine" / domain.split / image.parent.name, image.stem.removesuffix(_IMAGE) + ending)
