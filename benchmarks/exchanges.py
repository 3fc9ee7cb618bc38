"""Which artifacts `corruptions.py` puts in the place of which others, or names where a verb should be given others."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specimen import RUNS, Tree, lasting


@dataclass(frozen=True)
class Exchange:
    """Files of `tree` in the place of files of the first experiment, which `reader` reads."""

    kind: str
    reader: str
    tree: Tree
    files: tuple[tuple[str, str], ...]
    """Pairs: what comes, and the place that it comes to, below the folders of the experiments."""

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


GIVEN = ("seed0/stage1", "seed0/cag/stage2")
ALIKE: dict[str, tuple[tuple[tuple[str, ...], ...], dict[str, tuple[str, ...]]]] = {
    # kind: groups of files below the folder, and the readers of each folder in the first experiment
    "manifest": ((("manifest.json",),), {"": ("pretrain", "warmup", "anchor-part", "anchors", "label-store", "label-part", "cag/stage1", "diagnose",
                                              "evaluate warmup", "predict-part", "predict", "submission", "table", "figure")}),
    "checkpoint": ((("checkpoint.safetensors", "checkpoint.json"), ("checkpoint.safetensors",), ("checkpoint.json",)),
                   {"seed0/pretrain": ("warmup", "evaluate pretrain", "figure", "curves", "table", "report"),
                    "seed0/warmup": ("cag/stage1", "anchor-part", "anchors", "label-store", "label-part", "evaluate warmup", "curves", "table"),
                    "seed0/cag/stage1": ("cag/stage2", "evaluate cag/stage1", "curves", "report"),
                    "seed0/cag/stage2": ("evaluate cag/stage2", "predict-part", "predict", "figure")}),
    "evaluation": ((("evaluation.json",),), {f"seed0/{run}": ("table", "report", "class-chart") if run in (RUNS[0], RUNS[3]) else ("table", "report")
                                             for run in RUNS}),
    "class sums": ((("parts/anchors.1-of-2.h5",), ("parts/anchors.1-of-2.h5", "parts/anchors.2-of-2.h5")), {"seed0/stage1": ("anchors",)}),
    "anchors": ((("anchors.h5",),), {"seed0/stage1": ("label-store", "label-part", "cag/stage1"), "seed0/cag/stage2": ("cag/stage2",)}),
    "labels": ((("labels.zarr", "labels.json"), ("labels.zarr",), ("labels.json",)),
               {"seed0/stage1": ("cag/stage1", "diagnose", "report"), "seed0/cag/stage2": ("cag/stage2", "figure")}),
    "label accuracy": ((("label_accuracy.json",),), dict.fromkeys(GIVEN, ("report",))),
    "picture": ((("figure.png",), ("curves.png",), ("table.csv",)), {"cag": ("report",)}),
    "begun label store": ((("labels.zarr",),), {"begun": ("label-part",)}),
    "packed cache": ((("source.h5",), ("target.h5",)), {"packed": ("warmup with caches", "cag/stage1 with caches")}),
    "training state": ((("state",),), {f"seed0/{run}": (f"{run} resumed",) for run in RUNS}),
    "predictions": ((("predictions/evaluation", "predictions/evaluation.1-of-2.journal", "predictions/evaluation.2-of-2.journal"),
                     ("predictions/evaluation",), ("predictions/evaluation.1-of-2.journal",),
                     ("predictions/parts/evaluation.1-of-2.json", "predictions/parts/evaluation.2-of-2.json"), ("predictions/evaluation.json",)),
                    {"seed0/cag/stage2": ("predict-part", "predict", "submission")}),
}  # fmt: skip
WHOLE = (
    "warmup",
    "cag/stage1",
    "cag/stage2",
    "anchor-part",
    "anchors",
    "label-store",
    "diagnose",
    "evaluate warmup",
    "predict-part",
    "predict",
    "submission",
    "table",
    "class-chart",
    "figure",
    "report",
)
"""What is called with all artifacts of another experiment, the manifest and the configuration being the first one's."""
ANY_MODEL = ("evaluate", "anchor-part", "anchors", "predict", "submission", "diagnose", "class-chart", "curves")
"""What may be called with another model, or other labels, of the same experiment."""
FRAMES = {
    "data/source/images/*": ("pretrain", "warmup", "cag/stage1", "anchor-part"),
    "data/source/labels/*": ("pretrain", "warmup", "cag/stage1", "anchor-part"),
    "data/target/leftImg8bit/train/*/*": ("warmup", "cag/stage1", "label-store", "label-part"),
    "data/target/gtFine/train/*/*": ("diagnose",),
    "data/target/leftImg8bit/val/*/*": ("evaluate warmup", "figure"),
    "data/target/gtFine/val/*/*": ("evaluate warmup", "figure"),
}


def draw(first: Tree, others: Sequence[Tree], number: int, rng: random.Random) -> Exchange:
    """An exchange of two artifacts that differ, all kinds in turn."""
    kinds = [*ALIKE, "frame"]
    kind = kinds[number % len(kinds)]
    for _ in range(1000):
        found = _frame(first, rng) if kind == "frame" else _artifact(kind, first, others, rng)
        if found is not None and found.differs(first):
            return found
    raise AssertionError(f"no two artifacts of kind {kind} differ")


def draw_named(first: Tree, others: Sequence[Tree], number: int, rng: random.Random) -> Exchange:
    """Artifacts of another seed, stage or experiment to be named, all kinds in turn, or all of another experiment."""
    kinds = [kind for kind in ALIKE if kind not in ("begun label store", "predictions")] + ["all artifacts"]
    kind = kinds[number % len(kinds)]
    for _ in range(1000):
        if kind == "all artifacts":
            folders = tuple((f"results/{name}", f"results/{name}") for name in ("seed0", "seed1", "cag"))
            found: Exchange | None = Exchange(kind, rng.choice(WHOLE), rng.choice(others), folders)
        else:
            found = _artifact(kind, first, others, rng)
        if found and found.reader.startswith(ANY_MODEL) and any(source != place for source, place in found.files):
            continue
        if found and (kind == "all artifacts" or found.differs(first)):
            return found
    raise AssertionError(f"no two artifacts of kind {kind} differ")


def _artifact(kind: str, first: Tree, others: Sequence[Tree], rng: random.Random) -> Exchange | None:
    groups, folders = ALIKE[kind]
    place = rng.choice(list(folders))
    group, reader = rng.choice(groups), rng.choice(folders[place])
    tree = rng.choice([first, *others])
    source = rng.choice(list(folders)) if rng.random() < 0.5 else place
    if tree is first and source == place:
        source = place.replace("seed0", "seed1")
    files = tuple((f"results/{source}/{name}", f"results/{place}/{name}") for name in group)
    if not all((tree.folder / source).exists() for source, _ in files) or (tree is first and source == place):
        return None
    return Exchange(kind, reader, tree, files)


def _frame(first: Tree, rng: random.Random) -> Exchange:
    """Two frames of a set exchanged, or one in the place of another."""
    pattern = rng.choice(list(FRAMES))
    one, other = (str(path.relative_to(first.folder)) for path in rng.sample(sorted(first.folder.glob(pattern)), 2))
    return Exchange("frame", rng.choice(FRAMES[pattern]), first, ((one, other),))
