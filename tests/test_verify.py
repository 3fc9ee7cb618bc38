"""`verify`: every flipped bit and every fault is found and named, in one line each, and nothing is a traceback."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import make_miniature
from test_artifacts_files import DESCRIPTION, WEIGHTS, some_anchors
from test_artifacts_maps import TABLE, shard_of, some_evidence, some_labels
from test_trust import change_chunks, exchange

from caguda.artifacts.anchors import save_anchors
from caguda.artifacts.atomic import read_json, write_atomically, write_json
from caguda.artifacts.checkpoint import save_checkpoint
from caguda.artifacts.evidence import EVIDENCE, create_evidence_store, evidence_faults
from caguda.artifacts.labels import LABELS, create_label_store, label_faults
from caguda.artifacts.maps import open_store, write_shard
from caguda.artifacts.packed import write_packed
from caguda.artifacts.provenance import json_digest, new_provenance
from caguda.artifacts.submission import pack as zip_of
from caguda.artifacts.vouched import verify_store
from caguda.cli import main
from caguda.files import is_sealed, sha256
from caguda.stages.evaluate import evaluate
from caguda.stages.pack import pack
from caguda.stages.predict import predict_part
from caguda.stages.predictions import list_predictions

MADE = new_provenance("labels", {"p0": 0.5}, [], None, 0.0, Path("a"))


def lines(capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[int, list[str]]:
    """The exit code of `verify`, and the faults that it printed."""
    code = main(["verify", *map(str, paths)])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert printed.err.count("\n") == (code != 0)
    return code, [line for line in printed.out.splitlines() if line.startswith("fault: ")]


# --- every bit


IDS = ("aachen_0", "bochum_1", "ulm_2")  # two in the first shard, one in a shard of two places


def evidence_store(folder: Path) -> None:
    path = folder / "evidence.zarr"
    attributes = {"anchor_distance": 2.5, "provenance": MADE | {"made_by": "evidence"}}
    create_evidence_store(path, IDS, (3, 4), 2, TABLE, attributes)
    store = open_store(path, EVIDENCE)
    for number, images in enumerate(store.shards):
        write_shard(store, number, shard_of(images, partial(some_evidence, shape=store.shape)))
    summary = verify_store(store, evidence_faults)
    write_json(folder / "evidence.json", {"store": path.name, **store.attributes, **summary})


def label_store(folder: Path) -> None:
    path = folder / "labels.zarr"
    attributes = {"rule": {"name": "probability", "p0": 0.5}, "evidence_digest": "0" * 64, "provenance": MADE}
    create_label_store(path, IDS, (3, 4), 2, TABLE, attributes)
    store = open_store(path, LABELS)
    for number, images in enumerate(store.shards):
        write_shard(store, number, shard_of(images, partial(some_labels, shape=store.shape)))
    summary = verify_store(store, label_faults)
    write_json(folder / "labels.json", {"store": path.name, **store.attributes, **summary})


def anchors(folder: Path) -> None:
    save_anchors(folder / "anchors.h5", some_anchors(), {"categories": ["road"], "provenance": MADE})


def checkpoint(folder: Path) -> None:
    save_checkpoint(folder / "checkpoint.safetensors", WEIGHTS, DESCRIPTION | {"provenance": MADE})


def cache(folder: Path) -> None:
    random = np.random.default_rng(0)
    sizes = [(9, 8), (130, 7)]
    frames = [(random.integers(0, 256, (*size, 3), np.uint8), np.zeros(size, np.uint8)) for size in sizes]
    attributes = {"categories": ["road"], "provenance": MADE}
    write_packed(folder / "source.h5", ["a", "b"], sizes, frames, lambda: attributes, labelled=True)


@pytest.mark.parametrize("make", [evidence_store, label_store, anchors, checkpoint, cache])
def test_flipped_bits_and_truncations_are_found(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """250 for each kind of artifact: 1,250 in all; each file is damaged as often as any other."""
    make(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert lines(capsys, tmp_path) == (0, [])
    random = np.random.default_rng(5)
    for number in range(250):
        file = files[random.integers(len(files))]
        content = file.read_bytes()
        position = int(random.integers(len(content)))
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(random.integers(8))
        file.write_bytes(content[:position] if number % 5 == 0 else damaged)
        code, faults = lines(capsys, tmp_path)
        assert code == 1 and faults and str(tmp_path) in faults[0], (file, position)
        if images := {"c.0.0.0": IDS[:2], "c.1.0.0": IDS[2:]}.get(file.name):
            assert any(f"image {image_id}: " in fault for image_id in images for fault in faults), (file, position)
        file.write_bytes(content)
    assert lines(capsys, tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("make", "name"), [(evidence_store, "evidence.zarr/margin"), (label_store, "labels.zarr/label")]
)
def test_every_bit_of_a_shard_counts(
    make: Callable[[Path], None], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every fifth byte of its chunks, and every one behind: the index, places in it that have no image, its checksum, one more."""
    make(tmp_path)
    for number, ids in ((0, IDS[:2]), (1, IDS[2:])):
        file = tmp_path / name / f"c.{number}.0.0"
        content = file.read_bytes()
        index = len(content) - 2 * 16 - 4
        for position in (*range(0, index, 5), *range(index, len(content) + 1)):
            damaged = bytearray(content + b"\0" * (position == len(content)))
            if position < len(content):
                damaged[position] ^= 1 << (position % 8)
            file.write_bytes(damaged)
            code, faults = lines(capsys, tmp_path)
            assert code == 1 and any(f"image {image_id}: " in fault for image_id in ids for fault in faults), position
        file.write_bytes(content)
    assert lines(capsys, tmp_path) == (0, [])


