"""The experiments that `corruptions.py` damages: every kind of artifact, made by its verb."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from comparison import content
from miniature import values

from caguda.artifacts.atomic import write_json
from caguda.artifacts.provenance import origin_of
from caguda.artifacts.state import save_state
from caguda.config import Configuration
from caguda.configfile import load_configuration, parse_configuration
from caguda.paper.charts import write_curves
from caguda.paper.table import write_table
from caguda.runs import labelling_name, rules_by_folder, rules_of
from caguda.stages import training
from caguda.stages.anchors import construct_anchors, sum_part
from caguda.stages.check import check
from caguda.stages.diagnose import diagnose
from caguda.stages.evaluate import evaluate
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import create_evidence, verify_evidence
from caguda.stages.figure import draw_figure
from caguda.stages.labels import make_labels
from caguda.stages.pack import pack
from caguda.stages.predict import predict_part
from caguda.stages.predictions import list_predictions
from caguda.stages.train import train_model
from caguda.street import write_street

ITERATIONS, PARTS = 3, 2
RUNS = ("pretrain", "warmup", "cag/stage1", "cag/stage2")
"""Each starts from the one before; stage k is trained on what lies beside RUNS[k]."""
STAGE = RUNS[2]
"""A model that is trained on the labels of both rules."""
MARGIN = "runs__cag__pseudo_labels__anchor__margin"
RULES = tuple(
    rule.folder for rule in rules_of(parse_configuration(values(Path()), Path("miniature.yaml")), STAGE).values()
)
"""The folders of the rules of the first experiment."""
CLASSES = values(Path())["classes"][:-1]  # without the one that the test server does not know
VARIANTS: dict[str, dict[str, Any]] = {
    "frames": {"street__seed": 1},
    "margin": {MARGIN: 0.07},  # none of the first one's runs, whose labels `diagnose` may be given
    "network": {"network__width": 6},
    "order": {"classes": CLASSES[::-1]},
}
"""Other experiments, whose artifacts come into the place of those of the first one."""


@dataclass(frozen=True)
class Tree:
    """An experiment in a folder of its own; what it reads is named as the workflow names it."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / "results" / name

    @property
    def manifest(self) -> Path:
        return self / "manifest.json"

    @property
    def configuration(self) -> Configuration:
        status = (self / "config.json").stat()
        return _configuration(self / "config.json", status.st_mtime_ns, status.st_size)

    def weights(self, run: str, seed: int = 0) -> Path:
        return self / f"seed{seed}/{run}/checkpoint.safetensors"

    @property
    def rules(self) -> list[str]:
        """The folders of the rules that stages are labelled with: that of anchors, and that of probability."""
        return [rule.folder for rule in rules_of(self.configuration, STAGE).values()]

    @property
    def swept(self) -> str:
        """The folder of another rule, with which a run that nobody trains is labelled."""
        return next(folder for folder in rules_by_folder(self.configuration) if folder not in self.rules)

    @property
    def labelling(self) -> str:
        """The name of what is told of the labels of both rules."""
        return f"{labelling_name(self.configuration, STAGE)}.json"

    def evidence(self, stage: int, name: str = "evidence.json", seed: int = 0) -> Path:
        """What the model says that a stage starts from."""
        return self / f"seed{seed}/{RUNS[stage]}/evidence/{name}"

    def parts(self, stage: int, name: str, seed: int = 0) -> list[Path]:
        stem, suffix = name.split(".")
        return [self.evidence(stage, f"parts/{stem}.{part}-of-{PARTS}.{suffix}", seed) for part in range(1, PARTS + 1)]

    def labels(self, stage: int, seed: int = 0) -> list[Path]:
        """What a stage trains on: the labels of every rule."""
        return [self / f"seed{seed}/{RUNS[stage]}/labels/{rule}/labels.json" for rule in self.rules]

    def told(self, stage: int, seed: int = 0) -> Path:
        """What `diagnose` tells of them."""
        return self / f"seed{seed}/{RUNS[stage]}/labels/{self.labelling}"

    def predictions(self, name: str, seed: int = 0) -> Path:
        """Of the last stage."""
        return self / f"seed{seed}/{RUNS[-1]}/predictions/{name}"

    def evaluations(self) -> list[Path]:
        return [self / f"seed{seed}/{run}/evaluation.json" for seed in self.configuration.seeds for run in RUNS]


