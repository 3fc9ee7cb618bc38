"""Writes the page of `view`: one HTML file, and a script with the data of each frame, loaded when the frame is shown.

The data are scripts because a browser lets a page from the file system load nothing else. The page needs no network.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.label_statistics import ImageLabels
from caguda.artifacts.ownership import clear_folder
from caguda.classes import IGNORE, ClassTable
from caguda.viewer.columns import ComparedFrame
from caguda.viewer.overlays import DIFFERENCES, ViewedFrame, agreement

LARGEST, QUALITY = 1024, 90
"""The longer side of the JPEG images of a page in pixels, and their quality for Pillow."""
LAYERS = ("image", "truth", "anchor", "probability", "difference", "nearest", "predicted", "margin", "confidence")
"""The layers of a page of pseudo-labels by anchors and by probability."""
VIEWED = ("*.png", "index.html", "frames/*.js")
"""The patterns of the files that `view` writes into its folder."""


@dataclass(frozen=True)
class LabellingHead:
    """The head of a labelling on a page: its title and path, the size of its maps, and its thresholds."""

    title: str
    path: str
    height: int
    width: int
    margin: float
    p0: float


@dataclass(frozen=True)
class Page:
    """The head of a page: how its frames were chosen, the categories, and one or two labellings."""

    chosen: str
    table: ClassTable
    labellings: Sequence[LabellingHead]


def write_page(page: Page, frames: Iterable[ViewedFrame], output: Path) -> Path:
    """Writes a page of pseudo-labels into the folder `output`; see write_frames."""
    head = {
        "heading": "Pseudo-labels",
        "layers": LAYERS,
        **head_of(page.chosen, page.table, DIFFERENCES),
        "stages": [asdict(head) for head in page.labellings],
    }

    def content(frame: ViewedFrame) -> tuple[dict[str, Any], list[Any]]:
        packed = [pack(frame, i) for i in range(len(page.labellings))]
        label = frame.labels[0].anchor_label
        right = None if frame.truth is None else agreement(label, frame.truth[0])
        summary = [frame.name, float(np.mean(label != IGNORE)), right]
        return {**image_of(frame), "truth": frame.truth is not None, "stages": packed}, summary

    return write_frames(head, map(content, frames), output)


def head_of(chosen: str, table: ClassTable, differences: Mapping[str, str]) -> dict[str, Any]:
    """The part of a page's head that all pages have: how its frames were chosen, the categories, and kinds of differences."""
    colors = {"categories": table.names, "colors": table.colors, "differences": list(differences.items())}
    return {"chosen": chosen, **colors}


def image_of(frame: ViewedFrame | ComparedFrame) -> dict[str, Any]:
    """The part of a frame's data that all pages have: its name, and its image or why it is missing."""
    return {"name": frame.name, "image": picture(frame.image), "missing": frame.missing}


def write_frames(head: Mapping[str, Any], frames: Iterable[tuple[dict[str, Any], list[Any]]], output: Path) -> Path:
    """Writes a page into the folder `output` and returns its `index.html`, which is written last.

    Each frame has its data and its summary: name, labelled share, agreement with the truth or None, and on a page of two
    columns the share that differs. One frame is in memory at a time. An earlier page in the folder is replaced; see
    `clear_folder`.
    """
    index, scripts = output / "index.html", output / "frames"
    clear_folder(output, VIEWED, "view")
    summaries = []
    for number, (content, summary) in enumerate(frames):
        with write_atomically(scripts / f"{number}.js") as script:
            script.write_text(f"loaded({number}, {json.dumps(content)})\n", encoding="utf-8")
        summaries.append(summary)
    with write_atomically(index) as temporary:
        temporary.write_text(render({**head, "frames": summaries}), encoding="utf-8")
    return index


def render(data: Mapping[str, Any]) -> str:
    """The HTML of a page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = files("caguda.viewer").joinpath("page.html.in").read_text(encoding="utf-8")
    return environment.from_string(template).render(data=data)


def picture(image: NDArray[np.uint8] | None) -> str | None:
    """The data URI of an RGB image (H, W, 3) as a JPEG, scaled down to at most LARGEST pixels a side; None for None."""
    if image is None:
        return None
    small, encoded = Image.fromarray(image), io.BytesIO()
    small.thumbnail((LARGEST, LARGEST))
    small.save(encoded, "JPEG", quality=QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def _halves(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Values rounded to float16, little endian; too large ones become infinite."""
    with np.errstate(over="ignore"):
        return values.astype("<f2")


def pack(frame: ViewedFrame, number: int) -> str:
    """The maps of labelling `number` (from 0) of a frame: planes (h, w) of one byte a pixel, in zlib, in base64.

    Their order is nearest anchor, predicted, active, the lower and the upper byte of the margin, those of the confidence,
    and the truth if it is known. Margin and confidence are rounded to float16.
    """
    labels: ImageLabels = frame.labels[number]
    halves = [
        plane
        for values in (labels.margin, labels.confidence)
        for plane in np.moveaxis(_halves(values).view(np.uint8).reshape(*values.shape, 2), 2, 0)
    ]
    truth = [] if frame.truth is None else [frame.truth[number]]
    planes = [labels.nearest_anchor, labels.predicted, labels.active, *halves, *truth]
    return packed_planes(planes)


def packed_planes(planes: Iterable[NDArray[np.uint8]]) -> str:
    """Planes (h, w) of one byte a pixel, in zlib, in base64."""
    return base64.b64encode(zlib.compress(b"".join(plane.tobytes() for plane in planes), level=1)).decode("ascii")
