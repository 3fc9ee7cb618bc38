"""Which files are frames: nothing is left out in silence, and no name breaks a line, an id or another file."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from frame_trees import cityscapes_frame, configuration, make_root, make_tree, problems, write_image, write_label

from caguda.cli import main
from caguda.errors import printable
from caguda.stages.check import check


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "data")


def warned(root: Path, capsys: pytest.CaptureFixture[str], **sets: object) -> list[str]:
    """The warnings of a check that finds no problem."""
    check(configuration(root, **sets), root.parent / "manifest.json")
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


# Files of other kinds


@pytest.mark.parametrize("layout", ["gta5", "synthia", "cityscapes", "folder"])
@pytest.mark.parametrize("suffix", [".tif", ".webp", ".bmp", ".txt", ""])
def test_files_of_other_kinds_are_named_and_counted(
    root: Path, capsys: pytest.CaptureFixture[str], layout: str, suffix: str
) -> None:
    tree = make_tree(root, layout)
    folder = tree.images[0].parent
    for name in ("x", "y"):
        (folder / f"{name}{suffix}").write_bytes(b"x")
    (line,) = warned(root, capsys, source=dict(tree.domain))
    assert line.startswith(
        f"source: {folder}: 2 {suffix or 'other'} file(s) among the images are no images of the layout"
    )
    assert f"x{suffix}, y{suffix}" in line
    assert len(json.loads((root.parent / "manifest.json").read_text())["source"]["frames"]) == 3


def test_other_names_and_places_in_cityscapes_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = make_tree(root, "cityscapes")
    split = root / "cityscapes/leftImg8bit/val"
    write_image(split / "ulm/ulm_000009_000009_rightImg8bit.png")
    write_image(split / "ulm_000007_000007_leftImg8bit.png")
    (split / "bonn").mkdir()
    (split / "bonn/bonn_000001_000001_leftImg8bit.webp").write_bytes(b"x")
    lines = warned(root, capsys, source=dict(tree.domain))
    assert [line.split(": ")[1] for line in lines] == [str(split), str(split / "bonn"), str(split / "ulm")]


@pytest.mark.parametrize("layout", ["gta5", "synthia", "cityscapes", "folder"])
def test_a_set_of_another_kind_alone_is_named(root: Path, capsys: pytest.CaptureFixture[str], layout: str) -> None:
    tree = make_tree(root, layout)
    for image in tree.images:
        image.rename(image.with_suffix(".webp"))
    (line,) = problems(root, capsys, source=dict(tree.domain))
    assert "no frames found; layout " in line and f"found there: {tree.images[0].with_suffix('.webp').name}" in line


def test_a_set_that_skips_all_its_images_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gta = {"layout": "gta5", "root": "gta", "skip": ["00001", "00002", "00003"]}
    (line,) = problems(root, capsys, source=gta)
    assert line.endswith("; there are 3 images, and skip leaves out all that are wanted")


# Ids


def test_one_id_in_two_cities_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, _ = cityscapes_frame(root / "city", "train", "ulm", 0)
    other = image.parent.with_name("bonn") / image.name
    other.parent.mkdir()
    shutil.copy(image, other)
    (line,) = problems(root, capsys)
    assert line == f"target: {other} and {image}: two images have the same id; rename one of the two"


@pytest.mark.parametrize("names", [("a.png", "a.PNG"), ("a.png", "a.jpg")])
def test_one_stem_twice_is_refused(root: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str]) -> None:
    for name in names:
        write_image(root / "own/images" / name)
    (line,) = problems(root, capsys, source={"layout": "folder", "root": "own"})
    assert all(str(root / "own/images" / name) in line for name in names) and "the same id" in line


@pytest.mark.parametrize("names", [("Img_1", "img_1"), ("straße", "STRASSE"), ("ä", unicodedata.normalize("NFD", "ä"))])
def test_ids_that_become_one_file_elsewhere_are_refused(
    root: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str]
) -> None:
    for name in (*names, "other"):
        write_image(root / "own/images" / f"{name}.png")
        write_label(root / "own/labels" / f"{name}.png")
    own = {"layout": "folder", "root": "own"}
    (line,) = problems(root, capsys, source=own)
    assert all(str(root / "own/images" / f"{name}.png") in line for name in names) and "upper and lower case" in line
    assert warned(root, capsys, source=own | {"skip": [names[0]]}) == []


@pytest.mark.parametrize("name", [b"stra\xdfe", b"new\nline", b"red\x1b[31m", b"tab\t", "\u202ednif".encode()])
def test_a_name_that_no_terminal_takes_is_one_line(root: Path, capfd: pytest.CaptureFixture[str], name: bytes) -> None:
    images = os.fsencode(root / "gta/images")
    os.rename(images + b"/00002.png", images + b"/" + name + b".png")
    output = root.parent / "manifest.json"
    given = root.parent / "test.yaml"
    given.write_text(json.dumps(configuration(root).model_dump(mode="json")), encoding="utf-8")
    assert main(["check", "--config", str(given), "--output", str(output)]) == 2
    printed, error = capfd.readouterr()
    (line,) = error.splitlines()
    shown = printable(os.fsdecode(name))
    assert f"source: {root}/gta/images/{shown}.png: names of images must be in UTF-8" in line
    assert line.isprintable() and all(line.isprintable() for line in printed.splitlines())
    assert not output.exists()


def test_odd_names_beside_the_frames_break_no_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = os.fsencode(root / "gta/images")
    for name in (b".hidden\xdf", b"new\nline.txt", b"latin\xdf.tif"):
        with open(images + b"/" + name, "wb"):
            pass
    os.mkdir(images + b"/folder\xdf")
    for warning in warned(root, capsys):
        assert warning.isprintable()
    kept = (root.parent / "check/findings.txt").read_text(encoding="utf-8").splitlines()
    assert len(kept) == 3 and "latin\\udcdf.tif" in kept[2] + kept[1] + kept[0]


# Lists


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the list of frames names none; write one id a line, or leave out the key list"),
        (b"\xef\xbb\xbf\r\n \r\n", "the list of frames names none; write one id a line, or leave out the key list"),
        (b"00001\n00002\n00001\r\n", "an id must be in the list of frames once, found more often: 00001"),
        (b"stra\xdfe\n", "the list of frames must be text in UTF-8, one id a line"),
        (b"../images/00001\n", "no image for these ids (an id has no suffix): ../images/00001"),
        (b"/etc/passwd\n00001\n", "no image for these ids (an id has no suffix): /etc/passwd"),
        (b"00001.png\n", "no image for these ids (an id has no suffix): 00001.png"),
        (b"a\x1b[31m\n", "no image for these ids (an id has no suffix): a\\x1b[31m"),
    ],
)
def test_a_list_that_says_something_else(
    root: Path, capsys: pytest.CaptureFixture[str], content: bytes, told: str
) -> None:
    path = root / "gta/few.txt"
    path.write_bytes(content)
    (line,) = problems(root, capsys, source={"layout": "gta5", "root": "gta", "list": "few.txt"})
    assert line == f"source: {path}: {told}"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_list_that_is_no_file(root: Path, capsys: pytest.CaptureFixture[str], make: object) -> None:
    make(root / "gta/few.txt")  # type: ignore[operator]
    (line,) = problems(root, capsys, source={"layout": "gta5", "root": "gta", "list": "few.txt"})
    assert (
        line
        == f"source: {root}/gta/few.txt: the list of frames must be a file of text, found another kind; correct the key list"
    )


def test_a_list_of_any_editor_is_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "gta/few.txt").write_bytes(b"\xef\xbb\xbf00001\r\n\r\n  00003  ")
    warned(root, capsys, source={"layout": "gta5", "root": "gta", "list": "few.txt"})
    frames = json.loads((root.parent / "manifest.json").read_text())["source"]["frames"]
    assert [frame["id"] for frame in frames] == ["00001", "00003"]
