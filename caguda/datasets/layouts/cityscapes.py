"""Cityscapes: {leftImg8bit,gtFine}/{split}/{city}/{city}_{sequence}_{frame}_{leftImg8bit,gtFine_labelIds}.png."""

from __future__ import annotations

from pathlib import Path

from caguda.config_frames import Domain, LabelValues
from caguda.datasets.frame import entries_of, label_in
from caguda.datasets.layout import Layout
from caguda.registry import register

_IMAGE = "_leftImg8bit"


@register("layout", "cityscapes")
class Cityscapes(Layout):
    """Ids are {city}_{sequence}_{frame}. Labels are `labelIds`, or `labelTrainIds` as cityscapesScripts makes them."""

    key = "split"
    splits = "train, val or test"
    label_choices = ("labels", "labelTrainIds")
    published_size = (1024, 2048)
    on_test_server = True

    def image_folders(self, domain: Domain, root: Path) -> list[Path]:
        """The cities of the split."""
        (split,) = self.outer_folders(domain, root)
        return [path for path in entries_of(split, self.key) if path.is_dir()]

    def outer_folders(self, domain: Domain, root: Path) -> list[Path]:
        """The folder of the split."""
        return [root / "leftImg8bit" / str(domain.split)]

    def image_id(self, path: Path) -> str | None:
        is_image = path.suffix.lower() == ".png" and path.stem.endswith(_IMAGE)
        return path.stem.removesuffix(_IMAGE) if is_image else None

    def label_path(self, domain: Domain, root: Path, image: Path) -> Path:
        ending = "_gtFine_labelTrainIds" if domain.labels == "labelTrainIds" else "_gtFine_labelIds"
        folder = root / "gtFine" / str(domain.split) / image.parent.name
        return label_in(folder, image.stem.removesuffix(_IMAGE) + ending)

    def label_values(self, domain: Domain) -> LabelValues:
        return "train ids" if domain.labels == "labelTrainIds" else "label ids"

    def published(self, domain: Domain) -> int | None:
        """The number of frames with fine labels."""
        return {"train": 2_975, "val": 500, "test": 1_525}.get(str(domain.split))

    def image_pattern(self, domain: Domain, root: Path) -> str:
        return f"leftImg8bit/{domain.split}/CITY/*{_IMAGE}.png"
