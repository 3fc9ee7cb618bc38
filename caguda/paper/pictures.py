"""The text in a PNG that names the models and labels it shows, so that a report refuses pictures of others."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from caguda.artifacts.atomic import read_json
from caguda.artifacts.provenance import content_digest
from caguda.errors import UserError
from caguda.files import read_regular


def description(made_by: str, files: Sequence[Path] = ()) -> dict[str, Any]:
    """The text `Description` of a picture: the verb that drew it, and the SHA-256 of the models and labels that it shows.

    A checkpoint stands for its weights, and may be named by them or by the JSON beside them; labels stand for their content.
    """
    return {"made_by": made_by, "shows": sorted(_digest(path) for path in files)}


def _digest(path: Path) -> str:
    if path.suffix == ".safetensors":
        path = path.with_suffix(".json")
    weights = read_json(path).get("weights_sha256")
    return content_digest(path) if weights is None else str(weights)


def pixel_digest(picture: Image.Image) -> str:
    """The SHA-256 of the mode, the size and the pixels of a picture."""
    return hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()


def refuse_other_picture(path: Path, made_by: str, allowed: Collection[str], may_be_empty: bool = False) -> set[str]:
    """The SHA-256 of the models and labels that a PNG shows; see description.

    Raises UserError unless the verb `made_by` drew the picture as it is, and all that it shows is allowed. It must show
    something unless it `may_be_empty`.
    """
    try:
        with Image.open(io.BytesIO(read_regular(path))) as image:
            image.load()
            text = json.loads(getattr(image, "text", {}).get("Description", "null"))
            digest = pixel_digest(image)
    except (OSError, ValueError, SyntaxError):
        raise UserError(
            f"{path}: the picture must be a whole PNG file, found damage; move it away and make it again"
        ) from None
    if not isinstance(text, dict) or text.get("made_by") != made_by:
        raise UserError(f"{path}: this must be a picture that `{made_by}` drew, found another; name the right file")
    if text.get("pixels") != digest:
        raise UserError(
            f"{path}: the picture must be as `{made_by}` drew it, found other pixels; move it away and make it again"
        )
    if not (text["shows"] or may_be_empty) or not set(text["shows"]) <= set(allowed):
        raise UserError(
            f"{path}: the picture must show the models and labels of the report, found others; draw it again"
        )
    return set(text["shows"])
