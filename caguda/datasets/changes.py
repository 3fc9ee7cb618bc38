"""The differences between the frames on disk and those of a manifest, found without opening files that look unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from caguda.config import Configuration
from caguda.datasets.manifest import SET_NAMES
from caguda.datasets.record import FileState, read_file_states, record_path
from caguda.datasets.translated import find_frames
from caguda.errors import UserError
from caguda.files import read_regular


def changed_frames(configuration: Configuration, content: Mapping[str, Any], manifest: Path) -> list[str]:
    """One phrase for each frame that was added, removed or changed since a manifest with this `content` was written.

    A file whose size and time of change are those that the check recorded counts as unchanged and is not opened.
    """
    states = read_file_states(record_path(manifest, content["provenance"]["made_by"]))
    changes: list[str] = []
    for name in (*SET_NAMES, "test", "translated"):
        if name in content and configuration.frame_set(name) is not None:
            try:
                changes += _changes_of_set(configuration, name, content[name], states)
            except UserError as error:
                changes.append(f"the {name} set: {error}")
    return changes


def _changes_of_set(
    configuration: Configuration, name: str, content: Mapping[str, Any], states: Mapping[str, FileState]
) -> Iterator[str]:
    root = Path(content["root"])
    frames = {frame.id: frame for frame in find_frames(configuration, name)[1]}
    entries = {entry["id"]: entry for entry in content["frames"]}
    yield from (f"{frame} of the {name} set was added" for frame in sorted(frames.keys() - entries.keys()))
    yield from (f"{frame} of the {name} set is gone" for frame in sorted(entries.keys() - frames.keys()))
    for frame in sorted(frames.keys() & entries.keys()):
        entry = entries[frame]
        for kind, file in (("image", frames[frame].image), ("label", frames[frame].label)):
            checked = None if entry[kind] is None else root / entry[kind]
            if not _is_unchanged(file, checked, entry[f"{kind}_sha256"], states):
                yield f"{file or frame} was changed"


def _is_unchanged(file: Path | None, checked: Path | None, sha256: str | None, states: Mapping[str, FileState]) -> bool:
    """Whether a file is the one that was checked at the path `checked`.

    A file of the recorded size with another time is hashed, unless it was moved: a moved file counts as unchanged here, and
    whatever decodes it compares its SHA-256.
    """
    if file is None or checked is None:
        return file is None and checked is None
    try:
        status = file.stat()
        size, mtime_ns, recorded = states.get(str(checked), FileState(status.st_size, status.st_mtime_ns, sha256))
        if status.st_size != size or recorded != sha256:
            return False
        if status.st_mtime_ns == mtime_ns or file != checked:
            return True
        return hashlib.sha256(read_regular(file)).hexdigest() == sha256
    except (UserError, OSError):
        return False
