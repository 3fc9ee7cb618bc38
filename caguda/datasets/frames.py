"""The frames of a set: found by its layout, narrowed by `list` and `skip`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from unicodedata import normalize

from caguda.config_frames import Domain
from caguda.datasets.frame import Frame, entries_of
from caguda.datasets.layout import layout_of
from caguda.errors import UserError, first, printable

__all__ = ["Frame", "find_images", "image_folders", "image_id", "label_path", "list_frames", "narrowed"]


def _listed(path: Path) -> list[str]:
    """The ids of a list file: one a line, each once, empty lines left out."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: the list of frames must be a file of text, found another kind; correct the key list")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: the list of frames cannot be read ({error.strerror}); correct the key list") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: the list of frames must be text in UTF-8, one id a line") from None
    ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list of frames names none; write one id a line, or leave out the key list")
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise UserError(f"{path}: an id must be in the list of frames once, found more often: {first(twice)}")
    return ids


def label_path(domain: Domain, root: Path, image: Path) -> Path | None:
    """Where the label of an image belongs, whether or not it is there; None for an unlabelled set."""
    return None if domain.labels is None else layout_of(domain).label_path(domain, root, image)


def find_images(domain: Domain, root: Path) -> dict[str, Path]:
    """Every image of a set by its id, before `list` and `skip`; paths are absolute, symbolic links in them are kept.

    Raises UserError for a folder that is not there, for two images of one id, and for a name that cannot be an id.
    """
    root = Path(os.path.abspath(root))
    if not os.path.isdir(root):
        raise UserError(f"{root}: there is no such folder; correct the keys data_root and root")
    images: dict[str, Path] = {}
    odd, twice, layout = [], [], layout_of(domain)
    for searched in layout.image_folders(domain, root):
        for path in entries_of(searched, layout.key):
            if (name := layout.image_id(path)) is None:
                continue
            if name in images:
                twice.append(f"{images[name]} and {path}")
            if printable(str(path)) != str(path):
                odd.append(path)
            images[name] = path
    if odd:
        raise UserError(
            f"{first(odd, 1)}: names of images must be in UTF-8 and without control characters, since ids are made of "
            f"them; rename the file or folder, a label likewise"
        )
    if twice:
        raise UserError(f"{first(twice, 1)}: two images have the same id; rename one of the two")
    return images


def image_folders(domain: Domain, root: Path) -> list[Path]:
    """The folders that a layout searches for images; UserError where it finds none to search."""
    return layout_of(domain).image_folders(domain, root)


def image_id(domain: Domain, path: Path) -> str | None:
    """The id of an image of a set; None for any other file."""
    return layout_of(domain).image_id(path)


def narrowed(domain: Domain, root: Path, images: Mapping[str, Path]) -> list[Frame]:
    """The frames that `list` and `skip` leave of all images, sorted by id; `label` is None where the file is absent.

    Raises UserError for a `list` that cannot be read or names a frame that is not there, where no frame is left, and for
    two ids that are one where names of files are compared without regard to case.
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
    same: dict[str, Frame] = {}
    for frame in frames:
        if (other := same.setdefault(normalize("NFC", frame.id).casefold(), frame)) is not frame:
            raise UserError(
                f"{other.image} and {frame.image}: ids must differ in more than upper and lower case, since they become "
                "names of files; rename one of the two, or leave it out with the key skip"
            )
    if not frames:
        raise UserError(
            f"{root}: no frames found; layout {domain.layout} needs them in {layout_of(domain).place(domain, root)}, and "
            f"looks into no other folder{_instead(domain, root, images)}"
        )
    return frames


def list_frames(domain: Domain, root: Path) -> list[Frame]:
    """The frames of a set, sorted by id: its images less what `list` and `skip` leave out."""
    return narrowed(domain, root, find_images(domain, root))


def _instead(domain: Domain, root: Path, images: Mapping[str, Path]) -> str:
    """What there is where no frames are found, for messages."""
    if images:
        return f"; there are {len(images)} images, and skip leaves out all that are wanted"
    others = [path.name for folder in image_folders(domain, root) for path in entries_of(folder, layout_of(domain).key)]
    return f"; found there: {first(others)}" if others else ""
