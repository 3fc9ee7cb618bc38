"""The faults of a user, end to end: one line that names the file, exit code 2, and nothing written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import Miniature, make_miniature
from PIL import Image

from caguda.artifacts.atomic import write_json
from caguda.artifacts.outputs import WRITES
from caguda.cli import main
from caguda.verbs import VERBS

IMAGE, LABEL = "source/images/00003.png", "source/labels/00003.png"
RULES = ("anchor-0.05-mean_anchor_distance", "probability-0.3")
GIVEN = {"pretrain": [], "warmup": ["--start"], "control": ["--start"]}
"""What a training is given; that of a stage, and of a model that is none, has all."""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    made = make_miniature(tmp_path_factory.mktemp("pristine"))
    made.chain()
    return made


@dataclass(frozen=True)
class Fault:
    """What main said: its exit code, and all that it printed to stderr and stdout."""

    code: int
    error: str
    out: str


class Desk:
    """A copy of everything, to be spoilt, and verbs called as a person calls them."""

    def __init__(self, mini: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
        self.mini, self.capsys = mini, capsys
        self.new = mini.folder / "new"

    def call(self, words: str, /, config: Path | None = None, **options: object) -> Fault:
        """A verb, or `train` and the model, with sound options, but for `options`.

        Outputs go to the folder `new`, if not beside the evidence.
        """
        verb, _, model = words.partition(" ")
        folder, evidence = self.mini.folder, self.mini.folder / "labels" / "evidence.zarr"
        sound: dict[str, object] = {
            "--config": config or self.mini.yaml(), "--seed": 0, "--model": model, "--part": 1, "--parts": 1,
            "--manifest": self.mini.manifest, "--start": self.mini.weights("warmup"),
            "--checkpoint": self.mini.weights("warmup"), "--anchors": evidence.with_name("anchors.h5"),
            "--evidence": evidence.with_suffix(".json"), "--rule": RULES[0], "--labels": self.labels(*RULES),
            "--store": self.new / "labels.zarr" if verb == "labels" else evidence, "--state": self.new / "state",
            "--part-files": self.new / "part.h5",
            "--output": (evidence.parent if verb == "evidence" else self.new) / f"{verb}{WRITES[verb][0]}",
        }  # fmt: skip
        sound |= {f"--{name}": value for name, value in options.items()}
        wanted = {option.flag for option in VERBS[verb].options if option.is_required}
        wanted |= {*GIVEN.get(model, ("--start", "--anchors", "--labels"))} if verb == "train" else set()
        before = tree(folder)
        self.capsys.readouterr()
        code = main([verb, *(word for flag in sorted(wanted) for word in (flag, *parts_of(sound[flag])))])
        printed = self.capsys.readouterr()
        if code:
            assert tree(folder) == before, "something was written"
        return Fault(code, printed.err, printed.out)

    def train_with(self, model: str, given: dict[str, object]) -> Fault:
        """A training that is given just these options of those that only some have."""
        before = tree(self.mini.folder)
        fixed = {
            "config": self.mini.yaml(), "seed": 0, "model": model, "manifest": self.mini.manifest,
            "output": self.new / "train.safetensors", "state": self.new / "state",
        }  # fmt: skip
        pairs = (fixed | given).items()
        self.capsys.readouterr()
        code = main(["train", *(word for name, value in pairs for word in (f"--{name}", *parts_of(value)))])
        assert tree(self.mini.folder) == before, "something was written"
        return Fault(code, *reversed(self.capsys.readouterr()))

    def labels(self, *rules: str) -> list[Path]:
        """The JSONs of the labels of some rules."""
        return [self.mini.folder / "labels" / rule / "labels.json" for rule in rules]


def parts_of(value: object) -> list[str]:
    """What stands behind an option."""
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


def tree(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file below a folder with its size and time; a trainer's lock and count, and the notes of a check, are no result."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and not {"lock", "check", "attempts.txt"} & set(path.parts)
    )
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.suffix != ".yaml"}


@pytest.fixture
def desk(pristine: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    shutil.copytree(pristine.root, tmp_path / "data")
    shutil.copytree(pristine.folder, tmp_path / "results")
    mini = replace(pristine, root=tmp_path / "data", folder=tmp_path / "results")
    moved = mini.manifest.read_text().replace(str(pristine.root), str(mini.root))
    write_json(mini.manifest, json.loads(moved))
    return Desk(mini, capsys)


def refused(fault: Fault, *words: object) -> None:
    """The fault is the user's, said in one line that has all the words."""
    assert fault.code == 2
    assert fault.error.startswith("caguda: error: ") and fault.error.count("\n") == 1, fault.error
    assert fault.error.endswith("\n") and "Traceback" not in fault.error + fault.out
    missing = [str(word) for word in words if str(word) not in fault.error]
    assert not missing, f"{fault.error!r} lacks {missing}"


