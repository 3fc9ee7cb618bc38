"""Traps of real data sets in every layout, each told with the file's name, and what a second check opens again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from frame_trees import (
    HEIGHT,
    PROJECT,
    WIDTH,
    Tree,
    cityscapes_frame,
    configuration,
    make_root,
    make_tree,
    problems,
    shared,
    write_image,
    write_label,
)
from PIL import Image

from caguda.artifacts.atomic import read_json
from caguda.artifacts.provenance import content_digest
from caguda.classes import CITYSCAPES_19, ClassTable
from caguda.config_frames import Domain
from caguda.datasets import check as opening
from caguda.datasets.check import CheckResult, check_frame, check_frames
from caguda.datasets.frame import Frame
from caguda.datasets.listing import list_frames
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.stages.check import check

LAYOUTS = ("gta5", "synthia", "cityscapes", "folder")
Told = Callable[..., list[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a space and an umlaut, with the sets that a test does not look at."""
    return make_root(tmp_path / "straßen bilder")


@pytest.fixture(params=LAYOUTS)
def tree(root: Path, request: pytest.FixtureRequest) -> Tree:
    """Three frames in each layout."""
    return make_tree(root, request.param)


@pytest.fixture
def told(root: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """The lines that a check prints which finds nothing that forbids training, with this set as the source."""

    def lines(domain: Any, **sets: Any) -> list[str]:
        capsys.readouterr()
        check(configuration(root, source=dict(domain), **sets), root.parent / "manifest.json")
        return capsys.readouterr().out.splitlines()

    return lines


def warned(lines: Sequence[str]) -> list[str]:
    """The warnings among the printed lines."""
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


def row(lines: Sequence[str], title: str) -> list[str]:
    """The cells of a row of the table: source, target, evaluation."""
    (found,) = [line for line in lines if line.startswith(f"{title:<22}")]
    return found[22:].split()


def digest(root: Path) -> str:
    """What the source of the last check is known by."""
    return read_manifest(root.parent / "manifest.json").digest("source")


# Traps


def test_a_clean_set_is_told_without_a_warning(told: Told, tree: Tree) -> None:
    lines = told(tree.domain)
    assert warned(lines) == []
    assert row(lines, "images on disk") == ["3", "2", "2"]
    assert row(lines, "frames") == ["3", "2", "2"]
    assert row(lines, "  road") == ["25.0"] * 3 and row(lines, "  (void)") == ["25.0"] * 3
    assert f"source: width x height (frames): {WIDTH}x{HEIGHT} (3)" in lines


def test_published_counts_stand_beside_those_found(told: Told, root: Path) -> None:
    make_tree(root, "cityscapes")
    assert row(told({"layout": "gta5", "root": "gta"}), "  published") == ["24966", "2975", "500"]
    assert row(told(make_tree(root, "synthia").domain), "  published") == ["9400", "2975", "500"]
    (root / "city/leftImg8bit/val").rename(root / "city/leftImg8bit/test")
    (root / "city/gtFine/val").rename(root / "city/gtFine/test")
    test = {"layout": "cityscapes", "root": "city", "split": "test"}
    folder = {"layout": "folder", "root": "gta"}
    assert row(told(folder, evaluation=test), "  published") == ["-", "2975", "1525"]


def test_labels_of_other_sizes_are_named_and_their_ids_can_be_pasted(
    root: Path, tree: Tree, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in tree.images[:2]:
        write_image(image, size=(HEIGHT + 2, WIDTH))
    with pytest.raises(UserError):
        told(tree.domain)
    printed = capsys.readouterr().out.splitlines()
    named = [line for line in printed if line.startswith("problem: ")]
    assert len(named) == 2
    assert row(printed, "frames")[0] == "3" and row(printed, "  with a problem") == ["2", "0", "0"]
    for line, image, label, name in zip(named, tree.images, tree.labels, tree.ids, strict=False):
        assert line.startswith(f"problem: source: {label}: this label is {WIDTH}x{HEIGHT} and its image {image} is ")
        assert line.endswith(f'skip: ["{name}"]')
    (hint,) = [line for line in printed if line.startswith("hint: source: skip: ")]
    pasted = yaml.safe_load(hint.removeprefix("hint: source: ").partition("  leaves out")[0])
    assert pasted == {"skip": list(tree.ids[:2])}
    lines = told({**tree.domain, **pasted})
    assert row(lines, "  skipped")[0] == "2" and row(lines, "frames")[0] == "1"


def test_the_pasted_key_keeps_what_was_skipped_before(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(root / "gta/images/00003.png", size=(HEIGHT, WIDTH - 1))
    with pytest.raises(UserError):
        check(configuration(root, source={"layout": "gta5", "root": "gta", "skip": ["00001"]}), root.parent / "m.json")
    assert 'hint: source: skip: ["00001", "00003"]  leaves out' in capsys.readouterr().out


def test_an_image_of_one_colour_is_named(told: Told, tree: Tree) -> None:
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(tree.images[1])
    lines = told(tree.domain)
    assert warned(lines) == [f"source: {tree.images[1]}: the image has a single colour"]
    assert row(lines, "  of a single colour") == ["1", "0", "0"]


def test_ids_34_and_255_and_lane_markings_are_void(told: Told, root: Path, tree: Tree) -> None:
    write_label(tree.labels[0], [34, 255, 255, 7])
    write_label(tree.labels[1], [34, 255])
    lines = told(tree.domain)
    assert warned(lines) == [f"source: {tree.labels[1]}: every pixel of the label is void"]
    assert row(lines, "  void everywhere") == ["1", "0", "0"]
    entries = read_manifest(root.parent / "manifest.json").entries("source")
    assert [entry["classes"] for entry in entries] == [[0], [], [0, 1, 18]]
    assert row(lines, "  (void)")[0] == "66.7"


@pytest.mark.parametrize("which", ["images", "labels"])
def test_a_truncated_png_is_named(root: Path, tree: Tree, capsys: pytest.CaptureFixture[str], which: str) -> None:
    path: Path = getattr(tree, which)[2]
    path.write_bytes(path.read_bytes()[:-30])
    (found,) = problems(root, capsys, source=dict(tree.domain))
    assert found.startswith(f"source: {path}: this {which[:-1]} is damaged (")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(root: Path, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.labels[0].chmod(0)
    (found,) = problems(root, capsys, source=dict(tree.domain))
    assert found == f"source: {tree.labels[0]}: this file cannot be read (Permission denied)"


def test_a_link_to_nothing_is_named(root: Path, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.images[0].unlink()
    tree.images[0].symlink_to(root / "gone.png")
    (found,) = problems(root, capsys, source=dict(tree.domain))
    assert found == f"source: {tree.images[0]}: this file cannot be read (No such file or directory)"


def test_a_city_without_labels_is_fine_for_the_target_alone(
    told: Told, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [cityscapes_frame(root / "city", "val", "bonn", number) for number in range(1, 6)]
    for _, label in pairs:
        label.unlink()
    val = {"layout": "cityscapes", "root": "city", "split": "val"}
    evaluation = {**val, "skip": ids_of(pairs)}
    lines = told({"layout": "gta5", "root": "gta"}, target=val, evaluation=evaluation, runs={"oracle": None})
    assert warned(lines) == [] and row(lines, "  with a label") == ["3", "2", "2"]
    (root.parent / "manifest.json").unlink()
    (found,) = problems(root, capsys)
    names = ", ".join(image.name for image, _ in pairs[:3])
    assert found == (
        f"evaluation: {pairs[0][1]}: none of the 5 images of the folder {root}/city/leftImg8bit/val/bonn has a label "
        f"({names} and 2 more), this is where the first one belongs"
    )


def ids_of(pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """The ids of Cityscapes' frames."""
    return [image.stem.removesuffix("_leftImg8bit") for image, _ in pairs]


def test_a_linked_root_holds_the_same_frames(told: Told, root: Path, tree: Tree) -> None:
    told(tree.domain)
    expected = digest(root)
    (root / "link").symlink_to(root / tree.domain["root"], target_is_directory=True)
    assert warned(told({**tree.domain, "root": "link"})) == []
    assert digest(root) == expected


def test_a_linked_city_holds_the_same_frames(told: Told, root: Path) -> None:
    tree = make_tree(root, "cityscapes")
    told(tree.domain)
    expected = digest(root)
    for folder in (tree.images[0].parent, tree.labels[0].parent):
        elsewhere = root / folder.parts[-3]
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere, target_is_directory=True)
    assert warned(told(tree.domain)) == []
    assert digest(root) == expected


def test_an_empty_folder_of_images_is_named(root: Path, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    for image in tree.images:
        image.unlink()
    (found,) = problems(root, capsys, source=dict(tree.domain))
    assert found.startswith(f"source: {root / tree.domain['root']}: no frames found; layout {tree.domain['layout']} ")
    place = {"cityscapes": "leftImg8bit/val/CITY/", "synthia": "RGB/*.png"}.get(tree.domain["layout"], " images/*.png")
    assert place in found


def test_an_empty_folder_of_labels_is_named(root: Path, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    for label in tree.labels:
        label.unlink()
    found = problems(root, capsys, source=dict(tree.domain))
    assert len(found) == len({image.parent for image in tree.images})
    assert found[0].startswith(f"source: {tree.labels[0]}: none of the ")
    assert str(tree.images[0].parent) in found[0] and tree.images[0].name in found[0]


def test_a_label_more_than_images_is_named(told: Told, tree: Tree) -> None:
    tree.images[1].unlink()
    lines = told(tree.domain)
    assert warned(lines) == [f"source: {tree.labels[1]}: this label has no image and is not used"]
    assert row(lines, "labels without image") == ["1", "0", "0"]


def test_a_label_less_than_images_is_named(root: Path, tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.labels[1].unlink()
    found = problems(root, capsys, source=dict(tree.domain))
    assert found == [f"source: {tree.images[1]}: this image has no label, it belongs in {tree.labels[1]}"]


def test_labels_of_skipped_images_and_other_files_of_cityscapes_are_no_surplus(told: Told, root: Path) -> None:
    tree = make_tree(root, "cityscapes")
    write_label(tree.labels[0].with_name(tree.labels[0].name.replace("labelIds", "instanceIds")))
    assert warned(told({**tree.domain, "skip": [tree.ids[0]]})) == []


def test_hidden_files_are_left_out_by_name(told: Told, tree: Tree) -> None:
    (tree.images[0].parent / ".DS_Store").write_bytes(b"\0")
    (tree.labels[0].parent / f"._{tree.labels[0].name}").write_bytes(b"\0")
    (tree.images[0].parent / f"._{tree.images[0].name}").write_bytes(b"\0")
    lines = told(tree.domain)
    assert warned(lines) == [] and row(lines, "frames")[0] == "3"
    (hidden,) = [line for line in lines if line.startswith("source: hidden, left out: ")]
    assert hidden.count("/.DS_Store") == 1
    assert f"/._{tree.images[0].name}" in hidden and f"/._{tree.labels[0].name}" in hidden


def test_suffixes_in_upper_case_change_nothing(told: Told, root: Path, tree: Tree) -> None:
    told(tree.domain)
    expected = digest(root)
    for path in (*tree.images[1:], *tree.labels[:2]):
        path.rename(path.with_suffix(".PNG"))
    lines = told(tree.domain)
    assert warned(lines) == [] and row(lines, "  with a label")[0] == "3"
    assert digest(root) == expected


def test_a_folder_among_the_images_is_named_and_not_searched(told: Told, tree: Tree) -> None:
    write_image(tree.images[0].parent / "more" / tree.images[0].name)
    lines = told(tree.domain)
    assert warned(lines) == [
        f"source: {tree.images[0].parent / 'more'}: this folder lies among the images and is not searched"
    ]
    assert row(lines, "images on disk")[0] == "3"


def test_an_absent_id_to_skip_is_told_and_stops_nothing(told: Told, tree: Tree) -> None:
    lines = told({**tree.domain, "skip": ["2", tree.ids[0]]})
    assert warned(lines) == ["source: skip: 2: no image has this id, there is nothing to leave out"]
    assert row(lines, "  to skip, absent")[0] == "1" and row(lines, "frames")[0] == "2"


def test_the_counts_of_a_set_add_up(told: Told, root: Path, tree: Tree) -> None:
    (root / tree.domain["root"] / "few.txt").write_text("\n".join(tree.ids[:2]), encoding="utf-8")
    lines = told({**tree.domain, "list": "few.txt", "skip": [tree.ids[0]]})
    titles = ("images on disk", "  not in the list", "  skipped", "frames", "  with a problem")
    assert [row(lines, title)[0] for title in titles] == ["3", "1", "1", "1", "0"]


def test_all_problems_are_in_a_file_and_the_first_ones_are_printed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4, 34):
        write_image(root / "gta" / "images" / f"{number:05}.png", number)
    with pytest.raises(UserError, match=r"found 30 problem\(s\), no manifest was written: .*findings\.txt$"):
        check(configuration(root), root.parent / "manifest.json")
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]
    kept = (root.parent / "check" / "findings.txt").read_text(encoding="utf-8").splitlines()
    assert len(printed) == 21 and printed[:20] == kept[:20]
    assert printed[20].startswith("problem: and 10 more, all are in ") and len(kept) == 30


def test_a_genuine_pair_of_unequal_sizes(root: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    genuine = shared("fixtures/kitti_semantics")
    for folder, name in (("images", "000000_10_image_2.png"), ("labels", "000000_10_semantic.png")):
        (root / "gta" / folder / "00004.png").symlink_to(genuine / name)
    (found,) = problems(root, capsys)
    assert "this label is 1242x375" in found and "is 1224x370" in found and found.endswith('skip: ["00004"]')
    assert row(told({"layout": "gta5", "root": "gta", "skip": ["00004"]}), "  skipped")[0] == "1"


# What a second check opens


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of all frames whose files were opened, in this process."""
    ids: list[str] = []

    def one_by_one(frames: Sequence[Frame], table: ClassTable, title: str) -> Iterator[CheckResult]:
        for frame in frames:
            ids.append(frame.id)
            yield check_frame(frame, table)

    monkeypatch.setattr(opening, "_check_in_parallel", one_by_one)
    return ids


def again(root: Path, tree: Tree, opened: list[str], **keys: Any) -> list[str]:
    """The ids that one more check opens."""
    opened.clear()
    check(configuration(root, source=dict(tree.domain), **keys), root.parent / "manifest.json")
    return list(opened)


def test_what_has_not_changed_is_not_opened_again(root: Path, tree: Tree, opened: list[str]) -> None:
    output = root.parent / "manifest.json"
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(tree.images[1])
    write_label(tree.labels[2], [0])
    assert len(again(root, tree, opened)) == 7
    first = read_json(output)
    output.unlink()
    assert again(root, tree, opened) == []
    second = read_json(output)
    del first["provenance"], second["provenance"]
    assert first == second and len(first["warnings"]) == 2


@pytest.mark.parametrize("which", ["images", "labels"])
def test_a_file_of_another_time_or_size_is_opened_again(root: Path, tree: Tree, opened: list[str], which: str) -> None:
    again(root, tree, opened)
    before = digest(root)
    path: Path = getattr(tree, which)[1]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert again(root, tree, opened) == [tree.ids[1]]
    assert digest(root) == before
    changed = path.stat().st_mtime_ns
    write_image(path, 9) if which == "images" else write_label(path, [8, 7])
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(0, changed))
    assert again(root, tree, opened) == [tree.ids[1]]
    assert digest(root) != before
    assert again(root, tree, opened) == []


def test_a_label_that_comes_or_goes_is_noticed(root: Path, opened: list[str]) -> None:
    tree = make_tree(root, "gta5")
    label = root / "city/gtFine/train/ulm/ulm_000000_000000_gtFine_labelIds.png"
    again(root, tree, opened)
    content = label.read_bytes()
    label.unlink()
    assert again(root, tree, opened, runs={"oracle": None}) == ["ulm_000000_000000"]
    label.write_bytes(content)
    assert again(root, tree, opened) == ["ulm_000000_000000"]


def test_another_class_table_layout_or_version_opens_everything(
    root: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(root, "gta5")
    assert len(again(root, tree, opened)) == 7
    classes = [{"id": 7, "name": "road", "color": [1, 2, 3]}, {"id": 8, "name": "way", "color": [3, 2, 1]}]
    ignore = [value for value in CITYSCAPES_19.train_id if value not in (7, 8)]
    assert len(again(root, tree, opened, classes=classes, ignore=ignore)) == 7
    assert len(again(root, tree, opened)) == 0
    assert again(root, replace(tree, domain={"layout": "folder", "root": "gta5"}), opened) == list(tree.ids)
    monkeypatch.setattr(opening, "_CHECK_VERSION", -1)
    assert len(again(root, tree, opened)) == 7


def test_other_raw_values_of_the_same_categories_make_another_manifest(root: Path) -> None:
    """Whatever is made of a manifest records its content. Colours decide nothing."""
    domain, manifest = make_tree(root, "gta5").domain, root.parent / "manifest.json"

    def content(ids: tuple[int, int] = (7, 8), void: Sequence[int] = (), color: tuple[int, ...] = (1, 2, 3)) -> str:
        names = zip(ids, ("road", "way"), strict=True)
        classes = [{"id": value, "name": name, "color": list(color)} for value, name in names]
        ignore = [value for value in CITYSCAPES_19.train_id if value not in ids]
        check(configuration(root, source=dict(domain), classes=classes, ignore=[*ignore, *void]), manifest)
        return content_digest(manifest)

    assert content() == content(color=(4, 5, 6))
    assert len({content(), content(ids=(8, 7)), content(void=[99])}) == 3


def test_a_check_that_stops_keeps_what_it_has_found(root: Path, tree: Tree, opened: list[str]) -> None:
    write_image(tree.images[1], size=(HEIGHT + 2, WIDTH))
    for ids in (list(tree.ids), [tree.ids[1]]):
        with pytest.raises(UserError, match="must be of one size"):
            again(root, tree, opened)
        assert [name for name in opened if name in tree.ids] == ids
    assert again(root, replace(tree, domain={**tree.domain, "skip": [tree.ids[1]]}), opened) == []


def test_a_killed_check_goes_on_where_it_was(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path, "gta5")
    frames = list_frames(Domain(layout="gta5"), tmp_path / "gta5")
    record = tmp_path / "results" / "check" / "frames.jsonl"
    one_by_one = opening._check_in_parallel

    def killed(frames: Sequence[Frame], table: ClassTable, title: str) -> Iterator[CheckResult]:
        for number, result in enumerate(one_by_one(frames, table, title)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(opening, "_check_in_parallel", killed)
        check_frames(frames, CITYSCAPES_19, record=record)
    record.write_bytes(record.read_bytes()[:-20])
    opened.clear()
    found = check_frames(frames, CITYSCAPES_19, record=record)
    assert opened == ["00002", "00003"]
    opened.clear()
    assert check_frames(frames, CITYSCAPES_19, record=record).entries == found.entries
    assert opened == [] and [entry["id"] for entry in found.entries] == ["00001", "00002", "00003"]


def test_a_record_that_is_somebody_elses_file_is_refused_and_stays(tmp_path: Path) -> None:
    make_tree(tmp_path, "gta5")
    frames = list_frames(Domain(layout="gta5"), tmp_path / "gta5")
    record = tmp_path / "frames.jsonl"
    record.write_bytes(b"\xff\xfe\n[1, 2]\n")
    with pytest.raises(UserError, match=r"frames\.jsonl: this must be the record of the check"):
        check_frames(frames, CITYSCAPES_19, record=record)
    assert record.read_bytes() == b"\xff\xfe\n[1, 2]\n"


def test_lines_that_are_none_of_a_record_are_passed_over(tmp_path: Path, opened: list[str]) -> None:
    make_tree(tmp_path, "gta5")
    frames = list_frames(Domain(layout="gta5"), tmp_path / "gta5")
    record = tmp_path / "frames.jsonl"
    record.write_bytes(b'\n[1, 2]\n[[[]], {}, {}]\n{"a": 1}\n7\nnull\n\xff\xfe\n')
    assert len(check_frames(frames, CITYSCAPES_19, record=record).entries) == 3
    assert len(opened) == 3


def test_a_second_check_starts_without_torch(root: Path) -> None:
    path, output = root.parent / "test.yaml", root.parent / "manifest.json"
    path.write_text(json.dumps(configuration(root).model_dump(mode="json")), encoding="utf-8")
    check(configuration(root), output)
    program = (
        "import sys; from caguda.cli import main\n"
        f"assert main(['check', '--config', {str(path)!r}, '--output', {str(output)!r}]) == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert "source: 3 of 3 frames are as an earlier check found them" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
