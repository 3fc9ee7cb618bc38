"""A survey of a set's folders: how many images there are, and which files and folders are not used."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caguda.config_frames import Domain
from caguda.datasets.layout import layout_of
from caguda.errors import first


@dataclass(frozen=True)
class Survey:
    """The contents of a set's folders that are no frames of the experiment, and the numbers of images and frames.

    `images` counts all images, `frames` those that `list` and `skip` select; `published` is the number of images in the
    published data set (None: unknown). `skipped` are the ids in `skip` that have an image, `unknown_skips` those that
    have none. `hidden` are files and folders whose name begins with a dot, `subfolders` lie in an image folder,
    `other_files` lie beside the images and are no images of the layout, `unused_labels` have no image.
    """

    images: int
    frames: int
    published: int | None
    skipped: Sequence[str]
    unknown_skips: Sequence[str]
    hidden: Sequence[Path]
    subfolders: Sequence[Path]
    other_files: Sequence[Path]
    unused_labels: Sequence[Path]

    def warnings(self) -> list[str]:
        """One line for each unknown id, subfolder and unused label, and for each folder and suffix of other files."""
        names_by_kind: dict[tuple[Path, str], list[str]] = {}
        for path in self.other_files:
            names_by_kind.setdefault((path.parent, path.suffix), []).append(path.name)
        return [
            *(f"skip: {name}: no image has this id, there is nothing to leave out" for name in self.unknown_skips),
            *(f"{path}: this folder lies among the images and is not searched" for path in self.subfolders),
            *(
                f"{folder}: {len(names)} {kind or 'other'} file(s) among the images are no images of the layout and are not "
                f"used: {first(names)}; convert those that are frames"
                for (folder, kind), names in names_by_kind.items()
            ),
            *(f"{path}: this label has no image and is not used" for path in self.unused_labels),
        ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The files and folders in a folder, hidden ones too, sorted by name; empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _label_names(domain: Domain, root: Path, images: Mapping[str, Path]) -> dict[Path, tuple[str, Container[str]]]:
    """For each folder of labels, the ending of label names in lower case, and the allowed beginnings.

    The beginnings are the ids of images or the stems of their files; a folder with labels of other names is left out.
    It is assumed that the images of one folder have their labels in one folder.
    """
    if domain.labels is None:
        return {}
    stems: defaultdict[Path, set[str]] = defaultdict(set)
    for image in images.values():
        stems[image.parent].add(image.stem)
    label_names: dict[Path, tuple[str, Container[str]]] = {}
    for folder, (name, image) in {image.parent: (name, image) for name, image in images.items()}.items():
        label = layout_of(domain).label_path(domain, root, image)
        choices: tuple[tuple[str, Container[str]], ...] = ((name, images), (image.stem, stems[folder]))
        for beginning, beginnings in choices:
            if label.name.startswith(beginning):
                label_names[label.parent] = (label.name.removeprefix(beginning).lower(), beginnings)
                break
    return label_names


def survey(domain: Domain, root: Path, images: Mapping[str, Path], frames: int) -> Survey:
    """The survey of a set with these images by id, of which `frames` are selected."""
    root, layout = Path(os.path.abspath(root)), layout_of(domain)
    used = set(images.values())
    image_folders, outer_folders = set(layout.image_folders(domain, root)), set(layout.outer_folders(domain, root))
    label_names = _label_names(domain, root, images)
    folders = {*image_folders, *label_names}
    folders |= {parent for folder in folders for parent in folder.parents if parent.is_relative_to(root)}
    hidden, subfolders, other_files, unused_labels = [], [], [], []
    for folder in sorted(folders):
        ending, beginnings = label_names.get(folder, ("", ()))
        for entry in _entries(folder):
            path = folder / entry.name
            is_label = bool(ending) and entry.name.lower().endswith(ending)
            if entry.name.startswith("."):
                hidden.append(path)
            elif folder in image_folders and path not in folders and entry.is_dir():
                subfolders.append(path)
            elif not entry.is_dir() and (
                folder in outer_folders or (folder in image_folders and not is_label and path not in used)
            ):
                other_files.append(path)
            elif is_label and entry.name[: -len(ending)] not in beginnings:
                unused_labels.append(path)
    skipped = sorted(set(domain.skip))
    return Survey(
        images=len(images),
        frames=frames,
        published=layout.published(domain),
        skipped=[name for name in skipped if name in images],
        unknown_skips=[name for name in skipped if name not in images],
        hidden=hidden,
        subfolders=subfolders,
        other_files=other_files,
        unused_labels=unused_labels,
    )