def test_sound_calls_work(desk: Desk) -> None:
    """The calls that the tests below spoil."""
    for verb in ("check", "anchor-part", "evidence-store", "evidence-part", "evidence", "evaluate"):
        given = {"part-files": desk.new / "evidence-part.json"} if verb == "evidence" else {}
        assert desk.call(verb, **given).code == 0
        if verb == "anchor-part":
            shutil.move(desk.new / "anchor-part.h5", desk.new / "part.h5")
            assert desk.call("anchors").code == 0
    made = [desk.new / rule / "labels.json" for rule in RULES]
    for rule, output in zip(RULES, made, strict=True):
        assert desk.call("labels", rule=rule, store=output.with_suffix(".zarr"), output=output).code == 0
    for verb in ("diagnose", "train cag/stage1"):
        assert desk.call(verb, labels=made).code == 0


@pytest.mark.parametrize("verb", ["check", "train pretrain", "evaluate"])
def test_a_configuration_that_is_not_there(desk: Desk, verb: str) -> None:
    path = desk.mini.folder / "none.yaml"
    refused(desk.call(verb, config=path), path, "No such file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runs__cag__pseudo_labels__anchor__marigin": 1}, ["runs.cag.pseudo_labels.anchor.marigin: unknown key"]),
        ({"runs__cag__pseudo_labels__anchor__margin": "wide"}, ["runs.cag.pseudo_labels.anchor.margin", "'wide'"]),
        ({"runs__cag__iterations": 0}, ["runs.cag.iterations"]),
        (
            {"runs__cag__iterations": 1.5, "runs__pretrain__batch_size": "two"},
            ["runs.cag.iterations", "batch_size: must be a whole number, found 'two' (in runs.pretrain)"],
        ),
        ({"network__name": "resnet"}, ["network.name"]),
    ],
)
def test_faults_of_the_configuration(desk: Desk, changes: dict[str, Any], words: list[str]) -> None:
    path = desk.mini.yaml(**changes)
    refused(desk.call("train pretrain", config=path), path, *words)


def test_a_wrong_data_root(desk: Desk) -> None:
    path = desk.mini.yaml(data_root=str(desk.mini.root / "nowhere"))
    refused(desk.call("check", config=path), desk.mini.root / "nowhere" / "source", "no such folder")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def value_99(path: Path) -> None:
    values = np.array(Image.open(path))
    values[2, 3:6] = 99
    Image.fromarray(values).save(path)


def smaller(path: Path) -> None:
    Image.fromarray(np.array(Image.open(path))[:, :-1]).save(path)


SPOILT: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "unreadable image": (IMAGE, cut, ["damaged"]),
    "image that is none": (IMAGE, lambda path: path.write_bytes(b"GIF89a..") and None, ["PNG or JPEG"]),
    "image without label": (LABEL, Path.unlink, ["no label"]),
    "unreadable label": (LABEL, cut, ["damaged"]),
    "unknown label value": (LABEL, value_99, ["99 (3 pixels)"]),
    "label of another size": (LABEL, smaller, ["63x32", "64x32"]),
}


@pytest.mark.parametrize("name", SPOILT)
def test_check_refuses_a_spoilt_frame(desk: Desk, name: str) -> None:
    file, spoil, words = SPOILT[name]
    spoil(desk.mini.root / file)
    fault = desk.call("check")
    refused(fault, desk.mini.root / file, "1 problem(s)", *words)
    assert fault.out.count("problem: ") == 1 and str(desk.mini.root / file) in fault.out


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", ["unreadable image", "unknown label value"])
def test_a_frame_that_was_spoilt_after_the_check(desk: Desk, name: str, workers: int) -> None:
    file, spoil, _ = SPOILT[name]
    words = ["must be as it was when it was checked"]
    spoil(desk.mini.root / file)
    refused(
        desk.call("train pretrain", config=desk.mini.yaml(compute__workers=workers, compute__save_every=99)),
        desk.mini.root / file,
        *words,
    )
    refused(desk.call("anchor-part"), desk.mini.root / file, *words)


