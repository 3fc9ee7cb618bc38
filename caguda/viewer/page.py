"""A page to look at pseudo-labels: one HTML file, and beside it one script per frame, which is loaded when it is shown.

Scripts, since a page from the file system may load nothing else. Nothing comes from outside its folder.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.label_arrays import LabelArrays
from caguda.artifacts.ownership import clear_folder
from caguda.classes import IGNORE, ClassTable
from caguda.viewer.overlays import DIFFERENCES, ViewedFrame, agreement

LARGEST, QUALITY = 1024, 90
"""Of the JPEG that a page shows: its longer side, and Pillow's quality."""


VIEWED = ("*.png", "index.html", "frames/*.js")
"""What pictures and a page are made of, in their folder."""


class Viewed(Protocol):
    """Pseudo-labels as a page tells of them: where they lie, the size of their maps, and their thresholds."""

    @property
    def path(self) -> Path: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def margin(self) -> float: ...
    @property
    def p0(self) -> float: ...


@dataclass(frozen=True)
class Page:
    """What a page is of: pseudo-labels and their titles, by what its frames were chosen, and the categories."""

    titles: Sequence[str]
    chosen: str
    table: ClassTable
    stores: Sequence[Viewed]


def write_page(page: Page, frames: Iterable[ViewedFrame], output: Path) -> Path:
    """The file to open, `index.html` in the folder `output`, written after the scripts of all frames.

    One frame is held at a time. What an earlier call left in the folder is replaced; see `clear_folder`.
    """
    index, scripts = output / "index.html", output / "frames"
    clear_folder(output, VIEWED, "view")
    listed = []
    for number, frame in enumerate(frames):
        content = {"image": picture(frame.image), "missing": frame.missing, "truth": frame.truth is not None}
        packed = [pack(frame, place) for place in range(len(page.stores))]
        text = json.dumps({"name": frame.name, **content, "stages": packed})
        with write_atomically(scripts / f"{number}.js") as script:
            script.write_text(f"loaded({number}, {text})\n", encoding="utf-8")
        label = frame.labels[0].anchor_label
        right = None if frame.truth is None else agreement(label, frame.truth[0])
        listed.append([frame.name, float(np.mean(label != IGNORE)), right])
    with write_atomically(index) as temporary:
        temporary.write_text(render(page, listed), encoding="utf-8")
    return index


def render(page: Page, listed: Sequence[Sequence[Any]]) -> str:
    """The HTML of a page; `listed` has the name, the active share and the agreement with the truth of every frame."""
    data = {
        "chosen": page.chosen,
        "categories": page.table.names,
        "colors": page.table.colors,
        "differences": list(DIFFERENCES.items()),
        "stages": [
            {
                "title": title,
                "path": str(store.path),
                "height": store.shape[0],
                "width": store.shape[1],
                "margin": store.margin,
                "p0": store.p0,
            }
            for title, store in zip(page.titles, page.stores, strict=True)
        ],
        "frames": listed,
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = files("caguda.viewer").joinpath("page.html.in").read_text(encoding="utf-8")
    return environment.from_string(template).render(page=page, data=data)


def picture(image: NDArray[np.uint8] | None) -> str | None:
    """An RGB image (H, W, 3) as the data URI of a JPEG, no side longer than LARGEST; None of None."""
    if image is None:
        return None
    small, encoded = Image.fromarray(image), io.BytesIO()
    small.thumbnail((LARGEST, LARGEST))
    small.save(encoded, "JPEG", quality=QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def _halves(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Numbers rounded to float16, little endian; infinite beyond it."""
    with np.errstate(over="ignore"):
        return values.astype("<f2")


def pack(frame: ViewedFrame, place: int) -> str:
    """The maps of the store number `place` as base64 of a zlib stream of planes (h, w), a byte a pixel; margin and confidence are
    rounded to float16.

    In order: nearest anchor, predicted, active, the lower and the upper byte of the margin, those of the confidence,
    and the truth where it is known.
    """
    labels: LabelArrays = frame.labels[place]
    halves = [
        plane
        for values in (labels.margin, labels.confidence)
        for plane in np.moveaxis(_halves(values).view(np.uint8).reshape(*values.shape, 2), 2, 0)
    ]
    truth = [] if frame.truth is None else [frame.truth[place]]
    planes = [labels.nearest_anchor, labels.predicted, labels.active, *halves, *truth]
    return base64.b64encode(zlib.compress(b"".join(plane.tobytes() for plane in planes), level=1)).decode("ascii")
