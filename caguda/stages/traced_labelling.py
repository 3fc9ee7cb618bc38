"""Pseudo-labels with the files that their evidence was made of: manifest, checkpoint, anchors, frames and their truth."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import zarr
from jaxtyping import UInt8
from numpy import ndarray
from tqdm import tqdm

from caguda.artifacts.chain import Input, inputs_of
from caguda.artifacts.vouched import refuse_other_frames
from caguda.classes import ClassTable, class_table
from caguda.configfile import configuration_beside, read_configuration
from caguda.datasets.frame import Frame
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.stages.diagnose import truth_at
from caguda.stages.labelling import Labelling

AddImage = Callable[[int, "UInt8[ndarray, 'h w'] | None"], None]
"""Counts the image at an index, with its truth or None."""


def unchanged_input(artifact: Path, inputs: Sequence[Input], suffix: str, title: str) -> Path:
    """The input of an artifact whose name has a suffix; UserError if it is changed or missing."""
    for file in inputs:
        if file.path.suffix == suffix:
            if file.state != "unchanged":
                raise UserError(f"{file.path}: {file.state}, so it is not what {title} was made of")
            return file.path
    raise UserError(f"{artifact}: its provenance names no {suffix} file")


def labelled_frames(frames: Sequence[Frame], manifest: Path, name: str) -> dict[int, Frame]:
    """The frames of a set whose label file exists, by index; UserError if there are none."""
    labelled = {i: frame for i, frame in enumerate(frames) if frame.label is not None and frame.label.is_file()}
    if not labelled:
        raise UserError(f"{manifest}: none of the {name} frames has a label file")
    return labelled


@dataclass(frozen=True, eq=False)
class TracedLabelling:
    """A labelling, and the files that its evidence was made of."""

    labelling: Labelling

    @cached_property
    def table(self) -> ClassTable:
        """The categories of the evidence and their colours, without raw values."""
        flags = zarr.open_array(self.labelling.evidence.path / "predicted", mode="r", zarr_format=3).attrs[
            "flag_colors"
        ]
        colors = [bytes.fromhex(color[1:]) for color in str(flags).split()]
        return ClassTable(self.labelling.categories, tuple((r, g, b) for r, g, b in colors), {})

    @cached_property
    def inputs(self) -> list[Input]:
        """The files that the evidence was made of: where each lies now, and whether it is unchanged."""
        return inputs_of(self.labelling.evidence.path)

    @property
    def size(self) -> dict[str, int]:
        """The number of images and the size of their maps, as `inspect` tells them."""
        height, width = self.labelling.shape
        return {"images": self.labelling.count, "height": height, "width": width}

    @property
    def origin(self) -> dict[str, Any]:
        """The provenance of the evidence, and the state of each of its inputs, as `inspect` tells them."""
        return {
            "provenance": dict(self.labelling.evidence.attributes.get("provenance", {})),
            "inputs": {file.path.as_posix(): file.state for file in self.inputs},
        }

    def input(self, suffix: str) -> Path:
        """The manifest (`.json`), checkpoint (`.safetensors`) or anchors (`.h5`); UserError if it is changed or missing."""
        return unchanged_input(self.labelling.evidence.path, self.inputs, suffix, "the evidence")

    @cached_property
    def frames(self) -> list[Frame]:
        """The target frames in the order of the evidence; UserError unless the manifest still lists them."""
        manifest = self.input(".json")
        frames = read_manifest(manifest, configuration=configuration_beside(manifest)).frames("target")
        refuse_other_frames(self.labelling.evidence, [frame.id for frame in frames], manifest)
        return frames

    def truth(self) -> tuple[dict[int, Frame], ClassTable]:
        """The frames whose label file exists, by index, and the class table to decode it; UserError if there are none.

        The class table is that of the `config.json` beside the manifest; the workflow writes it there.
        """
        labelled = labelled_frames(self.frames, self.input(".json"), "target")
        beside = self.input(".json").with_name("config.json")
        configuration = read_configuration(beside)
        table = class_table(configuration, configuration.target)
        if table.names != self.labelling.categories:
            raise UserError(f"{beside}: the classes must be those of the evidence, found other ones")
        return labelled, table

    def count_images(self, add: AddImage) -> dict[str, Any]:
        """Counts every written image by `add`. Returns how many are missing, how many have a truth, and why if none has."""
        labelling, note = self.labelling, None
        try:
            frames, table = self.truth()
        except UserError as error:
            frames, table, note = {}, self.table, str(error)
        missing = frozenset(labelling.missing())
        if len(missing) == labelling.count:
            raise UserError(f"{labelling.path}: some images must be written, found none; make the evidence first")
        for index in tqdm(range(labelling.count), desc="inspect", disable=not sys.stderr.isatty()):
            if index not in missing:
                add(index, truth_at(frames[index], table, labelling) if index in frames else None)
        return {"missing": len(missing), "images_with_truth": len(frames.keys() - missing), "no_truth": note}
