"""A frame of a data set, and how image files are found in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caguda.errors import UserError, first


@dataclass(frozen=True)
class Frame:
    """One image, its label file where there is one, and a name that is unique in its set.

    A frame of a manifest has the SHA-256 of both files, which are compared whenever they are read.
    """

    id: str
    image: Path
    label: Path | None
    image_sha256: str | None = None
    label_sha256: str | None = None


def label_of(frame: Frame) -> Path:
    """The label file of a frame that must have one; UserError names the frame otherwise."""
    if frame.label is None:
        raise _unlabelled([frame], 1)
    return frame.label


def require_labels(frames: Sequence[Frame]) -> None:
    """UserError, naming the first ones, unless every frame has a label."""
    if without := [frame for frame in frames if frame.label is None]:
        raise _unlabelled(without, len(frames))


def _unlabelled(without: Sequence[Frame], count: int) -> UserError:
    names = first([frame.image for frame in without])
    return UserError(
        f"{names}: frames that are used with labels must have them, found {len(without)} of {count} without; add the "
        "labels, or name these ids under `skip`, and check again"
    )


def entries_of(folder: Path, key: str) -> list[Path]:
    """What a folder holds, sorted by name, hidden files left out; `key` names the folder in the configuration."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise UserError(f"{folder}: there is no such folder; correct the key {key}") from None
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be read ({error.strerror}); it is the key {key}") from None


def label_in(folder: Path, stem: str) -> Path:
    """Where a label belongs: STEM.png, or STEM.PNG if that is what there is; images may have a suffix in any case."""
    path, upper = folder / f"{stem}.png", folder / f"{stem}.PNG"
    return path if os.path.lexists(path) or not os.path.lexists(upper) else upper
