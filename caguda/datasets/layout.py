"""The base class of layouts: where a data set has its images and labels, and how its label files are decoded. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from caguda.config_frames import Domain, LabelValues
from caguda.datasets.frame import label_in, shortened
from caguda.errors import first
from caguda.registry import instance_of, plugin_of, registered_class

if TYPE_CHECKING:  # numpy takes a tenth of a second, and a configuration is read without it
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """The folders and file names of a data set; a layout is a subclass that is registered by a name.

    The defaults are those of GTA5: images are `images/ID.png`, labels are `labels/ID.png` and hold Cityscapes' label ids.
    In all methods `domain` is the set's section of the YAML, `root` the folder of the set, and `path` or `image` a file in
    one of the image folders. A layout need not treat the keys `list` and `skip` or the SHA-256 of files.
    """

    key: ClassVar[str] = "images"
    """The key of the section that messages name if the image folder does not exist."""
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    """The suffixes of image files, in lower case."""
    splits: ClassVar[str] = ""
    """The choices of the key `split`, in words; `split` is then required. Empty if the data set has no splits."""
    label_choices: ClassVar[tuple[str, ...]] = ()
    """The choices of the key `labels`, the default first, in a layout with fixed folders. Empty if the keys `images` and
    `labels` name the folders."""
    published_size: ClassVar[tuple[int, int] | None] = None
    """The size (H, W) of most published images; None if unknown."""
    on_test_server: ClassVar[bool] = False
    """Whether Cityscapes' test server scores predictions for these images; it identifies them by their ids."""

    def image_folders(self, domain: Domain, root: Path) -> list[Path]:
        """The folders that are searched for images, without their subfolders."""
        return [root / domain.images]

    def outer_folders(self, domain: Domain, root: Path) -> list[Path]:
        """Folders that should contain nothing but image folders: the check warns of files in them."""
        return []

    def image_id(self, path: Path) -> str | None:
        """The id of an image, unique in the set; None for a file that is not an image of the set."""
        return path.stem if path.suffix.lower() in self.suffixes else None

    def label_path(self, domain: Domain, root: Path, image: Path) -> Path:
        """The path of an image's label, whether or not it exists. Not called if `labels` is null."""
        return label_in(root / str(domain.labels), image.stem)

    def label_values(self, domain: Domain) -> LabelValues:
        """The kind of values in the label files. Not used if the configuration lists its own `classes`."""
        return "label ids"

    def decode_label(self, content: bytes, path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The raw values (H, W) of a label file's content; `path` is for messages. The default decodes one-channel PNGs.

        The caller refuses values that are neither a category nor void, and reports errors of Pillow as a damaged file.
        """
        from caguda.datasets.io import decode_label  # torch

        return decode_label(content, path)

    def published(self, domain: Domain) -> int | None:
        """The number of images in the published data set; None if unknown."""
        return None

    def image_pattern(self, domain: Domain, root: Path) -> str:
        """The pattern of image paths, for the message that no frames were found."""
        folders = [shortened(folder, root) for folder in self.image_folders(domain, root)]
        *most, last = (f"*{suffix}" for suffix in self.suffixes)
        return f"{first(folders)}/{', '.join(most)}{' or ' if most else ''}{last}"

    def check_keys(self, domain: Domain) -> None:
        """ValueError, beginning with the key, if the section lacks a key or has one that this layout does not allow."""
        if self.splits and domain.split is None:
            raise ValueError(f"split: layout {domain.layout} needs the name of a split: {self.splits}")
        if not self.splits and domain.split is not None:
            raise ValueError(f"split: layout {domain.layout} has no splits, found {domain.split!r}; use the key list")
        allowed = (*self.label_choices, None)
        if self.label_choices and (domain.images != "images" or domain.labels not in allowed):
            alternatives = " or ".join(value or "null" for value in allowed[1:])
            raise ValueError(
                f"images, labels: layout {domain.layout} has folders of its own, leave the keys out (or labels: {alternatives})"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the name of the class: a worker process that unpickles a layout loads its plugin first."""
        return instance_of, (type(self).__module__, type(self).__qualname__, plugin_of(type(self)))


def layout_of(domain: Domain) -> Layout:
    """The layout of a set; UserError if it belongs to a plugin that was not loaded."""
    layout: Layout = registered_class("layout", domain.layout)()
    return layout