@pytest.mark.parametrize(
    "verb",
    ["anchor-part", "evidence-store", "evidence-part", "evaluate", "train warmup", "train control", "train cag/stage1"],
)
def test_a_checkpoint_that_is_missing_or_damaged(desk: Desk, verb: str) -> None:
    option = "start" if verb.startswith("train ") else "checkpoint"
    path = desk.mini.folder / "none" / "checkpoint.safetensors"
    refused(desk.call(verb, **{option: path}), path.parent)
    damaged = desk.mini.weights("warmup")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    refused(desk.call(verb), damaged)


@pytest.mark.parametrize("verb", ["evidence-store", "evidence-part", "train cag/stage1"])
def test_anchors_that_are_missing_or_damaged(desk: Desk, verb: str) -> None:
    path = desk.mini.folder / "none.h5"
    refused(desk.call(verb, anchors=path), path)
    damaged = desk.mini.folder / "labels" / "anchors.h5"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(content)
    refused(desk.call(verb), damaged)


@pytest.mark.parametrize("place", [0, 1], ids=["anchor", "probability"])
@pytest.mark.parametrize("verb", ["train cag/stage1", "diagnose"])
def test_labels_that_are_missing_damaged_or_something_else(desk: Desk, verb: str, place: int) -> None:
    def with_one(file: Path) -> list[Path]:
        found = desk.labels(*RULES)
        found[place] = file
        return found

    refused(desk.call(verb, labels=with_one(desk.mini.folder / "none.json")), "none.json")
    refused(desk.call(verb, labels=with_one(desk.mini.manifest)), desk.mini.manifest, "store")
    evidence = desk.mini.folder / "labels" / "evidence.json"
    refused(desk.call(verb, labels=with_one(evidence)), evidence, "label store")
    (desk.mini.folder / "half.json").write_text('{"store": ')
    refused(desk.call(verb, labels=with_one(desk.mini.folder / "half.json")), "half.json")
    store = desk.labels(*RULES)[place].with_suffix(".zarr")
    shutil.rmtree(store)
    refused(desk.call(verb), store)


def test_labels_of_one_rule_alone(desk: Desk) -> None:
    """Too few for a training that has two rules; what is told of them may be told of one."""
    for rule in RULES:
        found = f"found those by {rule.partition('-')[0]}"
        fault = desk.call("train cag/stage1", labels=desk.labels(rule))
        refused(fault, "labels by anchor and by probability", found)
        assert desk.call("diagnose", labels=desk.labels(rule), output=desk.new / f"{rule}.json").code == 0


@pytest.mark.parametrize("verb", ["train cag/stage1", "diagnose"])
def test_labels_of_one_rule_twice(desk: Desk, verb: str) -> None:
    kinds = "of different rules" if verb == "diagnose" else "by anchor and by probability"
    (once,) = desk.labels(RULES[0])
    refused(desk.call(verb, labels=[once, once]), once, "a file must be named once, found it 2 times")
    again = shutil.copy(once, once.with_name("again.json"))
    refused(desk.call(verb, labels=[once, again]), f"labels {kinds} must be given, found those by anchor")


@pytest.mark.parametrize("verb", ["labels", "diagnose"])
def test_evidence_that_is_missing_damaged_or_something_else(desk: Desk, verb: str) -> None:
    refused(desk.call(verb, evidence=desk.mini.folder / "none.json"), "none.json")
    refused(desk.call(verb, evidence=desk.mini.manifest), desk.mini.manifest, "store")
    (labels,) = desk.labels(RULES[0])
    refused(desk.call(verb, evidence=labels), labels, "evidence store")
    (desk.mini.folder / "half.json").write_text('{"store": ')
    refused(desk.call(verb, evidence=desk.mini.folder / "half.json"), "half.json")
    store = desk.mini.folder / "labels" / "evidence.zarr"
    shutil.rmtree(store)
    refused(desk.call(verb), store)


@pytest.mark.parametrize("verb", ["evidence", "labels", "diagnose"])
def test_an_incomplete_evidence_store_is_not_accepted(desk: Desk, verb: str) -> None:
    (desk.mini.folder / "labels" / "evidence.zarr" / "predicted" / "c.0.0.0").unlink()
    refused(desk.call(verb), "evidence.zarr", "not completely written")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("verb", ["train cag/stage1", "diagnose"])
def test_an_incomplete_label_store_is_not_accepted(desk: Desk, verb: str, rule: str) -> None:
    (desk.mini.folder / "labels" / rule / "labels.zarr" / "label" / "c.0.0.0").unlink()
    refused(desk.call(verb), f"{rule}/labels.zarr", "not completely written")


