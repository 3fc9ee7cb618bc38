"""The verb `inspect`: statistics of pseudo-labels, and of those under other thresholds."""

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
from caguda.artifacts.label_statistics import FLOAT16_BINS, ImageLabels, LabelCounts, count_right_and_wrong
from caguda.artifacts.ownership import clear_folder
from caguda.datasets.image_batches import scaled
from caguda.datasets.io import frame_image
from caguda.equations.labels import by_anchor
from caguda.errors import UserError
from caguda.paper.charts import save
from caguda.paper.pictures import description
from caguda.stages.diagnose import truth_at
from caguda.stages.labelling import open_labelling
from caguda.stages.runtime import configure_torch, restore_network
from caguda.stages.traced_labelling import TracedLabelling
from caguda.viewer import charts as label_charts
from caguda.viewer.tables import inspection_text

FRAMES_OF_FEATURES, PIXELS_OF_A_FRAME = 8, 600
KEYS_OF_A_TRIAL = ("share", "per_category")


@dataclass
class Trial:
    """Labels with one threshold changed: `value` in the unit of the option, `threshold` in that of the maps."""

    value: float
    threshold: float
    statistics: LabelCounts


@dataclass
class Counts:
    """The counts of one pass over a labelling: of the labels as stored, and under other margins and other P0.

    `by_margin` and `by_confidence` count, by bit pattern, the pixels with a truth whose nearest anchor or most probable
    category is wrong (row 0) or right (row 1).
    """

    stored: LabelCounts
    margins: Sequence[Trial]
    p0s: Sequence[Trial]
    by_margin: np.ndarray = field(default_factory=lambda: np.zeros((2, FLOAT16_BINS), np.int64))
    by_confidence: np.ndarray = field(default_factory=lambda: np.zeros((2, FLOAT16_BINS), np.int64))

    def add(self, labels: ImageLabels, truth: np.ndarray | None) -> None:
        """Counts the pixels of one image."""
        self.stored.add(labels, truth)
        for trial in self.margins:
            trial.statistics.add(labels.with_thresholds(margin=trial.threshold), truth)
        for trial in self.p0s:
            trial.statistics.add(labels.with_thresholds(p0=trial.threshold), truth)
        if truth is not None:
            count_right_and_wrong(self.by_margin, labels.nearest_anchor, labels.margin, truth)
            count_right_and_wrong(self.by_confidence, labels.predicted, labels.confidence, truth)


