"""The manifest that `check` writes: every frame of some sets, opened, measured and hashed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from caguda.artifacts.atomic import is_sealed
from caguda.artifacts.ownership import LONGEST
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.errors import UserError, is_plain
from caguda.files import read_regular
from caguda.recorded import refuse_other_settings

SetName = Literal["source", "target", "evaluation", "test"]
SET_NAMES: tuple[SetName, ...] = ("source", "target", "evaluation")


@dataclass(frozen=True)
class Manifest:
    """The checked frames of an experiment; `sets` is the content of the file by set, `roots` the folder of each set."""

    classes: tuple[str, ...]
    sets: Mapping[str, Mapping[str, Any]]
    roots: Mapping[str, Path]

    def entries(self, name: SetName) -> list[dict[str, Any]]:
        """What is known of each frame of a set: id, height, width, classes present, digests."""
        return list(self.sets[name]["frames"])

    def frames(self, name: SetName) -> list[Frame]:
        """The frames of a set, sorted by id, with absolute paths; `label` is None where there is none."""
        root = self.roots[name]
        return [
            Frame(
                entry["id"],
                root / entry["image"],
                None if entry["label"] is None else root / entry["label"],
                entry["image_sha256"],
                entry["label_sha256"],
            )
            for entry in self.sets[name]["frames"]
        ]

    def digest(self, name: SetName) -> str:
        """The SHA-256 over all frames of a set, ids and file contents; it does not depend on where the data lie."""
        return str(self.sets[name]["digest"])


def read_manifest(
    path: Path, names: Collection[SetName] = SET_NAMES, configuration: Configuration | None = None
) -> Manifest:
    """The manifest of a file, of the sets `names`; UserError if it is absent, damaged, or without one of them.

    With a configuration it must be of the same classes and sets, and the frames are in the configured folders, where these exist, else where they were checked: data may be
    moved, and each file is compared with its digest when it is read.
    """
    try:
        raw = read_regular(path, "make it with `check`, or `check-test` for the set test")
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
            domains = {name: getattr(configuration, name) for name in names}
            moved = {name: configuration.domain_root(domain) for name, domain in domains.items() if domain is not None}
            roots |= {name: folder for name, folder in moved.items() if folder.is_dir()}
        manifest = Manifest(tuple(content["classes"]), sets, roots)
        for name in names:
            refuse_unsafe_ids(path, [frame.id for frame in manifest.frames(name)])
            manifest.digest(name)
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: this is not a manifest with the sets {', '.join(names)}, or it is damaged; make it again with `check` "
            "(`check-test` for the set test)"
        ) from None
    return manifest


def refuse_unsafe_ids(path: Path, ids: Sequence[str]) -> None:
    """UserError unless every id can be the name of a file in a folder, `ID.png`, and no two are the same.

    Control characters and what no UTF-8 is would reach terminals and tables.
    """
    for frame in ids:
        named = isinstance(frame, str) and frame not in ("", ".", "..") and "/" not in frame
        if not named or not is_plain(frame) or len(frame.encode()) > LONGEST - len(".png"):
            raise UserError(
                f"{path}: the id of a frame must be the name of a file, at most {LONGEST - 4} bytes without `/` and control "
                f"characters, found {frame!a:.300}; rename its image, and check again"
            )
    if twice := [frame for frame, count in Counter(ids).items() if count > 1]:
        raise UserError(f"{path}: every frame of a set must have an id of its own, found {twice[0]} twice; check again")
