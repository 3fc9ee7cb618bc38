"""The three layouts, file reading and the dataset check: every trap of a data set is named before anything trains."""

import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from frame_trees import (
    HEIGHT,
    PROJECT,
    WIDTH,
    cityscapes_frame,
    configuration,
    make_root,
    problems,
    shared,
    write_image,
    write_label,
)
from PIL import Image
from torchvision.io import ImageReadMode

from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.config_frames import Domain
from caguda.configfile import parse_configuration
from caguda.datasets.check import check_frame, check_frames
from caguda.datasets.frame import Frame
from caguda.datasets.io import RGB, UNCHANGED, read_image, read_label
from caguda.datasets.listing import list_frames
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.files import sha256
from caguda.stages.check import check


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A GTA5 and a Cityscapes tree below a folder with a space and an umlaut."""
    return make_root(tmp_path / "straßen bilder")


# Layouts


def test_gta5_frames(root: Path) -> None:
    frames = list_frames(Domain(layout="gta5"), root / "gta")
    assert [frame.id for frame in frames] == ["00001", "00002", "00003"]
    assert frames[0].image == root / "gta" / "images" / "00001.png"
    assert frames[0].label == root / "gta" / "labels" / "00001.png"


def test_cityscapes_frames_are_sorted_by_id(root: Path) -> None:
    frames = list_frames(Domain(layout="cityscapes", split="val"), root / "city")
    assert [frame.id for frame in frames] == ["aachen_000001_000000", "ulm_000000_000000"]
    assert frames[1].label == root / "city/gtFine/val/ulm/ulm_000000_000000_gtFine_labelIds.png"


def test_folder_mixes_suffixes_and_passes_over_other_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c d.jpeg"):
        write_image(tmp_path / "images" / name)
    for name in ("notes.txt", "._a.jpg"):
        (tmp_path / "images" / name).write_text("x")
    write_label(tmp_path / "labels" / "a.png")
    frames = list_frames(Domain(layout="folder"), tmp_path)
    assert [(frame.id, frame.label is not None) for frame in frames] == [("a", True), ("b", False), ("c d", False)]
    unlabelled = list_frames(Domain(layout="folder", labels=None), tmp_path)
    assert [frame.label for frame in unlabelled] == [None, None, None]


def test_two_images_of_one_stem_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        write_image(tmp_path / "images" / name)
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png: two images have the same id"):
        list_frames(Domain(layout="folder"), tmp_path)


def test_list_and_skip_narrow_a_set(root: Path) -> None:
    (root / "gta" / "few.txt").write_text("\ufeff00003\r\n\r\n00001\r\n", encoding="utf-8")
    frames = list_frames(Domain(layout="gta5", list="few.txt", skip=("00003",)), root / "gta")
    assert [frame.id for frame in frames] == ["00001"]


def test_paths_through_a_symbolic_link_stay_as_given(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root / "gta", target_is_directory=True)
    assert list_frames(Domain(layout="gta5"), link)[0].image == link / "images" / "00001.png"


# Files


def test_image_is_rgb_uint8(root: Path) -> None:
    path = root / "gta" / "images" / "00001.png"
    image = read_image(path)
    assert image.dtype == torch.uint8 and image.shape == (3, HEIGHT, WIDTH)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "LA", "RGBA", "P"):
        path = tmp_path / f"{mode}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).convert(mode).save(path)
        assert read_image(path).shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images_are_decoded_as_by_torchvision(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"image.{suffix}")
    expected = torchvision.io.decode_image(str(tmp_path / f"image.{suffix}"), mode=ImageReadMode.RGB)
    found = read_image(tmp_path / f"image.{suffix}")
    assert torch.equal(found, expected) and found.stride() == expected.stride()
    assert (UNCHANGED, RGB) == (ImageReadMode.UNCHANGED.value, ImageReadMode.RGB.value)


def test_palette_label_gives_train_ids_of_its_indices(root: Path) -> None:
    label = read_label(root / "gta" / "labels" / "00001.png", CITYSCAPES_19)
    assert label.dtype == torch.uint8 and label.shape == (HEIGHT, WIDTH)
    assert label.ravel()[:4].tolist() == [0, 1, IGNORE, 18]


def test_sixteen_bit_label(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    Image.fromarray(np.full((4, 4), 26, dtype=np.uint16)).save(path)
    assert set(read_label(path, CITYSCAPES_19).ravel().tolist()) == {13}


def test_label_of_a_demo_frame_is_read_in_under_a_millisecond(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    blocks = np.random.default_rng(0).integers(0, 34, (12, 24), dtype=np.uint8)
    Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(path)
    seconds = []
    for _ in range(50):
        started = time.perf_counter()
        read_label(path, CITYSCAPES_19)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1e-3


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "LA"])
def test_label_of_several_channels_or_single_bits_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "label.png"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(UserError, match=rf"label\.png: a label must be .* found mode {mode}"):
        read_label(path, CITYSCAPES_19)


def test_label_with_packed_grey_values_is_refused(tmp_path: Path) -> None:
    """Pillow would scale four-bit values to 0..255 without a word."""
    path = tmp_path / "label.png"
    Image.new("P", (4, 4), 7).save(path, bits=4)
    content = bytearray(path.read_bytes())
    content[25] = 0
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(UserError, match="with fewer bits"):
        read_label(path, CITYSCAPES_19)


def test_jpeg_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    Image.new("L", (4, 4), 7).save(path, format="JPEG")
    with pytest.raises(UserError, match=r"label\.png: a label must be a PNG file"):
        read_label(path, CITYSCAPES_19)


def test_unknown_values_are_counted(tmp_path: Path) -> None:
    write_label(tmp_path / "label.png", [7, 7, 77, 78])
    quarter = HEIGHT * WIDTH // 4
    with pytest.raises(UserError, match=rf"label\.png: .*: 77 \({quarter} pixels\), 78 \({quarter} pixels\)"):
        read_label(tmp_path / "label.png", CITYSCAPES_19)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 12] ^= 4
    path.write_bytes(content)


def write_text(path: Path) -> None:
    path.write_text("<html>not found</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = [truncate, flip_a_bit, write_text, empty, make_folder]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named(root: Path, damage: Callable[[Path], None]) -> None:
    frame = list_frames(Domain(layout="gta5"), root / "gta")[0]
    assert frame.label is not None
    damage(frame.image)
    damage(frame.label)
    found = check_frame(frame, CITYSCAPES_19)
    assert not found.entries
    assert [problem.split(": ")[0] for problem in found.problems] == [str(frame.image), str(frame.label)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_named(root: Path) -> None:
    path = root / "gta" / "images" / "00001.png"
    path.chmod(0)
    with pytest.raises(UserError, match=r"00001\.png: this file cannot be read \(Permission denied\)"):
        read_image(path)


# The check


def test_manifest_holds_every_frame(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = root.parent / "results" / "manifest.json"
    check(configuration(root), output)
    manifest = read_manifest(output)
    assert manifest.classes == CITYSCAPES_19.names
    known = [replace(frame, image_sha256=None, label_sha256=None) for frame in manifest.frames("source")]
    assert known == list_frames(Domain(layout="gta5"), root / "gta")
    assert all(frame.image_sha256 == sha256(frame.image) for frame in manifest.frames("source"))
    entry = manifest.entries("evaluation")[0]
    assert (entry["id"], entry["height"], entry["width"]) == ("aachen_000001_000000", HEIGHT, WIDTH)
    assert entry["classes"] == [0, 1, 18]
    printed = capsys.readouterr().out
    assert f"source: width x height (frames): {WIDTH}x{HEIGHT} (3)" in printed
    road = next(line for line in printed.splitlines() if line.startswith("  road"))
    assert road.split()[1:] == ["25.0", "25.0", "25.0"]


def test_digest_depends_on_content_and_not_on_place_or_time(root: Path) -> None:
    def digests(place: Path) -> list[str]:
        output = root.parent / "manifest.json"
        check(configuration(place), output)
        manifest = read_manifest(output)
        return [manifest.digest("source"), manifest.digest("target")]

    first = digests(root)
    os.utime(root / "gta" / "images" / "00001.png", (0, 0))
    moved = root.rename(root.parent / "moved")
    assert digests(moved) == first
    write_label(moved / "gta" / "labels" / "00001.png", [7])
    changed = digests(moved)
    assert changed[0] != first[0] and changed[1] == first[1]


def test_wrong_root_names_folder_and_key(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = problems(root, capsys, source={"layout": "gta5", "root": "gat"})
    assert found == [f"source: {root / 'gat'}: there is no such folder; correct the keys data_root and root"]


@pytest.mark.parametrize(
    ("domain", "folder", "key"),
    [
        ({"layout": "gta5", "root": "gta", "images": "imgs"}, "gta/imgs", "images"),
        ({"layout": "cityscapes", "root": "city", "split": "trian"}, "city/leftImg8bit/trian", "split"),
    ],
)
def test_wrong_folder_names_its_key(
    root: Path, capsys: pytest.CaptureFixture[str], domain: dict[str, str], folder: str, key: str
) -> None:
    found = problems(root, capsys, source=domain)
    assert found == [f"source: {root / folder}: there is no such folder; correct the key {key}"]


def test_problems_of_all_sets_are_listed_at_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truncate(root / "gta/images/00002.png")
    write_label(root / "gta/labels/00003.png", [7, 99])
    _, label = cityscapes_frame(root / "city", "val", "bonn", 5)
    label.unlink()
    found = problems(root, capsys)
    assert len(found) == 3
    assert found[0].startswith(f"source: {root}/gta/images/00002.png: this image is damaged")
    half = HEIGHT * WIDTH // 2
    assert found[1].startswith(
        f"source: {root}/gta/labels/00003.png: label values outside the class table: 99 ({half} p"
    )
    assert found[2].startswith("evaluation: ")
    assert found[2].startswith(f"evaluation: {label}: none of the 1 images of the folder ")


def test_set_without_any_label_is_one_problem(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = problems(root, capsys, source={"layout": "gta5", "root": "gta", "labels": "lables"})
    place = root / "gta" / "lables" / "00001.png"
    names = "00001.png, 00002.png, 00003.png"
    folder = root / "gta" / "images"
    assert len(found) == 1 and found[0].startswith(f"source: {place}: none of the 3 images of the folder {folder} has ")
    assert found[0].endswith(f"({names}), this is where the first one belongs")


def test_labels_of_the_target_are_optional_but_checked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = root / "city/gtFine/train/ulm/ulm_000000_000000_gtFine_labelIds.png"
    label.unlink()
    output = root.parent / "manifest.json"
    check(configuration(root, runs={"oracle": None}), output)
    assert [frame.label is None for frame in read_manifest(output).frames("target")] == [False, True]
    output.unlink()
    write_label(label, [99])
    assert problems(root, capsys)[0].startswith(f"target: {label}: label values outside the class table: 99")


def test_label_of_another_size_can_be_skipped(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(root / "gta/images/00002.png", size=(HEIGHT + 1, WIDTH))
    found = problems(root, capsys)
    assert len(found) == 1
    assert found[0].startswith(f"source: {root}/gta/labels/00002.png: this label is 40x24 and its image ")
    assert "is 40x25;" in found[0] and found[0].endswith('skip: ["00002"]')
    output = root.parent / "manifest.json"
    check(configuration(root, source={"layout": "gta5", "root": "gta", "skip": ["00002"]}), output)
    assert [frame.id for frame in read_manifest(output).frames("source")] == ["00001", "00003"]


def test_list_that_is_absent_or_names_absent_frames(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = {"layout": "gta5", "root": "gta", "list": "few.txt"}
    place = root / "gta" / "few.txt"
    assert problems(root, capsys, source=source)[0].startswith(f"source: {place}: the list of frames cannot be read")
    place.write_text("00001\n00009.png\n")
    assert problems(root, capsys, source=source) == [
        f"source: {place}: no image for these ids (an id has no suffix): 00009.png"
    ]


def test_set_without_frames(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "city" / "leftImg8bit" / "test").mkdir()
    found = problems(root, capsys, target={"layout": "cityscapes", "root": "city", "split": "test"})
    assert found[0].startswith(f"target: {root / 'city'}: no frames found; layout cityscapes needs them in leftImg8bit")


def test_void_labels_and_single_colours_are_warnings(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, label = root / "gta/images/00001.png", root / "gta/labels/00002.png"
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(image)
    write_label(label, [0, 34])
    output = root.parent / "manifest.json"
    check(configuration(root), output)
    expected = [
        f"source: {image}: the image has a single colour",
        f"source: {label}: every pixel of the label is void",
    ]
    assert json.loads(output.read_text(encoding="utf-8"))["warnings"] == expected
    printed = capsys.readouterr().out
    assert all(f"warning: {warning}" in printed for warning in expected)


def test_damaged_manifest_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(
        UserError,
        match=r"manifest\.json: the file must be readable, found: No such file or directory; make it with `check`",
    ):
        read_manifest(path)
    path.write_text('{"source": ')
    with pytest.raises(UserError, match=r"manifest\.json: the manifest must be as `check` wrote it"):
        read_manifest(path)


# Genuine frames


def test_kitti_pair_of_unequal_sizes(tmp_path: Path) -> None:
    folder = shared("fixtures/kitti_semantics")
    image, label = folder / "000000_10_image_2.png", folder / "000000_10_semantic.png"
    found = check_frames([Frame("000000_10", image, label)], CITYSCAPES_19, tmp_path / "frames.jsonl")
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{label}: this label is 1242x375 and its image {image} is 1224x370;")


def test_synthia_label_is_refused_rather_than_read_as_zeros() -> None:
    path = shared("fixtures/synthia") / "000000_LABELS_16bit.png"
    with pytest.raises(UserError, match=r"LABELS_16bit\.png: a label must be .* found mode RGB"):
        read_label(path, CITYSCAPES_19)


def test_camvid_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = shared("camvid")
    values = yaml.safe_load((PROJECT / "config" / "camvid_day_to_dusk.yaml").read_text(encoding="utf-8"))
    monkeypatch.setenv("CAMVID_ROOT", str(folder))
    output = tmp_path / "manifest.json"
    check(parse_configuration(values, Path("camvid.yaml")), output)
    manifest = read_manifest(output)
    counts = [len(manifest.frames(name)) for name in ("source", "target", "evaluation")]
    assert counts == [577, 62, 62]
    assert manifest.classes[:2] == ("sky", "building")
