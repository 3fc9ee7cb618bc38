"""The images and the truth of frames that are looked at, as far as they are there; a note for each that is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from caguda.classes import ClassTable
from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_image
from caguda.errors import UserError

T = TypeVar("T")
Truth = tuple[Mapping[int, Frame], ClassTable]
"""The frames with a label file by their indices, and the class table that decodes these files."""


@dataclass
class KnownFrames:
    """Frames by their index, empty if they are not known, and those of them with a truth; see Truth.

    `notes` are messages about missing or changed files, as the keys of a dict, so that each is kept once and in order.
    """

    frames: Sequence[Frame] = ()
    labelled: Mapping[int, Frame] = field(default_factory=dict)
    table: ClassTable | None = None
    notes: dict[str, None] = field(default_factory=dict)

    @classmethod
    def found(cls, frames: Callable[[], Sequence[Frame]], truth: Callable[[], Truth]) -> KnownFrames:
        """The frames and the truth that two functions find; a note where one of them cannot."""
        known = cls()
        try:
            known.frames = frames()
            known.labelled, known.table = truth()
        except UserError as error:
            known.notes[f"{'no truth is' if known.frames else 'neither images nor truth are'} known: {error}"] = None
        return known

    def image(self, index: int) -> tuple[NDArray[np.uint8] | None, str]:
        """The image (H, W, 3) of a frame and an empty text, or None and the reason, with a note."""
        if not self.frames:
            return None, "its image is not known"
        try:
            return frame_image(self.frames[index]).permute(1, 2, 0).numpy(), ""
        except UserError as error:
            self.notes[f"{self.frames[index].id}: {error}"] = None
            return None, str(error)

    def truth(self, index: int, read: Callable[[Frame, ClassTable], T]) -> T | None:
        """What `read` makes of a frame's label file; None without one, and with a note if it cannot be read."""
        if index not in self.labelled or self.table is None:
            return None
        try:
            return read(self.labelled[index], self.table)
        except UserError as error:
            self.notes[f"{self.frames[index].id}: {error}"] = None
            return None
