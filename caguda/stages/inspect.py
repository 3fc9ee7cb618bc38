"""The verb `inspect`: statistics of pseudo-labels, and of those under other thresholds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.artifacts.label_statistics import FLOAT16_BINS, ImageLabels, LabelCounts, count_right_and_wrong
from caguda.datasets.image_batches import scaled
from caguda.datasets.io import frame_image
from caguda.equations.labels import by_anchor
from caguda.errors import UserError
from caguda.pseudo_labels import PAPERS_RULES
from caguda.stages.compared_rules import inspect_rules, refuse_without_truth
from caguda.stages.labelling import open_labelling
from caguda.stages.runtime import configure_torch, restore_network
from caguda.stages.traced_labelling import TracedLabelling
from caguda.viewer import charts as label_charts
from caguda.viewer.curves import threshold_curves
from caguda.viewer.rule_tables import rules_text
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


def inspect(
    labellings: Sequence[Path], as_json: bool, plot: Path | None, margins: Sequence[float], p0s: Sequence[float]
) -> None:
    """Print the statistics of pseudo-labels as tables, or as JSON; with `plot`, draw pictures into that folder.

    `labellings` are label reports, label stores or evidence, see `open_labelling`. One with labels by anchors and by
    probability, and no others, is told in detail: for each of `margins`, in the unit of the anchor rule, and of `p0s`,
    labels are computed again from the evidence. The rules of several, or of one with other rules, are told side by side.
    Truth, anchors and checkpoint are found by the provenance; a missing one is named, and its statistics or pictures are
    left out.
    """
    if not all(value >= 0 for value in margins) or not all(0 <= value <= 1 for value in p0s):
        raise UserError(f"{labellings[0]}: --margin must be 0 or more and --p0 0 to 1, found {[*margins, *p0s]}")
    opened = [open_labelling(path) for path in labellings]
    if len(opened) == 1 and opened[0].has_papers_rules:
        inspection = _inspect_thresholds(TracedLabelling(opened[0]), plot, margins, p0s)
        text = inspection_text
    elif margins or p0s:
        raise UserError(f"{labellings[0]}: --margin and --p0 must come with one labelling, by {' and by '.join(PAPERS_RULES)}"
                        ", found several or other rules; leave them out")  # fmt: skip
    else:
        inspection, text = inspect_rules(opened, plot), rules_text
    if as_json:
        print(json.dumps(inspection, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(text(inspection))


def _inspect_thresholds(
    traced: TracedLabelling, plot: Path | None, margins: Sequence[float], p0s: Sequence[float]
) -> dict[str, Any]:
    """The inspection of one labelling by anchors and by probability, also under other thresholds."""
    labelling = traced.labelling
    rule, distance, c = labelling.anchor_rule, labelling.anchor_distance, len(labelling.categories)
    counts = Counts(
        LabelCounts(c),
        [
            Trial(margin, rule.model_copy(update={"margin": margin}).threshold(distance), LabelCounts(c))
            for margin in margins
        ],
        [Trial(p0, p0, LabelCounts(c)) for p0 in p0s],
    )
    found = traced.count_images(lambda index, truth: counts.add(labelling.read(index), truth))
    inspection = _head(traced) | found | _statistics(traced, counts)
    if plot is not None:
        inspection["pictures"] = _draw(traced, counts, inspection, plot)
    return inspection


def _head(traced: TracedLabelling) -> dict[str, Any]:
    """The keys of the inspection that need no pass over the images."""
    labelling = traced.labelling
    rule = labelling.anchor_rule
    configured = {"margin": rule.margin, "margin_unit": rule.unit, "p0": labelling.p0}
    return {
        "store": str(labelling.path),
        **traced.size,
        **labelling.thresholds,
        "configured": configured,
        **traced.origin,
    }


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
        refuse_without_truth(inspection)
        return threshold_curves(inspection, {"anchor": counts.by_margin, "probability": counts.by_confidence})

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
    return label_charts.write_pictures(pictures, folder)


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
