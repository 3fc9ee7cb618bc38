"""What a layout of a data set tells: where images and labels lie, and what its label files hold. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from caguda.config_frames import Domain, LabelValues
from caguda.datasets.frame import label_in
from caguda.errors import first
from caguda.kinds import find, instance_of, plugin_of

if TYPE_CHECKING:  # numpy takes a tenth of a second, and a configuration is read without it
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """How a data set lies in its folder; a layout is a class that derives from this one and is registered by a name.

    What is not overridden is as in GTA5: images are `images/ID.png`, labels `labels/ID.png`, which hold Cityscapes' label
    ids. In all methods `domain` is the set's section of the YAML, `root` the folder of the set, and `path` or `image` a
    file in one of the folders of images. The keys `list` and `skip` and the digests of files are no concern of a layout.
    """

    key: ClassVar[str] = "images"
    """The key of the section that a person corrects where the folder of the images is not there."""
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    """What names of images end with, in lower case."""
    splits: ClassVar[str] = ""
    """What the key `split`, which is needed then, may be, in words; empty where the data set has no splits."""
    label_choices: ClassVar[tuple[str, ...]] = ()
    """What the key `labels` may be in a layout with folders of its own, the default first; empty where `images` and `labels`
    name folders."""
    on_test_server: ClassVar[bool] = False
    """Whether Cityscapes' test server takes predictions of these images, which it knows by their ids."""

    def image_folders(self, domain: Domain, root: Path) -> list[Path]:
        """The folders that hold images; folders within them are not searched."""
        return [root / domain.images]

    def outer_folders(self, domain: Domain, root: Path) -> list[Path]:
        """Folders that hold nothing but folders of images: the check names a file that lies there."""
        return []

    def image_id(self, path: Path) -> str | None:
        """The id of an image, unique in the set; None for a file that is no image of the set."""
        return path.stem if path.suffix.lower() in self.suffixes else None

    def label_path(self, domain: Domain, root: Path, image: Path) -> Path:
        """Where the label of an image belongs, whether or not it is there. Not asked where `labels` is null."""
        return label_in(root / str(domain.labels), image.stem)

    def label_values(self, domain: Domain) -> LabelValues:
        """What the label files hold, for the class tables that have a name; a list of `classes` has ids of its own."""
        return "label ids"

    def decode_label(self, content: bytes, path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The raw values (H, W) of a label file's content; `path` is for messages. This one takes PNGs of one channel.

        A value that is neither a category nor void is refused afterwards. What Pillow raises is told as damage.
        """
        from caguda.datasets.io import decode_label  # torch

        return decode_label(content, path)

    def published(self, domain: Domain) -> int | None:
        """How many images the data set was published with; None: nobody knows."""
        return None

    def place(self, domain: Domain, root: Path) -> str:
        """Where images are looked for, as it is told where there are none."""
        folders = [
            path.relative_to(root) if path.is_relative_to(root) else path for path in self.image_folders(domain, root)
        ]
        *most, last = (f"*{suffix}" for suffix in self.suffixes)
        return f"{first(folders)}/{', '.join(most)}{' or ' if most else ''}{last}"

    def check_keys(self, domain: Domain) -> None:
        """ValueError, which begins with the key, where a section lacks a key or has one that this layout does not take."""
        if self.splits and domain.split is None:
            raise ValueError(f"split: layout {domain.layout} needs the name of a split: {self.splits}")
        if not self.splits and domain.split is not None:
            raise ValueError(f"split: layout {domain.layout} has no splits, found {domain.split!r}; use the key list")
        allowed = (*self.label_choices, None)
        if self.label_choices and (domain.images != "images" or domain.labels not in allowed):
            others = " or ".join(value or "null" for value in allowed[1:])
            raise ValueError(
                f"images, labels: layout {domain.layout} has folders of its own, leave the keys out (or labels: {others})"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Processes that open files get a layout by pickle, and load the plugin that it comes from."""
        return instance_of, (type(self).__module__, type(self).__qualname__, plugin_of(type(self)))


def layout_of(domain: Domain) -> Layout:
    """The layout of a set; UserError where only a plugin that was not loaded knows it."""
    found: Layout = find("layout", domain.layout)()
    return found
