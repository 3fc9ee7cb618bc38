"""The summary of a check: what each set contains, as a table in plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from caguda.datasets.frame import shortened
from caguda.datasets.manifest import sizes_of
from caguda.datasets.survey import Survey
from caguda.errors import first

Content = Mapping[str, Any]
"""A set as the manifest has it."""
_ROWS: tuple[tuple[str, Callable[[Content, Survey], object]], ...] = (
    ("images on disk", lambda content, survey: survey.images),
    ("  published", lambda content, survey: "-" if survey.published is None else survey.published),
    ("  not in the list", lambda content, survey: survey.images - survey.frames - len(survey.skipped)),
    ("  skipped", lambda content, survey: len(survey.skipped)),
    ("  to skip, absent", lambda content, survey: len(survey.unknown_skips)),
    ("frames", lambda content, survey: survey.frames),
    ("  with a problem", lambda content, survey: survey.frames - len(content["frames"])),
    ("  with a label", lambda content, survey: sum(entry["label"] is not None for entry in content["frames"])),
    ("  of a single colour", lambda content, survey: sum(entry["single_colour"] for entry in content["frames"])),
    (
        "  void everywhere",
        lambda content, survey: sum(entry["label"] is not None and not entry["classes"] for entry in content["frames"]),
    ),
    ("files of other kinds", lambda content, survey: len(survey.other_files)),
    ("labels without image", lambda content, survey: len(survey.unused_labels)),
)


def _row(title: str, cells: Iterable[object]) -> str:
    return f"{title:<22}" + "".join(f"{cell:>12}" for cell in cells)


def summary(sets: Mapping[str, Content], surveys: Mapping[str, Survey]) -> list[str]:
    """The lines of the table, one column per set: numbers of files and frames, and each category's share of the pixels.

    Below the table, each set has a line with its image sizes, and one with its hidden files if it has any.
    """
    if not sets:
        return []
    lines = [_row("", sets), _row("layout", (content["layout"] for content in sets.values()))]
    lines += [_row(title, (count(sets[name], surveys[name]) for name in sets)) for title, count in _ROWS]
    lines.append("% of labelled pixels")
    pixels = [{**content["pixels"], "(void)": content["void_pixels"]} for content in sets.values()]
    for category in pixels[0]:
        shares = [f"{100 * n[category] / total:.1f}" if (total := sum(n.values())) else "-" for n in pixels]
        lines.append(_row(f"  {category}", shares))
    lines += [f"{name}: width x height (frames): {sizes_of(content['frames'])}" for name, content in sets.items()]
    for name, content in sets.items():
        if hidden := [shortened(path, content["root"]) for path in surveys[name].hidden]:
            lines.append(f"{name}: hidden, left out: {first(hidden, 5)}")
    return lines
