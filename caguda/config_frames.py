"""The sections of the YAML about frames: data sets, classes, generated scenes, augmentation. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from caguda.config_types import (
    UNKNOWN_NAMES_ALLOWED,
    Factor,
    Fraction,
    LabelValue,
    PixelLength,
    Positive,
    Section,
    Seed,
)
from caguda.errors import did_you_mean, is_plain
from caguda.registry import registered, registered_in_package

ColorValue = Annotated[int, Field(ge=0, le=255)]
BLUR_KERNEL = 5
"""The side of the kernel that blurs a training frame, in pixels."""
LabelValues = Literal["label ids", "train ids", "synthia ids"]
"""The raw values of label files: Cityscapes' label ids or train ids, or SYNTHIA's class ids."""


class Street(Section):
    """The generated street scenes: their number, their size, and how much the target differs from the source."""

    seed: Seed
    height: PixelLength = 128
    width: PixelLength = 256
    source_frames: Positive
    target_frames: Positive
    evaluation_frames: Positive
    strength: Fraction
    photo: Fraction


def _with_layouts(schema: dict[str, Any]) -> None:
    """Make the JSON schema offer the layouts of the package, and accept any other text: a plugin may define it."""
    schema["anyOf"] = [{"enum": list(registered_in_package("layout"))}, {"type": schema.pop("type")}]


class Domain(Section):
    """One set of frames: its layout on disk, its folder below `data_root`, and the selection of its frames."""

    layout: Annotated[str, Field(json_schema_extra=_with_layouts)]
    root: str = "."
    split: str | None = None
    images: str = "images"
    labels: str | None = "labels"
    list: str | None = None
    skip: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_its_layout(self, info: ValidationInfo) -> Domain:
        layouts = registered("layout")
        if self.layout in layouts:
            layout = layouts[self.layout]
            if not hasattr(layout, "check_keys"):
                raise ValueError(f"layout: {self.layout} must be a class that derives from caguda.datasets.layout.Layout, found "
                                 f"{layout.__qualname__} in {layout.__module__}; add it")  # fmt: skip
            layout().check_keys(self)
        elif info.context != UNKNOWN_NAMES_ALLOWED:
            raise ValueError(
                f"layout: must be one of {', '.join(layouts)}, found {self.layout[:60]!r}"
                f"{did_you_mean(self.layout, layouts)}; the key plugins brings others"
            )
        return self


class TranslatedSource(Section):
    """The source frames in the style of the target, translated elsewhere: a folder with the paths of the source's folder."""

    root: str


class ClassEntry(Section):
    """One category of a listed class table: its raw value in the label files, its name and its colour."""

    id: LabelValue
    name: Annotated[str, Field(min_length=1)]
    color: tuple[ColorValue, ColorValue, ColorValue]

    @model_validator(mode="after")
    def _name_is_one_plain_line(self) -> ClassEntry:
        if not is_plain(self.name):
            raise ValueError(f"name: must be one line without control characters, found {self.name!a}")
        return self


class Augmentation(Section):
    """The random changes of a training frame. Its labels go through the same geometry."""

    flip: bool = False
    scale: tuple[Factor, Factor] = (1.0, 1.0)
    crop: tuple[PixelLength, PixelLength] | None = None
    color_jitter: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    blur: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: the smaller factor comes first, found {list(self.scale)}")
        return self
