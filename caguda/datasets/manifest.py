"""The manifest that `check` writes: every frame of some sets with its size, classes and SHA-256."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from caguda.artifacts.ownership import LONGEST
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.errors import UserError, first, is_plain
from caguda.files import is_sealed, read_regular
from caguda.recorded_settings import refuse_other_settings

SetName = Literal["source", "target", "evaluation", "test", "translated"]
SET_NAMES: tuple[SetName, ...] = ("source", "target", "evaluation")
_REMEDY = "`check` (`check-test` for the set test, `check-translated` for the set translated)"
Entry = Mapping[str, Any]
"""A frame as the manifest has it: id, height, width, classes in the label, SHA-256 of the files, and more."""


@dataclass(frozen=True)
class Manifest:
    """The checked frames of an experiment: `sets` is the content of the file, `roots` has the folder of each set."""

    classes: tuple[str, ...]
    sets: Mapping[str, Mapping[str, Any]]
    roots: Mapping[str, Path]

    def entries(self, name: SetName) -> list[Entry]:
        """The entries of a set, sorted by id."""
        return list(self.sets[name]["frames"])

    def frames(self, name: SetName) -> list[Frame]:
        """The frames of a set, sorted by id, with absolute paths."""
        root = self.roots[name]
        return [
            Frame(
                entry["id"],
                root / entry["image"],
                None if entry["label"] is None else root / entry["label"],
                entry["image_sha256"],
                entry["label_sha256"],
            )
            for entry in self.entries(name)
        ]

    def batches(self, name: SetName, batch_size: int, indices: Iterable[int] | None = None) -> list[list[int]]:
        """Batches of the indices of a set's frames, in order: at most `batch_size` consecutive frames of one image size.

        `indices` restricts them to some frames.
        """
        sizes = [(entry["height"], entry["width"]) for entry in self.entries(name)]
        batches: list[list[int]] = []
        for _, group in groupby(range(len(sizes)) if indices is None else indices, key=sizes.__getitem__):
            same_size = list(group)
            batches += [same_size[start : start + batch_size] for start in range(0, len(same_size), batch_size)]
        return batches

    def image_size(self, name: SetName) -> tuple[int, int]:
        """The size (H, W) of the first image of a set."""
        entry = self.entries(name)[0]
        return entry["height"], entry["width"]

    def digest(self, name: SetName) -> str:
        """The SHA-256 of a set: of the ids and file contents of all frames, wherever the files lie."""
        return str(self.sets[name]["digest"])


def read_manifest(
    path: Path, names: Collection[SetName] = SET_NAMES, configuration: Configuration | None = None
) -> Manifest:
    """Reads the sets `names` of a manifest; UserError if it is absent, damaged, or lacks one of them.

    With a configuration, UserError unless the manifest was made with the same classes and sets. The root of a set is then
    the configured folder if it exists, else the folder that was checked: data may be moved, since every file is compared
    with its SHA-256 when it is read.
    """
    try:
        raw = read_regular(path, f"make it with {_REMEDY}")
        if not is_sealed(raw):
            raise UserError(
                f"{path}: the manifest must be as `check` wrote it, found another content or no digest at its end; make it "
                "again with `check`"
            )
        content = json.loads(raw.decode("utf-8"))
        sets: dict[str, Mapping[str, Any]] = {name: content[name] for name in names}
        roots: dict[str, Path] = {name: Path(value["root"]) for name, value in sets.items()}
        if configuration is not None:
            refuse_other_settings(path, configuration, content["provenance"])
            domains = {name: configuration.frame_set(name) for name in names}
            moved = {name: configuration.domain_root(domain) for name, domain in domains.items() if domain is not None}
            roots |= {name: folder for name, folder in moved.items() if folder.is_dir()}
        manifest = Manifest(tuple(content["classes"]), sets, roots)
        for name in names:
            refuse_unsafe_ids(path, [frame.id for frame in manifest.frames(name)])
            manifest.digest(name)
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: this is not a manifest with the sets {', '.join(names)}, or it is damaged; make it again with {_REMEDY}"
        ) from None
    return manifest


def refuse_unsafe_ids(path: Path, ids: Sequence[str]) -> None:
    """UserError unless every id is unique and can name a file `ID.png`, in UTF-8 without control characters."""
    longest = LONGEST - len(".png")
    for name in ids:
        is_name = isinstance(name, str) and name not in ("", ".", "..") and "/" not in name
        if not is_name or not is_plain(name) or len(name.encode()) > longest:
            raise UserError(
                f"{path}: the id of a frame must be the name of a file, at most {longest} bytes without `/` and control "
                f"characters, found {name!a:.300}; rename its image, and check again"
            )
    if duplicates := [name for name, count in Counter(ids).items() if count > 1]:
        raise UserError(
            f"{path}: every frame of a set must have an id of its own, found {duplicates[0]} twice; check again"
        )


def sizes_of(entries: Iterable[Entry]) -> str:
    """The image sizes of some frames, width x height, with their numbers of frames, the most frequent first."""
    sizes = Counter((entry["width"], entry["height"]) for entry in entries).most_common()
    return first([f"{width}x{height} ({count})" for (width, height), count in sizes], 5)
