"""What the verbs do with files that were damaged, or that came into the place of others.

    python benchmarks/corruptions.py [--corruptions 2000] [--exchanges 200] [--namings 200] [--seed 0] [--trial corruption 17]

A miniature experiment of two seeds and two stages, and four others (other frames, margin, network, order of the classes).
In a corruption one file has a bit flipped, is cut, gets bytes at its end, has a block zeroed, or, as JSON, one value changed
under its old seal; in an exchange an artifact is replaced by one of another seed, stage, rule, frame or experiment; in a
naming that one is named where it lies, or all those of another experiment are. Then a verb that reads the kind is called,
in a process of its own, which may crash or hang. Afterwards every file is put back.

    refused     a UserError of one line that names the file
    redone      the same result as of undamaged files, and other lines printed
    identical   the same result, and nothing noticed: no reader uses what was changed
    ACCEPTED, UNNAMED, TRACEBACK, CRASH, HANG   faults: the exit code is 1

Prints a table in Markdown, and a line for each fault and each kind of which something went unnoticed.
"""

import argparse
import gc
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
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import exchanges
from damages import PLACES, damage, names_of
from readers import read
from specimen import VARIANTS, Tree, make

from caguda.errors import UserError

LIMIT = 60  # seconds of a trial
FINE = ("refused", "redone", "identical")
FAULTS = ("ACCEPTED", "UNNAMED", "TRACEBACK", "CRASH", "HANG")


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
        try:
            with os.fdopen(writing, "w") as file:
                json.dump(work(), file)
        finally:
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
        self.snapshots = {tree: Snapshot.of(tree) for tree in (self.tree, *self.others)}
        self.expected = dict[str, list[str]]()
        assert self.tree.configuration  # read once, and not in every trial
        gc.freeze()  # what a collector does not touch need not be copied in each process

    def trial(self, reader: str, spoil: Callable[[], Sequence[str]], named: Tree | None = None) -> tuple[str, str]:
        """What a verb does with a tree once it is spoilt; `spoil` gives what a message may call the files.

        With `named`, the verb is given what that says, and all experiments are put back afterwards.
        """
        if reader not in self.expected:
            self.expected[reader] = in_a_process(lambda: read(self.tree, reader))
            self.snapshots[self.tree].restore(self.tree)
        names = spoil()
        found = in_a_process(lambda: outcome(named or self.tree, reader, self.expected[reader], names))
        for tree in self.snapshots if named else [self.tree]:
            self.snapshots[tree].restore(tree)
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

    def naming(self, number: int, seed: int) -> dict[str, str]:
        """An artifact of elsewhere is named, or all of another experiment."""
        rng = random.Random(f"naming {seed} {number}")
        chosen = exchanges.draw_named(self.tree, self.others, number, rng)
        found, line = self.trial(chosen.reader, lambda: [""], chosen.named(self.tree))
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


def told(kind: str, trials: Sequence[dict[str, str]]) -> str:
    """The table, each fault, and how often which verb noticed nothing."""
    faults = [trial for trial in trials if trial["outcome"] in FAULTS]
    lines = [
        f"{t['outcome']}, {kind} {t['trial']}: {t['reader']} after {t['what']}: {t['line'][-300:]}" for t in faults
    ]
    quiet = Counter((trial["kind"], trial["reader"]) for trial in trials if trial["outcome"] == "identical")
    lines += [f"unnoticed: {what} by {reader}, {times} times" for (what, reader), times in sorted(quiet.items())]
    return "\n".join([table(kind, trials), "", *lines, ""])


def run(campaign: Campaign, kind: str, count: int, seed: int, log: Path | None) -> list[dict[str, str]]:
    """Some trials of one kind."""
    trials = []
    for number in range(count):
        trials.append({"trial": str(number), **getattr(campaign, kind)(number, seed)})
        if log:
            with log.open("a") as file:
                file.write(json.dumps(trials[-1]) + "\n")
    return trials


def main() -> int:
    """Runs the trials; 1 where one was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corruptions", type=int, default=2000)
    parser.add_argument("--exchanges", type=int, default=200)
    parser.add_argument("--namings", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--others", nargs="*", choices=VARIANTS, default=list(VARIANTS), help="experiments to exchange with"
    )
    parser.add_argument(
        "--trial", nargs=2, metavar=("KIND", "N"), help="one trial alone: corruption N, exchange N or naming N"
    )
    parser.add_argument("--log", type=Path, help="a file that gets a JSON line for each trial")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), given.others)
        if given.trial:
            kind, number = given.trial
            print(json.dumps(getattr(campaign, kind)(int(number), given.seed), indent=1))
            return 0
        found = []
        counts = {"corruption": given.corruptions, "exchange": given.exchanges, "naming": given.namings}
        for kind, count in counts.items():
            trials = run(campaign, kind, count, given.seed, given.log)
            print(told(kind, trials), flush=True)
            found += trials
    return int(any(trial["outcome"] in FAULTS for trial in found))


if __name__ == "__main__":
    sys.exit(main())
