"""The pseudo-labels that a stage trains on, seen together: evidence, and what both rules make of it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import refuse_other_manifest
from caguda.artifacts.evidence import EVIDENCE, evidence_faults
from caguda.artifacts.identity import refuse_other_ancestors, refuse_other_origin
from caguda.artifacts.label_arrays import BY_ANCHOR, BY_PROBABILITY, LabelArrays
from caguda.artifacts.labels import LABELS
from caguda.artifacts.maps import MapStore
from caguda.artifacts.stores import kind_of_store
from caguda.artifacts.vouched import refuse_other_frames, store_at, vouched_store
from caguda.classes import IGNORE
from caguda.config import Configuration
from caguda.configfile import configuration_beside
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.pseudo_labels import Rule, rule_from
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule
from caguda.runs import model_before, models, rules_of

RULES = ("anchor", "probability")


@dataclass(frozen=True, eq=False)
class Labelling:
    """An evidence store, and the pseudo-labels of some rules: those of vouched stores, or what the rules make of the evidence."""

    path: Path
    evidence: MapStore
    rules: Mapping[str, Rule]
    labels: Mapping[str, MapStore]

    @property
    def has_both(self) -> bool:
        """Whether its rules are just that by anchors and that by probability, so that they can be seen together."""
        return sorted(self.rules) == sorted(RULES)

    @property
    def count(self) -> int:
        """The number of images, n."""
        return self.evidence.count

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The id of every image, in order."""
        return self.evidence.image_ids

    @property
    def shape(self) -> tuple[int, int]:
        """The size (h, w) of all maps."""
        return self.evidence.shape

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the c categories."""
        return self.evidence.categories

    @property
    def model(self) -> str:
        """The run whose model made the evidence, RUN or RUN/stageK; of a model from elsewhere the path of the evidence."""
        return str(self.evidence.attributes.get("model") or self.evidence.path)

    @property
    def anchor_distance(self) -> float:
        """The mean distance between two anchors, nan without two."""
        distance = self.evidence.attributes["anchor_distance"]
        return float("nan") if distance is None else float(distance)

    @property
    def anchor_rule(self) -> AnchorRule:
        """The rule of the labels by anchors."""
        rule = self.rules["anchor"]
        assert isinstance(rule, AnchorRule)
        return rule

    @property
    def margin(self) -> float:
        """The margin of Eq. 6 in the units of the features."""
        return self.anchor_rule.threshold(self.anchor_distance)

    @property
    def p0(self) -> float:
        """The threshold of the probability."""
        rule = self.rules["probability"]
        assert isinstance(rule, ProbabilityRule)
        return rule.p0

    def missing(self) -> list[int]:
        """The images that are not written yet."""
        return self.evidence.missing()

    def read(self, index: int) -> LabelArrays:
        """What is known of the pixels of one image."""
        maps = self.evidence.read_all(index)
        if wrong := evidence_faults(maps, len(self.categories)):
            raise UserError(f"{self.evidence.path}: image {self.image_ids[index]}: {wrong[0]}; make the evidence again")
        by_anchor, by_probability = (self.label(name, index, maps) for name in RULES)
        active = (by_anchor != IGNORE) * BY_ANCHOR + (by_probability != IGNORE) * BY_PROBABILITY
        return LabelArrays(
            active=active.astype(np.uint8),
            anchor_label=by_anchor,
            probability_label=by_probability,
            nearest_anchor=maps["nearest_anchor"],
            predicted=maps["predicted"],
            margin=maps["margin"],
            confidence=maps["confidence"],
        )

    def label(self, rule: str, index: int, maps: Mapping[str, NDArray[Any]] | None = None) -> NDArray[np.uint8]:
        """The label of every pixel of one image by one of the rules; `maps` is its evidence, where that was read already."""
        if rule in self.labels:
            return self.labels[rule].read(index, "label")
        seen = self.evidence.read_all(index) if maps is None else maps
        return self.rules[rule].labels(seen, self.anchor_distance, None)


def labelling_of_files(path: Path, evidence: Path, labels: Sequence[Path]) -> Labelling:
    """The pseudo-labels of vouched stores; UserError unless they are of one rule each, and of this evidence.

    `path` is for messages.
    """
    seen = vouched_store(evidence, EVIDENCE)
    stores = {file: vouched_store(file, LABELS) for file in labels}
    by_rule = {store.attributes["rule"]["name"]: store for store in stores.values()}
    if not labels:
        raise UserError(f"{path}: labels of at least one rule must be given, found none; name a store of each")
    if len(by_rule) != len(labels):
        names = [stores[file].attributes["rule"]["name"] for file in labels]
        second = next(place for place, rule in enumerate(names) if rule in names[:place])
        raise UserError(f"{labels[second]}: labels of different rules must be given, found those by {names[second]} in "
                        f"{labels[names.index(names[second])]} too; name one store of each rule")  # fmt: skip
    digest = read_json(evidence)["digest"]
    for file, store in stores.items():
        if store.attributes["evidence_digest"] != digest or store.image_ids != seen.image_ids:
            raise UserError(
                f"{file}: the labels must be made of {evidence}, found those of other evidence; make them again"
            )
    rules = {name: rule_from(store.attributes["rule"]) for name, store in by_rule.items()}
    return Labelling(path, seen, rules, by_rule)


def verified_labelling(
    configuration: Configuration, manifest: Path, evidence: Path, labels: Sequence[Path], output: Path
) -> Labelling:
    """The same; UserError unless they are of the manifest's target frames, of the configuration, and of the files there now."""
    found = labelling_of_files(output, evidence, labels)
    for path in (evidence, *labels):
        refuse_other_origin(path, configuration)
        refuse_other_ancestors(path, configuration)
    refuse_other_manifest(evidence, manifest)
    frames = read_manifest(manifest, configuration=configuration).frames("target")
    refuse_other_frames(found.evidence, [frame.id for frame in frames], manifest)
    return found


