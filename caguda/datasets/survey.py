"""What the folders of a set hold beside its frames: what is left out, and how many images there should be."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caguda.config_frames import Domain
from caguda.datasets.frames import image_folders, image_id, label_path
from caguda.datasets.layout import layout_of
from caguda.errors import first


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


def _names_of_labels(domain: Domain, root: Path, images: Mapping[str, Path]) -> dict[Path, tuple[str, Container[str]]]:
    """By folder of labels: what their names end with, in lower case, and what they begin with, ids or names of images.

    The labels of the images of one folder lie in one folder too. It is left out where its names are made in another way.
    """
    stems: defaultdict[Path, set[str]] = defaultdict(set)
    for path in images.values():
        stems[path.parent].add(path.stem)
    found: dict[Path, tuple[str, Container[str]]] = {}
    for folder, (name, path) in {path.parent: (name, path) for name, path in images.items()}.items():
        if (label := label_path(domain, root, path)) is None:
            continue
        beginnings: tuple[tuple[str, Container[str]], ...] = ((name, images), (path.stem, stems[folder]))
        for begins, names in beginnings:
            if label.name.startswith(begins):
                found[label.parent] = (label.name.removeprefix(begins).lower(), names)
                break
    return found


def survey(domain: Domain, root: Path, images: Mapping[str, Path], frames: int) -> Survey:
    """What is on disk of a set with these images, by id, of which so many are frames."""
    root = Path(os.path.abspath(root))
    folders, outer = set(image_folders(domain, root)), set(layout_of(domain).outer_folders(domain, root))
    labels = _names_of_labels(domain, root, images)
    searched = _down_from(root, {*folders, *labels})
    hidden, nested, others, unused = [], [], [], []
    for folder in sorted(searched):
        for entry in _entries(folder):
            path, (ending, names) = folder / entry.name, labels.get(folder, ("", ()))
            is_label = bool(ending) and entry.name.lower().endswith(ending)
            if entry.name.startswith("."):
                hidden.append(path)
            elif folder in folders and path not in searched and entry.is_dir():
                nested.append(path)
            elif not entry.is_dir() and (
                folder in outer or (folder in folders and not is_label and image_id(domain, path) is None)
            ):
                others.append(path)
            elif is_label and entry.name[: -len(ending)] not in names:
                unused.append(path)
    skipped = sorted(set(domain.skip))
    return Survey(
        images=len(images),
        frames=frames,
        published=layout_of(domain).published(domain),
        skipped=[name for name in skipped if name in images],
        absent=[name for name in skipped if name not in images],
        hidden=hidden,
        nested=nested,
        others=others,
        unused=unused,
    )
