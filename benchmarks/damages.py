"""Which files `corruptions.py` damages, how, and which verbs read each kind."""

import json
import random
from pathlib import Path
from typing import NamedTuple

from specimen import RULES, RUNS

TRAINED = ("pretrain", "warmup", "cag/stage1")
SEES = ("evidence-store", "evidence-part")
FROM = {"pretrain": ("warmup", "evaluate pretrain", "figure"), "warmup": ("cag/stage1", "anchor-part", *SEES),
        "cag/stage1": ("cag/stage2", "evaluate cag/stage1"), "cag/stage2": ("evaluate cag/stage2", "predict-part", "figure")}  # fmt: skip
WARMUP, FIRST, PREDICTED = "results/seed0/warmup", "results/seed0/cag/stage1", "results/seed0/cag/stage2/predictions"
READ_EVIDENCE = ("evidence", "labels", "diagnose", "inspect")
READ_LABELS = ("cag/stage1", "diagnose", "inspect")


class Place(NamedTuple):
    """Files of one kind below the folder of an experiment, and the verbs that read them."""

    kind: str
    pattern: str
    readers: tuple[str, ...]


def of_both_rules(kind: str, beside: str, name: str, readers: tuple[str, ...]) -> list[Place]:
    """Files of the labels of either rule beside a model."""
    return [Place(kind, f"{beside}/labels/{rule}/{name}", readers) for rule in RULES]


PLACES = (
    Place("manifest", "results/manifest.json", (*RUNS, "anchor-part", "anchors", *SEES, "labels", "diagnose", "evaluate warmup",
          "predict-part", "predict", "submission", "figure", "table")),
    Place("configuration", "results/config.json", ("pretrain", "cag/stage1", "anchors", "evidence-store", "labels", "evaluate warmup", "predict", "table")),
    *(Place("weights", f"results/seed0/{run}/checkpoint.safetensors", readers) for run, readers in FROM.items()),
    *(Place("description of weights", f"results/seed0/{run}/checkpoint.json", (*readers, "curves", "table", "report")) for run, readers in FROM.items()),
    Place("description of weights", f"{WARMUP}/checkpoint.json", ("labels", "diagnose")),
    Place("class sums", f"{WARMUP}/evidence/parts/anchors.*.h5", ("anchors",)),
    Place("anchors", f"{WARMUP}/evidence/anchors.h5", (*SEES, "labels", "diagnose", "cag/stage1")),
    Place("shard of evidence", f"{WARMUP}/evidence/evidence.zarr/*/c.*", READ_EVIDENCE),
    Place("shard of evidence", "results/begun/evidence.zarr/*/c.*", ("evidence-part",)),
    Place("zarr.json of evidence", f"{WARMUP}/evidence/evidence.zarr/**/zarr.json", READ_EVIDENCE),
    Place("zarr.json of evidence", "results/begun/evidence.zarr/**/zarr.json", ("evidence-part",)),
    Place("evidence.json", f"{WARMUP}/evidence/evidence.json", (*READ_EVIDENCE[1:], "cag/stage1", "report")),
    Place("evidence.json", f"{FIRST}/evidence/evidence.json", ("cag/stage2", "figure")),
    Place("evidence.created.json", f"{WARMUP}/evidence/evidence.created.json", ("evidence-part", "evidence")),
    Place("evidence job", f"{WARMUP}/evidence/parts/evidence.*.json", ("evidence",)),
    Place("journal of evidence", "results/begun/*.journal", ("evidence-part",)),
    *of_both_rules("shard of labels", WARMUP, "labels.zarr/*/c.*", READ_LABELS),
    *of_both_rules("shard of labels", FIRST, "labels.zarr/*/c.*", ("cag/stage2", "figure")),
    *of_both_rules("zarr.json of labels", WARMUP, "labels.zarr/**/zarr.json", READ_LABELS),
    *of_both_rules("labels.json", WARMUP, "labels.json", (*READ_LABELS, "report")),
    *of_both_rules("labels.json", FIRST, "labels.json", ("cag/stage2", "figure")),
    Place("label report", f"{WARMUP}/labels/*.json", ("report", "inspect")),
    Place("label report", f"{FIRST}/labels/*.json", ("report",)),
    Place("packed cache", "results/packed/source.h5", tuple(f"{run} with caches" for run in TRAINED)),
    Place("packed cache", "results/packed/target.h5", ("warmup with caches", "cag/stage1 with caches")),
    *(Place("training state", f"results/seed0/{run}/state/state.pt", (f"{run} resumed",)) for run in TRAINED),
    Place("evaluation", "results/seed0/pretrain/evaluation.json", ("table", "report", "class-chart")),
    Place("evaluation", "results/seed0/warmup/evaluation.json", ("table", "report")),
    Place("evaluation", "results/seed0/cag/stage2/evaluation.json", ("table", "report", "class-chart")),
    Place("prediction", f"{PREDICTED}/evaluation/*.png", ("predict-part", "predict", "submission")),
    Place("prediction job", f"{PREDICTED}/parts/*.json", ("predict",)),
    Place("journal of predictions", f"{PREDICTED}/*.journal", ("predict-part", "predict")),
    Place("list of predictions", f"{PREDICTED}/evaluation.json", ("submission",)),
    Place("source image", "data/source/images/*", ("pretrain", "warmup", "cag/stage1", "anchor-part")),
    Place("source label", "data/source/labels/*", ("pretrain", "warmup", "cag/stage1", "anchor-part")),
    Place("target image", "data/target/leftImg8bit/train/*/*", ("warmup", "cag/stage1", *SEES, "evaluate warmup")),
    Place("target label", "data/target/gtFine/train/*/*", ("diagnose", "inspect")),
    Place("evaluation image", "data/target/leftImg8bit/val/*/*", ("evaluate warmup", "figure")),
    Place("evaluation label", "data/target/gtFine/val/*/*", ("evaluate warmup", "figure")),
)  # fmt: skip


