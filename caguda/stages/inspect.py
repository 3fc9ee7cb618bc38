"""The verb `inspect`: what a label store holds, where it came from, and what other thresholds would make of it."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.artifacts.label_arrays import (
    PATTERNS,
    LabelArrays,
    LabelStatistics,
    count_verdicts,
    relabelled,
)
from caguda.artifacts.ownership import clear_folder
from caguda.datasets.io import image_of
from caguda.datasets.transforms import scaled
from caguda.equations.labels import by_anchor
from caguda.errors import UserError
from caguda.paper.charts import save
from caguda.paper.pictures import description
from caguda.stages.diagnose import truth_at
from caguda.stages.origin import Origin, open_origin
from caguda.stages.runtime import prepare, restore_network
from caguda.viewer import charts as label_charts
from caguda.viewer.tables import inspection

FRAMES_OF_FEATURES, PIXELS_OF_A_FRAME = 8, 600
TOLD_OF_A_TRIAL = ("share", "per_category")


@dataclass
class Trial:
    """Labels under one other threshold, the other rule as stored: `value` as it was given, `threshold` as compared."""

    value: float
    threshold: float
    statistics: LabelStatistics


@dataclass
class Counts:
    """What one pass over a store adds up: labels as stored, under other margins and other P0, and verdicts of both.

    The verdicts count wrong and right categories of all pixels with a truth, by margin and by confidence.
    """

    stored: LabelStatistics
    margins: Sequence[Trial]
    p0s: Sequence[Trial]
    by_margin: np.ndarray = field(default_factory=lambda: np.zeros((2, PATTERNS), np.int64))
    by_confidence: np.ndarray = field(default_factory=lambda: np.zeros((2, PATTERNS), np.int64))

    def add(self, labels: LabelArrays, truth: np.ndarray | None) -> None:
        """Counts the pixels of one image."""
        self.stored.add(labels, truth)
        for trial in self.margins:
            trial.statistics.add(relabelled(labels, margin=trial.threshold), truth)
        for trial in self.p0s:
            trial.statistics.add(relabelled(labels, p0=trial.threshold), truth)
        if truth is not None:
            count_verdicts(self.by_margin, labels.nearest_anchor, labels.margin, truth)
            count_verdicts(self.by_confidence, labels.predicted, labels.confidence, truth)


def inspect(store: Path, as_json: bool, plot: Path | None, margins: Sequence[float], p0s: Sequence[float]) -> None:
    """Print what a label store holds as tables, or as JSON; draw it into the folder `plot` where one is given.

    `margins`, in the unit of the configuration that made the store, and `p0s`: what labels they would give, recomputed
    from the store. Truth, anchors and checkpoint are those that its provenance names; what is missing is said.
    """
    origin = open_origin(store)
    c = len(origin.store.categories)
    if not all(value >= 0 for value in margins) or not all(0 <= value <= 1 for value in p0s):
        raise UserError(f"{store}: --margin must be 0 or more and --p0 0 to 1, found {[*margins, *p0s]}")
    unit = origin.margin_unit if margins else 1.0
    counts = Counts(
        LabelStatistics(c),
        [Trial(value, value * unit, LabelStatistics(c)) for value in margins],
        [Trial(value, value, LabelStatistics(c)) for value in p0s],
    )
    found = _head(origin) | _count(origin, counts) | _content(origin, counts)
    if plot is not None:
        found["pictures"] = _draw(origin, counts, found, plot)
    print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) if as_json else inspection(found))


def _head(origin: Origin) -> dict[str, Any]:
    """What the store is and where it came from."""
    store = origin.store
    return {
        "store": str(store.path),
        "images": store.count,
        "height": store.shape[0],
        "width": store.shape[1],
        "margin": _number(store.margin),
        "p0": store.p0,
        "configured": {"margin": store.anchor_rule.margin, "margin_unit": store.anchor_rule.unit, "p0": store.p0},
        "provenance": dict(origin.provenance),
        "inputs": {file.path.as_posix(): file.state for file in origin.inputs},
    }


def _number(value: float) -> float | None:
    """A number as JSON knows it: nan, of fewer than two anchors, is null."""
    return None if np.isnan(value) else value


def _count(origin: Origin, counts: Counts) -> dict[str, Any]:
    """Counts every image that is written; how many are not, how many have a truth, and why if none has."""
    store, note = origin.store, None
    try:
        frames, table = origin.truth()
    except UserError as error:
        frames, table, note = {}, origin.table, str(error)
    missing = frozenset(store.missing())
    if len(missing) == store.count:
        raise UserError(f"{store.path}: some images must be written, found none; make the evidence first")
    for index in tqdm(range(store.count), desc="inspect", disable=not sys.stderr.isatty()):
        if index in missing:
            continue
        counts.add(store.read(index), truth_at(frames[index], table, store.shape) if index in frames else None)
    return {"missing": len(missing), "images_with_truth": len(frames.keys() - missing), "no_truth": note}


def _content(origin: Origin, counts: Counts) -> dict[str, Any]:
    """Shares, agreement and quantiles, and scores where a truth is known: as stored, and of every other threshold."""
    names, known = origin.store.categories, bool(counts.stored.counts[:-1].any())
    told: dict[str, Any] = counts.stored.summary(names)
    told["accuracy"] = counts.stored.scores(names) if known else None
    for key, trials in (("margins", counts.margins), ("p0s", counts.p0s)):
        told[key] = [
            {
                "value": trial.value,
                "threshold": trial.threshold,
                **{name: value for name, value in trial.statistics.summary(names).items() if name in TOLD_OF_A_TRIAL},
                "accuracy": trial.statistics.scores(names) if known else None,
            }
            for trial in trials
        ]
    return told


def _draw(origin: Origin, counts: Counts, found: dict[str, Any], folder: Path) -> dict[str, str | None]:
    """Draws every picture that can be drawn; by its name None, or why it is left out."""
    table = origin.table
    title = label_charts.title(found)

    def margins() -> Figure:
        marks = [(f"margin {trial.value:g}", trial.threshold) for trial in counts.margins]
        verdicts = counts.by_margin if found["accuracy"] else None
        return label_charts.margins(title, counts.stored.margins.sum(0), verdicts, found["margin"], marks)

    def curves() -> Figure:
        if not found["accuracy"]:
            raise UserError(f"no truth is known: {found['no_truth'] or 'all of it is void'}")
        return label_charts.curves(title, found, {"anchor": counts.by_margin, "probability": counts.by_confidence})

    pictures: dict[str, Callable[[], Figure]] = {
        "margins.png": margins,
        "categories.png": lambda: label_charts.categories(title, found, table),
        "precision_coverage.png": curves,
        "anchors.png": lambda: label_charts.distances(
            title, load_anchors(origin.input(".h5"))[0], table, found["margin"]
        ),
        "projection.png": lambda: label_charts.projection(title, *_features(origin), table),
    }
    clear_folder(folder, pictures, "inspect")
    left_out: dict[str, str | None] = {}
    for name, draw in pictures.items():
        try:
            save(draw(), folder / name, description("inspect"))
            left_out[name] = None
        except UserError as error:
            left_out[name] = str(error)
    return left_out


@torch.inference_mode()
def _features(origin: Origin) -> tuple[Anchors, np.ndarray, np.ndarray, np.ndarray]:
    """The anchors, and of some pixels of some frames the features (p, d), the nearest anchor and whether it labels them.

    The frozen network of the provenance sees evenly spaced target frames.
    """
    anchors, _ = load_anchors(origin.input(".h5"))
    device, random = prepare(torch.get_num_threads()), np.random.default_rng(0)
    network, _ = restore_network(origin.input(".safetensors"), device, origin.table)
    vectors, present = (torch.from_numpy(values).to(device) for values in (anchors.vectors, anchors.present))
    found: list[tuple[np.ndarray, ...]] = []
    step = -(-len(origin.frames) // FRAMES_OF_FEATURES)
    for frame in origin.frames[::step]:
        features = network(scaled(image_of(frame)[None], device)).features
        anchored = by_anchor(features, vectors, present, origin.store.margin)
        maps = (features[0].flatten(1).T, anchored.nearest.flatten(), anchored.active.flatten())
        chosen = random.permutation(len(maps[0]))[:PIXELS_OF_A_FRAME]
        found.append(tuple(values.cpu().numpy()[chosen] for values in maps))
    points, nearest, active = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return anchors, points, nearest, active
