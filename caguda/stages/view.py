"""Pseudo-labels to look at: overlays of some frames as pictures, or a page that pages through all of them."""

from __future__ import annotations

import hashlib
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
from caguda.datasets.io import decode_image, read_bytes
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError, printable
from caguda.stages.diagnose import truth_at
from caguda.stages.labelling import Labelling
from caguda.stages.origin import open_origin
from caguda.viewer.overlays import ViewedFrame, agreement, write_sheet
from caguda.viewer.page import VIEWED, Page, write_page

SHEETS = 4
"""How many frames, evenly spaced, are drawn where none are asked for."""


def view(
    stores: Sequence[Path], frames: str | None, worst: int | None, random: int | None, html: bool, output: Path
) -> None:
    """Draw frames of a label store as one PNG each in the folder `output`; or with `html` a page of them there.

    The page has all frames, the pictures SHEETS of them, unless some are chosen: by their ids, at random (the same in
    every call), or the worst. Worst is the lowest agreement of labels by anchors with the truth; where no truth is
    known, the lowest share of pixels active by anchors. What an earlier call left in `output` is replaced. Images and truth come from the manifest that the store names.
    """
    if len(stores) > (2 if html else 1):
        raise UserError("view: one label store is drawn, and two are compared on a page (--html); "
                        f"found {len(stores)} stores{'' if html else ' and no --html'}")  # fmt: skip
    scene = open_scene(stores)
    written = sorted(set(range(scene.first.count)) - {i for store in scene.stores for i in store.missing()})
    if not written:
        raise UserError(f"{stores[0]}: some images must be written, found none; make the evidence first")
    chosen, reason = _chosen(scene, written, frames, worst, random, len(written) if html else SHEETS)
    indices = tqdm(chosen, desc="view", disable=not sys.stderr.isatty())
    titles = scene.titles
    if html:
        made_of = Page(titles, reason, scene.table, scene.stores)
        result = write_page(made_of, (scene.frame(index) for index in indices), output)
    else:
        result = output
        clear_folder(output, VIEWED, "view")
        for index in indices:
            frame = scene.frame(index)
            write_sheet(frame, scene.table, f"{frame.name}, {titles[0]}", output / f"{frame.name}.png")
    left_out = f"; {scene.first.count - len(written)} not written yet" if len(written) < scene.first.count else ""
    print(f"view: {len(chosen)} of {scene.first.count} frames, {reason}{left_out} -> {result}")
    for note in list(scene.notes)[:5]:
        print(f"view: {printable(note)}")
    if len(scene.notes) > 5:
        print(f"view: and {len(scene.notes) - 5} more")


@dataclass
class Scene:
    """One or two label stores of the same images, and the files of these images as far as they are still there.

    `frames` has each image's frame and the digest of its file; `truth` the frames with a label, by their place in the
    first store, and how to read it. What is gone is told in `notes`.
    """

    stores: Sequence[Labelling]
    table: ClassTable
    frames: Sequence[tuple[Frame, str]]
    labelled: Mapping[int, Frame]
    raw: ClassTable
    notes: dict[str, None]

    @property
    def first(self) -> Labelling:
        """What was named first, by which frames are numbered and chosen."""
        return self.stores[0]

    @property
    def titles(self) -> list[str]:
        """What the pseudo-labels are called: after the model that made them, or by their paths where these are the same."""
        titles = [f"labels of {store.model}" for store in self.stores]
        return titles if len(set(titles)) == len(titles) else [str(store.path) for store in self.stores]

    def frame(self, index: int) -> ViewedFrame:
        """What is known of an image; what is gone is noted."""
        name = self.first.image_ids[index]
        image, missing = self._image(index)
        if image is None and self.frames:
            self.notes[f"{name}: {missing}"] = None
        labels = [store.read(store.image_ids.index(name)) for store in self.stores]
        return ViewedFrame(name, image, missing, self.truth(index), labels)

    def _image(self, index: int) -> tuple[NDArray[np.uint8] | None, str]:
        if not self.frames:
            return None, "its image is not known"
        frame, digest = self.frames[index]
        try:
            content = read_bytes(frame.image)
            if hashlib.sha256(content).hexdigest() != digest:
                return None, f"{frame.image}: this image has changed since it was checked"
            return decode_image(content, frame.image).permute(1, 2, 0).numpy(), ""
        except UserError as error:
            return None, str(error)

    def truth(self, index: int) -> list[NDArray[np.uint8]] | None:
        """The train ids of an image at the resolution of each store; None where they are not known."""
        if index not in self.labelled:
            return None
        try:
            return [truth_at(self.labelled[index], self.raw, store.shape) for store in self.stores]
        except UserError as error:
            self.notes[f"{self.first.image_ids[index]}: {error}"] = None
            return None


