"""Cityscapes: {leftImg8bit,gtFine}/{split}/{city}/{city}_{sequence}_{frame}_{leftImg8bit,gtFine_labelIds}.png.

Labels are `labelIds`, or with `labels: labelTrainIds` what cityscapesScripts makes of them."""

from __future__ import annotations

from pathlib import Path

from caguda.config_frames import Domain
from caguda.datasets.frame import entries_of, label_in

_IMAGE = "_leftImg8bit"


def images(domain: Domain, root: Path) -> dict[str, Path]:
    """The images by id, {city}_{sequence}_{frame}."""
    assert domain.split is not None, "the configuration refuses a Cityscapes set without a split"
    cities = (path for path in entries_of(root / "leftImg8bit" / domain.split, "split") if path.is_dir())
    files = (path for city in cities for path in entries_of(city, "split") if path.suffix.lower() == ".png")
    return {path.stem.removesuffix(_IMAGE): path for path in files if path.stem.endswith(_IMAGE)}


def label(domain: Domain, root: Path, image: Path) -> Path | None:
    """Where the label ids or train ids of an image belong, or None for an unlabelled set."""
    if domain.labels is None:
        return None
    assert domain.split is not None
    ending = "_gtFine_labelTrainIds" if domain.labels == "labelTrainIds" else "_gtFine_labelIds"
    return label_in(root / "gtFine" / domain.split / image.parent.name, image.stem.removesuffix(_IMAGE) + ending)