@cache
def _configuration(path: Path, _time: int, _size: int) -> Configuration:
    """Read again where the file was touched alone: that takes as long as a verb's work here."""
    return load_configuration(path)


def make(folder: Path, frames: Path | None, **changes: Any) -> Tree:
    """An experiment of two stages, and an evidence store of which half is written; `frames` are those of another one."""
    root = frames or folder / "data"
    small = {"street__height": 48, "street__width": 96, "street__source_frames": 6, "street__target_frames": 4,
             "street__evaluation_frames": 3, "compute__save_every": 1, "compute__inference_batch_size": 2, "classes": CLASSES}  # fmt: skip
    slow = {"name": "sgd", "learning_rate": 0.005, "weight_decay": 0.0}
    changes |= {
        "training__optimiser": slow,
        "training__iterations": ITERATIONS,
        "runs__pretrain__iterations": ITERATIONS,
    }
    swept = {"like": "cag", "stages": None, "pseudo_labels": {"anchor": {"margin": 0.1}}}
    left_out = dict.fromkeys(("nothing", "control", "oracle"))
    asked = values(root, **small | changes)
    asked |= {"runs": {**asked["runs"], "swept": swept, **left_out}, "reports": {"cag": ["pretrain", "warmup", "cag"]}}
    tree, configuration = Tree(folder), parse_configuration(asked, Path("miniature.yaml"))
    assert configuration.street is not None
    write_json(tree / "config.json", configuration.model_dump(mode="json"))
    with _in_this_process():
        if not frames:
            write_street(root, configuration.street)
        check(configuration, tree.manifest)
        for domain in ("source", "target"):
            pack(configuration, tree.manifest, domain, tree / f"packed/{domain}.h5")
    for seed in configuration.seeds:
        _make_seed(tree, configuration, seed)
    _make_begun(tree, configuration)
    _make_pages(tree, configuration)
    return tree


@contextmanager
def _in_this_process() -> Iterator[None]:
    """Frames are written and opened by a thread: processes take seconds to start."""
    with ExitStack() as patched:
        for module in ("stages.pack", "datasets.check", "street.frames"):
            patched.enter_context(mock.patch(f"caguda.{module}.workers", lambda *_: ThreadPoolExecutor(1)))
        yield


def _keep_early(path: Path, state: dict[str, Any]) -> None:
    """Leaves a training's state as a kill before the last iteration would have."""
    if state["progress"]["iteration"] < ITERATIONS:
        save_state(path, state)


@mock.patch.object(training, "save_state", _keep_early)
def _make_seed(tree: Tree, configuration: Configuration, seed: int) -> None:
    for run in RUNS:
        given = inputs_of(tree, run, seed)
        if "labels" in given:
            _see(tree, configuration, int(run[-1]), seed)
            _label(tree, configuration, int(run[-1]), seed)
        output = tree.weights(run, seed)
        train_model(configuration, seed, run, [tree.manifest], output, output.with_name("state"), **given)
    for run in RUNS:
        evaluate(configuration, tree.manifest, tree.weights(run, seed), tree / f"seed{seed}/{run}/evaluation.json")
    _predict(tree, configuration, seed)


def inputs_of(tree: Tree, run: str, seed: int = 0) -> dict[str, Any]:
    """What the training of a model is given beside frames."""
    if run == RUNS[0]:
        return {}
    given: dict[str, Any] = {"start": tree.weights(RUNS[RUNS.index(run) - 1], seed)}
    if run in RUNS[2:]:
        stage = int(run[-1])
        given |= {"anchors": tree.evidence(stage, "anchors.h5", seed), "labels": tree.labels(stage, seed)}
    return given


