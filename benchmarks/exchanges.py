"""Which artifacts `corruptions.py` puts in the place of which others, or names where a verb should be given others."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specimen import RUNS, Tree, lasting

from caguda.artifacts.provenance import content_digest


@dataclass(frozen=True)
class Exchange:
    """Files of `tree` in the place of files of the first experiment, which `reader` reads."""

    kind: str
    reader: str
    tree: Tree
    files: tuple[tuple[str, str], ...]
    """Pairs: what comes, and the place that it comes to, below the folders of the experiments."""
    moved: bool = False
    """Whether what comes is of another seed, model or rule, and not what another experiment has in the same place."""

    def make(self, first: Tree) -> list[str]:
        """Puts the files in their new places; any message will do, since either of two files may be the wrong one."""
        for source, place in [(self.tree.folder / source, first.folder / place) for source, place in self.files]:
            aside = first.folder / "aside"
            (shutil.copytree if source.is_dir() else shutil.copy)(source, aside)
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            aside.rename(place)
        return [""]

    def named(self, first: Tree) -> "Named":
        """The first experiment, with the files named where they are instead."""
        return Named(
            first.folder, tuple((first.folder / place, self.tree.folder / source) for source, place in self.files)
        )

    def differs(self, first: Tree) -> bool:
        """Whether what comes says something else than what was there."""
        return any(lasting(self.tree.folder / source) != lasting(first.folder / place) for source, place in self.files)

    def __str__(self) -> str:
        return ", ".join(f"{self.tree.folder.name}/{source} as {place}" for source, place in self.files)


@dataclass(frozen=True)
class Named(Tree):
    """An experiment of which a person names some files of elsewhere: pairs of a place in it and what is named instead."""

    comes: tuple[tuple[Path, Path], ...] = ()

    def __truediv__(self, name: str) -> Path:
        path = super().__truediv__(name)
        for place, source in self.comes:
            if place == path or place in path.parents:
                return source / path.relative_to(place)
        return path


ANOTHER_RULE = "labels of another rule"
MODELS = ("seed0/warmup", "seed0/cag/stage1")
"""The folders of the models whose labels stages are trained on."""
ALIKE: dict[str, tuple[tuple[tuple[str, ...], ...], dict[str, tuple[str, ...]]]] = {
    # kind: groups of files below the folder, and the readers of each folder in the first experiment; RULE and OTHER are the
    # folders of an experiment's two rules, TOLD is what `diagnose` tells of both
    "evidence": ((("evidence",), ("evidence/evidence.zarr", "evidence/evidence.json"), ("evidence/evidence.zarr",), ("evidence/evidence.json",)),
                 {"seed0/warmup": ("labels", "diagnose", "cag/stage1", "report"), "seed0/cag/stage1": ("cag/stage2", "figure")}),
    "labels": ((("labels/RULE", "labels/OTHER"), ("labels/RULE",), ("labels/OTHER",), ("labels/RULE/labels.zarr",), ("labels/RULE/labels.json",),
                ("labels/OTHER/labels.zarr",), ("labels/OTHER/labels.json",)),
               {"seed0/warmup": ("cag/stage1", "diagnose", "report"), "seed0/cag/stage1": ("cag/stage2", "figure")}),
    "all beside a model": ((("evidence", "labels/RULE", "labels/OTHER", "labels/TOLD"),),
                           {"seed0/warmup": ("cag/stage1", "diagnose", "report"), "seed0/cag/stage1": ("cag/stage2", "figure")}),
    "label report": ((("labels/TOLD",),), dict.fromkeys(MODELS, ("report",))),
    "anchors": ((("evidence/anchors.h5",),), {"seed0/warmup": ("evidence-store", "evidence-part", "labels", "cag/stage1"),
                                              "seed0/cag/stage1": ("cag/stage2",)}),
    "class sums": ((("evidence/parts/anchors.1-of-2.h5",), ("evidence/parts/anchors.1-of-2.h5", "evidence/parts/anchors.2-of-2.h5")),
                   {"seed0/warmup": ("anchors",)}),
    "evidence job": ((("evidence/parts/evidence.1-of-2.json",), ("evidence/parts/evidence.1-of-2.json", "evidence/parts/evidence.2-of-2.json"),
                      ("evidence/evidence.zarr",)), {"seed0/warmup": ("evidence",)}),
    "begun evidence": ((("evidence.zarr",), ("evidence.zarr.1-of-2.journal",), ("evidence.zarr", "evidence.zarr.1-of-2.journal")),
                       {"begun": ("evidence-part",)}),
    "manifest": ((("manifest.json",),), {"": ("pretrain", "warmup", "anchor-part", "anchors", "evidence-store", "evidence-part", "cag/stage1",
                                              "diagnose", "evaluate warmup", "predict-part", "predict", "submission", "table", "figure")}),
    "checkpoint": ((("checkpoint.safetensors", "checkpoint.json"), ("checkpoint.safetensors",), ("checkpoint.json",)),
                   {"seed0/pretrain": ("warmup", "evaluate pretrain", "figure", "curves", "table", "report"),
                    "seed0/warmup": ("cag/stage1", "anchor-part", "anchors", "evidence-store", "evidence-part", "evaluate warmup", "curves", "table"),
                    "seed0/cag/stage1": ("cag/stage2", "evaluate cag/stage1", "curves", "report"),
                    "seed0/cag/stage2": ("evaluate cag/stage2", "predict-part", "predict", "figure")}),
    "evaluation": ((("evaluation.json",),), {f"seed0/{run}": ("table", "report", "class-chart") if run in (RUNS[0], RUNS[3]) else ("table", "report")
                                             for run in RUNS}),
    "picture": ((("figure.png",), ("curves.png",), ("table.csv",)), {"reports/cag": ("report",)}),
    "packed cache": ((("source.h5",), ("target.h5",)), {"packed": ("warmup with caches", "cag/stage1 with caches")}),
    "training state": ((("state",),), {f"seed0/{run}": (f"{run} resumed",) for run in RUNS}),
    "predictions": ((("predictions/evaluation", "predictions/evaluation.1-of-2.journal", "predictions/evaluation.2-of-2.journal"),
                     ("predictions/evaluation",), ("predictions/evaluation.1-of-2.journal",),
                     ("predictions/parts/evaluation.1-of-2.json", "predictions/parts/evaluation.2-of-2.json"), ("predictions/evaluation.json",)),
                    {"seed0/cag/stage2": ("predict-part", "predict", "submission")}),
}  # fmt: skip
UNNAMED = ("begun evidence", "predictions")
"""What no argument of a verb names alone."""
WHOLE = (
    "warmup",
    "cag/stage1",
    "cag/stage2",
    "anchor-part",
    "anchors",
    "evidence-store",
    "diagnose",
    "evaluate warmup",
    "predict-part",
    "predict",
    "submission",
    "table",
    "class-chart",
    "curves",
    "figure",
    "report",
)
"""What is called with all artifacts of another experiment, the manifest and the configuration being the first one's."""
ANY_MODEL = ("evaluate", "anchor-part", "anchors", "predict", "diagnose", "class-chart", "curves")
"""What may be called with another model, or other labels, of the same experiment."""
ANY_EVIDENCE = "labels"
"""What may be called with any evidence of the configured settings: it is given no manifest, and who reads its labels is."""
WITHOUT_CONFIGURATION = ("submission",)
"""What may be called with the artifacts of another experiment that has the same frames, into a folder that is no model's."""
FRAMES = {
    "data/source/images/*": ("pretrain", "warmup", "cag/stage1", "anchor-part"),
    "data/source/labels/*": ("pretrain", "warmup", "cag/stage1", "anchor-part"),
    "data/target/leftImg8bit/train/*/*": ("warmup", "cag/stage1", "evidence-store", "evidence-part"),
    "data/target/gtFine/train/*/*": ("diagnose",),
    "data/target/leftImg8bit/val/*/*": ("evaluate warmup", "figure"),
    "data/target/gtFine/val/*/*": ("evaluate warmup", "figure"),
}


