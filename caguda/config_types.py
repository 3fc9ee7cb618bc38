"""The types of keys in the YAML, and the base class of its sections. No torch."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from caguda.errors import did_you_mean

Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=1, le=4096)]
PixelLength = Annotated[int, Field(ge=1, le=16384)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e6)]
Factor = Annotated[float, Field(ge=0.01, le=100.0)]
LabelValue = Annotated[int, Field(ge=0, le=65535)]
IGNORE = 255
"""The train id of a void pixel: it has no loss and no score."""
UNKNOWN_NAMES_ALLOWED = "names that only a plugin knows are allowed"
"""The context of a validation without plugins, for commands that only read artifacts."""


class Section(BaseModel):
    """A section of the YAML: frozen, without unknown keys."""

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
                raise ValueError(f"{key}: unknown key{did_you_mean(key, cls.model_fields)}")
            members = {f"{key}.{index}": v for index, v in enumerate(value)} if isinstance(value, list | tuple) else {}
            for place, member in ({key: value} | members).items():
                if isinstance(member, bool) and not _may_be_true(cls.model_fields[key].annotation):
                    raise ValueError(f"{place}: must be something else than true or false, found {member}")
        return values


def _may_be_true(annotation: Any) -> bool:
    """Whether values of a type, or the values in it, may be true or false."""
    return annotation is bool or any(map(_may_be_true, get_args(annotation)))
