"""The frames of a set: found by its layout, narrowed by `list` and `skip`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from caguda.config_frames import Domain
from caguda.datasets import cityscapes, folder, gta5, synthia
from caguda.datasets.frame import Frame
from caguda.errors import UserError, first

__all__ = ["Frame", "find_images", "label_path", "list_frames", "narrowed"]


def _layout(domain: Domain) -> ModuleType:
    return {"gta5": gta5, "synthia": synthia, "cityscapes": cityscapes, "folder": folder}[domain.layout]


def _listed(path: Path) -> list[str]:
    """The ids of a list file: one a line, empty lines left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: the list of frames cannot be read ({error.strerror}); correct the key list") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: the list of frames must be text in UTF-8, one id a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def label_path(domain: Domain, root: Path, image: Path) -> Path | None:
    """Where the label of an image belongs, whether or not it is there; None for an unlabelled set."""
    path: Path | None = _layout(domain).label(domain, root, image)
    return path


def find_images(domain: Domain, root: Path) -> dict[str, Path]:
    """Every image of a set by its id, before `list` and `skip`; paths are absolute, symbolic links in them are kept.

    Raises UserError for a folder that is not there.
    """
    root = Path(os.path.abspath(root))
    if not os.path.isdir(root):
        raise UserError(f"{root}: there is no such folder; correct the keys data_root and root")
    images: dict[str, Path] = _layout(domain).images(domain, root)
    return images


def narrowed(domain: Domain, root: Path, images: Mapping[str, Path]) -> list[Frame]:
    """The frames that `list` and `skip` leave of all images, sorted by id; `label` is None where the file is absent.

    Raises UserError for a `list` that cannot be read or names a frame that is not there, and where no frame is left.
    """
    root = Path(os.path.abspath(root))
    wanted = set(images)
    if domain.list is not None:
        wanted = set(_listed(root / domain.list))
        if missing := wanted - set(images):
            raise UserError(
                f"{root / domain.list}: no image for these ids (an id has no suffix): {first(sorted(missing))}"
            )
    frames = []
    for name in sorted(wanted - set(domain.skip)):
        label = label_path(domain, root, images[name])
        frames.append(Frame(name, images[name], label if label is not None and os.path.lexists(label) else None))
    if not frames:
        raise UserError(
            f"{root}: no frames found; layout {domain.layout} needs them in {_place(domain)}, and looks into no other "
            "folder"
        )
    return frames


def list_frames(domain: Domain, root: Path) -> list[Frame]:
    """The frames of a set, sorted by id: its images less what `list` and `skip` leave out."""
    return narrowed(domain, root, find_images(domain, root))


def _place(domain: Domain) -> str:
    """Where a layout looks for images, for messages."""
    if domain.layout == "cityscapes":
        return f"leftImg8bit/{domain.split}/CITY/*_leftImg8bit.png"
    if domain.layout == "synthia":
        return "RGB/*.png"
    return f"{domain.images}/*.png" + (", *.jpg or *.jpeg" if domain.layout == "folder" else "")
