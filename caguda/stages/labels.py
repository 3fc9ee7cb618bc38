"""The verb `labels`: the label store of one rule, made of an evidence store. No network, no torch.

By anchors this is ATI and PLA (Eq. 6 and 7), by probability Eq. 11.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.checks import refuse_other_origin
from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.labels import LABELS, create_label_store, label_faults
from caguda.artifacts.maps import MapStore, open_store, write_shard
from caguda.artifacts.provenance import new_provenance
from caguda.artifacts.vouched import refuse_other_store, verify_store, vouched_store
from caguda.classes import IGNORE, class_table
from caguda.config import Configuration
from caguda.errors import UserError, first
from caguda.pseudo_labels import Rule
from caguda.recorded_settings import plugins_of_rule, refuse_other_settings
from caguda.runs import rules_by_folder
from caguda.stages.labelling import anchor_distance_of
from caguda.stages.parts import refuse_apart


def make_labels(configuration: Configuration, evidence: Path, rule: str, store: Path, output: Path) -> None:
    """Make the label store of a rule from a complete evidence store, verify it, and write its JSON with the checksums.

    `rule` is the folder name of a configured rule, such as `anchor-0.15-mean_anchor_distance`. An existing store is
    replaced if it is of the same evidence and rule; any other is a UserError.
    """
    started = time.time()
    refuse_apart(store, output)
    rules = rules_by_folder(configuration)
    if rule not in rules:
        raise UserError(f"--rule {rule}: the configuration has no such rule, only {first(list(rules))}")
    evidence_store, chosen = vouched_store(evidence, EVIDENCE), rules[rule]
    refuse_other_origin(evidence, configuration)
    settings = {"rule": chosen.described(), **plugins_of_rule(chosen)}
    seed = evidence_store.attributes["provenance"]["seed"]
    provenance = new_provenance("labels", settings, [evidence], seed, started, store)
    refuse_other_settings(store, configuration, provenance)
    refuse_other_store(store, LABELS, provenance)
    prepared = _prepare(evidence_store, chosen)
    attributes = {
        "rule": chosen.described(),
        "evidence_digest": read_json(evidence)["digest"],
        "provenance": provenance,
    }
    attributes |= {} if prepared is None else {"prepared": prepared}
    ids, shape, per_shard = evidence_store.image_ids, evidence_store.shape, evidence_store.per_shard
    create_label_store(store, ids, shape, per_shard, class_table(configuration), attributes)
    label_store = open_store(store, LABELS)
    for shard, images in enumerate(label_store.shards):
        write_shard(label_store, shard, _label_maps(evidence_store, chosen, images, prepared))
    summary = {"store": store.name, **label_store.attributes, **verify_store(label_store, label_faults)}
    write_json(output, summary)
    print(f"labels: {summary['images']} images by {rule} -> {output}")


def _prepare(evidence: MapStore, rule: Rule) -> Any:
    """The result of `Rule.prepare` on all images, as JSON values; UserError if it has none."""
    with _reads_are_complete(rule):
        prepared = rule.prepare(_Images(evidence, rule), len(evidence.categories))
    try:
        return json.loads(json.dumps(prepared, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the rule {rule.name}: `prepare` must return JSON values, found others ({error}); correct the rule"
        ) from None


@dataclass(frozen=True)
class _Images:
    """The arrays of every image that a rule reads, read from disk in every loop: no more than one image is in memory."""

    evidence: MapStore
    rule: Rule

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return (_arrays(self.evidence, self.rule, index) for index in range(self.evidence.count))


def _arrays(evidence: MapStore, rule: Rule, index: int) -> dict[str, NDArray[Any]]:
    """The arrays of one image that a rule reads, which it cannot change."""
    arrays = {name: evidence.read(index, name) for name in rule.reads}
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


@contextmanager
def _reads_are_complete(rule: Rule) -> Iterator[None]:
    """UserError where a rule uses an array of the evidence that its `reads` does not name."""
    try:
        yield
    except KeyError as error:
        if error.args[0] not in {*EVIDENCE.dtypes} - {*rule.reads}:
            raise
        raise UserError(
            f"the rule {rule.name}: `reads` must name every array that it uses, found none of {error.args[0]}; add it"
        ) from None


def _label_maps(evidence: MapStore, rule: Rule, images: Sequence[int], prepared: Any) -> dict[str, NDArray[np.uint8]]:
    """The arrays `active` and `label` (s, h, w) of the s images of a shard.

    UserError unless the rule gives each image a uint8 map (h, w); `verify_store` checks the values.
    """
    distance = anchor_distance_of(evidence)
    maps: list[NDArray[np.uint8]] = []
    for index in images:
        with _reads_are_complete(rule):
            maps.append(np.asarray(rule.labels(_arrays(evidence, rule, index), distance, prepared)))
        if maps[-1].shape != evidence.shape or maps[-1].dtype != np.uint8:
            raise UserError(f"the rule {rule.name}: labels must be uint8 of shape {evidence.shape}, found {maps[-1].dtype} of shape "
                            f"{maps[-1].shape}; correct the rule")  # fmt: skip
    label = np.stack(maps)
    return {"active": (label != IGNORE).astype(np.uint8), "label": label}
