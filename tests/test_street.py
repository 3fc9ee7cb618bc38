"""The generated street scenes: reproducible, complete in their categories, and laid out as GTA5 and Cityscapes are."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import caguda.street.frames as scenes
from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.config_frames import Street
from caguda.street import frame_paths, render, write_street

ROOT = Path(__file__).parents[1]

FRAMES = 100
Floats = NDArray[np.float64]
NAMED = {raw: CITYSCAPES_19.names[train] for raw, train in CITYSCAPES_19.train_id.items() if train != IGNORE}
SHARES = {  # percent of all pixels, least and most
    "road": (34, 44), "sidewalk": (4.5, 9), "building": (13, 22), "wall": (0.4, 2), "fence": (0.4, 2),
    "pole": (0.7, 2.5), "traffic light": (0.15, 1), "traffic sign": (0.15, 1), "vegetation": (11, 20),
    "terrain": (0.4, 2), "sky": (5, 11), "person": (0.5, 2), "rider": (0.2, 1), "car": (3.5, 8.5), "truck": (0.2, 1.5),
    "bus": (0.2, 1.5), "train": (0.2, 2), "motorcycle": (0.2, 1.2), "bicycle": (0.3, 1.5),
}  # fmt: skip


def settings(strength: float = 0.5, photo: float = 0.5, height: int = 48, width: int = 96, seed: int = 3) -> Street:
    return Street(
        seed=seed, height=height, width=width, source_frames=5, target_frames=7, evaluation_frames=3, strength=strength,
        photo=photo,
    )  # fmt: skip


@lru_cache
def survey(split: str, strength: float, photo: float) -> tuple[Floats, Floats]:
    """Percent of the pixels of each frame with each raw id (frames, 256); mean colour of each frame (frames, 3)."""
    shares, means = [], []
    for index in range(FRAMES):
        image, label = render(settings(strength, photo), split, index)
        shares.append(100.0 * np.bincount(label.ravel(), minlength=256) / label.size)
        means.append(image.mean(axis=(0, 1)))
    return np.array(shares), np.array(means)


def same_mean(a: Floats, b: Floats) -> bool:
    """Whether the columns of two samples (frames, k) agree within 4.5 standard errors of their difference."""
    error = np.hypot(a.std(axis=0), b.std(axis=0)) / np.sqrt(FRAMES)
    return bool(np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) <= 4.5 * error))


def test_a_frame_depends_on_seed_split_and_index_only() -> None:
    forwards = [render(settings(), "source", index) for index in range(3)]
    backwards = [render(settings(), "source", index) for index in (2, 1, 0)][::-1]
    for (image, label), (image_again, label_again) in zip(forwards, backwards, strict=True):
        assert np.array_equal(image, image_again) and np.array_equal(label, label_again)


def test_a_frame_does_not_depend_on_the_library_for_linear_algebra() -> None:
    """Its kernels round differently from processor to processor: no frame may pass through it."""
    program = (
        "import sys; from caguda.config_frames import Street; from caguda.street import render\n"
        "street = Street(seed=0, source_frames=1, target_frames=1, evaluation_frames=1, strength=0.5, photo=0.5)\n"
        "for index in (73, 108, 160): sys.stdout.buffer.write(render(street, 'train', index)[0].tobytes())"
    )
    frames = [
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_CORETYPE": kind},
        ).stdout
        for kind in ("Haswell", "SkylakeX")
    ]  # fmt: skip
    assert len(frames[0]) == 3 * 128 * 256 * 3 and frames[0] == frames[1]


@pytest.mark.parametrize(
    ("street", "split", "index"), [(settings(), "source", 1), (settings(seed=4), "source", 0), (settings(), "val", 0)]
)
def test_another_index_seed_or_split_is_another_frame(street: Street, split: str, index: int) -> None:
    image, label = render(settings(), "source", 0)
    other_image, other_label = render(street, split, index)
    assert not np.array_equal(image, other_image)
    assert not np.array_equal(label, other_label)


def test_train_and_val_are_different_frames_of_one_domain() -> None:
    assert not np.array_equal(render(settings(), "train", 0)[1], render(settings(), "val", 0)[1])


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError):
        render(settings(), "test", 0)


@pytest.mark.parametrize(("height", "width"), [(48, 96), (96, 192), (128, 256), (95, 201), (256, 512)])
def test_sizes_and_types(height: int, width: int) -> None:
    image, label = render(settings(height=height, width=width), "train", 0)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert label.shape == (height, width) and label.dtype == np.uint8


def test_the_picture_shows_what_the_label_says_at_every_size() -> None:
    """The same street at twice the size has the same labels, but for pixels on an outline."""
    small = render(settings(height=96, width=192), "source", 5)[1]
    large = render(settings(height=192, width=384), "source", 5)[1][1::2, 1::2]
    assert (small == large).mean() > 0.93


@pytest.mark.parametrize("split", ["source", "train"])
def test_every_label_is_one_of_the_19_categories_or_void(split: str) -> None:
    pixels = survey(split, 0.5, 0.5)[0].mean(axis=0)
    assert set(np.flatnonzero(pixels)) - set(NAMED) <= {0, 1, 4}
    assert pixels[[0, 1, 4]].sum() < 1.0


@pytest.mark.parametrize("split", ["source", "train"])
def test_every_category_occurs_as_often_as_in_a_street(split: str) -> None:
    shares, _ = survey(split, 0.5, 0.5)
    pixels, frames = shares.mean(axis=0), 100.0 * (shares > 0).mean(axis=0)
    wrong = {
        name: (float(pixels[raw]), float(frames[raw]))
        for raw, name in NAMED.items()
        if not SHARES[name][0] <= pixels[raw] <= SHARES[name][1] or frames[raw] < 15
    }
    assert not wrong


def test_no_shift_means_exactly_the_tables_of_the_source() -> None:
    still, moved = settings(0.0, 0.0), settings(0.1, 0.1)
    for split in ("train", "val"):
        tables = (scenes.domain(*key) for key in ((still, "source"), (still, split), (moved, split)))
        for own, same, other in zip(*tables, strict=True):
            for field in fields(own):
                assert np.array_equal(getattr(own, field.name), getattr(same, field.name)), field.name
            assert any(not np.array_equal(getattr(own, f.name), getattr(other, f.name)) for f in fields(own))


def test_no_shift_makes_the_target_another_sample_of_the_source() -> None:
    (shares, means), (target_shares, target_means) = survey("source", 0.0, 0.0), survey("train", 0.0, 0.0)
    assert same_mean(means, target_means)
    assert same_mean(shares, target_shares)
    assert same_mean(1.0 * (shares > 0), 1.0 * (target_shares > 0))


def test_the_shift_is_seen_by_the_same_comparison() -> None:
    (shares, means), (target_shares, target_means) = survey("source", 0.0, 0.0), survey("train", 1.0, 1.0)
    assert not same_mean(means, target_means)
    assert not same_mean(shares, target_shares)


def test_photo_moves_the_picture_and_leaves_the_labels() -> None:
    image, label = render(settings(0.5, 0.0), "train", 2)
    shifted, same = render(settings(0.5, 1.0), "train", 2)
    assert np.array_equal(label, same)
    assert np.abs(image.astype(int) - shifted).mean() > 10


def test_photo_is_more_than_one_gain_and_offset_per_channel() -> None:
    """Undoing it by the best affine map of each channel leaves an error well above that of the sensor."""
    image, _ = render(settings(0.0, 0.0), "train", 2)
    shifted, _ = render(settings(0.0, 1.0), "train", 2)
    left = []
    for channel in range(3):
        x, y = shifted[..., channel].ravel().astype(float), image[..., channel].ravel().astype(float)
        left.append(np.std(y - np.polyval(np.polyfit(x, y, 1), x)))
    assert min(left) > 12


def test_the_low_sun_brightens_one_side_of_the_frame() -> None:
    tilts = []
    for index in range(8):
        image, _ = render(settings(0.0, 0.0), "train", index)
        shifted, _ = render(settings(0.0, 1.0), "train", index)
        gain = np.log(shifted.mean(axis=(0, 2)) / image.mean(axis=(0, 2)))
        tilts.append(abs(gain[:24].mean() - gain[-24:].mean()))
    assert np.mean(tilts) > 0.2


def test_strength_moves_layout_and_colours_of_the_categories() -> None:
    image, label = render(settings(0.0, 0.0), "train", 2)
    shifted, other = render(settings(1.0, 0.0), "train", 2)
    assert (label != other).mean() > 0.05
    building = 11
    assert np.abs(image[label == building].mean(axis=0) - shifted[other == building].mean(axis=0)).max() > 15


def test_the_source_ignores_the_shift() -> None:
    assert np.array_equal(render(settings(0.0, 0.0), "source", 1)[0], render(settings(1.0, 1.0), "source", 1)[0])


def test_layout_on_disk(tmp_path: Path) -> None:
    write_street(tmp_path, settings())
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    source = [f"source/{kind}/{i:05}.png" for kind in ("images", "labels") for i in range(1, 6)]
    stems = [f"train/{city}/{city}_{i // 3:06}_000019" for i in range(7) for city in [scenes.CITIES["train"][i % 3]]]
    stems += [f"val/{city}/{city}_{i:06}_000019" for i in range(3) for city in scenes.CITIES["val"]]
    target = [f"target/leftImg8bit/{stem}_leftImg8bit.png" for stem in stems]
    target += [f"target/gtFine/{stem}_gtFine_labelIds.png" for stem in stems]
    assert found == sorted(source + target)


def test_files_hold_what_render_gives(tmp_path: Path) -> None:
    write_street(tmp_path, settings())
    for split, index, mode in (("source", 4, "P"), ("train", 6, "L"), ("val", 2, "L")):
        image_path, label_path = frame_paths(tmp_path, split, index)
        image, label = render(settings(), split, index)
        picture, labels = Image.open(image_path), Image.open(label_path)
        assert (picture.mode, labels.mode) == ("RGB", mode)
        assert np.array_equal(np.asarray(picture), image)
        assert np.array_equal(np.asarray(labels), label)


def test_source_labels_are_coloured_as_cityscapes(tmp_path: Path) -> None:
    write_street(tmp_path, settings())
    labels = Image.open(tmp_path / "source" / "labels" / "00001.png")
    road = np.argwhere(np.asarray(labels) == 7)[0]
    assert labels.convert("RGB").getpixel((int(road[1]), int(road[0]))) == (128, 64, 128)


def test_one_core_and_all_cores_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_street(tmp_path / "all", settings())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    write_street(tmp_path / "one", settings())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    write_street(tmp_path / "three", settings())
    written = {
        cores: {path.relative_to(tmp_path / cores): path.read_bytes() for path in (tmp_path / cores).rglob("*.png")}
        for cores in ("all", "one", "three")
    }
    assert written["all"] and written["all"] == written["one"] == written["three"]


def test_a_second_run_overwrites_and_leaves_no_other_files(tmp_path: Path) -> None:
    write_street(tmp_path, settings())
    image_path, _ = frame_paths(tmp_path, "source", 0)
    whole = image_path.read_bytes()
    image_path.write_bytes(whole[:100])
    before = sorted(tmp_path.rglob("*"))
    write_street(tmp_path, settings())
    assert image_path.read_bytes() == whole
    assert sorted(tmp_path.rglob("*")) == before
