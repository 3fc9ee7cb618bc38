"""Cityscapes: {leftImg8bit,gtFine}/{split}/{city}/{city}_{sequence}_{frame}_{leftImg8bit,gtFine_labelIds}.png."""

from __future__ import annotations

from pathlib import Path

from caguda.config_frames import Domain, LabelValues
from caguda.datasets.frame import entries_of, label_in
from caguda.datasets.layout import Layout
from caguda.kinds import register

_IMAGE = "_leftImg8bit"


@register("layout", "cityscapes")
class Cityscapes(Layout):
    """Labels are `labelIds`, or with `labels: labelTrainIds` what cityscapesScripts makes of them."""

    key = "split"
    splits = "train, val or test"
    label_choices = ("labels", "labelTrainIds")
    on_test_server = True

    def image_folders(self, domain: Domain, root: Path) -> list[Path]:
        """The cities of the split."""
        (split,) = self.outer_folders(domain, root)
        return [path for path in entries_of(split, self.key) if path.is_dir()]

    def outer_folders(self, domain: Domain, root: Path) -> list[Path]:
        """The folder of the split."""
        return [root / "leftImg8bit" / str(domain.split)]

    def image_id(self, path: Path) -> str | None:
        """{city}_{sequence}_{frame}."""
        is_image = path.suffix.lower() == ".png" and path.stem.endswith(_IMAGE)
        return path.stem.removesuffix(_IMAGE) if is_image else None

    def label_path(self, domain: Domain, root: Path, image: Path) -> Path:
        """The label ids or train ids in the folder of the same city."""
        ending = "_gtFine_labelTrainIds" if domain.labels == "labelTrainIds" else "_gtFine_labelIds"
        folder = root / "gtFine" / str(domain.split) / image.parent.name
        return label_in(folder, image.stem.removesuffix(_IMAGE) + ending)

    def label_values(self, domain: Domain) -> LabelValues:
        """Cityscapes' label ids, or its train ids."""
        return "train ids" if domain.labels == "labelTrainIds" else "label ids"

    def published(self, domain: Domain) -> int | None:
        """The frames with fine labels."""
        return {"train": 2_975, "val": 500, "test": 1_525}.get(str(domain.split))

    def place(self, domain: Domain, root: Path) -> str:
        """The cities of the split."""
        return f"leftImg8bit/{domain.split}/CITY/*{_IMAGE}.png"