def _see(tree: Tree, configuration: Configuration, stage: int, seed: int) -> None:
    """Anchors and evidence of the model that a stage starts from."""
    given = (configuration, tree.manifest, tree.weights(RUNS[stage], seed))
    sums = tree.parts(stage, "anchors.h5", seed)
    for part, path in enumerate(sums, 1):
        sum_part(*given, part, PARTS, path)
    anchors, store = tree.evidence(stage, "anchors.h5", seed), tree.evidence(stage, "evidence.zarr", seed)
    construct_anchors(*given, sums, anchors)
    create_evidence(*given, anchors, store, store.with_name("evidence.created.json"))
    files = tree.parts(stage, "evidence.json", seed)
    for part, path in enumerate(files, 1):
        write_part(*given, anchors, store, part, PARTS, path)
    verify_evidence(store, files, store.with_suffix(".json"))


def _label(tree: Tree, configuration: Configuration, stage: int, seed: int) -> None:
    """The labels of both rules and what is told of them, and those of another rule beside them."""
    evidence, labels = tree.evidence(stage, seed=seed), tree.labels(stage, seed)
    folder = labels[0].parents[1]
    for rule in (*tree.rules, tree.swept):
        make_labels(configuration, evidence, rule, folder / rule / "labels.zarr", folder / rule / "labels.json")
    diagnose(configuration, tree.manifest, evidence, labels, tree.told(stage, seed))


def _predict(tree: Tree, configuration: Configuration, seed: int) -> None:
    folder = tree.predictions("evaluation", seed)
    given = (configuration, tree.manifest, tree.weights(RUNS[-1], seed), "evaluation", folder)
    files = [tree.predictions(f"parts/evaluation.{part}-of-{PARTS}.json", seed) for part in range(1, PARTS + 1)]
    for part, file in enumerate(files, 1):
        predict_part(*given, part, PARTS, file)
    list_predictions(*given, files, folder.with_suffix(".json"))


def _make_begun(tree: Tree, configuration: Configuration) -> None:
    """An evidence store of whose two parts one is written."""
    given = (configuration, tree.manifest, tree.weights("warmup"), tree.evidence(1, "anchors.h5"))
    create_evidence(*given, tree / "begun/evidence.zarr", tree / "begun/evidence.created.json")
    write_part(*given, tree / "begun/evidence.zarr", 1, PARTS, tree / "begun/1.json")


def _make_pages(tree: Tree, configuration: Configuration) -> None:
    page = tree / "reports/cag"
    write_table(configuration, "cag", tree.evaluations(), page / "table.csv", page / "table.md")
    write_curves(configuration, "cag", [tree.weights(run).with_suffix(".json") for run in RUNS], page / "curves.png")
    draw(tree, page / "figure.png")


def draw(tree: Tree, output: Path) -> None:
    weights = [tree.weights(run) for run in ("pretrain", "warmup", "cag/stage2")]
    draw_figure(tree.configuration, tree.manifest, "cag", 0, weights, output, tree.evidence(2), tree.labels(2))


def lasting(path: Path) -> Any:
    """What an artifact says, but for times and names of folders."""
    if path.name == "evidence.again.json":  # nothing in it is of the call that wrote it
        return path.read_bytes()
    if path.suffix == ".zarr":
        return _store_content(path)
    if path.is_dir():
        return {entry.name: lasting(entry) for entry in sorted(path.iterdir())}
    return content(path)


def _store_content(path: Path) -> dict[str, Any]:
    """Every file of a store, but what its group says of the time that it was made."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    attributes = json.loads(files.pop("zarr.json"))["attributes"]
    made, _ = attributes.pop("provenance"), attributes.pop("sha256")
    return {**files, "attributes": attributes, "origin": origin_of(made)}
