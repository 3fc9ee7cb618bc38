"""The sections of the YAML that describe frames: the sets, their classes, generated scenes, augmentation."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from caguda.errors import is_plain
from caguda.kinds import known, plugin_of

Positive = Annotated[int, Field(ge=1, le=10**9)]
Few = Annotated[int, Field(ge=1, le=4096)]
Side = Annotated[int, Field(ge=1, le=16384)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e6)]
Factor = Annotated[float, Field(ge=0.01, le=100.0)]
LabelValue = Annotated[int, Field(ge=0, le=65535)]
ColorValue = Annotated[int, Field(ge=0, le=255)]
LabelValues = Literal["label ids", "train ids", "synthia ids"]
"""What label files hold: Cityscapes' label ids or train ids, or SYNTHIA's class ids."""
IGNORE = 255
"""The train id of a void pixel: no loss, no score."""
ONLY_LOOKED_AT = "names that nothing here has are let through"
"""The context of a validation without plugins, so that a name may be one that only they know."""


class Section(BaseModel):
    """A part of the YAML: unchangeable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_known_keys_only(cls, values: Any) -> Any:
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, str) and "\0" in value:
                raise ValueError(f"{key}: must be text without control characters, found {value!r:.60}")
            if key not in cls.model_fields:
                if cls.model_config.get("extra") == "allow":
                    continue
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                raise ValueError(f"{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
            if isinstance(value, bool) and cls.model_fields[key].annotation is not bool:
                raise ValueError(f"{key}: must be something else than true or false, found {value}")
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


def _with_layouts(schema: dict[str, Any]) -> None:
    """In the JSON schema: the layouts of the package to choose from, or any other text, the name of a plugin's."""
    own = [name for name, layout in known("layout").items() if plugin_of(layout) is None]
    schema["anyOf"] = [{"enum": own}, {"type": schema.pop("type")}]


class Domain(Section):
    """One set of frames: its layout on disk, its folder below `data_root`, and which part of it is used."""

    layout: Annotated[str, Field(json_schema_extra=_with_layouts)]
    root: str = "."
    split: str | None = None
    images: str = "images"
    labels: str | None = "labels"
    list: str | None = None
    skip: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_its_layout(self, info: ValidationInfo) -> Domain:
        layouts = known("layout")
        if self.layout in layouts:
            layout = layouts[self.layout]
            if not hasattr(layout, "check_keys"):
                raise ValueError(f"layout: {self.layout} must be a class that derives from caguda.datasets.layout.Layout, found "
                                 f"{layout.__qualname__} in {layout.__module__}; add it")  # fmt: skip
            layout().check_keys(self)
        elif info.context != ONLY_LOOKED_AT:
            near = difflib.get_close_matches(self.layout, layouts, n=1)
            raise ValueError(
                f"layout: must be one of {', '.join(layouts)}, found {self.layout[:60]!r}"
                + (f", did you mean {near[0]}?" if near else "")
                + "; the key plugins brings others"
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
