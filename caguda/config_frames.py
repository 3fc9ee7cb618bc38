"""The sections of the YAML that describe frames: the sets, their classes, generated scenes, augmentation."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from caguda.errors import is_plain

Positive = Annotated[int, Field(ge=1, le=10**9)]
Few = Annotated[int, Field(ge=1, le=4096)]
Side = Annotated[int, Field(ge=1, le=16384)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e6)]
Factor = Annotated[float, Field(ge=0.01, le=100.0)]
LabelValue = Annotated[int, Field(ge=0, le=65535)]
ColorValue = Annotated[int, Field(ge=0, le=255)]


class Section(BaseModel):
    """A part of the YAML: unchangeable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_known_keys_only(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                raise ValueError(f"{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
        return values


class Street(Section):
    """The generated street scenes: how many, how large, and how far the target differs from the source."""

    seed: Seed
    height: Side = 128
    width: Side = 256
    source_frames: Positive
    target_frames: Positive
    evaluation_frames: Positive
    strength: Fraction
    photo: Fraction


class Domain(Section):
    """One set of frames: its layout on disk, its folder below `data_root`, and which part of it is used."""

    layout: Literal["gta5", "synthia", "cityscapes", "folder"]
    root: str = "."
    split: str | None = None
    images: str = "images"
    labels: str | None = "labels"
    list: str | None = None
    skip: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_its_layout(self) -> Domain:
        if self.layout != "cityscapes":
            if self.split is not None:
                raise ValueError(f"split: layout {self.layout} has no splits, found {self.split!r}; use the key list")
        elif self.split is None:
            raise ValueError("split: layout cityscapes needs the name of a split: train, val or test")
        allowed = {"cityscapes": ("labels", "labelTrainIds", None), "synthia": ("labels", None)}.get(self.layout)
        if allowed and (self.images != "images" or self.labels not in allowed):
            others = " or ".join(value or "null" for value in allowed[1:])
            raise ValueError(
                f"images, labels: layout {self.layout} has folders of its own, leave the keys out (or labels: {others})"
            )
        return self


class ClassEntry(Section):
    """One category of a table of one's own: the value in the label files, its name and its colour."""

    id: LabelValue
    name: Annotated[str, Field(min_length=1)]
    color: tuple[ColorValue, ColorValue, ColorValue]

    @model_validator(mode="after")
    def _name_is_one_plain_line(self) -> ClassEntry:
        if not is_plain(self.name):
            raise ValueError(f"name: must be one line without control characters, found {self.name!a}")
        return self


class Augmentation(Section):
    """What is done to a training frame; its labels go through the same geometry."""

    flip: bool = False
    scale: tuple[Factor, Factor] = (1.0, 1.0)
    crop: tuple[Side, Side] | None = None
    color_jitter: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    blur: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: the smaller factor comes first, found {list(self.scale)}")
        return self
