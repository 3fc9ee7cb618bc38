"""Where a label store comes from: the files that its provenance names, where they are today, and what they tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import zarr

from caguda.artifacts.chain import Input, inputs_of
from caguda.artifacts.labels import LabelStore
from caguda.classes import ClassTable, class_table
from caguda.configfile import configuration_beside, read_configuration
from caguda.datasets.frame import Frame
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.stages.vouched import label_store, refuse_other_frames


@dataclass(frozen=True, eq=False)
class Origin:
    """A label store and the files that it was made of."""

    store: LabelStore

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the store; empty where it does not say."""
        found: Mapping[str, Any] = self.store.attributes.get("provenance", {})
        return found

    @property
    def thresholds(self) -> Mapping[str, Any]:
        """The section `labels` of the configuration that made the store; empty where it does not say."""
        found: Mapping[str, Any] = self.provenance.get("settings", {}).get("labels", {})
        return found

    @property
    def relative(self) -> bool:
        """Whether the configured margin counts the anchors' mean distance, and not the features' units."""
        return self.thresholds.get("margin_unit") == "mean_anchor_distance"

    @property
    def margin_unit(self) -> float:
        """How much of d2 - d1 one unit of the configured margin is: the anchors' mean distance, or 1."""
        if not self.relative:
            return 1.0
        if self.thresholds["margin"] == 0:
            raise UserError(f"{self.store.path}: a margin of 0 does not tell its unit, the anchors' mean distance; "
                            "make the label store with another margin")  # fmt: skip
        return float(self.store.attributes["margin"]) / float(self.thresholds["margin"])

    @cached_property
    def table(self) -> ClassTable:
        """The store's categories and their colours; it knows no raw values."""
        flags = zarr.open_array(self.store.path / "predicted", mode="r", zarr_format=3).attrs["flag_colors"]
        colors = [bytes.fromhex(color[1:]) for color in str(flags).split()]
        return ClassTable(self.store.categories, tuple((r, g, b) for r, g, b in colors), {})

    @cached_property
    def inputs(self) -> list[Input]:
        """The files that the store was made of, where they are now, and how they fare."""
        return inputs_of(self.store.path)

    def input(self, suffix: str) -> Path:
        """The unchanged input of this kind: `.json` the manifest, `.safetensors` the checkpoint, `.h5` the anchors."""
        for file in self.inputs:
            if file.path.suffix == suffix:
                if file.state != "unchanged":
                    raise UserError(f"{file.path}: {file.state}, so it is not what the label store was made of")
                return file.path
        raise UserError(f"{self.store.path}: its provenance names no {suffix} file")

    @cached_property
    def frames(self) -> list[Frame]:
        """The store's target frames in its order; UserError where the manifest does not tell them any more."""
        manifest = self.input(".json")
        frames = read_manifest(manifest, configuration=configuration_beside(manifest)).frames("target")
        refuse_other_frames(self.store, frames, manifest)
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
            raise UserError(f"{beside}: the classes must be those of the label store, found other ones")
        return known, table


def open_origin(path: Path) -> Origin:
    """The label store of a folder, or of the JSON that vouches for it, with where it comes from."""
    store = label_store(path)
    if not {"margin", "p0"} <= store.attributes.keys():
        raise UserError(f"{store.path}: a label store must say its margin and p0, found neither; make it again")
    return Origin(store)