def draw(first: Tree, others: Sequence[Tree], number: int, rng: random.Random) -> Exchange:
    """An exchange of two artifacts that differ, all kinds in turn."""
    kinds = [ANOTHER_RULE, *ALIKE, "frame"]
    kind = kinds[number % len(kinds)]
    for _ in range(1000):
        found = _drawn(kind, first, others, rng)
        if found is not None and found.differs(first):
            return found
    raise AssertionError(f"no two artifacts of kind {kind} differ")


def draw_named(first: Tree, others: Sequence[Tree], number: int, rng: random.Random) -> Exchange:
    """Artifacts of another seed, stage or experiment to be named, all kinds in turn, or all of another experiment."""
    kinds = [ANOTHER_RULE, *(kind for kind in ALIKE if kind not in UNNAMED), "all artifacts"]
    kind = kinds[number % len(kinds)]
    for _ in range(1000):
        found = _whole(first, others, rng) if kind == "all artifacts" else _drawn(kind, first, others, rng)
        if found and not _may_be_named(found, first) and (kind == "all artifacts" or found.differs(first)):
            return found
    raise AssertionError(f"no two artifacts of kind {kind} differ")


def _may_be_named(found: Exchange, first: Tree) -> bool:
    """Whether a verb may be given what is of elsewhere: nothing that it is given tells it, or it works for any model."""
    if found.reader in WITHOUT_CONFIGURATION:
        return content_digest(found.tree.manifest) == content_digest(first.manifest)
    return found.reader == ANY_EVIDENCE or (found.moved and found.reader.startswith(ANY_MODEL))


