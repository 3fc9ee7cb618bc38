"""What the verbs do with files that were damaged, or that came into the place of others.

    python benchmarks/corruptions.py [--corruptions 2000] [--exchanges 200] [--seed 0] [--trial corruption 17]

A miniature experiment of two seeds and two stages, and four others (other frames, margin, network, order of the classes).
In a corruption one file has a bit flipped, is cut, gets bytes at its end, has a block zeroed, or, as JSON, one value changed
under its old seal; in an exchange an artifact is replaced by one of another seed, stage, frame or experiment. Then a verb
that reads the kind is called, in a process of its own, which may crash or hang. Afterwards every file is put back.

    refused     a UserError of one line that names the file
    redone      the same result as of undamaged files, and other lines printed
    identical   the same result, and nothing noticed: no reader uses what was changed
    ACCEPTED, UNNAMED, TRACEBACK, CRASH, HANG   faults: the exit code is 1

Prints a table in Markdown, and a line for each fault and each kind of which something went unnoticed.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import exchanges
from damaged import RUNS, VARIANTS, Tree, make, read

from caguda.errors import UserError

LIMIT = 60  # seconds of a trial
FINE = ("refused", "redone", "identical")
FAULTS = ("ACCEPTED", "UNNAMED", "TRACEBACK", "CRASH", "HANG")
EVERY = "*"
TRAINED = ("pretrain", "warmup", "cag/stage1")
FROM = {"pretrain": ("warmup", "evaluate pretrain", "figure"), "warmup": ("cag/stage1", "anchor-part", "label-store", "label-part"),
        "cag/stage1": ("cag/stage2", "evaluate cag/stage1"), "cag/stage2": ("evaluate cag/stage2", "predict-part", "figure")}  # fmt: skip
STORE_READERS = ("labels", "cag/stage1", "diagnose")
PREDICTED = "seed0/cag/stage2/predictions"


class Place(NamedTuple):
    """Files of one kind below the folder of an experiment, and the verbs that read them."""

    kind: str
    pattern: str
    readers: tuple[str, ...]


PLACES = (
    Place("manifest", "results/manifest.json", (*RUNS, "anchor-part", "anchors", "label-store", "label-part", "diagnose", "evaluate warmup",
          "predict-part", "predict", "submission", "figure", "table")),
    Place("configuration", "results/config.json", ("pretrain", "cag/stage1", "anchors", "label-store", "evaluate warmup", "predict", "table")),
    *(Place("weights", f"results/seed0/{run}/checkpoint.safetensors", readers) for run, readers in FROM.items()),
    *(Place("description of weights", f"results/seed0/{run}/checkpoint.json", (*readers, "curves", "table", "report")) for run, readers in FROM.items()),
    Place("class sums", "results/seed0/stage1/parts/anchors.*.h5", ("anchors",)),
    Place("anchors", "results/seed0/stage1/anchors.h5", ("label-store", "label-part", "cag/stage1")),
    Place("chunk of a label store", "results/seed0/stage1/labels.zarr/*/c.*", STORE_READERS),
    Place("chunk of a label store", "results/begun/labels.zarr/*/c.*", ("label-part",)),
    Place("zarr.json", "results/seed0/stage1/labels.zarr/**/zarr.json", STORE_READERS),
    Place("zarr.json", "results/begun/labels.zarr/**/zarr.json", ("label-part",)),
    Place("labels.json", "results/seed0/stage1/labels.json", ("cag/stage1", "diagnose", "report")),
    Place("labels.json", "results/seed0/cag/stage2/labels.json", ("figure",)),
    Place("labels.created.json", "results/seed0/stage1/labels.created.json", ("label-part", "labels")),
    Place("label job", "results/seed0/stage1/parts/labels.*.json", ("labels",)),
    Place("packed cache", "results/packed/source.h5", tuple(f"{run} with caches" for run in TRAINED)),
    Place("packed cache", "results/packed/target.h5", ("warmup with caches", "cag/stage1 with caches")),
    *(Place("training state", f"results/seed0/{run}/state/state.pt", (f"{run} resumed",)) for run in TRAINED),
    Place("evaluation", "results/seed0/*/evaluation.json", ("table", "report", "class-chart")),
    Place("evaluation", "results/seed0/cag/stage2/evaluation.json", ("table", "report", "class-chart")),
    Place("label accuracy", "results/seed0/**/label_accuracy.json", ("report",)),
    Place("prediction", f"results/{PREDICTED}/evaluation/*.png", ("predict-part", "predict", "submission")),
    Place("prediction job", f"results/{PREDICTED}/parts/*.json", ("predict",)),
    Place("journal of predictions", f"results/{PREDICTED}/*.journal", ("predict-part", "predict")),
    Place("list of predictions", f"results/{PREDICTED}/evaluation.json", ("submission",)),
    Place("source image", "data/source/images/*", ("pretrain", "warmup", "cag/stage1", "anchor-part")),
    Place("source label", "data/source/labels/*", ("pretrain", "warmup", "cag/stage1", "anchor-part")),
    Place("target image", "data/target/leftImg8bit/train/*/*", ("warmup", "cag/stage1", "label-store", "label-part", "evaluate warmup")),
    Place("target label", "data/target/gtFine/train/*/*", ("diagnose",)),
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


@dataclass(frozen=True)
class Snapshot:
    """All files of a tree, to be put back."""

    files: dict[Path, tuple[bytes, os.stat_result]]

    @classmethod
    def of(cls, tree: Tree) -> "Snapshot":
        return cls({p: (p.read_bytes(), p.stat()) for p in tree.folder.rglob("*") if p.is_file()})

    def restore(self, tree: Tree) -> None:
        shutil.rmtree(tree / "new", ignore_errors=True)
        for path in [path for path in tree.folder.rglob("*") if path.is_file() and path not in self.files]:
            path.unlink()
        for path, (content, status) in self.files.items():
            now = path.stat() if path.is_file() else None
            if now is None or (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def in_a_process(work: Callable[[], Any], limit: float = LIMIT) -> Any:
    """The JSON value that `work` gives, in a process of its own; ["CRASH", ...] or ["HANG", ...] where it gives none."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        with os.fdopen(writing, "w") as file:
            json.dump(work(), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        if not select.select([file], [], [], limit)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return ["HANG", f"no end within {limit} s"]
        text = file.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(text) if text else ["CRASH", f"the process ended with status {status}"]


def outcome(tree: Tree, reader: str, expected: Sequence[str], names: Sequence[str]) -> tuple[str, str]:
    """What a verb does with a file that is not the one that it was, and its line; `names` are what it may call it."""
    try:
        result, printed = read(tree, reader)
    except UserError as error:
        fine = "\n" not in str(error) and any(name in str(error) for name in names)
        return "refused" if fine else "UNNAMED", str(error)
    except BaseException:  # noqa: BLE001
        return "TRACEBACK", traceback.format_exc()
    if result != expected[0]:
        return "ACCEPTED", "another result"
    return ("identical", "") if printed == expected[1] else ("redone", printed)


def names_of(path: Path) -> list[str]:
    """What a message may call a file: its name, that of its label store, or weights for their description."""
    stores = [folder.name for folder in path.parents if folder.suffix == ".zarr"]
    beside = [path.with_suffix(".safetensors").name] if path.name == "checkpoint.json" else []
    journals = [f"{path.name.partition('.')[0]}.*.journal"] if path.suffix == ".journal" else []
    return [path.name, *stores, *beside, *journals]


def _make(folder: Path, frames: Path | None, **changes: Any) -> None:
    """An experiment, made in a process of its own."""
    made = in_a_process(lambda: str(make(folder, frames, **changes)), 600)
    assert isinstance(made, str), made


class Campaign:
    """The experiments, and what each verb makes of the first one."""

    def __init__(self, folder: Path, variants: Sequence[str]) -> None:
        self.tree = Tree(folder / "first")
        self.others = [Tree(folder / name) for name in variants]
        frames = self.tree.folder / "data"
        _make(self.tree.folder, None, seeds=[0, 1])
        for tree in self.others:
            name = tree.folder.name
            _make(tree.folder, None if name == "frames" else frames, **VARIANTS[name])
        self.snapshot, self.expected = Snapshot.of(self.tree), dict[str, list[str]]()
        assert self.tree.configuration  # read once, and not in every trial

    def trial(self, reader: str, spoil: Callable[[], Sequence[str]]) -> tuple[str, str]:
        """What a verb does with a tree once it is spoilt; `spoil` gives what a message may call the files."""
        if reader not in self.expected:
            self.expected[reader] = in_a_process(lambda: read(self.tree, reader))
            self.snapshot.restore(self.tree)
        names = spoil()
        found = in_a_process(lambda: outcome(self.tree, reader, self.expected[reader], names))
        self.snapshot.restore(self.tree)
        return found[0], found[1]

    def corruption(self, number: int, seed: int) -> dict[str, str]:
        """One file damaged; kinds come in turn, all else by chance."""
        rng = random.Random(f"corruption {seed} {number}")
        kinds = list(dict.fromkeys(place.kind for place in PLACES))
        place = rng.choice([place for place in PLACES if place.kind == kinds[number % len(kinds)]])
        path = rng.choice(sorted(file for file in self.tree.folder.glob(place.pattern) if file.is_file()))
        reader, what = rng.choice(place.readers), [f"{path.relative_to(self.tree.folder)}: "]

        def spoil() -> list[str]:
            what.append(damage(path, rng))
            return names_of(path)

        found, line = self.trial(reader, spoil)
        return {"kind": place.kind, "what": "".join(what), "reader": reader, "outcome": found, "line": line}

    def exchange(self, number: int, seed: int) -> dict[str, str]:
        """One artifact replaced by another of its kind."""
        rng = random.Random(f"exchange {seed} {number}")
        chosen = exchanges.draw(self.tree, self.others, number, rng)
        found, line = self.trial(chosen.reader, lambda: chosen.make(self.tree))
        return {"kind": chosen.kind, "what": str(chosen), "reader": chosen.reader, "outcome": found, "line": line}


def table(title: str, trials: Sequence[dict[str, str]]) -> str:
    """How many trials of each kind ended how."""
    known = [*FINE, *(name for name in FAULTS if any(trial["outcome"] == name for trial in trials))]
    lines = [f"| {title} | trials | {' | '.join(known)} |", f"|---|{'---:|' * (len(known) + 1)}"]
    kinds = list(dict.fromkeys(trial["kind"] for trial in trials))
    for kind in [*kinds, "all"]:
        counts = Counter(trial["outcome"] for trial in trials if kind in (trial["kind"], "all"))
        lines.append(f"| {kind} | {counts.total()} | {' | '.join(str(counts[name] or '') for name in known)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corruptions", type=int, default=2000)
    parser.add_argument("--exchanges", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", nargs=2, metavar=("KIND", "N"), help="one trial alone, with all that it says")
    parser.add_argument("--log", type=Path, help="a file that gets a JSON line for each trial")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign, faulty = Campaign(Path(folder), list(VARIANTS)), 0
        if given.trial:
            print(json.dumps(getattr(campaign, given.trial[0])(int(given.trial[1]), given.seed), indent=1))
            return 0
        for kind, count in (("corruption", given.corruptions), ("exchange", given.exchanges)):
            trials = []
            for number in range(count):
                trials.append({"trial": number, **getattr(campaign, kind)(number, given.seed)})
                if given.log:
                    with given.log.open("a") as log:
                        log.write(json.dumps(trials[-1]) + "\n")
            print(table(kind, trials), "\n")
            for trial in (trial for trial in trials if trial["outcome"] in FAULTS):
                faulty += 1
                print(
                    f"{kind} {trial['trial']}: {trial['outcome']} by {trial['reader']}: {trial['what']}: {trial['line'][-300:]}"
                )
            quiet = Counter((trial["kind"], trial["reader"]) for trial in trials if trial["outcome"] == "identical")
            print(
                *(f"{what} went unnoticed by {reader}: {times}" for (what, reader), times in sorted(quiet.items())),
                "",
                sep="\n",
            )
    return int(faulty > 0)


if __name__ == "__main__":
    sys.exit(main())
