"""The published numbers of the paper's Tables 1 to 4, as printed."""

import csv
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Published:
    """A printed row: its label, the source that the paper cites for it, and its percentages by column, without dashes."""

    label: str
    source: str
    values: dict[str, float]


def published(number: int) -> tuple[tuple[str, ...], list[Published]]:
    """The columns and the rows of a table of the paper, 1 to 4, in its order."""
    text = files("caguda.paper").joinpath("published", f"table{number}.csv").read_text(encoding="utf-8")
    head, *body = csv.reader(text.splitlines())
    columns = tuple(head[2:])
    rows = []
    for label, source, *cells in body:
        values = {name: float(cell) for name, cell in zip(columns, cells, strict=True) if cell}
        rows.append(Published(label, source, values))
    return columns, rows
