"""PLA: the pseudo-labels that a rule makes of the evidence, into a label store. No network, no torch."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.identity import refuse_other_ancestors, refuse_other_origin
from caguda.artifacts.labels import LABELS, create_label_store, label_faults
from caguda.artifacts.maps import MapStore, open_store, write_shard
from caguda.artifacts.provenance import provenance
from caguda.artifacts.vouched import refuse_other_begun, verify_store, vouched_store
from caguda.classes import IGNORE, class_table
from caguda.config import Configuration
from caguda.errors import UserError, first
from caguda.pseudo_labels import Rule
from caguda.recorded import plugins_of_rule, refuse_other_settings
from caguda.runs import known_rules
from caguda.stages.parts import refuse_apart


def make_labels(configuration: Configuration, evidence: Path, rule: str, store: Path, output: Path) -> None:
    """Make the label store of a rule from a whole evidence store, check it, and write the JSON that vouches for it.

    `rule` is one of the configuration's, by the name of its folder, such as `anchor-0.15-mean_anchor_distance`. A store that
    is there is made again if it was made of the same evidence by the same rule, and refused otherwise.
    """
    started = time.time()
    refuse_apart(store, output)
    rules = known_rules(configuration)
    if rule not in rules:
        raise UserError(f"--rule {rule}: the configuration has no such rule, only {first(list(rules))}")
    read, chosen = vouched_store(evidence, EVIDENCE), rules[rule]
    refuse_other_origin(evidence, configuration)
    refuse_other_ancestors(evidence, configuration)
    settings = {"rule": chosen.described(), **plugins_of_rule(chosen)}
    made_by = provenance("labels", settings, [evidence], read.attributes["provenance"]["seed"], started, store)
    refuse_other_settings(store, configuration, made_by)
    refuse_other_begun(store, LABELS, made_by)
    prepared = _prepared(read, chosen)
    attributes = {"rule": chosen.described(), "evidence_digest": read_json(evidence)["digest"], "provenance": made_by}
    attributes |= {} if prepared is None else {"prepared": prepared}
    create_label_store(store, read.image_ids, read.shape, read.per_shard, class_table(configuration), attributes)
    opened = open_store(store, LABELS)
    for number, images in enumerate(opened.shards):
        write_shard(opened, number, _labels(read, chosen, images, prepared))
    summary = {"store": store.name, **opened.attributes, **verify_store(opened, label_faults)}
    write_json(output, summary)
    print(f"labels: {summary['images']} images by {rule} -> {output}")


def _prepared(evidence: MapStore, rule: Rule) -> Any:
    """What a rule must know of all images together, as it would be read back from JSON; UserError where that is no JSON."""
    images = ({name: evidence.read(index, name) for name in rule.reads} for index in range(evidence.count))
    prepared = rule.prepare(images, len(evidence.categories))
    try:
        return json.loads(json.dumps(prepared, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the rule {rule.name}: `prepare` must return JSON values, found others ({error}); correct the rule"
        ) from None


def _labels(evidence: MapStore, rule: Rule, images: Sequence[int], prepared: Any) -> dict[str, NDArray[Any]]:
    """The labels of some images, and where there are any, (s, h, w) each; UserError unless a rule gives categories alone."""
    distance = evidence.attributes["anchor_distance"]
    distance = float("nan") if distance is None else float(distance)
    maps = []
    for index in images:
        seen = {name: evidence.read(index, name) for name in rule.reads}
        maps.append(np.asarray(rule.labels(seen, distance, prepared)))
        if maps[-1].shape != evidence.shape or maps[-1].dtype != np.uint8:
            raise UserError(f"the rule {rule.name}: labels must be uint8 of shape {evidence.shape}, found {maps[-1].dtype} of shape "
                            f"{maps[-1].shape}; correct the rule")  # fmt: skip
    label = np.stack(maps)
    return {"active": (label != IGNORE).astype(np.uint8), "label": label}