def _drawn(kind: str, first: Tree, others: Sequence[Tree], rng: random.Random) -> Exchange | None:
    """An exchange by chance; None where what would come is not there, or is what is there."""
    if kind == "frame":
        return _frame(first, rng)
    return _rule(first, rng) if kind == ANOTHER_RULE else _artifact(kind, first, others, rng)


def _artifact(kind: str, first: Tree, others: Sequence[Tree], rng: random.Random) -> Exchange | None:
    groups, folders = ALIKE[kind]
    place = rng.choice(list(folders))
    group, reader = rng.choice(groups), rng.choice(folders[place])
    tree = rng.choice([first, *others])
    source = rng.choice(list(folders)) if rng.random() < 0.5 else place
    if tree is first and source == place:
        source = place.replace("seed0", "seed1")
    files = tuple((f"results/{source}/{_of(tree, name)}", f"results/{place}/{_of(first, name)}") for name in group)
    if not all((tree.folder / source).exists() for source, _ in files) or (tree is first and source == place):
        return None
    return Exchange(kind, reader, tree, files, moved=source != place)


def _of(tree: Tree, name: str) -> str:
    """A name of ALIKE in an experiment, whose rules have their thresholds in their names."""
    for called, is_called in zip(("RULE", "OTHER", "TOLD"), (*tree.rules, tree.labelling), strict=True):
        name = name.replace(called, is_called)
    return name


def _rule(first: Tree, rng: random.Random) -> Exchange:
    """Labels of another rule, of the same evidence."""
    model, place = rng.choice(MODELS), rng.choice(first.rules)
    source = rng.choice([rule for rule in (*first.rules, first.swept) if rule != place])
    readers = ("cag/stage1", "diagnose", "report") if model == MODELS[0] else ("cag/stage2", "figure")
    name = rng.choice(("", "/labels.zarr", "/labels.json"))
    comes, there = (f"results/{model}/labels/{rule}{name}" for rule in (source, place))
    return Exchange(ANOTHER_RULE, rng.choice(readers), first, ((comes, there),), moved=True)


def _whole(first: Tree, others: Sequence[Tree], rng: random.Random) -> Exchange:
    """All artifacts of another experiment, also where the names of its rules are others."""
    tree, models = rng.choice(others), [name.replace("seed0", f"seed{seed}") for name in MODELS for seed in (0, 1)]
    files = [(f"results/{model}/labels/{_of(tree, name)}", f"results/{model}/labels/{_of(first, name)}")
             for model in models for name in ("RULE", "OTHER", "TOLD")]  # fmt: skip
    files += [(f"results/{name}", f"results/{name}") for name in ("seed0", "seed1", "reports")]
    return Exchange("all artifacts", rng.choice(WHOLE), tree, tuple(files))


def _frame(first: Tree, rng: random.Random) -> Exchange:
    """Two frames of a set exchanged, or one in the place of another."""
    pattern = rng.choice(list(FRAMES))
    one, other = (str(path.relative_to(first.folder)) for path in rng.sample(sorted(first.folder.glob(pattern)), 2))
    return Exchange("frame", rng.choice(FRAMES[pattern]), first, ((one, other),))
