"""Where pseudo-labels come from: the files that the provenance of the evidence names, where they are today, and what they tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import zarr

from caguda.artifacts.chain import Input, inputs_of
from caguda.artifacts.vouched import refuse_other_frames
from caguda.classes import ClassTable, class_table
from caguda.configfile import configuration_beside, read_configuration
from caguda.datasets.frame import Frame
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.stages.labelling import Labelling, open_labelling


@dataclass(frozen=True, eq=False)
class Origin:
    """Pseudo-labels, and the files that their evidence was made of."""

    store: Labelling

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the evidence; empty where it does not say."""
        found: Mapping[str, Any] = self.store.evidence.attributes.get("provenance", {})
        return found

    @property
    def margin_unit(self) -> float:
        """How much of d2 - d1 one unit of the configured margin is: the anchors' mean distance, or 1."""
        return self.store.anchor_distance if self.store.anchor_rule.unit == "mean_anchor_distance" else 1.0

    @cached_property
    def table(self) -> ClassTable:
        """The store's categories and their colours; it knows no raw values."""
        flags = zarr.open_array(self.store.evidence.path / "predicted", mode="r", zarr_format=3).attrs["flag_colors"]
        colors = [bytes.fromhex(color[1:]) for color in str(flags).split()]
        return ClassTable(self.store.categories, tuple((r, g, b) for r, g, b in colors), {})

    @cached_property
    def inputs(self) -> list[Input]:
        """The files that the evidence was made of, where they are now, and how they fare."""
        return inputs_of(self.store.evidence.path)

    def input(self, suffix: str) -> Path:
        """The unchanged input of this kind: `.json` the manifest, `.safetensors` the checkpoint, `.h5` the anchors."""
        for file in self.inputs:
            if file.path.suffix == suffix:
                if file.state != "unchanged":
                    raise UserError(f"{file.path}: {file.state}, so it is not what the evidence was made of")
                return file.path
        raise UserError(f"{self.store.evidence.path}: its provenance names no {suffix} file")

    @cached_property
    def frames(self) -> list[Frame]:
        """The target frames in the order of the evidence; UserError where the manifest does not tell them any more."""
        manifest = self.input(".json")
        frames = read_manifest(manifest, configuration=configuration_beside(manifest)).frames("target")
        refuse_other_frames(self.store.evidence, [frame.id for frame in frames], manifest)
        return frames

    def truth(self) -> tuple[dict[int, Frame], ClassTable]:
        """The frames with a label by their place in the store, and how to read it; UserError where there is none.

        The class table is that of the `config.json` beside the manifest, where the workflow leaves it.
        """
        known = {i: frame for i, frame in enumerate(self.frames) if frame.label is not None and frame.label.is_file()}
        if not known:
            raise UserError(f"{self.input('.json')}: none of the target frames has a label file")
        beside = self.input(".json").with_name("config.json")
        configuration = read_configuration(beside)
        table = class_table(configuration, configuration.target)
        if table.names != self.store.categories:
            raise UserError(f"{beside}: the classes must be those of the evidence, found other ones")
        return known, table


def open_origin(path: Path) -> Origin:
    """Pseudo-labels, opened by the JSON that names them or by the evidence, with where they come from."""
    return Origin(open_labelling(path))
