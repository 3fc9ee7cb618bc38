"""Labels by anchors and by probability of one model, or of two beside each other, with their frames."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from caguda.artifacts.identity import contents_of_inputs
from caguda.classes import IGNORE, ClassTable
from caguda.errors import UserError
from caguda.stages.diagnose import truth_at
from caguda.stages.known_frames import KnownFrames
from caguda.stages.labelling import Labelling
from caguda.stages.traced_labelling import TracedLabelling
from caguda.viewer.overlays import ViewedFrame, agreement, write_sheet
from caguda.viewer.page import LabellingHead, Page, write_page


@dataclass
class Scene:
    """One or two labellings of the same images, and what is known of the frames of these images.

    `table` has the categories and their colours. The first labelling's order of images numbers the frames.
    """

    labellings: Sequence[Labelling]
    table: ClassTable
    known: KnownFrames

    @property
    def path(self) -> Path:
        """The file of the first labelling."""
        return self.labellings[0].path

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The id of every image, in order."""
        return self.labellings[0].image_ids

    @property
    def written(self) -> list[int]:
        """The indices of the images that every labelling has."""
        missing = {index for labelling in self.labellings for index in labelling.missing()}
        return [index for index in range(len(self.image_ids)) if index not in missing]

    @property
    def heads(self) -> list[LabellingHead]:
        """The head of each labelling. Its title is its model, or its path if both labellings are of one model."""
        paths = [str(labelling.path) for labelling in self.labellings]
        titles = [f"labels made by {labelling.model}" for labelling in self.labellings]
        titles = titles if len(set(titles)) == len(titles) else paths
        return [
            LabellingHead(title, path, *labelling.shape, labelling.margin, labelling.p0)
            for title, path, labelling in zip(titles, paths, self.labellings, strict=True)
        ]

    def frame(self, index: int) -> ViewedFrame:
        """The image, truth and labels of a frame."""
        name = self.image_ids[index]
        image, reason = self.known.image(index)
        labels = [labelling.read(labelling.image_ids.index(name)) for labelling in self.labellings]
        return ViewedFrame(name, image, reason, self.truth(index), labels)

    def truth(self, index: int) -> list[NDArray[np.uint8]] | None:
        """The train ids of a frame at the resolution of each labelling; None if they are not known."""
        return self.known.truth(
            index, lambda frame, table: [truth_at(frame, table, labelling) for labelling in self.labellings]
        )

    def worst(self, count: int) -> tuple[list[int], str]:
        """The `count` frames with the lowest agreement with the truth, or without any truth the lowest active share."""
        agreements: list[tuple[float, int]] = []
        shares: list[tuple[float, int]] = []
        for index in tqdm(self.written, desc="worst", disable=not sys.stderr.isatty()):
            label = self.labellings[0].read(index).anchor_label
            shares.append((float(np.mean(label != IGNORE)), index))
            truth = self.truth(index)
            if truth is not None and (share := agreement(label, truth[0])) is not None:
                agreements.append((share, index))
        reason = "lowest agreement with the truth" if agreements else "fewest pixels active by anchors"
        return [index for _, index in sorted(agreements or shares)[:count]], reason

    def write_sheet(self, index: int, output: Path) -> None:
        """Writes the picture of a frame into a folder."""
        frame = self.frame(index)
        write_sheet(frame, self.table, f"{frame.name}, {self.heads[0].title}", output / f"{frame.name}.png")

    def write_page(self, chosen: str, indices: Iterable[int], output: Path) -> Path:
        """Writes a page of some frames into a folder."""
        return write_page(Page(chosen, self.table, self.heads), map(self.frame, indices), output)


def open_labellings(traced: Sequence[TracedLabelling]) -> Scene:
    """One or two labellings with the frames of the first; UserError unless they are of the same images."""
    labellings = [one.labelling for one in traced]
    first = labellings[0]
    for second in labellings[1:]:
        if set(second.image_ids) != set(first.image_ids) or second.categories != first.categories:
            raise UserError(f"{second.path}: pseudo-labels that are compared must have the same images and categories, found "
                            f"other ones than in {first.path}; name two stages of one experiment")  # fmt: skip
        inputs = [contents_of_inputs(labelling.evidence.attributes["provenance"]) for labelling in (first, second)]
        if inputs[0].isdisjoint(inputs[1]):
            raise UserError(f"{second.path}: pseudo-labels that are compared must be of the same frames, found none of the files that "
                            f"{first.path} was made of; name two stages of one experiment")  # fmt: skip
    return Scene(labellings, traced[0].table, KnownFrames.found(lambda: traced[0].frames, traced[0].truth))