def open_scene(paths: Sequence[Path]) -> Scene:
    """The label stores at some paths with the frames of the first; a UserError if they are not of the same images."""
    origins = [open_origin(path) for path in paths]
    origin, stores = origins[0], [origin.store for origin in origins]
    for other in stores[1:]:
        if set(other.image_ids) != set(stores[0].image_ids) or other.categories != stores[0].categories:
            raise UserError(f"{other.path}: stores that are compared must have the same images and categories, found "
                            f"other ones than in {stores[0].path}; name two stages of one experiment")  # fmt: skip
        made = [contents_of_inputs(store.evidence.attributes["provenance"]) for store in (stores[0], other)]
        if made[0].isdisjoint(made[1]):
            raise UserError(f"{other.path}: stores that are compared must be of the same frames, found none of the files that "
                            f"{stores[0].path} was made of; name two stages of one experiment")  # fmt: skip
    scene = Scene(stores, origin.table, (), {}, origin.table, {})
    try:
        entries = read_manifest(origin.input(".json")).entries("target")
        scene.frames = [(f, e["image_sha256"]) for f, e in zip(origin.frames, entries, strict=True)]
        scene.labelled, scene.raw = origin.truth()
    except UserError as error:
        scene.notes[f"{'no truth is' if scene.frames else 'neither images nor truth are'} known: {error}"] = None
    return scene


def _chosen(
    scene: Scene, written: Sequence[int], names: str | None, worst: int | None, random: int | None, otherwise: int
) -> tuple[list[int], str]:
    """The frames to show, and by what they were chosen; a UserError if they are asked for in two ways or not there."""
    if sum(option is not None for option in (names, worst, random)) > 1:
        raise UserError("view: one of --frames, --worst and --random must choose the frames, found several")
    if names is not None:
        place = {scene.first.image_ids[index]: index for index in written}
        unknown = [name for name in names.split(",") if name not in place]
        if unknown:
            raise UserError(f"{scene.first.path}: --frames must name finished images of the store, found {unknown[0]!r}"
                            f"; its ids are such as {next(iter(place))}")  # fmt: skip
        if len(set(names.split(","))) < len(names.split(",")):
            raise UserError(f"--frames {names}: every frame must be named once, found one twice; leave it out")
        return [place[name] for name in names.split(",")], "as named"
    count = next((option for option in (worst, random) if option is not None), otherwise)
    count = min(count, len(written))
    if random is not None:
        picked = np.random.default_rng(0).choice(len(written), count, replace=False)
        return [written[int(place)] for place in picked], "at random"
    if worst is not None:
        return _worst(scene, written, count)
    return [written[len(written) * (2 * k + 1) // (2 * count)] for k in range(count)], (
        "in their order" if count == len(written) else "evenly spaced"
    )


def _worst(scene: Scene, written: Sequence[int], count: int) -> tuple[list[int], str]:
    right: list[tuple[float, int]] = []
    active: list[tuple[float, int]] = []
    for index in tqdm(written, desc="worst", disable=not sys.stderr.isatty()):
        label = scene.first.read(index).anchor_label
        active.append((float(np.mean(label != IGNORE)), index))
        truth = scene.truth(index)
        share = None if truth is None else agreement(label, truth[0])
        if share is not None:
            right.append((share, index))
    if right:
        return [index for _, index in sorted(right)[:count]], "lowest agreement with the truth"
    return [index for _, index in sorted(active)[:count]], "fewest pixels active by anchors"
