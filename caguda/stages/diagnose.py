"""What pseudo-labels there are, and how right they are where a truth is known: for people, never for training."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from caguda.artifacts.atomic import write_json
from caguda.artifacts.label_arrays import LabelStatistics, accuracy_of, relabelled
from caguda.artifacts.provenance import provenance
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.datasets.io import labels_of
from caguda.datasets.manifest import read_manifest
from caguda.equations.anchors import labels_at
from caguda.stages.labelling import Labelling, relative_files, verified_labelling


def diagnose(
    configuration: Configuration, manifest: Path, evidence: Path, labels: Sequence[Path], output: Path
) -> None:
    """Write what the pseudo-labels of some rules are together, and how right they are where a truth is known.

    Diagnostics only: no training reads this. Shares are of all pixels at the resolution of f_D, `accuracy` is over those
    with a truth, null where none is known. Labels by anchors and by probability are also told of together.
    """
    started = time.time()
    table = class_table(configuration, configuration.target)
    frames = read_manifest(manifest, configuration=configuration).frames("target")
    labelling = verified_labelling(configuration, manifest, evidence, labels, output)
    found = _of_both(labelling, frames, table) if labelling.has_both else _of_each(labelling, frames, table)
    inputs, seed = [manifest, evidence, *labels], labelling.evidence.attributes["provenance"]["seed"]
    content = {
        **relative_files(evidence, labels, output),
        "seed": seed,
        "images": labelling.count,
        "images_with_truth": sum(frame.label is not None for frame in frames),
        **found,
        "provenance": provenance("diagnose", {}, inputs, seed, started, output),
    }
    write_json(output, content)
    shares = ", ".join(f"by {rule} {content['share'][rule]:.1%}" for rule in labelling.rules)
    print(f"diagnose: {labelling.count} images, active {shares} -> {output}")


def _of_both(labelling: Labelling, frames: Sequence[Frame], table: ClassTable) -> dict[str, Any]:
    """What the labels by anchors and by probability are together.

    "anchor only" are the pixels that anchors activate and probability does not.
    """
    c = table.count
    every, assigned, everywhere = LabelStatistics(c), LabelStatistics(c), LabelStatistics(c)
    for index, truth in _truths(labelling, frames, table):
        row = labelling.read(index)
        every.add(row)
        if truth is not None:
            assigned.add(row, truth)
            everywhere.add(relabelled(row, -1.0, -1.0), truth)
    scores, all_pixels = assigned.scores(table.names), everywhere.scores(table.names)
    scores |= {"nearest_anchor_all": all_pixels["anchor"], "predicted_all": all_pixels["probability"]}
    return {
        "margin": None if np.isnan(labelling.margin) else labelling.margin,
        "p0": labelling.p0,
        **every.summary(table.names),
        "accuracy": scores if any(frame.label is not None for frame in frames) else None,
    }


def _of_each(labelling: Labelling, frames: Sequence[Frame], table: ClassTable) -> dict[str, Any]:
    """What the labels of every rule are by themselves: shares of all pixels, and how right they are."""
    c, pixels = table.count, labelling.count * labelling.shape[0] * labelling.shape[1]
    counts = {
        rule: np.zeros((c + 1, c + 1), np.int64) for rule in labelling.rules
    }  # by truth and label; void or none last
    shares = {rule: np.zeros(c + 1, np.int64) for rule in labelling.rules}
    for index, truth in _truths(labelling, frames, table):
        for rule in labelling.rules:
            label = np.minimum(labelling.label(rule, index), c)
            shares[rule] += np.bincount(label.ravel(), minlength=c + 1)
            if truth is not None:
                np.add.at(counts[rule], (np.minimum(truth, c).ravel(), label.ravel()), 1)
    known = any(frame.label is not None for frame in frames)
    return {
        "pixels": pixels,
        "share": {rule: float(found[:-1].sum() / pixels) for rule, found in shares.items()},
        "per_category": [
            {"name": name} | {rule: float(found[i] / pixels) for rule, found in shares.items()}
            for i, name in enumerate(table.names)
        ],
        "accuracy": {
            rule: accuracy_of(found[:-1, :-1], found[:-1].sum(1), table.names) for rule, found in counts.items()
        }
        if known
        else None,
    }


def _truths(
    labelling: Labelling, frames: Sequence[Frame], table: ClassTable
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w"] | None]]:
    """Every image by its number, with its truth where that is known."""
    for index in tqdm(range(labelling.count), desc="diagnose", disable=not sys.stderr.isatty()):
        frame = frames[index]
        yield index, None if frame.label is None else truth_at(frame, table, labelling.shape)


def truth_at(frame: Frame, table: ClassTable, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The train ids of a frame's label at the resolution (h, w) of a store, IGNORE where void."""
    return labels_at(labels_of(frame, table)[None], size)[0].numpy()