def flip(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randint(1, 64))


def zero(content: bytes, rng: random.Random) -> bytes:
    """A block of zero bytes, up to one of a file system: 4 KiB, or 64 KiB."""
    size = rng.choice((8, 512, 4096, 65536))
    start = rng.randrange(0, len(content), min(size, len(content)))
    return content[:start] + bytes(len(content[start : start + size])) + content[start + size :]


def change(content: bytes, rng: random.Random) -> bytes:
    """Another value somewhere in a JSON, whose seal stays what it was."""
    lines = content.splitlines(keepends=True)
    for _ in range(100):
        place = rng.randrange(len(lines))
        key, colon, value = lines[place].rpartition(b": ")
        text = value.rstrip(b",\n")
        try:
            old = json.loads(text)
        except ValueError:
            continue
        new = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 1.5 + 1, str: lambda v: v + "x"}
        changed = new.get(type(old), lambda _: 1)(old)
        lines[place] = key + colon + json.dumps(changed).encode() + value[len(text) :]
        return b"".join(lines)
    return flip(content, rng)


def damage(path: Path, rng: random.Random) -> str:
    """Damages a file, always so that its bytes are others; what was done."""
    content, ways = path.read_bytes(), [flip, cut, append, zero]
    while (way := rng.choice(ways + [change] * (2 * (path.suffix == ".json")))) and (
        damaged := way(content, rng)
    ) == content:
        pass
    path.write_bytes(damaged)
    return f"{way.__name__} of {path.name}, {len(content)} bytes"


def names_of(path: Path) -> list[str]:
    """What a message may call a file: its name, that of its store, or weights for their description."""
    stores = [folder.name for folder in path.parents if folder.suffix == ".zarr"]
    beside = [path.with_suffix(".safetensors").name] if path.name == "checkpoint.json" else []
    journals = [f"{path.name.partition('.')[0]}.*.journal"] if path.suffix == ".journal" else []
    return [path.name, *stores, *beside, *journals]