def inspect(labelling: Path, as_json: bool, plot: Path | None, margins: Sequence[float], p0s: Sequence[float]) -> None:
    """Print the statistics of a labelling as tables, or as JSON; with `plot`, draw pictures into that folder.

    `labelling` is a label report or evidence, see `open_labelling`. For each of `margins`, in the unit of the anchor rule,
    and of `p0s`, labels are computed again from the evidence. Truth, anchors and checkpoint are found by the provenance; a
    missing one is named, and its statistics or pictures are left out.
    """
    if not all(value >= 0 for value in margins) or not all(0 <= value <= 1 for value in p0s):
        raise UserError(f"{labelling}: --margin must be 0 or more and --p0 0 to 1, found {[*margins, *p0s]}")
    traced = TracedLabelling(open_labelling(labelling))
    rule, distance, c = traced.labelling.anchor_rule, traced.labelling.anchor_distance, len(traced.labelling.categories)
    counts = Counts(
        LabelCounts(c),
        [
            Trial(margin, rule.model_copy(update={"margin": margin}).threshold(distance), LabelCounts(c))
            for margin in margins
        ],
        [Trial(p0, p0, LabelCounts(c)) for p0 in p0s],
    )
    inspection = _head(traced) | _count(traced, counts) | _statistics(traced, counts)
    if plot is not None:
        inspection["pictures"] = _draw(traced, counts, inspection, plot)
    if as_json:
        print(json.dumps(inspection, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(inspection_text(inspection))


def _head(traced: TracedLabelling) -> dict[str, Any]:
    """The keys of the inspection that need no pass over the images."""
    labelling = traced.labelling
    rule = labelling.anchor_rule
    return {
        "store": str(labelling.path),
        "images": labelling.count,
        "height": labelling.shape[0],
        "width": labelling.shape[1],
        **labelling.thresholds,
        "configured": {"margin": rule.margin, "margin_unit": rule.unit, "p0": labelling.p0},
        "provenance": dict(labelling.evidence.attributes.get("provenance", {})),
        "inputs": {file.path.as_posix(): file.state for file in traced.inputs},
    }


def _count(traced: TracedLabelling, counts: Counts) -> dict[str, Any]:
    """Adds every written image to `counts`. Returns how many are missing, how many have a truth, and why if none has."""
    labelling, note = traced.labelling, None
    try:
        frames, table = traced.truth()
    except UserError as error:
        frames, table, note = {}, traced.table, str(error)
    missing = frozenset(labelling.missing())
    if len(missing) == labelling.count:
        raise UserError(f"{labelling.path}: some images must be written, found none; make the evidence first")
    for index in tqdm(range(labelling.count), desc="inspect", disable=not sys.stderr.isatty()):
        if index not in missing:
            truth = truth_at(frames[index], table, labelling) if index in frames else None
            counts.add(labelling.read(index), truth)
    return {"missing": len(missing), "images_with_truth": len(frames.keys() - missing), "no_truth": note}


def _statistics(traced: TracedLabelling, counts: Counts) -> dict[str, Any]:
    """Shares, agreement, quantiles and, if a truth is known, scores: of the labels as stored and of every trial."""
    names, truth_known = traced.labelling.categories, bool(counts.stored.labels[:-1].any())

    def accuracy(statistics: LabelCounts) -> dict[str, Any] | None:
        return statistics.scores(names) if truth_known else None

    def of_trial(trial: Trial) -> dict[str, Any]:
        summary = trial.statistics.summary(names)
        values = {"value": trial.value, "threshold": trial.threshold, **{key: summary[key] for key in KEYS_OF_A_TRIAL}}
        return values | {"accuracy": accuracy(trial.statistics)}

    return {
        **counts.stored.summary(names),
        "accuracy": accuracy(counts.stored),
        "margins": [of_trial(trial) for trial in counts.margins],
        "p0s": [of_trial(trial) for trial in counts.p0s],
    }


def _draw(traced: TracedLabelling, counts: Counts, inspection: dict[str, Any], folder: Path) -> dict[str, str | None]:
    """Draws the pictures into `folder`. Returns for each name None, or why it could not be drawn."""
    table = traced.table
    title = label_charts.title(inspection)

    def margins() -> Figure:
        marks = [(f"margin {trial.value:g}", trial.threshold) for trial in counts.margins]
        verdicts = counts.by_margin if inspection["accuracy"] else None
        return label_charts.margins(title, counts.stored.margins.sum(0), verdicts, inspection["margin"], marks)

    def curves() -> Figure:
        if not inspection["accuracy"]:
            raise UserError(f"no truth is known: {inspection['no_truth'] or 'all of it is void'}")
        return label_charts.curves(title, inspection, {"anchor": counts.by_margin, "probability": counts.by_confidence})

    def distances() -> Figure:
        anchors, _ = load_anchors(traced.input(".h5"))
        return label_charts.distances(title, anchors, table, inspection["margin"])

    pictures: dict[str, Callable[[], Figure]] = {
        "margins.png": margins,
        "categories.png": lambda: label_charts.categories(title, inspection, table),
        "precision_coverage.png": curves,
        "anchors.png": distances,
        "projection.png": lambda: label_charts.projection(title, *_features(traced), table),
    }
    clear_folder(folder, pictures, "inspect")
    reasons: dict[str, str | None] = {}
    for name, draw in pictures.items():
        try:
            save(draw(), folder / name, description("inspect"))
            reasons[name] = None
        except UserError as error:
            reasons[name] = str(error)
    return reasons


@torch.inference_mode()
def _features(traced: TracedLabelling) -> tuple[Anchors, np.ndarray, np.ndarray, np.ndarray]:
    """The anchors, and a sample of p pixels of evenly spaced target frames: features (p, d), nearest anchor, active mask.

    The features are computed by the frozen network of the provenance.
    """
    anchors, _ = load_anchors(traced.input(".h5"))
    device, random = configure_torch(torch.get_num_threads()), np.random.default_rng(0)
    network, _ = restore_network(traced.input(".safetensors"), device, traced.table)
    vectors, present = (torch.from_numpy(values).to(device) for values in (anchors.vectors, anchors.present))
    samples: list[tuple[np.ndarray, ...]] = []
    step = -(-len(traced.frames) // FRAMES_OF_FEATURES)
    for frame in traced.frames[::step]:
        features = network(scaled(frame_image(frame)[None], device)).features
        anchored = by_anchor(features, vectors, present, traced.labelling.margin)
        maps = (features[0].flatten(1).T, anchored.nearest.flatten(), anchored.active.flatten())
        chosen = random.permutation(len(maps[0]))[:PIXELS_OF_A_FRAME]
        samples.append(tuple(values.cpu().numpy()[chosen] for values in maps))
    points, nearest, active = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    return anchors, points, nearest, active
