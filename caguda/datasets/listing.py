"""The list of a set's frames: the images that its layout finds, restricted by the keys `list` and `skip`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from unicodedata import normalize

from caguda.config_frames import Domain
from caguda.datasets.frame import Frame, entries_of
from caguda.datasets.layout import layout_of
from caguda.errors import UserError, first, is_plain


def _listed_ids(path: Path) -> list[str]:
    """The ids in a list file, one per line without duplicates; empty lines are skipped."""
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
    if duplicates := [name for name, count in Counter(ids).items() if count > 1]:
        raise UserError(f"{path}: an id must be in the list of frames once, found more often: {first(duplicates)}")
    return ids


def find_images(domain: Domain, root: Path) -> dict[str, Path]:
    """Every image of a set by its id, before `list` and `skip` are applied; see images_by_id."""
    return images_by_id(domain, root, layout_of(domain).image_id)


def images_by_id(domain: Domain, root: Path, image_id: Callable[[Path], str | None]) -> dict[str, Path]:
    """Every image in the image folders of a set by its id; `image_id` gives None for a file that is no image of the set.

    Paths are absolute; symbolic links in them are not resolved. UserError for a missing folder, for two images with one
    id, and for a path with control characters or bytes that are not UTF-8.
    """
    root = Path(os.path.abspath(root))
    if not os.path.isdir(root):
        raise UserError(f"{root}: there is no such folder; correct the keys data_root and root")
    images: dict[str, Path] = {}
    unprintable, duplicates, layout = [], [], layout_of(domain)
    for folder in layout.image_folders(domain, root):
        for path in entries_of(folder, layout.key):
            if (name := image_id(path)) is None:
                continue
            if name in images:
                duplicates.append(f"{images[name]} and {path}")
            if not is_plain(str(path)):
                unprintable.append(path)
            images[name] = path
    if unprintable:
        raise UserError(
            f"{first(unprintable, 1)}: names of images must be in UTF-8 and without control characters, since ids are made "
            f"of them; rename the file or folder, a label likewise"
        )
    if duplicates:
        raise UserError(f"{first(duplicates, 1)}: two images have the same id; rename one of the two")
    return images


def select_frames(domain: Domain, root: Path, images: Mapping[str, Path]) -> list[Frame]:
    """The frames that `list` and `skip` select among all images, sorted by id; `label` is None if the file is absent.

    UserError for a `list` that cannot be read or has an id without an image, if no frame is selected, and for two ids
    that differ only in upper and lower case.
    """
    root, layout = Path(os.path.abspath(root)), layout_of(domain)
    selected = set(images)
    if domain.list is not None:
        selected = set(_listed_ids(root / domain.list))
        if missing := selected - set(images):
            raise UserError(
                f"{root / domain.list}: no image for these ids (an id has no suffix): {first(sorted(missing))}"
            )
    frames = []
    for name in sorted(selected - set(domain.skip)):
        label = None if domain.labels is None else layout.label_path(domain, root, images[name])
        frames.append(Frame(name, images[name], label if label is not None and os.path.lexists(label) else None))
    without_case: dict[str, Frame] = {}
    for frame in frames:
        if (twin := without_case.setdefault(normalize("NFC", frame.id).casefold(), frame)) is not frame:
            raise UserError(
                f"{twin.image} and {frame.image}: ids must differ in more than upper and lower case, since they become "
                "names of files; rename one of the two, or leave it out with the key skip"
            )
    if not frames:
        raise UserError(
            f"{root}: no frames found; layout {domain.layout} needs them in {layout.image_pattern(domain, root)}, and "
            f"looks into no other folder{_existing_files(domain, root, images)}"
        )
    return frames


def _existing_files(domain: Domain, root: Path, images: Mapping[str, Path]) -> str:
    """The end of the message that there are no frames: which images or other files there are instead."""
    if images:
        return f"; there are {len(images)} images, and skip leaves out all that are wanted"
    layout = layout_of(domain)
    names = [path.name for folder in layout.image_folders(domain, root) for path in entries_of(folder, layout.key)]
    return f"; found there: {first(names)}" if names else ""


def list_frames(domain: Domain, root: Path) -> list[Frame]:
    """The frames of a set, sorted by id: its images without those that `list` and `skip` leave out."""
    return select_frames(domain, root, find_images(domain, root))
