"""The verb `view`: pictures of labels of some frames, or a page of all frames."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from caguda.artifacts.ownership import clear_folder
from caguda.errors import UserError, printable
from caguda.stages.columns import Columns, is_model, open_columns, source_of_labels, sources_of_models
from caguda.stages.labelling import open_labelling
from caguda.stages.scene import Scene, open_labellings
from caguda.stages.traced_labelling import TracedLabelling
from caguda.viewer.page import VIEWED

SHEETS = 4
"""The number of pictures without --frames, --worst or --random."""
NOTES = 5
"""The number of notes that are printed."""


def view(
    shown: Sequence[Path], frames: str | None, worst: int | None, random: int | None, html: bool, output: Path
) -> None:
    """Draw frames into the folder `output`: one PNG each, or with `html` a page.

    `shown` are label reports, label stores or evidence, see `open_labelling`, and predictions or checkpoints. One labelling
    by anchors and by probability is shown in detail, and two are on a page. Everything else is shown in columns, one for
    each rule or model. Frames are chosen by `frames` (ids, with commas), `random` (a number; the same frames in every call)
    or `worst` (a number); else all are on a page, and SHEETS evenly spaced ones are drawn. The worst of labels by anchors
    and by probability have the lowest agreement of their labels by anchors with the truth, or without a truth the lowest
    share of pixels active by anchors; for columns see `Columns.worst`. Earlier pictures and pages in `output` are replaced.
    Images and truth are found by the manifest in the provenance.
    """
    scene = open_scene(shown, html)
    count, written = len(scene.image_ids), scene.written
    if not written:
        raise UserError(f"{shown[0]}: some images must be written, found none; make the evidence first")
    chosen, reason = _chosen(scene, frames, worst, random, len(written) if html else SHEETS)
    indices = tqdm(chosen, desc="view", disable=not sys.stderr.isatty())
    if html:
        result = scene.write_page(reason, indices, output)
    else:
        result = output
        clear_folder(output, VIEWED, "view")
        for index in indices:
            scene.write_sheet(index, output)
    incomplete = f"; {count - len(written)} not written yet" if len(written) < count else ""
    print(f"view: {len(chosen)} of {count} frames, {reason}{incomplete} -> {result}")
    notes = list(scene.known.notes)
    for note in notes[:NOTES]:
        print(f"view: {printable(note)}")
    if len(notes) > NOTES:
        print(f"view: and {len(notes) - NOTES} more")


def open_scene(paths: Sequence[Path], html: bool) -> Scene | Columns:
    """What is shown of the files at `paths`; UserError unless all are of the same frames."""
    labellings = {path: TracedLabelling(open_labelling(path)) for path in paths if not is_model(path)}
    in_detail = all(traced.labelling.has_papers_rules for traced in labellings.values())
    if in_detail and len(labellings) == len(paths) <= (2 if html else 1):
        return open_labellings(list(labellings.values()))
    others = [path for path in paths if path not in labellings]
    models = dict(zip(others, sources_of_models(others, "target" if labellings else None), strict=True))
    return open_columns([source_of_labels(labellings[path]) if path in labellings else models[path] for path in paths])


def _chosen(
    scene: Scene | Columns, names: str | None, worst: int | None, random: int | None, default: int
) -> tuple[list[int], str]:
    """The indices of the frames to show, and how they were chosen; `default` is their number without an option.

    UserError for several options, and for names that are not those of written images, or repeated.
    """
    if sum(option is not None for option in (names, worst, random)) > 1:
        raise UserError("view: one of --frames, --worst and --random must choose the frames, found several")
    written = scene.written
    if names is not None:
        return _named(scene, names.split(",")), "as named"
    count = min(worst or random or default, len(written))
    if random is not None:
        positions = np.random.default_rng(0).choice(len(written), count, replace=False)
        return [written[position] for position in positions.tolist()], "at random"
    if worst is not None:
        return scene.worst(count)
    evenly = [written[len(written) * (2 * k + 1) // (2 * count)] for k in range(count)]
    return evenly, "in their order" if count == len(written) else "evenly spaced"


def _named(scene: Scene | Columns, names: Sequence[str]) -> list[int]:
    by_name = {scene.image_ids[index]: index for index in scene.written}
    if unknown := [name for name in names if name not in by_name]:
        what = "finished images of the evidence" if isinstance(scene, Scene) else "frames of every column"
        raise UserError(f"{scene.path}: --frames must name {what}, found {unknown[0]!r}"
                        f"; its ids are such as {next(iter(by_name))}")  # fmt: skip
    if len(set(names)) < len(names):
        raise UserError(f"--frames {','.join(names)}: every frame must be named once, found one twice; leave it out")
    return [by_name[name] for name in names]
