"""What the folders of a set hold beside its frames: what is left out, and how many images there should be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caguda.config_frames import Domain
from caguda.datasets.frames import image_folders, image_id, label_path
from caguda.errors import first

_PUBLISHED = {
    ("gta5", None): 24_966,
    ("synthia", None): 9_400,
    ("cityscapes", "train"): 2_975,
    ("cityscapes", "val"): 500,
    ("cityscapes", "test"): 1_525,
}


@dataclass(frozen=True)
class Survey:
    """What is on disk of a set, and what of it is no frame of the experiment.

    `images` counts the images, `frames` those that `list` and `skip` leave, `published` is how many the data set has
    (None: nobody knows). `skipped` are the ids of `skip` that have an image, `absent` those that have none. `hidden`
    are files and folders whose name begins with a dot, `nested` folders beside the images, `others` files beside them
    that are no images of the layout, `unused` labels without an image.
    """

    images: int
    frames: int
    published: int | None
    skipped: Sequence[str]
    absent: Sequence[str]
    hidden: Sequence[Path]
    nested: Sequence[Path]
    others: Sequence[Path]
    unused: Sequence[Path]

    def warnings(self) -> list[str]:
        """What a person should look at: each names a file, a folder or an id."""
        kinds: dict[tuple[Path, str], list[str]] = {}
        for path in self.others:
            kinds.setdefault((path.parent, path.suffix), []).append(path.name)
        return [
            *(f"skip: {name}: no image has this id, there is nothing to leave out" for name in self.absent),
            *(f"{path}: this folder lies among the images and is not searched" for path in self.nested),
            *(
                f"{folder}: {len(names)} {kind or 'other'} file(s) among the images are no images of the layout and are not "
                f"used: {first(names)}; convert those that are frames"
                for (folder, kind), names in kinds.items()
            ),
            *(f"{path}: this label has no image and is not used" for path in self.unused),
        ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _down_from(root: Path, folders: Iterable[Path]) -> set[Path]:
    """Some folders, and those between them and `root`, which is one of them."""
    return {above for folder in folders for above in folder.parents if above.is_relative_to(root)}.union(folders)


def survey(domain: Domain, root: Path, images: Mapping[str, Path], frames: int) -> Survey:
    """What is on disk of a set with these images, by id, of which so many are frames.

    The labels of the images of one folder lie in one folder too.
    """
    root = Path(os.path.abspath(root))
    one = {path.parent: (name, path) for name, path in images.items()}
    folders = set(image_folders(domain, root))
    splits = {folder.parent for folder in folders} if domain.layout == "cityscapes" else set()
    labels = {label: name for name, path in one.values() if (label := label_path(domain, root, path)) is not None}
    endings = {label.parent: label.name.removeprefix(name).lower() for label, name in labels.items()}
    searched = _down_from(root, {*folders, *endings})
    hidden, nested, others, unused = [], [], [], []
    for folder in sorted(searched):
        for entry in _entries(folder):
            path, ending = folder / entry.name, endings.get(folder)
            if entry.name.startswith("."):
                hidden.append(path)
            elif folder in folders and path not in searched and entry.is_dir():
                nested.append(path)
            elif (
                folder in splits | folders
                and not entry.is_dir()
                and (folder in splits or image_id(domain, path) is None)
            ):
                others.append(path)
            elif ending and entry.name.lower().endswith(ending) and entry.name[: -len(ending)] not in images:
                unused.append(path)
    skipped = sorted(set(domain.skip))
    return Survey(
        images=len(images),
        frames=frames,
        published=_PUBLISHED.get((domain.layout, domain.split)),
        skipped=[name for name in skipped if name in images],
        absent=[name for name in skipped if name not in images],
        hidden=hidden,
        nested=nested,
        others=others,
        unused=unused,
    )
