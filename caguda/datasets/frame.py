"""A frame of a data set, and helpers of the layouts that look for its files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caguda.errors import UserError, first


@dataclass(frozen=True)
class Frame:
    """An image, its label file if it has one, and an id that is unique in its set.

    A frame of a manifest also has the SHA-256 of both files. Whenever a file is read, its content is compared with it.
    """

    id: str
    image: Path
    label: Path | None
    image_sha256: str | None = None
    label_sha256: str | None = None


def label_file(frame: Frame) -> Path:
    """The label file of a frame; UserError if it has none."""
    require_labels([frame])
    assert frame.label is not None
    return frame.label


def require_labels(frames: Sequence[Frame]) -> None:
    """UserError, with the first frames without a label, unless every frame has one."""
    if unlabelled := [frame.image for frame in frames if frame.label is None]:
        raise UserError(
            f"{first(unlabelled)}: frames that are used with labels must have them, found {len(unlabelled)} of "
            f"{len(frames)} without; add the labels, or name these ids under `skip`, and check again"
        )


def entries_of(folder: Path, key: str) -> list[Path]:
    """The files and folders in a folder, sorted by name, without hidden ones; UserError if it cannot be read.

    `key` is the key of the configuration that names the folder, for the message.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise UserError(f"{folder}: there is no such folder; correct the key {key}") from None
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be read ({error.strerror}); it is the key {key}") from None


def label_in(folder: Path, stem: str) -> Path:
    """The path of a label, whether or not it exists: STEM.PNG if that is the only one that exists, else STEM.png."""
    path, upper = folder / f"{stem}.png", folder / f"{stem}.PNG"
    return path if os.path.lexists(path) or not os.path.lexists(upper) else upper


def shortened(path: Path, root: Path | str) -> Path:
    """`path` relative to `root` if it lies below it, else `path` itself."""
    return path.relative_to(root) if path.is_relative_to(root) else path
