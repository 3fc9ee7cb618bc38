"""The experiments that `corruptions.py` damages: every kind of artifact, made by its verb."""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from comparison import content
from miniature import values

from caguda.artifacts.atomic import write_json
from caguda.artifacts.state import save_state
from caguda.config import Configuration
from caguda.configfile import load_configuration, parse_configuration
from caguda.datasets.street import write_street
from caguda.paper.charts import write_curves
from caguda.paper.table import write_table
from caguda.stages import training
from caguda.stages.adapt import adapt
from caguda.stages.anchors import construct_anchors, sum_part
from caguda.stages.check import check
from caguda.stages.evaluate import diagnose, evaluate
from caguda.stages.figure import qualitative
from caguda.stages.labels import create_store, write_part
from caguda.stages.pack import pack
from caguda.stages.predict import predict_part
from caguda.stages.predictions import list_predictions
from caguda.stages.supervised import pretrain
from caguda.stages.verified_labels import verify_labels
from caguda.stages.warmup import warmup

ITERATIONS, PARTS = 3, 2
RUNS = ("pretrain", "warmup", "cag/stage1", "cag/stage2")
CLASSES = values(Path())["classes"][:-1]  # without the one that the test server does not know
VARIANTS: dict[str, dict[str, Any]] = {
    "frames": {"street__seed": 1},
    "margin": {"labels__margin": 0.2},
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

    def given(self, stage: int, name: str, seed: int = 0) -> Path:
        """What a stage trains on."""
        return self / f"seed{seed}/{'stage1' if stage == 1 else f'cag/stage{stage}'}/{name}"

    def parts(self, stage: int, name: str, seed: int = 0) -> list[Path]:
        stem, suffix = name.split(".")
        return [self.given(stage, f"parts/{stem}.{part}-of-{PARTS}.{suffix}", seed) for part in range(1, PARTS + 1)]

    def evaluations(self) -> list[Path]:
        return [self / f"seed{seed}/{run}/evaluation.json" for seed in self.configuration.seeds for run in RUNS]


@cache
def _configuration(path: Path, _time: int, _size: int) -> Configuration:
    """Read again where the file was touched alone: that takes as long as a verb's work here."""
    return load_configuration(path)


def make(folder: Path, frames: Path | None, **changes: Any) -> Tree:
    """An experiment of two stages, and a label store of which half is written; `frames` are those of another one."""
    root = frames or folder / "data"
    small = {"street__height": 48, "street__width": 96, "street__source_frames": 6, "street__target_frames": 4,
             "street__evaluation_frames": 3, "compute__save_every": 1, "compute__inference_batch_size": 2, "classes": CLASSES}  # fmt: skip
    iterations = {f"{section}__iterations": ITERATIONS for section in ("pretrain", "warmup", "stages")}
    slow = {"name": "sgd", "learning_rate": 0.005, "weight_decay": 0.0}
    optimisers = {f"{section}__optimiser": slow for section in ("pretrain", "warmup", "stages")}
    asked = values(root, **small | iterations | optimisers | changes)
    asked["recipes"] = {"cag": asked["recipes"]["cag"]}
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
        for module in ("stages.pack", "datasets.check", "datasets.street.frames"):
            patched.enter_context(mock.patch(f"caguda.{module}.workers", lambda *_: ThreadPoolExecutor(1)))
        yield


def _keep_early(path: Path, state: dict[str, Any]) -> None:
    """Leaves a training's state as a kill before the last iteration would have."""
    if state["progress"]["iteration"] < ITERATIONS:
        save_state(path, state)


@mock.patch.object(training, "save_state", _keep_early)
def _make_seed(tree: Tree, configuration: Configuration, seed: int) -> None:
    train = partial(_train, tree, configuration, seed)
    train(pretrain, "pretrain")
    train(warmup, "warmup", initial=tree.weights("pretrain", seed))
    before = "warmup"
    for stage in (1, 2):
        _label(tree, configuration, before, stage, seed)
        anchors, labels = (tree.given(stage, name, seed) for name in ("anchors.h5", "labels.json"))
        given = {"initial": tree.weights(before, seed), "anchors": anchors, "labels": labels}
        train(partial(adapt, recipe="cag", stage=stage), before := f"cag/stage{stage}", **given)
        diagnose(configuration, tree.manifest, labels, labels.with_name("label_accuracy.json"))
    for run in RUNS:
        evaluate(configuration, tree.manifest, tree.weights(run, seed), tree / f"seed{seed}/{run}/evaluation.json")
    _predict(tree, configuration, tree.given(2, "predictions", seed), seed)


def _train(
    tree: Tree, configuration: Configuration, seed: int, verb: Callable[..., None], run: str, **given: Any
) -> None:
    output = tree.weights(run, seed)
    verb(configuration, seed=seed, manifest=tree.manifest, output=output, state=output.with_name("state"), **given)


def _label(tree: Tree, configuration: Configuration, run: str, stage: int, seed: int) -> None:
    given = (configuration, tree.manifest, tree.weights(run, seed))
    sums = tree.parts(stage, "anchors.h5", seed)
    for part, path in enumerate(sums, 1):
        sum_part(*given, part, PARTS, path)
    anchors, store = tree.given(stage, "anchors.h5", seed), tree.given(stage, "labels.zarr", seed)
    construct_anchors(*given, sums, anchors)
    create_store(*given, anchors, store, store.with_name("labels.created.json"))
    files = tree.parts(stage, "labels.json", seed)
    for part, path in enumerate(files, 1):
        write_part(*given, anchors, store, part, PARTS, path)
    verify_labels(store, files, store.with_name("labels.json"))


def _predict(tree: Tree, configuration: Configuration, folder: Path, seed: int) -> None:
    given = (configuration, tree.manifest, tree.weights("cag/stage2", seed), "evaluation", folder / "evaluation")
    files = [folder / f"parts/evaluation.{part}-of-{PARTS}.json" for part in range(1, PARTS + 1)]
    for part, file in enumerate(files, 1):
        predict_part(*given, part, PARTS, file)
    list_predictions(*given, files, folder / "evaluation.json")


def _make_begun(tree: Tree, configuration: Configuration) -> None:
    """A label store of whose two parts one is written."""
    given = (configuration, tree.manifest, tree.weights("warmup"), tree.given(1, "anchors.h5"))
    create_store(*given, tree / "begun/labels.zarr", tree / "begun/labels.created.json")
    write_part(*given, tree / "begun/labels.zarr", 1, PARTS, tree / "begun/1.json")


def _make_pages(tree: Tree, configuration: Configuration) -> None:
    write_table(configuration, "cag", tree.evaluations(), tree / "cag/table.csv", tree / "cag/table.md")
    write_curves([tree.weights(run).with_suffix(".json") for run in RUNS], tree / "cag/curves.png")
    draw(tree, tree / "cag/figure.png")


def draw(tree: Tree, output: Path) -> None:
    weights = [tree.weights(run) for run in ("pretrain", "warmup", "cag/stage2")]
    qualitative(tree.configuration, tree.manifest, "cag", 0, weights, tree.given(2, "labels.json"), output)


def lasting(path: Path) -> Any:
    """What an artifact says, but for times and names of folders."""
    if path.name in ("labels.json", "labels.again.json"):  # nothing in it is of the call that wrote it
        return path.read_bytes()
    if path.suffix == ".zarr":
        return _store_content(path)
    if path.is_dir():
        return {file.name: file.read_bytes() for file in sorted(path.iterdir())}
    return content(path)


def _store_content(path: Path) -> dict[str, Any]:
    """Every file of a label store, but what its group says of the time that it was made."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    attributes = json.loads(files.pop("zarr.json"))["attributes"]
    made = attributes.pop("provenance")
    return {**files, "attributes": attributes, "settings": made["settings"], "inputs": sorted(made["inputs"])}
