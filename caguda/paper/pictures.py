"""Which models and labels a picture shows, written into the PNG file, so that a report takes no picture of others."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from caguda.artifacts.atomic import read_json
from caguda.artifacts.provenance import content_of
from caguda.errors import UserError
from caguda.files import read_regular


def shown(files: Sequence[Path]) -> list[str]:
    """The digests of what a picture shows: of checkpoints those of their weights, of labels those of their content.

    A checkpoint may be named by its weights or by the JSON beside them.
    """
    return sorted(_digest(path) for path in files)


def _digest(path: Path) -> str:
    if path.suffix == ".safetensors":
        path = path.with_suffix(".json")
    weights = read_json(path).get("weights_sha256")
    return content_of(path) if weights is None else str(weights)


def description(made_by: str, files: Sequence[Path] = ()) -> dict[str, Any]:
    """What the text `Description` of a picture tells: the verb, and in a report's picture what it shows."""
    return {"made_by": made_by, "shows": shown(files)}


def pixels(picture: Image.Image) -> str:
    """The SHA-256 of the size and the pixels of a picture."""
    return hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()


def refuse_other_picture(path: Path, made_by: str, known: Collection[str], may_be_empty: bool = False) -> set[str]:
    """What a PNG shows, as digests; UserError unless this verb drew it, and of nothing else than `known`.

    It shows something, unless it `may_be_empty`.
    """
    try:
        with Image.open(io.BytesIO(read_regular(path))) as image:
            image.load()
            told = json.loads(getattr(image, "text", {}).get("Description", "null"))
            drawn = pixels(image)
    except (OSError, ValueError, SyntaxError):
        raise UserError(
            f"{path}: the picture must be a whole PNG file, found damage; move it away and make it again"
        ) from None
    if not isinstance(told, dict) or told.get("made_by") != made_by:
        raise UserError(f"{path}: this must be a picture that `{made_by}` drew, found another; name the right file")
    if told.get("pixels") != drawn:
        raise UserError(
            f"{path}: the picture must be as `{made_by}` drew it, found other pixels; move it away and make it again"
        )
    if not (told["shows"] or may_be_empty) or not set(told["shows"]) <= set(known):
        raise UserError(
            f"{path}: the picture must show the models and labels of the report, found others; draw it again"
        )
    return set(told["shows"])
