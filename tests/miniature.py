"""The smallest experiment that has everything: a few generated frames, a tiny network, one category nobody has seen."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.maps_metadata import MapFormat, digest_of_metadata, metadata_digests
from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.config import Configuration
from caguda.configfile import parse_configuration
from caguda.recorded_settings import settings_of_run
from caguda.runs import rules_of
from caguda.stages.anchors import construct_anchors, sum_part
from caguda.stages.check import check
from caguda.stages.diagnose import diagnose
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import create_evidence, verify_evidence
from caguda.stages.labels import make_labels
from caguda.stages.train import train_model
from caguda.street import write_street

UNSEEN = "unicorn"
HEIGHT, WIDTH = 32, 64


def values(root: Path, **changes: Any) -> dict[str, Any]:
    """The YAML of the experiment as a mapping: the keys of `changes` in place of its own, `a__b__c` for c of b of a."""
    table = CITYSCAPES_19.train_id
    raw = {train: value for value, train in table.items() if train != IGNORE}
    classes = [
        {"id": raw[train], "name": name, "color": list(color)}
        for train, (name, color) in enumerate(zip(CITYSCAPES_19.names, CITYSCAPES_19.colors, strict=True))
    ]
    weights = {"distance": 0.3, "anchor_cross_entropy": 0.7, "probability_cross_entropy": 0.7}
    content: dict[str, Any] = {
        "experiment": "miniature",
        "seeds": [0],
        "data_root": str(root),
        "street": {"seed": 0, "height": HEIGHT, "width": WIDTH, "source_frames": 10, "target_frames": 8,
                   "evaluation_frames": 9, "strength": 0.5, "photo": 0.5},
        "classes": [*classes, {"id": 200, "name": UNSEEN, "color": [1, 2, 3]}],
        "ignore": [value for value, train in table.items() if train == IGNORE],
        "source": {"layout": "gta5", "root": "source"},
        "target": {"layout": "cityscapes", "root": "target", "split": "train"},
        "evaluation": {"layout": "cityscapes", "root": "target", "split": "val"},
        "network": {"name": "small", "width": 4, "blocks": [1, 1, 1, 1], "feature_channels": 8},
        "training": {"iterations": 6, "batch_size": 2, "batch_norm": "train",
                     "optimiser": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.0}},
        "runs": {
            "pretrain": {"method": "supervised", "iterations": 12, "augmentation": {"flip": True}},
            "warmup": {"method": "adversarial", "start": "pretrain", "weight": 0.01, "target_statistics": True,
                       "discriminator": {"width": 8, "learning_rate": 0.05}},
            "cag": {"method": "cag", "start": "warmup", "stages": 2, "batch_norm": "frozen",
                    "augmentation": {"flip": True}, "target_augmentation": {"flip": True, "color_jitter": 0.2},
                    "pseudo_labels": {"anchor": {"margin": 0.05, "unit": "mean_anchor_distance"},
                                      "probability": {"p0": 0.3}},
                    "weights": weights},
            "nothing": {"like": "cag", "weights": dict.fromkeys(weights, 0)},
            "control": {"method": "supervised", "start": "warmup", "iterations": 12, "batch_norm": "frozen",
                        "augmentation": {"flip": True}},
            "oracle": {"like": "pretrain", "frames": "target"},
        },
        "reports": {"cag": ["pretrain", "warmup", "control", "cag", "oracle"]},
        "compute": {"save_every": 3},
    }  # fmt: skip
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = content
        for name in sections:
            section[name] = dict(section[name])
            section = section[name]
        section[last] = value
    return content


def centres(side: int) -> list[int]:
    """The pixels at the centres of the cells of stride 4 along a side: of the two in the middle each in turn."""
    assert side % 4 == 0
    return [4 * cell + 1 + cell % 2 for cell in range(side // 4)]


def at_cells(labels: Tensor) -> Tensor:
    """Labels (n, H, W) at the centres of the cells of f_D at stride 4."""
    return labels[:, centres(labels.shape[1])][:, :, centres(labels.shape[2])]


@dataclass(frozen=True)
class Miniature:
    """The frames below `root`, and artifacts in `folder`."""

    root: Path
    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    def configuration(self, **changes: Any) -> Configuration:
        return parse_configuration(values(self.root, **changes), Path("miniature.yaml"))

    def yaml(self, **changes: Any) -> Path:
        path = self.folder / "miniature.yaml"
        path.write_text(yaml.safe_dump(values(self.root, **changes)), encoding="utf-8")
        return path

    def weights(self, name: str) -> Path:
        return self.folder / name / "checkpoint.safetensors"

    def train(
        self, name: str, run: str, configuration: Configuration, *, translated: Sequence[Path] = (), **inputs: Any
    ) -> Path:
        """The weights of a model, RUN or RUN/stageK, in the folder `name`; `translated` is the manifest of translated frames."""
        output, state = self.weights(name), self.folder / name / "state"
        train_model(configuration, 0, run, [self.manifest, *translated], output, state, **inputs)
        return output

    def anchors(self, output: Path, configuration: Configuration, checkpoint: Path, parts: int = 1) -> Path:
        """The anchors file `output`, made in `parts` parts, the last one first."""
        files = [output.with_name(f"{output.stem}.{part}-of-{parts}.h5") for part in range(1, parts + 1)]
        for part in range(parts, 0, -1):
            sum_part(configuration, self.manifest, checkpoint, part, parts, files[part - 1])
        construct_anchors(configuration, self.manifest, checkpoint, files[::-1], output)
        return output

    def evidence(self, name: str, configuration: Configuration, checkpoint: Path, parts: int = 1) -> Path:
        """The JSON of an evidence store in the folder `name`, made in `parts` parts, the last one first."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        inputs = (self.manifest, checkpoint, folder / "anchors.h5")
        self.anchors(inputs[2], configuration, checkpoint)
        create_evidence(configuration, *inputs, folder / "evidence.zarr", folder / "evidence.created.json")
        for part in range(parts, 0, -1):
            write_part(configuration, *inputs, folder / "evidence.zarr", part, parts, folder / f"{part}.json")
        verify_evidence(
            folder / "evidence.zarr", [folder / f"{k}.json" for k in range(1, parts + 1)], folder / "evidence.json"
        )
        return folder / "evidence.json"

    def label(self, name: str, configuration: Configuration, checkpoint: Path, parts: int = 1) -> Path:
        """What `diagnose` tells of the pseudo-labels of both rules in the folder `name`, beside their evidence."""
        evidence = self.evidence(name, configuration, checkpoint, parts)
        labels = self.labels(configuration, evidence)
        output = evidence.with_name("labels.json")
        diagnose(configuration, self.manifest, evidence, labels, output)
        return output

    def labels(self, configuration: Configuration, evidence: Path) -> list[Path]:
        """The JSONs of the label stores of both rules under the configured thresholds, in folders beside the evidence."""
        made = []
        for rule in rules_of(configuration, "cag/stage1").values():
            folder = evidence.parent / rule.folder
            make_labels(configuration, evidence, rule.folder, folder / "labels.zarr", folder / "labels.json")
            made.append(folder / "labels.json")
        return made

    def stage(
        self, name: str, configuration: Configuration, start: Path, labelling: Path, run: str = "cag/stage1"
    ) -> Path:
        """The weights of a stage in the folder `name`, trained on the pseudo-labels that `labelling` tells of."""
        anchors = labelling.with_name("anchors.h5")
        return self.train(name, run, configuration, start=start, anchors=anchors, labels=label_files(labelling))

    def chain(self) -> None:
        """Source only, warm-up, labels and stage 1, in folders of these names."""
        configuration = self.configuration()
        source_only = self.train("pretrain", "pretrain", configuration)
        warm = self.train("warmup", "warmup", configuration, start=source_only)
        self.stage("stage", configuration, warm, self.label("labels", configuration, warm))