PLACES = ["a.json", "anchors.h5", "state.pt", "checkpoint.json", "submission.json", "labels.zarr/zarr.json", "evidence.zarr/zarr.json",
          "evidence.json"]  # fmt: skip


@given(content=st.binary(max_size=60), name=st.sampled_from(PLACES))
@settings(max_examples=60)
def test_whatever_the_bytes_are(content: bytes, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    assert main(["verify", str(folder)]) == 1


WRONG = [
    {"weights_sha256": 5}, {"folder": ["x"]}, {"as_trained": None}, {"images_with_truth": 1, "provenance": {"inputs": 3}},
    {"metadata_sha256": 3, "store": 4}, {"metadata_sha256": {}, "store": "none.zarr"}, {"warnings": [], "source": 4},
    {"warnings": [], "source": {"frames": [3], "root": "/", "digest": ""}}, {"set": "test", "sha256": "x"},
    {"runs": {}}, {"recipes": {}}, {"store": "x", "provenance": MADE | {"settings": {}}}, {"street": 1, "provenance": {"a": 1}},
    {"evidence_digest": 3, "store": 4}, {"evidence_digest": "x", "metadata_sha256": {}, "store": "none.zarr"},
    {"evidence_digest": "x", "metadata_sha256": {}, "store": "."},
]  # fmt: skip


@pytest.mark.parametrize("content", WRONG, ids=lambda content: "-".join(content))
def test_a_sound_file_with_a_wrong_content_is_one_line(
    content: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "a.json", content)
    code, faults = lines(capsys, tmp_path)
    assert code == 1 and len(faults) == 1 and str(tmp_path) in faults[0]


def test_the_digest_in_a_json_is_the_documented_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": "ä", "b": [1, 2]})
    above, _, last = path.read_bytes().rpartition(b' "sha256_of_all_above": "')
    partial = tmp_path / "above"
    partial.write_bytes(above)
    assert last == sha256(partial).encode() + b'"\n}\n' and json.loads(path.read_bytes())["a"] == "ä"
    assert is_sealed(path.read_bytes()) and not is_sealed(b"") and not is_sealed(path.read_bytes() + b"\n")


# --- a whole tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which verbs were called with relative paths: `results` has at least one artifact of each kind."""
    folder = tmp_path_factory.mktemp("verified")
    with contextlib.chdir(folder):
        mini = make_miniature(Path())
        configuration, results = mini.configuration(compute__inference_batch_size=4), mini.folder
        write_json(results / "config.json", configuration.model_dump(mode="json"))
        source_only = mini.train("pretrain", "pretrain", configuration)
        warm = mini.train("warmup", "warmup", configuration, start=source_only)
        stage = mini.stage("stage", configuration, warm, mini.label("labels", configuration, warm))
        evaluate(configuration, mini.manifest, stage, results / "stage" / "evaluation.json")
        pack(configuration, mini.manifest, "target", results / "packed" / "target.h5")
        predicted = results / "predicted"
        given = (configuration, mini.manifest, stage, "evaluation", predicted / "of")
        predict_part(*given, 1, 1, predicted / "parts" / "of.1-of-1.json")
        list_predictions(*given, [predicted / "parts" / "of.1-of-1.json"], predicted / "of.json")
        with write_atomically(results / "submission.zip") as archive:
            zip_of(sorted((predicted / "of").glob("*.png")), archive)
        described = {"images": 9, "sha256": sha256(results / "submission.zip"), "set": "evaluation"}
        write_json(results / "submission.json", described)
        (results / "notes.json").write_text('{"a person": "wrote this"}')
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results, in a folder that is not the one in which verify is called."""
    shutil.copytree(made / "results", tmp_path / "results")
    monkeypatch.chdir("/")
    return tmp_path / "results"


def test_a_tree_without_faults_is_told_of_by_kind(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in {"list": '["store"]', "number": "3", "object": '{"store": "a", "set": "b"}'}.items():
        (results / f"of_a_person_{name}.json").write_text(content)
    assert main(["verify", str(results)]) == 0
    *told, others = sorted(capsys.readouterr().out.splitlines(), key=lambda line: line.startswith("other"))
    assert others == "other JSON file: 4, not checked"
    kinds = {"anchors": 1, "checkpoint": 3, "class sums": 1, "configuration": 1, "evaluation": 1, "evidence store": 1,
             "label report": 1, "label store": 2, "manifest": 1, "packed cache": 1, "part of evidence": 2,
             "part of predictions": 1, "predictions": 1, "submission": 1, "training state": 3}  # fmt: skip
    assert told == [f"{kind}: {count}, 0 with faults" for kind, count in kinds.items()]


def test_files_and_stores_may_be_named_one_by_one(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["labels/evidence.zarr", "labels/evidence.json", "stage/checkpoint.safetensors", "stage/checkpoint.json",
             "labels/probability-0.3/labels.zarr", "labels/probability-0.3/labels.json"]  # fmt: skip
    assert main(["verify", *(str(results / name) for name in names)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "checkpoint: 1, 0 with faults", "evidence store: 1, 0 with faults", "label store: 1, 0 with faults"]  # fmt: skip
    assert main(["verify", str(results / "none.json"), str(results / "labels" / "anchors.h5")]) == 2
    assert "none.json: artifacts are needed, found no such file or folder" in capsys.readouterr().err
    (results / "README.md").write_text("mine")
    assert main(["verify", str(results / "README.md")]) == 2
    error = capsys.readouterr().err
    assert "README.md: artifacts are needed, files of .json" in error and error.count("\n") == 1
    for name in ("here", "there"):
        (results / "stage" / name).symlink_to(results)
    assert main(["verify", str(results / "stage")]) == 0, "links to folders above are not followed without end"
    assert main(["verify", str(results / "stage" / "state" / "..")]) == 0
    (results / "empty").mkdir()
    assert main(["verify", str(results / "empty")]) == 2


def flip(path: Path, position: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 4
    path.write_bytes(content)


def swap(first: Path, second: Path) -> None:
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def forget_a_line(journal: Path) -> None:
    journal.write_text("\n".join(line for line in journal.read_text().splitlines() if FRAME not in line))


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


FRAME = "dornbach_000003_000019"
IMAGES = [f"{town}_{number:06}_000019" for town in ("ahlfeld", "brunnstadt", "corvingen") for number in range(3)][:8]
"""The target frames, of which each shard of the stores has four."""
EVIDENCE_STORE, BY_ANCHOR, BY_PROBABILITY = STORES = [
    "labels/evidence.zarr", "labels/anchor-0.05-mean_anchor_distance/labels.zarr", "labels/probability-0.3/labels.zarr"
]  # fmt: skip


def others_than_verified(store: str, images: range) -> list[list[str]]:
    """A fault for each of some images, whose maps are sound and others than those that were vouched for."""
    said = "its maps must be as they were when they were verified"
    return [[f"{store}: image {IMAGES[i]}: {said}"] for i in images]


def exchange_shards(root: Path, store: str, names: Iterable[str]) -> None:
    for name in names:
        exchange(*(root / store / name / f"c.{number}.0.0" for number in (0, 1)))


SPOILT: dict[str, tuple[Callable[[Path], object], list[list[str]]]] = {
    "a missing shard of evidence": (
        lambda root: (root / EVIDENCE_STORE / "margin/c.1.0.0").unlink(),
        [[f"evidence.zarr: image {image_id}: not completely written"] for image_id in IMAGES[4:]],
    ),
    "a missing shard of labels": (
        lambda root: (root / BY_ANCHOR / "active/c.0.0.0").unlink(),
        [[f"{BY_ANCHOR}: image {image_id}: not completely written"] for image_id in IMAGES[:4]],
    ),
    "chunks of two images exchanged, which agree with the rest": (
        lambda root: change_chunks(root / EVIDENCE_STORE, "confidence", {1: 2, 2: 1}),
        others_than_verified(EVIDENCE_STORE, range(1, 3)),
    ),
    "both maps of two images exchanged": (
        lambda root: [change_chunks(root / BY_ANCHOR, name, {3: 6, 6: 3}) for name in LABELS.dtypes],
        [*others_than_verified(BY_ANCHOR, range(3, 4)), *others_than_verified(BY_ANCHOR, range(6, 7))],
    ),
    "shards of evidence exchanged inside its store": (
        lambda root: exchange_shards(root, EVIDENCE_STORE, EVIDENCE.dtypes), others_than_verified(EVIDENCE_STORE, range(8)),
    ),
    "shards of labels exchanged inside their store": (
        lambda root: exchange_shards(root, BY_PROBABILITY, LABELS.dtypes), others_than_verified(BY_PROBABILITY, range(8)),
    ),
    "shards exchanged between the labels of both rules": (
        lambda root: [exchange(*(root / store / name / "c.1.0.0" for store in STORES[1:])) for name in LABELS.dtypes],
        [*others_than_verified(BY_ANCHOR, range(4, 8)), *others_than_verified(BY_PROBABILITY, range(4, 8))],
    ),
    "the checksum of a shard's index": (
        lambda root: flip(root / EVIDENCE_STORE / "margin/c.1.0.0", -1),
        [[f"evidence.zarr: image {IMAGES[4]}: margin is damaged (the shard c.1.0.0"]],
    ),
    "an attribute of an array": (
        lambda root: flip(root / EVIDENCE_STORE / "predicted/zarr.json"),
        [["evidence.zarr/predicted/zarr.json: the file must be as it was when it was verified"]],
    ),
    "an attribute of an array of labels": (
        lambda root: flip(root / BY_PROBABILITY / "label/zarr.json"),
        [["labels.zarr/label/zarr.json: the file must be as it was when it was verified"]],
    ),
    "evidence that nothing vouches for": (
        lambda root: (root / "labels/evidence.json").unlink(),
        [["evidence.zarr: a JSON beside a store must vouch for it"], ["labels/labels.json: ", "labels/evidence.json missing"],
         *([f"{store.removesuffix('.zarr')}.json: ", "labels/evidence.json missing"] for store in STORES[1:])],
    ),
    "labels that nothing vouches for": (
        lambda root: (root / BY_ANCHOR).with_suffix(".json").unlink(),
        [["labels.zarr: a JSON beside a store must vouch for it"], ["labels/labels.json: ", "labels.json missing"],
         ["stage/checkpoint.json: ", "labels.json missing"]],
    ),
    "evidence that is gone": (lambda root: shutil.rmtree(root / EVIDENCE_STORE), [["evidence.zarr"]]),
    "labels that are gone": (lambda root: shutil.rmtree(root / BY_PROBABILITY), [["labels.zarr"]]),
    "the labels of both rules exchanged": (
        lambda root: exchange((root / BY_ANCHOR).parent, (root / BY_PROBABILITY).parent),
        [*([f"{BY_ANCHOR.removesuffix('.zarr')}.json: ", f"found rule.{key} "] for key in ("name", "p0")),
         *([f"{BY_PROBABILITY.removesuffix('.zarr')}.json: ", f"found rule.{key} "] for key in ("name", "margin", "unit")),
         *([f"{path}: ", f"{rule}/labels.json changed since"] for path in ("stage/checkpoint.json", "labels/labels.json")
           for rule in ("anchor-0.05-mean_anchor_distance", "probability-0.3"))],
    ),
    "the stores of both rules exchanged": (
        lambda root: exchange(root / BY_ANCHOR, root / BY_PROBABILITY),
        [[f"{store}/zarr.json: the file must be as it was when it was verified"] for store in STORES[1:]],
    ),
    "weights of another run": (
        lambda root: swap(root / "warmup/checkpoint.safetensors", root / "stage/checkpoint.safetensors"),
        [["warmup/checkpoint.safetensors: the weights must have"], ["stage/checkpoint.safetensors: the weights must have"],
         ["labels/anchors.h5: what it was made of", "warmup/checkpoint.safetensors changed since"],
         ["evaluation.json: what it was made of", "stage/checkpoint.safetensors changed since"], ["evidence.json"],
         ["evidence.created.json"], ["of.json"], ["anchors.1-of-1.h5"], ["of.1-of-1.json"], ["labels/1.json"]],
    ),
    "an input that is gone": (
        lambda root: [path.unlink() for path in (root / "pretrain").glob("checkpoint.*")],
        [["warmup/checkpoint.json: what it was made of", "pretrain/checkpoint.safetensors missing"]],
    ),
    "a number that a person changed": (
        lambda root: edit(root / "stage/evaluation.json"), [["evaluation.json: ", "the SHA-256 that it gives itself"]],
    ),
    "a configuration": (lambda root: edit(root / "config.json"), [["config.json: ", "the SHA-256 that it gives itself"]]),
    "a training state": (lambda root: flip(root / "stage/state/state.pt"), [["state.pt: a training state must be whole"]]),
    "a cache": (lambda root: flip(root / "packed/target.h5"), [["target.h5: the file must have the SHA-256"]]),
    "a zip": (lambda root: flip(root / "submission.zip"), [["submission.zip: the zip must have the SHA-256"]]),
    "a prediction": (lambda root: flip(root / f"predicted/of/{FRAME}.png"), [[f"{FRAME}.png: ", "found another one"]]),
    "a prediction too few": (lambda root: (root / f"predicted/of/{FRAME}.png").unlink(), [[f"{FRAME}.png: ", "none"]]),
    "a prediction too many": (
        lambda root: shutil.copy(root / f"predicted/of/{FRAME}.png", root / "predicted/of/more.png"),
        [["more.png: of.json lists no such file"]],
    ),
    "a line of the journal": (
        lambda root: forget_a_line(root / "predicted/of.1-of-1.journal"), [["of: a line of " + FRAME]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_fault_is_named_with_its_file_and_image(name: str, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, expected = SPOILT[name]
    spoil(results)
    code, faults = lines(capsys, results)
    assert code == 1 and len(faults) == len(expected), faults
    for words in expected:
        assert any(all(word in fault for word in words) for fault in faults), (words, faults)


def test_what_an_earlier_version_left_has_faults(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its config.json, and models that say the sections of that instead of their run."""
    described = results / "warmup" / "checkpoint.json"
    made = read_json(described)
    settings = {"network": made["provenance"]["settings"]["network"], "warmup": {"iterations": 7}}
    made["provenance"] |= {"made_by": "warmup", "settings": settings, "configuration": json_digest(settings)}
    write_json(described, made)
    code, faults = lines(capsys, described)
    assert code == 1 and len(faults) == 1 and "found warmup, settings of an earlier version; make it again" in faults[0]
    config = read_json(results / "config.json")
    for key in ("runs", "reports", "tables", "training"):
        del config[key]
    write_json(results / "config.json", config | {"recipes": {"cag": {}}, "pretrain": {}, "start_from": {}})
    assert main(["verify", str(results / "config.json")]) == 1
    printed = capsys.readouterr().out
    assert (
        "pretrain, recipes, start_from: keys of an earlier version" in printed
        and "configuration: 1, 1 with faults" in printed
    )


def test_frames_that_changed_since_the_check(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = made / "results" / "manifest.json"
    root = Path(read_json(manifest)["target"]["root"])
    image = root / read_json(manifest)["target"]["frames"][2]["image"]
    before, label = image.read_bytes(), root / read_json(manifest)["target"]["frames"][1]["label"]
    image.touch()
    assert lines(capsys, manifest) == (0, [])
    try:
        flip(image)
        label.rename(label.with_suffix(".away"))
        code, faults = lines(capsys, manifest)
    finally:
        image.write_bytes(before)
        label.with_suffix(".away").rename(label)
    assert code == 1 and len(faults) == 2
    assert f"{label}: image ahlfeld_000001_000019: this label of the target set must be as it was" in faults[0]
    assert f"{image}: image ahlfeld_000002_000019: this image of the target set" in faults[1]
    assert lines(capsys, manifest) == (0, [])
