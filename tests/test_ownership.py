"""Nothing that this program did not make is deleted or replaced, whatever verb is given its place."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from miniature import HEIGHT, WIDTH, Miniature, label_files
from PIL import Image

from caguda.artifacts.atomic import partial_of, write_atomically, write_json
from caguda.artifacts.evidence import EVIDENCE, create_evidence_store
from caguda.artifacts.labels import LABELS, create_label_store
from caguda.artifacts.maps import open_store, remove_partial_files
from caguda.artifacts.maps_metadata import MapFormat
from caguda.artifacts.ownership import clear_folder, is_ours, refuse_foreign
from caguda.artifacts.state import count_attempt, load_state, lock
from caguda.classes import CITYSCAPES_19
from caguda.cli import main
from caguda.config_frames import Street
from caguda.datasets.manifest import refuse_unsafe_ids
from caguda.datasets.record import open_record
from caguda.errors import UserError
from caguda.street import write_street

STREET = Street(seed=0, height=HEIGHT, width=WIDTH, source_frames=1, target_frames=1, evaluation_frames=1, strength=0.5,
                photo=0.5)  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a verb is refused with."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("caguda: error: ")
    return error


@pytest.mark.parametrize(
    "content",
    [b"", b"my thesis\n", b"a,b\n1,2\n", b"# Title\n\ntext\n", b"{}\n", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\\documentclass{a}",
     b"<!DOCTYPE html>\n<title>mine</title>"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.md", "a.png", "a.html", "a.tex", "a.h5", "a.safetensors", "a"])
def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="only a file that caguda wrote is replaced"), write_atomically(path):
        pass
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["link", "link to nothing", "folder", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "a.json", tmp_path / "target.json"
    write_json(target, {"is": "ours"})
    make: dict[str, Callable[[], None]] = {
        "link": lambda: path.symlink_to(target),
        "link to nothing": lambda: path.symlink_to(tmp_path / "nothing"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    before, content = path.lstat().st_ino, target.read_bytes()
    with pytest.raises(UserError):
        write_json(path, {})
    assert path.lstat().st_ino == before and target.read_bytes() == content and not (tmp_path / "nothing").exists()


def test_a_json_of_ours_is_replaced_unless_somebody_has_changed_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for number in range(2):
        write_json(path, {"number": number})
    path.write_text(path.read_text().replace("1", "2"))
    with pytest.raises(UserError, match="changed since"):
        write_json(path, {"number": 3})


def test_a_name_or_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.json", tmp_path / f"{'x' * 252}.json"):
        with pytest.raises(UserError):
            refuse_foreign(path)
    longest = tmp_path / f"{'ä' * 125}.json"
    write_json(longest, {})
    write_json(longest, {})
    assert len(os.fsencode(partial_of(longest).name)) <= 255 and list(tmp_path.glob("*.partial")) == []


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with write_atomically(path) as partial:
        partial.write_text("half")
        write_json(path, {"by": "another"})
        assert partial.read_text() == "half"
    assert path.read_text() == "half"


def test_the_part_of_a_dead_writer_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    code = (
        "import sys; from pathlib import Path; from caguda.artifacts.atomic import write_atomically\n"
        "with write_atomically(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        write_json(path, {})
        assert len(list(tmp_path.glob("*.partial"))) == 1
        process.kill()
    write_json(path, {})
    assert list(tmp_path.iterdir()) == [path]


# --- verbs


@pytest.mark.parametrize(
    "verb",
    [
        "evaluate",
        "check",
        "pack",
        "evidence-store",
        "evidence-part",
        "labels",
        "diagnose",
        "anchor-part",
        "train",
        "generate",
    ],
)
def test_a_verb_refuses_before_it_begins(elsewhere: Miniature, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    thesis = elsewhere.folder / "thesis.csv"
    thesis.write_text("chapter,pages\n1,20\n")
    store, parts = ["--store", elsewhere.folder / "new.zarr"], ["--part", 1, "--parts", 1]
    frozen = ["--checkpoint", "none.safetensors"]
    seen = [*frozen, "--manifest", elsewhere.manifest, "--anchors", "none.h5", *store]
    given = {
        "evaluate": [*frozen, "--manifest", elsewhere.manifest],
        "pack": ["--manifest", elsewhere.manifest, "--domain", "source"],
        "evidence-store": seen,
        "evidence-part": [*seen, *parts],
        "labels": ["--evidence", "none.json", "--rule", "probability-0.3", *store],
        "diagnose": ["--manifest", elsewhere.manifest, "--evidence", "none.json", "--labels", "a.json", "b.json"],
        "anchor-part": [*frozen, "--manifest", elsewhere.manifest, *parts],
        "train": [
            "--manifest",
            elsewhere.manifest,
            "--seed",
            0,
            "--model",
            "pretrain",
            "--state",
            elsewhere.folder / "state",
        ],
    }.get(verb, [])
    error = refused(capsys, verb, "--config", elsewhere.yaml(), *given, "--output", thesis)
    assert str(thesis) in error and thesis.read_text() == "chapter,pages\n1,20\n"
    assert sorted(path.name for path in elsewhere.folder.iterdir()) == ["manifest.json", "miniature.yaml", "thesis.csv"]


def test_an_output_is_no_input(elsewhere: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    before = elsewhere.manifest.read_bytes()
    given = ["--config", elsewhere.yaml(), "--manifest", elsewhere.manifest]
    assert "must end in .h5" in refused(capsys, "pack", *given, "--domain", "source", "--output", elsewhere.manifest)
    given += ["--checkpoint", elsewhere.weights("none")]
    assert "another argument" in refused(capsys, "evaluate", *given, "--output", elsewhere.manifest)
    assert elsewhere.manifest.read_bytes() == before


def test_a_checkpoint_asks_for_both_of_its_files(elsewhere: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere.folder / "model.json").write_text('{"mine": true}')
    given = ["--config", elsewhere.yaml(), "--manifest", elsewhere.manifest, "--seed", 0, "--state", elsewhere.folder]
    given += ["--model", "pretrain", "--output", elsewhere.folder / "model.safetensors"]
    assert "model.json" in refused(capsys, "train", *given)
    assert (elsewhere.folder / "model.json").read_text() == '{"mine": true}'


# --- folders


@pytest.mark.parametrize("name", ["cat.png", "index.html", "frames/0.js", "notes/a.txt"])
def test_a_folder_with_anything_else_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="must be empty, absent, or an earlier output"):
        clear_folder(tmp_path, ("*.png", "index.html", "frames/*.js"), "view")
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("arguments", [["--output"], ["--html", "--output"], ["--plot"]])
def test_pictures_go_into_no_store_and_replace_earlier_ones(
    own: Miniature, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = own.folder / "labels" / "labels.json"
    verb = "inspect" if arguments == ["--plot"] else "view"
    before = sorted(labels.parent.rglob("*"))
    for vouching in (labels.with_name("evidence.json"), *label_files(labels)):
        refused(capsys, verb, labels, *arguments, vouching.with_suffix(".zarr"))
        refused(capsys, verb, labels, *arguments, vouching.with_suffix(".zarr") / "pictures")
    refused(capsys, verb, labels, *arguments, labels.parent)
    assert sorted(labels.parent.rglob("*")) == before
    pictures = tmp_path / "pictures"
    assert main([verb, str(labels), *arguments, str(pictures)]) == 0
    first = sorted(path.name for path in pictures.rglob("*"))
    if verb == "view":
        ids = open_store(labels.with_name("evidence.zarr"), EVIDENCE).image_ids
        assert main([verb, str(labels), "--frames", ids[0], *arguments, str(pictures)]) == 0
        assert len(list(pictures.rglob("*"))) < len(first), "no older picture among the new ones"
    (pictures / "cat.png").write_bytes(b"a cat")
    held = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    assert "cat.png" in refused(capsys, verb, labels, *arguments, pictures)
    assert {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()} == held


def test_generate_leaves_foreign_frames_and_renews_its_own(tmp_path: Path) -> None:
    write_street(tmp_path, STREET)
    frame = tmp_path / "source" / "images" / "00001.png"
    ours = frame.read_bytes()
    write_street(tmp_path, STREET.model_copy(update={"seed": 1}))
    assert frame.read_bytes() != ours and is_ours(frame)
    Image.new("RGB", (4, 4)).save(frame)
    held = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    with pytest.raises(UserError, match=r"00001.png: only a file that caguda wrote"):
        write_street(tmp_path, STREET)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == held


FORMS = [EVIDENCE, LABELS]


def create(path: Path, form: MapFormat) -> None:
    """A store of one image."""
    make = {EVIDENCE.name: create_evidence_store, LABELS.name: create_label_store}[form.name]
    make(path, ["a"], (2, 2), 1, CITYSCAPES_19, {})


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("where", ["new.zarr", "new.zarr.partial", "new.zarr.01234567.partial"])
def test_a_prepared_link_leads_no_store_elsewhere(tmp_path: Path, where: str, form: MapFormat) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    (tmp_path / where).symlink_to(home)
    store = tmp_path / "new.zarr"
    if where == "new.zarr":
        with pytest.raises(UserError, match="move it away"):
            create(store, form)
    else:
        create(store, form)
    assert [path.name for path in home.iterdir()] == ["thesis.tex"] and (tmp_path / where).is_symlink()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("name", ["ARRAY/thesis.tex", "thesis.tex", "ARRAY/c.0.0.0/thesis.tex", "zarr.json", "ARRAY/zarr.json",
                                  "ARRAY/c.0.0.0.partial", "OTHER/c.0.0.0"])  # fmt: skip
def test_a_store_with_something_else_in_it_is_not_replaced(tmp_path: Path, name: str, form: MapFormat) -> None:
    """Of a person, of another format, or of a store of the other kind."""
    store, (other,) = tmp_path / "new.zarr", (each for each in FORMS if each != form)
    create(store, form)
    file = store / name.replace("ARRAY", next(iter(form.dtypes))).replace("OTHER", next(iter(other.dtypes)))
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"attributes": {}}')
    for again in FORMS:
        with pytest.raises(UserError, match="move it away"):
            create(store, again)
    assert file.read_text() == '{"attributes": {}}'


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_only_parts_of_shards_are_cleared_from_a_store(
    tmp_path: Path, form: MapFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "downloads" / "films" / "film.mkv.partial"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    output = tmp_path / "evidence.json"
    refused(capsys, "evidence", "--store", foreign.parents[1], "--part-files", foreign, "--output", output)
    store, array = tmp_path / "new.zarr", next(iter(form.dtypes))
    create(store, form)
    opened = open_store(store, form)
    mine, theirs = store / array / "film.mkv.partial", store / array / "c.0.0.0.01234567.partial"
    for path in (mine, theirs):
        path.touch()
    remove_partial_files(opened)
    assert foreign.exists() and mine.exists() and not theirs.exists()


@pytest.mark.parametrize("place", ["labels/evidence.zarr", "labels/probability-0.3/labels.zarr"])
def test_no_output_lies_in_a_store(own: Miniature, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config", own.yaml(), "--manifest", own.manifest, "--checkpoint", own.weights("warmup")]
    for folder in (own.folder / place, *(path for path in (own.folder / place).iterdir() if path.is_dir())):
        before = sorted(folder.rglob("*"))
        said = refused(capsys, "evaluate", *given, "--output", folder / "new.json")
        assert "an output must not lie in a store" in said and sorted(folder.rglob("*")) == before


# --- the folder of a state, and the record of the check


def test_a_state_folder_loses_nothing(tmp_path: Path) -> None:
    foreign = [tmp_path / name for name in ("film.mkv.partial", "state.pt.partial", "state.pt.damaged")]
    for path in foreign:
        path.write_text("mine")
    with lock(tmp_path):
        pass
    (tmp_path / "state.pt").write_text("damaged")
    assert load_state(tmp_path / "state.pt") is None
    assert all(path.read_text() == "mine" for path in foreign) and (tmp_path / "state.pt.damaged1").exists()


@pytest.mark.parametrize("name", ["lock", "attempts.txt", "frames.jsonl"])
def test_nothing_is_written_on_a_file_of_somebody_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("my notes\n")

    def write() -> None:
        if name == "lock":
            with lock(tmp_path):
                pass
        elif name == "attempts.txt":
            count_attempt(tmp_path / name, "0" * 64)
        else:
            with open_record(tmp_path / name):
                pass

    with pytest.raises(UserError, match="move it away"):
        write()
    assert (tmp_path / name).read_text() == "my notes\n"


# --- ids are names of files


@pytest.mark.parametrize(
    "frame", ["../x", "/etc/passwd", "a/b", "", ".", "..", "a\0b", "a\nb", "\x1b[31m", "\udcff", "x" * 252, 7, None]
)
def test_an_id_that_is_no_name_of_a_file_is_refused(mini: Miniature, tmp_path: Path, frame: object) -> None:
    with pytest.raises(UserError) as error:
        refuse_unsafe_ids(tmp_path / "manifest.json", [frame])  # type: ignore[list-item]
    assert str(error.value).isprintable() and "manifest.json" in str(error.value)


def test_a_manifest_with_such_an_id_is_refused(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(mini.manifest.read_text())
    content.pop("sha256_of_all_above")
    content["evaluation"]["frames"][0]["id"] = "../../thesis"
    write_json(tmp_path / "manifest.json", content)
    given = ["--config", mini.yaml(), "--checkpoint", mini.weights("warmup"), "--manifest", tmp_path / "manifest.json"]
    predicted = ["--set", "evaluation", "--folder", tmp_path / "a" / "b", "--part", 1, "--parts", 1]
    assert "../../thesis" in refused(capsys, "predict-part", *given, *predicted, "--output", tmp_path / "part.json")
    assert not list(tmp_path.rglob("*.png"))


def test_long_and_odd_names_are_fine() -> None:
    refuse_unsafe_ids(Path("manifest.json"), ["x" * 251, "ä" * 125, "$a_b|c<d>.e", "Bild 3.04\u202fPM", "-rf", "=1+1"])