def as_if_made_with(configuration: Configuration, weights: Path, folder: Path) -> Path:
    """A copy of a checkpoint that says that it was made with the settings of another configuration, and of no other model."""
    described = read_json(weights.with_suffix(".json"))
    model = described["provenance"]["settings"]["run"]["name"]
    described["provenance"]["settings"] = settings_of_run(configuration, model)
    inputs = described["provenance"]["inputs"]
    described["provenance"]["inputs"] = {name: inputs[name] for name in inputs if not name.endswith(".safetensors")}
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / weights.name
    copy.write_bytes(weights.read_bytes())
    copy.with_suffix(".json").unlink(missing_ok=True)
    write_json(copy.with_suffix(".json"), described)
    return copy


def edit_sealed(path: Path, change: Callable[[str], str]) -> None:
    """Changes the text of a JSON that a verb wrote, and seals it as the verb would have."""
    write_json(path, json.loads(change(json.dumps(read_json(path), ensure_ascii=False))))


def label_files(labelling: Path) -> list[Path]:
    """The JSONs of the label stores that `diagnose` wrote of."""
    return [labelling.parent / name for name in read_json(labelling)["labels"].values()]


def edit_store(store: Path, form: MapFormat, change: Callable[[str], str]) -> None:
    """Changes the text of a store's group file, and its digests as the verbs that make and check it would have."""
    group = store / "zarr.json"
    content = json.loads(change(group.read_text()))
    content["attributes"]["sha256"] = digest_of_metadata(store, form, content["attributes"])
    group.write_text(json.dumps(content))
    if (vouching := store.with_suffix(".json")).is_file():
        write_json(vouching, read_json(vouching) | {"metadata_sha256": metadata_digests(store, form)})


def make_miniature(folder: Path, seed: int = 0) -> Miniature:
    """The experiment with its frames written, scenes of a seed that the YAML does not name, and checked."""
    mini = Miniature(folder / "data", folder / "results")
    mini.folder.mkdir()
    configuration = mini.configuration()
    assert configuration.street is not None
    write_street(mini.root, configuration.street.model_copy(update={"seed": seed}))
    check(configuration, mini.manifest)
    return mini
