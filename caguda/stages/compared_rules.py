"""Statistics of the pseudo-labels of any rules that were made of one evidence store, side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from caguda.artifacts.label_statistics import (
    FLOAT16_BINS,
    RuleCounts,
    count_right_and_wrong,
    mean_score,
    recall_of_pixels,
)
from caguda.errors import UserError
from caguda.stages.labelling import Labelling
from caguda.stages.traced_labelling import TracedLabelling
from caguda.viewer.charts import write_pictures
from caguda.viewer.curves import rule_curves


@dataclass(frozen=True, eq=False)
class LabelledRule:
    """The labels of one rule: the labelling that has them, and the name of the rule there."""

    labelling: Labelling
    name: str

    @property
    def file(self) -> str:
        """The label store, or the evidence that the labels are computed from."""
        return str(self.labelling.labels.get(self.name, self.labelling).path)

    @property
    def described(self) -> dict[str, Any]:
        """The name and the settings of the rule."""
        return dict(self.labelling.rules[self.name])


def rules_of_one_evidence(labellings: Sequence[Labelling]) -> dict[str, LabelledRule]:
    """The rules of some labellings by the names of their folders; a rule that several of them have occurs once.

    UserError unless all labellings are of one evidence store, and two rules have folders of two names.
    """
    rules: dict[str, LabelledRule] = {}
    first = labellings[0]
    for labelling in labellings:
        if not _same_evidence(first, labelling):
            raise UserError(
                f"{labelling.path}: labels that are compared must be of one evidence store, found those of "
                f"{labelling.evidence.path}, and of {first.evidence.path} in {first.path}; name labels of one of the two"
            )
        for name in labelling.rules:
            rule = LabelledRule(labelling, name)
            earlier = rules.setdefault(labelling.folder(name), rule)
            if json.dumps(earlier.described, sort_keys=True) != json.dumps(rule.described, sort_keys=True):
                raise UserError(f"{rule.file}: labels of two rules must lie in folders of two names, found those of another "
                                f"rule in {earlier.file}; rename a folder")  # fmt: skip
    return rules


def _same_evidence(first: Labelling, second: Labelling) -> bool:
    """Whether the evidence of two labellings is one store, or two verified copies of one."""
    stores = first.evidence, second.evidence
    if stores[0].path.samefile(stores[1].path):
        return True
    digests = [store.chunk_sha256 for store in stores]
    return None not in digests and digests[0] == digests[1] and stores[0].image_ids == stores[1].image_ids


def inspect_rules(labellings: Sequence[Labelling], plot: Path | None) -> dict[str, Any]:
    """The inspection of all rules of some labellings of one evidence store; with `plot`, a picture in that folder.

    Beside the keys of a label report it has `rules`, the figures of each rule, and `pairs`, those of each two; a truth
    that is not known leaves the scores None.
    """
    rules, traced = rules_of_one_evidence(labellings), TracedLabelling(labellings[0])
    names = traced.labelling.categories
    counts = RuleCounts(list(rules), len(names))
    verdicts = {rule: np.zeros((2, FLOAT16_BINS), np.int64) for rule in ("anchor", "probability")}

    def add(index: int, truth: NDArray[np.uint8] | None) -> None:
        maps = traced.labelling.maps(index)
        counts.add([rule.labelling.label(rule.name, index, maps) for rule in rules.values()], truth)
        if truth is not None:
            count_right_and_wrong(verdicts["anchor"], maps["nearest_anchor"], maps["margin"], truth)
            count_right_and_wrong(verdicts["probability"], maps["predicted"], maps["confidence"], truth)

    found = traced.count_images(add)
    summary = counts.summary(names)
    if not counts.confusions[:, :-1].any():
        summary["accuracy"] = None
    figures = {name: _figures(name, rule, summary) for name, rule in rules.items()}
    head = {"store": str(traced.labelling.evidence.path), **traced.size, **traced.origin}
    inspection = head | found | summary | {"rules": figures, "pairs": counts.pairs()}
    if plot is not None:

        def curves() -> Figure:
            refuse_without_truth(inspection)
            return rule_curves(inspection, verdicts)

        inspection["pictures"] = write_pictures({"precision_coverage.png": curves}, plot)
    return inspection


def _figures(name: str, rule: LabelledRule, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one rule; `precision` and `recall` are over pixels with a truth, the means over categories."""
    scores = None if summary["accuracy"] is None else summary["accuracy"][name]
    return {
        "labels": rule.file,
        "rule": rule.described,
        "share": summary["share"][name],
        "categories": sum(row[name] > 0 for row in summary["per_category"]),
        "coverage": None if scores is None else scores["coverage"],
        "precision": None if scores is None else scores["accuracy"],
        "recall": None if scores is None else recall_of_pixels(scores),
        "mean_precision": None if scores is None else mean_score(scores, "precision"),
        "mean_recall": None if scores is None else mean_score(scores, "recall"),
    }


def refuse_without_truth(inspection: Mapping[str, Any]) -> None:
    """UserError unless an inspection has scores: a truth was known."""
    if not inspection["accuracy"]:
        raise UserError(f"no truth is known: {inspection['no_truth'] or 'all of it is void'}")
