"""The verb `view`: pictures of the pseudo-labels of some frames, or a page of all frames."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from caguda.artifacts.identity import contents_of_inputs
from caguda.artifacts.ownership import clear_folder
from caguda.classes import IGNORE, ClassTable
from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_image
from caguda.errors import UserError, printable
from caguda.stages.diagnose import truth_at
from caguda.stages.labelling import Labelling, open_labelling
from caguda.stages.traced_labelling import TracedLabelling
from caguda.viewer.overlays import ViewedFrame, agreement, write_sheet
from caguda.viewer.page import VIEWED, LabellingHead, Page, write_page

SHEETS = 4
"""The number of pictures without --frames, --worst or --random."""
NOTES = 5
"""The number of notes that are printed."""


def view(
    labellings: Sequence[Path], frames: str | None, worst: int | None, random: int | None, html: bool, output: Path
) -> None:
    """Draw frames of a labelling into the folder `output`: one PNG each, or with `html` a page, which may compare two.

    `labellings` are label reports or evidence, see `open_labelling`. Frames are chosen by `frames` (ids, with commas),
    `random` (a number; the same frames in every call) or `worst` (a number); else all are on a page, and SHEETS evenly
    spaced ones are drawn. The worst have the lowest agreement of their labels by anchors with the truth, or without a
    truth the lowest share of pixels active by anchors. Earlier pictures and pages in `output` are replaced. Images and
    truth are found by the manifest in the provenance.
    """
    if len(labellings) > (2 if html else 1):
        raise UserError("view: the pseudo-labels of one label report or evidence are drawn, and those of two are compared on a page (--html); "
                        f"found {len(labellings)}{'' if html else ' and no --html'}")  # fmt: skip
    scene = open_scene(labellings)
    count, missing = scene.first.count, {index for labelling in scene.labellings for index in labelling.missing()}
    written = [index for index in range(count) if index not in missing]
    if not written:
        raise UserError(f"{labellings[0]}: some images must be written, found none; make the evidence first")
    chosen, reason = _chosen(scene, written, frames, worst, random, len(written) if html else SHEETS)
    indices = tqdm(chosen, desc="view", disable=not sys.stderr.isatty())
    if html:
        page = Page(reason, scene.table, scene.heads)
        result = write_page(page, (scene.frame(index) for index in indices), output)
    else:
        result = output
        clear_folder(output, VIEWED, "view")
        for index in indices:
            frame = scene.frame(index)
            write_sheet(frame, scene.table, f"{frame.name}, {scene.heads[0].title}", output / f"{frame.name}.png")
    incomplete = f"; {count - len(written)} not written yet" if len(written) < count else ""
    print(f"view: {len(chosen)} of {count} frames, {reason}{incomplete} -> {result}")
    for note in list(scene.notes)[:NOTES]:
        print(f"view: {printable(note)}")
    if len(scene.notes) > NOTES:
        print(f"view: and {len(scene.notes) - NOTES} more")


@dataclass
class Scene:
    """One or two labellings of the same images, with the frames of these images.

    `table` has the categories and their colours. `frames` are those of the first labelling, empty if they are not known.
    `labelled` are those of them with a label file, by index, and `truth_table` decodes these files. `notes` are messages
    about missing or changed files, as the keys of a dict, so that each is kept once and in order.
    """

    labellings: Sequence[Labelling]
    table: ClassTable
    frames: Sequence[Frame]
    labelled: Mapping[int, Frame]
    truth_table: ClassTable
    notes: dict[str, None]

    @property
    def first(self) -> Labelling:
        """The first labelling, whose order of images numbers the frames."""
        return self.labellings[0]

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
        """The image, truth and labels of a frame; adds a note if its image or truth cannot be read."""
        name = self.first.image_ids[index]
        image, reason = None, "its image is not known"
        if self.frames:
            try:
                image, reason = frame_image(self.frames[index]).permute(1, 2, 0).numpy(), ""
            except UserError as error:
                reason = str(error)
                self.notes[f"{name}: {reason}"] = None
        labels = [labelling.read(labelling.image_ids.index(name)) for labelling in self.labellings]
        return ViewedFrame(name, image, reason, self.truth(index), labels)

    def truth(self, index: int) -> list[NDArray[np.uint8]] | None:
        """The train ids of a frame at the resolution of each labelling; None, with a note, if they cannot be read."""
        if index not in self.labelled:
            return None
        try:
            return [truth_at(self.labelled[index], self.truth_table, labelling) for labelling in self.labellings]
        except UserError as error:
            self.notes[f"{self.first.image_ids[index]}: {error}"] = None
            return None


def open_scene(paths: Sequence[Path]) -> Scene:
    """The labellings at `paths` with the frames of the first; UserError unless all are of the same images."""
    all_traced = [TracedLabelling(open_labelling(path)) for path in paths]
    traced, labellings = all_traced[0], [traced.labelling for traced in all_traced]
    first = labellings[0]
    for second in labellings[1:]:
        if set(second.image_ids) != set(first.image_ids) or second.categories != first.categories:
            raise UserError(f"{second.path}: pseudo-labels that are compared must have the same images and categories, found "
                            f"other ones than in {first.path}; name two stages of one experiment")  # fmt: skip
        inputs = [contents_of_inputs(labelling.evidence.attributes["provenance"]) for labelling in (first, second)]
        if inputs[0].isdisjoint(inputs[1]):
            raise UserError(f"{second.path}: pseudo-labels that are compared must be of the same frames, found none of the files that "
                            f"{first.path} was made of; name two stages of one experiment")  # fmt: skip
    scene = Scene(labellings, traced.table, (), {}, traced.table, {})
    try:
        scene.frames = traced.frames
        scene.labelled, scene.truth_table = traced.truth()
    except UserError as error:
        scene.notes[f"{'no truth is' if scene.frames else 'neither images nor truth are'} known: {error}"] = None
    return scene


def _chosen(
    scene: Scene, written: Sequence[int], names: str | None, worst: int | None, random: int | None, default: int
) -> tuple[list[int], str]:
    """The indices of the frames to show, and how they were chosen; `default` is their number without an option.

    UserError for several options, and for names that are not those of written images, or repeated.
    """
    if sum(option is not None for option in (names, worst, random)) > 1:
        raise UserError("view: one of --frames, --worst and --random must choose the frames, found several")
    if names is not None:
        return _named(scene, written, names.split(",")), "as named"
    count = min(worst or random or default, len(written))
    if random is not None:
        positions = np.random.default_rng(0).choice(len(written), count, replace=False)
        return [written[position] for position in positions.tolist()], "at random"
    if worst is not None:
        return _worst(scene, written, count)
    evenly = [written[len(written) * (2 * k + 1) // (2 * count)] for k in range(count)]
    return evenly, "in their order" if count == len(written) else "evenly spaced"


def _named(scene: Scene, written: Sequence[int], names: Sequence[str]) -> list[int]:
    by_name = {scene.first.image_ids[index]: index for index in written}
    if unknown := [name for name in names if name not in by_name]:
        raise UserError(f"{scene.first.path}: --frames must name finished images of the evidence, found {unknown[0]!r}"
                        f"; its ids are such as {next(iter(by_name))}")  # fmt: skip
    if len(set(names)) < len(names):
        raise UserError(f"--frames {','.join(names)}: every frame must be named once, found one twice; leave it out")
    return [by_name[name] for name in names]


def _worst(scene: Scene, written: Sequence[int], count: int) -> tuple[list[int], str]:
    """The `count` frames with the lowest agreement with the truth, or without any truth the lowest active share."""
    agreements: list[tuple[float, int]] = []
    shares: list[tuple[float, int]] = []
    for index in tqdm(written, desc="worst", disable=not sys.stderr.isatty()):
        label = scene.first.read(index).anchor_label
        shares.append((float(np.mean(label != IGNORE)), index))
        truth = scene.truth(index)
        if truth is not None and (share := agreement(label, truth[0])) is not None:
            agreements.append((share, index))
    reason = "lowest agreement with the truth" if agreements else "fewest pixels active by anchors"
    return [index for _, index in sorted(agreements or shares)[:count]], reason