@pytest.mark.parametrize(
    "verb", ["train pretrain", "anchor-part", "evidence-store", "train cag/stage1", "evaluate", "diagnose"]
)
def test_a_manifest_that_is_missing(desk: Desk, verb: str) -> None:
    refused(desk.call(verb, manifest=desk.mini.folder / "none.json"), "none.json", "check")


def test_names_and_numbers_that_do_not_exist(desk: Desk) -> None:
    for model in ("cga/stage1", "cag", "cag/stage0", "cag/stage3", "pretrain/stage1"):
        fault = desk.call(f"train {model}")
        refused(fault, f"{model}: the configuration has no such model, only cag/stage1, cag/stage2, control and 5 more")
    for verb in ("anchor-part", "evidence-part"):
        refused(desk.call(verb, part=3, parts=2), "--part must be 1 to --parts, found --part 3 --parts 2")
    refused(desk.call("evidence-part", part=1, parts=9), "compute.parts", "at most 1 parts, found 9")
    refused(desk.call("labels", rule="anchor-0.07-absolute"), "--rule anchor-0.07-absolute", *RULES)


NEEDS = {
    "pretrain": (),
    "oracle": (),
    "warmup": ("start",),
    "control": ("start",),
    "cag/stage1": ("start", "anchors", "labels"),
}


@pytest.mark.parametrize("option", ["start", "anchors", "labels"])
@pytest.mark.parametrize("model", NEEDS)
def test_a_training_is_given_what_its_method_needs_and_nothing_else(desk: Desk, model: str, option: str) -> None:
    given = {
        "start": desk.mini.weights("warmup"),
        "anchors": desk.mini.folder / "labels" / "anchors.h5",
        "labels": desk.labels(*RULES),
    }
    wanted = {*NEEDS[model]} ^ {option}
    must = "must be given" if option in NEEDS[model] else "must not be given"
    found = desk.train_with(model, {name: given[name] for name in wanted})
    refused(found, f"--{option}: {must} for {model}, which is trained by ")


@pytest.mark.parametrize("verb", ["evidence-part", "labels", "train cag/stage1", "evaluate"])
def test_artifacts_of_another_class_table(desk: Desk, verb: str) -> None:
    """A manifest and a network of 20 categories cannot serve a table of 19."""
    classes = desk.mini.configuration().model_dump(mode="json")["classes"][:19]
    refused(desk.call(verb, config=desk.mini.yaml(classes=classes)), "manifest.json", "classes")


def test_no_street_to_generate(desk: Desk) -> None:
    refused(desk.call("generate", config=desk.mini.yaml(street=None)), "street")


def test_the_command_exits_with_the_code_and_no_traceback(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "caguda", "check", "--config", "none.yaml", "--output", "out.json"],
        check=False, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    refused(Fault(done.returncode, done.stderr, done.stdout), "none.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "options", "words"),
    [
        ("check", {}, "required: "),
        ("train", {"--seed": "-1"}, "--seed: must be a whole number from 0 on, found '-1'"),
        ("train", {"--seed": "1.5"}, "--seed: must be a whole number from 0 on, found '1.5'"),
        ("anchor-part", {"--part": "0"}, "--part: must be a whole number from 1 on, found '0'"),
        ("evidence-part", {"--parts": "two"}, "--parts: must be a whole number from 1 on, found 'two'"),
        ("inspect", {"--margin": "nan"}, "--margin: must be a finite number, found 'nan'"),
        ("inspect", {"--p0": "high"}, "--p0: must be a finite number, found 'high'"),
        ("inspect", {"--margin": "0.1,inf"}, "--margin: must be a finite number, found 'inf'"),
        ("view", {"--worst": "0"}, "--worst: must be a whole number from 1 on, found '0'"),
        *((verb, {}, f"invalid choice: '{verb}'") for verb in ("pretrain", "warmup", "adapt", "control", "oracle")),
        ("trian", {}, "invalid choice: 'trian'"),
    ],
)
def test_words_that_a_verb_does_not_take(
    verb: str, options: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, *(word for pair in options.items() for word in pair)])
    fault = Fault(int(str(end.value.code)), *reversed(capsys.readouterr()))
    refused(fault, words, "--help` tells what it takes")


@pytest.mark.parametrize("words", ["schema", "config config/demo.yaml"])
def test_a_reader_that_ends_early_is_no_fault(words: str) -> None:
    """`| head` ends when it has seen enough."""
    call = f"set -o pipefail; {sys.executable} -m caguda {words} | true"
    done = subprocess.run(
        ["bash", "-c", call], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert (done.returncode, done.stderr) == (141, "")
