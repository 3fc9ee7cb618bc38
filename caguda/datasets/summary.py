"""What the three sets hold, as a table for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.datasets.survey import Survey
from caguda.errors import first

_NAMES = 5
Content = Mapping[str, Any]


def _row(title: str, cells: Iterable[object]) -> str:
    return f"{title:<22}" + "".join(f"{cell:>12}" for cell in cells)


def _sizes(entries: Sequence[Content]) -> str:
    """The most frequent sizes, width x height, of some entries, and how many have them."""
    sizes = Counter((entry["width"], entry["height"]) for entry in entries).most_common()
    return first([f"{width}x{height} ({count})" for (width, height), count in sizes], _NAMES)


_COUNTS: tuple[tuple[str, Callable[[Content, Survey], object]], ...] = (
    ("images on disk", lambda content, found: found.images),
    ("  published", lambda content, found: "-" if found.published is None else found.published),
    ("  not in the list", lambda content, found: found.images - found.frames - len(found.skipped)),
    ("  skipped", lambda content, found: len(found.skipped)),
    ("  to skip, absent", lambda content, found: len(found.absent)),
    ("frames", lambda content, found: found.frames),
    ("  with a problem", lambda content, found: found.frames - len(content["frames"])),
    ("  with a label", lambda content, found: sum(entry["label"] is not None for entry in content["frames"])),
    ("  of a single colour", lambda content, found: sum(entry["single_colour"] for entry in content["frames"])),
    (
        "  void everywhere",
        lambda content, found: sum(entry["label"] is not None and not entry["classes"] for entry in content["frames"]),
    ),
    ("files of other kinds", lambda content, found: len(found.others)),
    ("labels without image", lambda content, found: len(found.unused)),
)


def summary(sets: Mapping[str, Content], surveys: Mapping[str, Survey]) -> list[str]:
    """The lines of the table: what lies on disk, what is used, and each category's share of the pixels.

    `sets` are sets of a manifest by name; below the table, a line for the sizes of each, and one for hidden files.
    """
    if not sets:
        return []
    lines = [_row("", sets), _row("layout", (content["layout"] for content in sets.values()))]
    lines += [_row(title, (count(sets[name], surveys[name]) for name in sets)) for title, count in _COUNTS]
    lines.append("% of labelled pixels")
    counts = [{**content["pixels"], "(void)": content["void_pixels"]} for content in sets.values()]
    for category in counts[0]:
        shares = [f"{100 * n[category] / total:.1f}" if (total := sum(n.values())) else "-" for n in counts]
        lines.append(_row(f"  {category}", shares))
    lines += [f"{name}: width x height (frames): {_sizes(content['frames'])}" for name, content in sets.items()]
    for name, content in sets.items():
        if hidden := surveys[name].hidden:
            lines.append(
                f"{name}: hidden, left out: {first([_below(path, content['root']) for path in hidden], _NAMES)}"
            )
    return lines


def _below(path: Path, root: str) -> Path:
    """A path relative to the root of its set where it is below it."""
    return path.relative_to(root) if path.is_relative_to(root) else path
