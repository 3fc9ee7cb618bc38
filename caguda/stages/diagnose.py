"""The label report: shares of pseudo-labels, and their accuracy where the truth is known. No training reads it."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from caguda.artifacts.atomic import write_json
from caguda.artifacts.label_statistics import LabelCounts, RuleCounts
from caguda.artifacts.provenance import new_provenance
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_labels
from caguda.datasets.manifest import read_manifest
from caguda.equations.grid import labels_at
from caguda.stages.labelling import Labelling, verified_labelling


def diagnose(
    configuration: Configuration, manifest: Path, evidence: Path, labels: Sequence[Path], output: Path
) -> None:
    """Write the label report of the pseudo-labels of some rules.

    Shares are of all pixels at the resolution of f_D. `accuracy` is over the pixels with a truth, and null if no frame has
    a label file. Labels by anchors and by probability are also compared with each other.
    """
    started = time.time()
    table = class_table(configuration, configuration.target)
    frames = read_manifest(manifest, configuration=configuration).frames("target")
    labelling = verified_labelling(configuration, manifest, evidence, labels, output)
    statistics = _joint_statistics if labelling.has_papers_rules else _statistics_by_rule
    values = statistics(labelling, frames, table)
    with_truth = sum(frame.label is not None for frame in frames)
    if not with_truth:
        values["accuracy"] = None
    inputs, seed = [manifest, evidence, *labels], labelling.evidence.attributes["provenance"]["seed"]
    content = {
        "evidence": _relative(evidence, output),
        "labels": {rule: _relative(file, output) for rule, file in zip(labelling.rules, labels, strict=True)},
        "seed": seed,
        "images": labelling.count,
        "images_with_truth": with_truth,
        **values,
        "provenance": new_provenance("diagnose", {}, inputs, seed, started, output),
    }
    write_json(output, content)
    shares = ", ".join(f"by {rule} {content['share'][rule]:.1%}" for rule in labelling.rules)
    print(f"diagnose: {labelling.count} images, active {shares} -> {output}")


def _relative(path: Path, output: Path) -> str:
    """A path relative to the file `output` that names it, so that results may be moved."""
    return Path(os.path.relpath(path.absolute(), output.absolute().parent)).as_posix()


def _joint_statistics(labelling: Labelling, frames: Sequence[Frame], table: ClassTable) -> dict[str, Any]:
    """The keys of the report for labels by anchors and by probability, compared with each other.

    Agreement needs the counts of pairs of labels, so these are more counts than those of `_statistics_by_rule`.
    `nearest_anchor_all` and `predicted_all` are the scores where every pixel is labelled.
    """
    stored, every_pixel = LabelCounts(table.count), LabelCounts(table.count)
    for index, truth in _truths(labelling, frames, table):
        arrays = labelling.read(index)
        stored.add(arrays, truth)
        if truth is not None:
            every_pixel.add(arrays.with_thresholds(-1.0, -1.0), truth)
    scores = every_pixel.scores(table.names)
    extremes = {"nearest_anchor_all": scores["anchor"], "predicted_all": scores["probability"]}
    summary = stored.summary(table.names)
    return {**labelling.thresholds, **summary, "accuracy": stored.scores(table.names) | extremes}


def _statistics_by_rule(labelling: Labelling, frames: Sequence[Frame], table: ClassTable) -> dict[str, Any]:
    """The keys of the report for any rules, each by itself."""
    counts = RuleCounts(list(labelling.rules), table.count)
    for index, truth in _truths(labelling, frames, table):
        counts.add([labelling.label(rule, index) for rule in labelling.rules], truth)
    return counts.summary(table.names)


def _truths(
    labelling: Labelling, frames: Sequence[Frame], table: ClassTable
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w"] | None]]:
    """Yields the index of every image with its truth, None without a label file."""
    for index in tqdm(range(labelling.count), desc="diagnose", disable=not sys.stderr.isatty()):
        frame = frames[index]
        yield index, None if frame.label is None else truth_at(frame, table, labelling)


def truth_at(frame: Frame, table: ClassTable, labelling: Labelling) -> UInt8[np.ndarray, "h w"]:
    """The train ids of a frame's label file at the cells of f_D that a labelling is of, IGNORE where void."""
    return labels_at(frame_labels(frame, table)[None], labelling.shape, labelling.align_corners)[0].numpy()
