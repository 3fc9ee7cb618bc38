"""The page of `view` that shows labels of the same frames by several rules or models, a column each."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caguda.classes import IGNORE, ClassTable
from caguda.viewer.columns import DISAGREEMENTS, ComparedFrame, disagreement
from caguda.viewer.overlays import agreement
from caguda.viewer.page import head_of, image_of, packed_planes, write_frames


@dataclass(frozen=True)
class ColumnHead:
    """The head of a column on a page: its title and the file that its labels are of."""

    title: str
    path: str


def write_columns_page(
    chosen: str, table: ClassTable, columns: Sequence[ColumnHead], frames: Iterable[ComparedFrame], output: Path
) -> Path:
    """Writes a page of columns into the folder `output`; see write_frames. `chosen` says how its frames were chosen.

    A column's planes are its labels, those of two columns then `disagreement`, then the truth if it is known.
    """
    two = len(columns) == 2
    head = {
        "heading": "Labels",
        "layers": ["image", "truth", "label", *(["difference"] if two else [])],
        **head_of(chosen, table, DISAGREEMENTS),
        "stages": [asdict(column) for column in columns],
    }

    def content(frame: ComparedFrame) -> tuple[dict[str, Any], list[Any]]:
        label, truth = frame.labels[0], frame.truth
        right = None if truth is None else agreement(label, truth)
        differ = disagreement(label, frame.labels[1], truth) if two else None
        common = [plane for plane in (differ, truth) if plane is not None]
        summary = [
            frame.name,
            float(np.mean(label != IGNORE)),
            right,
            *([] if differ is None else [float(np.mean(differ > 0))]),
        ]
        size = dict(zip(("height", "width"), label.shape, strict=True))
        packed = [packed_planes([plane, *common]) for plane in frame.labels]
        return {**image_of(frame), "truth": truth is not None, "size": size, "stages": packed}, summary

    return write_frames(head, map(content, frames), output)