def open_labelling(path: Path) -> Labelling:
    """The pseudo-labels that a JSON of `diagnose` names; or evidence, whole or not, under the experiment's thresholds."""
    found = _opened(path)
    if not found.has_both:
        raise UserError(f"{path}: labels by {' and by '.join(RULES)} must be there to be looked at together, found those by "
                        f"{', '.join(found.rules)}; name others")  # fmt: skip
    return found


def _opened(path: Path) -> Labelling:
    is_of_a_rule = (path / "zarr.json").is_file() and kind_of_store(path)[0] is LABELS
    if (path.is_dir() and not is_of_a_rule) or path.name == "evidence.json":
        store = store_at(path, EVIDENCE)
        configuration = configuration_beside(path)
        if configuration is None:
            raise UserError(f"{path}: the thresholds must be known, found no config.json of an experiment above it; name the "
                            "JSON of its labels, MODEL/labels/RULE+RULE.json")  # fmt: skip
        return Labelling(path, store, _rules_for(configuration, path), {})
    told = {} if is_of_a_rule else read_json(path)
    if not isinstance(told.get("labels"), dict) or not isinstance(told.get("evidence"), str):
        raise UserError(f"{path}: pseudo-labels are needed, found something else; name MODEL/labels/RULE+RULE.json, or "
                        "MODEL/evidence/evidence.zarr")  # fmt: skip
    folder = path.parent
    return labelling_of_files(path, folder / told["evidence"], [folder / name for name in told["labels"].values()])


def _rules_for(configuration: Configuration, path: Path) -> dict[str, Rule]:
    """The rules by anchors and by probability of the first run that is labelled with the evidence at `path`, or of the first at all."""
    both = [model for model in models(configuration) if sorted(rules_of(configuration, model)) == sorted(RULES)]
    if not both:
        raise UserError(f"{path}: the thresholds must be known, found no run of {configuration.experiment} that is labelled by "
                        f"{' and by '.join(RULES)}; name the JSON of its labels")  # fmt: skip
    own = [model for model in both if f"/{model_before(configuration, model)}/evidence" in path.absolute().as_posix()]
    return rules_of(configuration, (own or both)[0])


def relative_files(evidence: Path, labels: Sequence[Path], output: Path) -> dict[str, Any]:
    """The files of pseudo-labels as their JSON names them: relative to it, so that results may be moved."""

    def from_there(path: Path) -> str:
        return Path(os.path.relpath(path.absolute(), output.absolute().parent)).as_posix()

    named = {read_json(file)["rule"]["name"]: from_there(file) for file in labels}
    return {"evidence": from_there(evidence), "labels": named}
