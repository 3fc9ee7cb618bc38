"""A labelling: the pseudo-labels of several rules, and the evidence that they are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import inputs_of
from caguda.artifacts.checks import refuse_other_origin
from caguda.artifacts.evidence import EVIDENCE, evidence_faults
from caguda.artifacts.label_statistics import BY_ANCHOR, BY_PROBABILITY, ImageLabels
from caguda.artifacts.labels import LABELS
from caguda.artifacts.maps import MapStore
from caguda.artifacts.stores import kind_of_store
from caguda.artifacts.vouched import refuse_other_frames, store_at, vouched_store
from caguda.classes import IGNORE
from caguda.config import Configuration
from caguda.configfile import configuration_beside
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.pseudo_labels import PAPERS_RULES, Rule, are_papers_rules, rule_from
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule
from caguda.runs import model_before, models, rules_of


@dataclass(frozen=True, eq=False)
class Labelling:
    """The pseudo-labels of some rules and their evidence, opened at `path`.

    `rules` has the description of each rule by its name, see `Rule.described`: a plugin need not be loaded to look at its
    labels. `labels` has the label store of every rule. Where it is empty, the labels are computed from the evidence.
    """

    path: Path
    evidence: MapStore
    rules: Mapping[str, Mapping[str, Any]]
    labels: Mapping[str, MapStore]

    @property
    def has_papers_rules(self) -> bool:
        """Whether its rules are the paper's two, by anchors and by probability, and no others."""
        return are_papers_rules(self.rules)

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
    def align_corners(self) -> bool:
        """How the maps' pixels, cells of f_D, lie on the image; see equations/grid.py."""
        settings = self.evidence.attributes.get("provenance", {}).get("settings", {})
        return bool(settings.get("network", {}).get("align_corners", False))

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the c categories."""
        return self.evidence.categories

    @property
    def model(self) -> str:
        """The model that made the evidence, RUN or RUN/stageK; the path of the evidence for a model from elsewhere."""
        return str(self.evidence.attributes.get("model") or self.evidence.path)

    @property
    def anchor_distance(self) -> float:
        """See `anchor_distance_of`."""
        return anchor_distance_of(self.evidence)

    @property
    def anchor_rule(self) -> AnchorRule:
        """The rule of the labels by anchors."""
        rule = rule_from(self.rules["anchor"])
        assert isinstance(rule, AnchorRule)
        return rule

    @property
    def margin(self) -> float:
        """The margin of Eq. 6 in the units of the features."""
        return self.anchor_rule.threshold(self.anchor_distance)

    @property
    def p0(self) -> float:
        """The threshold P0 of Eq. 11."""
        rule = rule_from(self.rules["probability"])
        assert isinstance(rule, ProbabilityRule)
        return rule.p0

    @property
    def thresholds(self) -> dict[str, float]:
        """The margin and P0 by name."""
        return {"margin": self.margin, "p0": self.p0}

    def missing(self) -> list[int]:
        """The indices of the images that are not written yet."""
        return self.evidence.missing()

    def folder(self, rule: str) -> str:
        """The name of the folder for labels of one of the rules: its name and settings."""
        return self.labels[rule].path.parent.name if rule in self.labels else rule_from(self.rules[rule]).folder

    def maps(self, index: int) -> dict[str, NDArray[Any]]:
        """The evidence of one image, (h, w) each; UserError where it is faulty."""
        maps = self.evidence.read_all(index)
        if faults := evidence_faults(maps, len(self.categories)):
            raise UserError(
                f"{self.evidence.path}: image {self.image_ids[index]}: {faults[0]}; make the evidence again"
            )
        return maps

    def read(self, index: int) -> ImageLabels:
        """The evidence of one image and its labels by anchors and by probability; UserError where the evidence is faulty."""
        maps = self.maps(index)
        by_anchor, by_probability = (self.label(name, index, maps) for name in PAPERS_RULES)
        active = (by_anchor != IGNORE) * BY_ANCHOR + (by_probability != IGNORE) * BY_PROBABILITY
        return ImageLabels(
            active=active.astype(np.uint8), anchor_label=by_anchor, probability_label=by_probability, **maps
        )

    def label(self, rule: str, index: int, maps: Mapping[str, NDArray[Any]] | None = None) -> NDArray[np.uint8]:
        """The labels (h, w) of one image by one of the rules; `maps` is its evidence, if it was read already."""
        if rule in self.labels:
            return self.labels[rule].read(index, "label")
        assert rule in PAPERS_RULES, f"{rule} may need `Rule.prepare`, whose result only a label store has"
        evidence = self.maps(index) if maps is None else maps
        return rule_from(self.rules[rule]).labels(evidence, self.anchor_distance, prepared=None)


def anchor_distance_of(evidence: MapStore) -> float:
    """The mean distance between two anchors, in the units of the features."""
    return float(evidence.attributes["anchor_distance"])


def _labelling_of_files(path: Path, evidence: Path, labels: Sequence[Path]) -> Labelling:
    """The labelling of verified stores; UserError unless each label store is of another rule and of this evidence.

    `path` is the file that names them, or a file that is made of them.
    """
    evidence_store = vouched_store(evidence, EVIDENCE)
    stores = [vouched_store(file, LABELS) for file in labels]
    if not labels:
        raise UserError(f"{path}: labels of at least one rule must be given, found none; name a store of each")
    names = [store.attributes["rule"]["name"] for store in stores]
    for index, name in enumerate(names):
        if (earlier := names.index(name)) < index:
            raise UserError(f"{labels[index]}: labels of different rules must be given, found those by {name} in "
                            f"{labels[earlier]} too; name one store of each rule")  # fmt: skip
    digest = read_json(evidence)["digest"]
    for file, store in zip(labels, stores, strict=True):
        if store.attributes["evidence_digest"] != digest or store.image_ids != evidence_store.image_ids:
            raise UserError(
                f"{file}: the labels must be made of {evidence}, found those of other evidence; make them again"
            )
    rules = {name: store.attributes["rule"] for name, store in zip(names, stores, strict=True)}
    return Labelling(path, evidence_store, rules, dict(zip(names, stores, strict=True)))


def verified_labelling(
    configuration: Configuration, manifest: Path, evidence: Path, labels: Sequence[Path], output: Path
) -> Labelling:
    """The labelling of verified stores, for a file `output` that is made of it.

    UserError unless evidence and labels have the target frames of the manifest, and are made with the settings of the
    configuration from the files that lie there now.
    """
    labelling = _labelling_of_files(output, evidence, labels)
    for path in labels:
        refuse_other_origin(path, configuration)
    refuse_other_origin(evidence, configuration, manifest)
    frames = read_manifest(manifest, configuration=configuration).frames("target")
    refuse_other_frames(labelling.evidence, [frame.id for frame in frames], manifest)
    return labelling


def open_labelling(path: Path) -> Labelling:
    """The labels of a label report, those of one rule, or those by anchors and by probability, computed from evidence.

    `path` is the report, `labels.json`, `evidence.json`, or the folder of an evidence store, complete or not. UserError
    for anything else.
    """
    is_label_store = (path / "zarr.json").is_file() and kind_of_store(path)[0] is LABELS
    if (path.is_dir() and not is_label_store) or path.name == "evidence.json":
        store = store_at(path, EVIDENCE)
        rules = _configured_rules(path, store.attributes.get("model", ""))
        return Labelling(path, store, {name: rule.described() for name, rule in rules.items()}, {})
    report = {} if is_label_store else read_json(path)
    if "evidence_digest" in report:
        return _labelling_of_files(path, _evidence_behind(path), [path])
    if not isinstance(report.get("labels"), dict) or not isinstance(report.get("evidence"), str):
        raise UserError(f"{path}: pseudo-labels are needed, found something else; name MODEL/labels/RULE+RULE.json, "
                        "MODEL/labels/RULE/labels.json or MODEL/evidence/evidence.zarr")  # fmt: skip
    files = [path.parent / name for name in (report["evidence"], *report["labels"].values())]
    return _labelling_of_files(path, files[0], files[1:])


def _evidence_behind(labels: Path) -> Path:
    """The JSON of the evidence that a label store was made of, which is its only input, by its provenance."""
    for file in inputs_of(labels):
        return file.path
    raise UserError(f"{labels}: its provenance must name the evidence of the labels, found none; make the labels again")


def _configured_rules(path: Path, model: str) -> dict[str, Rule]:
    """The rules by anchors and by probability for the evidence at `path`, which a model made, from the `config.json` above it.

    They are those of the first model that starts from this one, or else of the first model that has both rules.
    """
    configuration = configuration_beside(path)
    if configuration is None:
        raise UserError(f"{path}: the thresholds must be known, found no config.json of an experiment above it; name the "
                        "JSON of its labels, MODEL/labels/RULE+RULE.json")  # fmt: skip
    with_both = [later for later in models(configuration) if are_papers_rules(rules_of(configuration, later))]
    if not with_both:
        raise UserError(f"{path}: labels by {' and by '.join(PAPERS_RULES)} are shown together, found no run of "
                        f"{configuration.experiment} that has both; add one to its YAML")  # fmt: skip
    trained_on_it = [later for later in with_both if model_before(configuration, later) == model]
    return rules_of(configuration, (trained_on_it or with_both)[0])
