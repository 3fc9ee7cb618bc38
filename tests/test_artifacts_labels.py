"""The label store: complete or named as faulty, whoever is killed while writing, and exact statistics."""

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from caguda.artifacts.atomic import at_work
from caguda.artifacts.label_arrays import NAMES, faults
from caguda.artifacts.label_remains import remove_partial_files
from caguda.artifacts.labels import (
    LabelArrays,
    create_label_store,
    open_label_store,
    verify_label_store,
    write_labels,
)
from caguda.classes import ClassTable
from caguda.errors import UserError

TABLE = ClassTable(("road", "traffic light", "sky"), ((128, 64, 128), (250, 170, 30), (70, 130, 180)), {})
H, W = 6, 9
IDS = ("aachen_0", "bochum_1", "ulm_2", "zürich_3")


def some_labels(seed: int, c: int = 3, shape: tuple[int, int] = (H, W)) -> LabelArrays:
    """Labels of a random image that have no faults."""
    random = np.random.default_rng(seed)
    active = random.integers(0, 4, shape).astype(np.uint8)
    nearest, predicted = (random.integers(0, c, shape).astype(np.uint8) for _ in range(2))
    margin = random.exponential(2.0, shape).astype(np.float16)
    margin[random.random(shape) < 0.05] = np.inf
    return LabelArrays(
        active=active,
        anchor_label=np.where(active & 1, nearest, 255).astype(np.uint8),
        probability_label=np.where(active & 2, predicted, 255).astype(np.uint8),
        nearest_anchor=nearest,
        predicted=predicted,
        margin=margin,
        confidence=random.random(shape).astype(np.float16),
    )


def all_ignored() -> LabelArrays:
    """Labels of an image in which no pixel is active."""
    ignored = np.full((H, W), 255, np.uint8)
    none = np.zeros((H, W), np.uint8)
    return replace(some_labels(0), active=none, anchor_label=ignored, probability_label=ignored)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "labels.zarr"
    create_label_store(path, IDS, H, W, TABLE, {"margin": 2.5, "p0": 0.95})
    return path


@pytest.fixture
def full(empty: Path) -> Path:
    store = open_label_store(empty)
    for index in range(len(IDS)):
        write_labels(store, index, some_labels(index))
    return empty


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        verify_label_store(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


# --- the format


def test_labels_come_back_as_they_were(full: Path) -> None:
    store = open_label_store(full)
    assert (store.image_ids, store.count, store.shape) == (IDS, len(IDS), (H, W))
    assert store.categories == TABLE.names and store.attributes["margin"] == 2.5 and store.missing() == []
    for index in range(store.count):
        for name in NAMES:
            expected = getattr(some_labels(index), name)
            np.testing.assert_array_equal(getattr(store.read(index), name), expected, strict=True)


def test_the_metadata_are_the_documented_ones(full: Path) -> None:
    assert sorted(entry.name for entry in full.iterdir()) == sorted([*NAMES, "image_id", "zarr.json"])
    assert "consolidated_metadata" not in json.loads((full / "zarr.json").read_text())
    for field in fields(LabelArrays):
        found = json.loads((full / field.name / "zarr.json").read_text())
        is_float = field.name in ("margin", "confidence")
        assert found["fill_value"] == ("NaN" if is_float else 254)
        assert found["data_type"] == ("float16" if is_float else "uint8")
        assert found["shape"] == [len(IDS), H, W] and found["dimension_names"] == ["image", "y", "x"]
        assert found["chunk_grid"]["configuration"]["chunk_shape"] == [1, H, W]
        assert found["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
        assert found["codecs"][-1] == {"name": "zstd", "configuration": {"level": 1, "checksum": True}}
        assert {f"c.{i}.0.0" for i in range(len(IDS))} | {"zarr.json"} == set(os.listdir(full / field.name))


def test_the_flags_say_what_the_values_mean(empty: Path) -> None:
    attributes = {name: json.loads((empty / name / "zarr.json").read_text())["attributes"] for name in NAMES}
    assert attributes["anchor_label"] == {
        "flag_values": [0, 1, 2, 255],
        "flag_meanings": "road traffic_light sky ignore",
        "flag_colors": "#804080 #faaa1e #4682b4 #000000",
    }
    assert attributes["predicted"]["flag_values"] == [0, 1, 2]
    assert attributes["active"] == {"flag_masks": [1, 2], "flag_meanings": "by_anchor by_probability"}


def test_an_empty_store_is_254_and_nan_everywhere_and_refused(empty: Path) -> None:
    labels = open_label_store(empty).read(2)
    assert (labels.active == 254).all() and (labels.predicted == 254).all() and np.isnan(labels.margin).all()
    assert open_label_store(empty).missing() == [0, 1, 2, 3]
    assert "image aachen_0: not completely written" in refusal(empty)


def test_an_all_ignored_image_is_not_taken_for_missing(full: Path) -> None:
    write_labels(open_label_store(full), 1, all_ignored())
    assert open_label_store(full).missing() == []
    assert (full / "anchor_label" / "c.1.0.0").exists()
    assert verify_label_store(full)["images"] == 4


def test_what_equals_the_fill_value_is_written_too(full: Path) -> None:
    unwritten = np.full((H, W), 254, np.uint8)
    write_labels(open_label_store(full), 1, replace(some_labels(1), nearest_anchor=unwritten))
    assert open_label_store(full).missing() == []
    assert "image bochum_1: nearest_anchor holds 254" in refusal(full)


def test_every_chunk_has_the_bytes_that_zarr_writes(full: Path, tmp_path: Path) -> None:
    """Negative zeros, infinities and numbers that compress badly among them, whatever their order in memory."""
    labels = replace(some_labels(7), margin=np.array([[-0.0, np.inf, 1.5] * 3] * H, "f2").copy("F"))
    write_labels(open_label_store(full), 2, labels)
    shutil.copytree(full, tmp_path / "other.zarr")
    with zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.open_group(tmp_path / "other.zarr", mode="r+")
        for name in NAMES:
            ours, theirs = (path / name / "c.2.0.0" for path in (full, tmp_path / "other.zarr"))
            theirs.unlink()
            group[name][2] = getattr(labels, name)
            assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_chunk_that_cannot_be_written_leaves_the_one_before(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in full.rglob("c.1.*")}

    def refused(path: str, _: str) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(OSError, match="No space left"):
        write_labels(open_label_store(full), 1, some_labels(5))
    assert {path: path.read_bytes() for path in full.rglob("c.1.*")} == before


def test_creating_again_starts_afresh_but_replaces_only_stores(full: Path) -> None:
    full.with_name("labels.zarr.partial").mkdir()
    (full.with_name("labels.zarr.partial") / "thesis.tex").touch()
    create_label_store(full, IDS[:2], H, W, TABLE, {})
    assert open_label_store(full).missing() == [0, 1]
    assert sorted(e.name for e in full.parent.iterdir()) == ["labels.zarr", "labels.zarr.partial"]
    assert (full.with_name("labels.zarr.partial") / "thesis.tex").exists()
    other = full.parent / "folder"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(UserError, match="move it away"):
        create_label_store(other, IDS, H, W, TABLE, {})
    assert (other / "thesis.tex").exists()
    (other / "thesis.tex").unlink()
    create_label_store(
        other, IDS, H, W, TABLE, {}
    )  # an empty folder, as a workflow makes for its output, is no obstacle
    assert open_label_store(other).count == 4


def test_what_a_killed_creation_left_goes_with_the_next_one_that_is_alone(full: Path) -> None:
    left = full.with_name("labels.zarr.0123abcd.partial")
    full.rename(left)
    with at_work(full.parent):
        create_label_store(full, IDS[:2], H, W, TABLE, {})
        assert left.exists()
    create_label_store(full, IDS[:2], H, W, TABLE, {})
    assert list(full.parent.iterdir()) == [full]


@pytest.mark.parametrize("ids", [(), ("a", "a")])
def test_every_image_needs_an_id_of_its_own(tmp_path: Path, ids: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="one id each"):
        create_label_store(tmp_path / "labels.zarr", ids, H, W, TABLE, {})


# --- damage


@pytest.mark.parametrize("name", NAMES)
def test_any_damage_to_a_chunk_names_the_image(full: Path, name: str) -> None:
    chunk = full / name / "c.2.0.0"
    content = chunk.read_bytes()
    harmless = 0
    store = open_label_store(full)
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        chunk.write_bytes(flipped)
        try:
            found = store.read_array(2, name)
        except UserError as error:
            assert f"image ulm_2: {name} is damaged" in str(error)
        else:
            harmless += 1
            np.testing.assert_array_equal(found, getattr(some_labels(2), name))
    assert harmless <= 3
    chunk.write_bytes(content[: len(content) // 2])
    assert f"image ulm_2: {name} is damaged" in refusal(full)
    chunk.unlink()
    assert "image ulm_2: not completely written" in refusal(full)
    assert open_label_store(full).missing() == [2]


@pytest.mark.parametrize("part", ["zarr.json", "active/zarr.json", "image_id/zarr.json", "image_id/c.0"])
@pytest.mark.parametrize("length", [0.0, 0.5])
def test_truncated_metadata_are_a_user_error(full: Path, part: str, length: float) -> None:
    file = full / part
    content = file.read_bytes()
    file.write_bytes(content[: int(length * len(content))])
    refusal(full)


def test_flipped_bits_in_metadata_are_never_a_traceback(full: Path) -> None:
    expected = verify_label_store(full)["digest"]
    for part in ("zarr.json", "predicted/zarr.json", "image_id/c.0"):
        content = (full / part).read_bytes()
        for position in range(0, len(content), 7):
            flipped = bytearray(content)
            flipped[position] ^= 1 << (position % 8)
            (full / part).write_bytes(flipped)
            try:
                assert verify_label_store(full)["digest"] == expected
            except UserError as error:
                assert str(full) in str(error)
        (full / part).write_bytes(content)


def test_what_is_no_label_store_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make it first"):
        open_label_store(tmp_path / "absent.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(UserError, match="must be caguda-labels 2, found None"):
        open_label_store(tmp_path / "other.zarr")


def test_many_faults_are_counted_and_some_are_listed(empty: Path) -> None:
    create_label_store(empty, [f"frame{i}" for i in range(9)], H, W, TABLE, {})
    message = refusal(empty)
    assert "frame4" in message and "frame5" not in message and "and 4 more" in message


# --- faults


@given(seed=st.integers(0, 1 << 30), position=st.integers(0, H * W - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_single_inconsistency_is_found(seed: int, position: int, data: st.DataObject) -> None:
    labels = some_labels(seed)
    assert faults(labels, 3) == []
    name = data.draw(st.sampled_from(NAMES))
    values = getattr(labels, name).copy()
    if values.dtype == np.uint8:
        wrong: float = data.draw(st.sampled_from([3, 4, 200, 254] if name != "active" else [4, 128, 254, 255]))
    else:
        wrong = data.draw(st.sampled_from([-1.0, np.nan, -np.inf] if name == "margin" else [-0.1, 1.1, np.nan, np.inf]))
    values.flat[position] = wrong
    assert faults(replace(labels, **{name: values}), 3)


@pytest.mark.parametrize("name", ["anchor_label", "probability_label"])
def test_a_label_must_agree_with_its_bit(name: str) -> None:
    labels = some_labels(0)
    bit = 1 if name == "anchor_label" else 2
    for is_set in (True, False):
        values = getattr(labels, name).copy()
        values.flat[np.flatnonzero((labels.active & bit > 0) == is_set)[0]] = 255 if is_set else 0
        assert f"where active has bit {bit} and 255 elsewhere, found 1 others" in faults(
            replace(labels, **{name: values}), 3)[0]  # fmt: skip


def test_the_digest_is_of_the_content_and_the_ids(full: Path, tmp_path: Path) -> None:
    digest = verify_label_store(full)["digest"]
    other = tmp_path / "other.zarr"
    create_label_store(other, IDS, H, W, TABLE, {"made": "later"})
    store = open_label_store(other)
    for index in (3, 1, 0, 2):
        write_labels(store, index, some_labels(index))
    assert verify_label_store(other)["digest"] == digest
    write_labels(store, 3, some_labels(5))
    assert verify_label_store(other)["digest"] != digest
    json.dumps(verify_label_store(other), allow_nan=False)


def test_a_reader_written_from_the_documentation_finds_the_same_digest(full: Path) -> None:
    digest = hashlib.sha256(f"{len(IDS)} {H} {W}\n".encode())
    zstd = numcodecs.Zstd()
    packed = zstd.decode((full / "image_id" / "c.0").read_bytes())
    (count,) = struct.unpack_from("<I", packed)
    position = 4
    for index in range(count):
        (length,) = struct.unpack_from("<I", packed, position)
        digest.update(packed[position + 4 : position + 4 + length] + b"\0")
        position += 4 + length
        for name in NAMES:
            digest.update(zstd.decode((full / name / f"c.{index}.0.0").read_bytes()))
    assert digest.hexdigest() == verify_label_store(full)["digest"]


# --- processes

WRITER = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_artifacts_labels import open_label_store, some_labels, write_labels
store, indices, rounds = open_label_store(Path(sys.argv[1])), [int(i) for i in sys.argv[2].split(",")], int(sys.argv[3])
print("ready", flush=True)
for _ in range(rounds):
    for index in indices:
        write_labels(store, index, some_labels(index))
"""


def writer(path: Path, indices: str, rounds: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), indices, str(rounds)], stdout=subprocess.PIPE)


def test_two_processes_write_disjoint_images(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "shared.zarr"
    create_label_store(path, IDS, H, W, TABLE, {})
    both = [writer(path, "0,2", 5), writer(path, "1,3", 5)]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    assert verify_label_store(path)["digest"] == verify_label_store(full)["digest"]


def test_a_killed_writer_leaves_whole_chunks_and_can_be_followed(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.zarr"
    create_label_store(path, IDS, H, W, TABLE, {})
    for delay in (0.0, 0.02, 0.05):
        with writer(path, "0,1,2,3", 10_000) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        store = open_label_store(path)
        for index in set(range(4)) - set(store.missing()):
            np.testing.assert_array_equal(store.read(index).margin, some_labels(index).margin)
    stale = path / "active" / "c.0.0.0.01234567.partial"
    stale.write_bytes(b"half")
    store = open_label_store(path)
    for index in store.missing():
        write_labels(store, index, some_labels(index))
    assert verify_label_store(path)["digest"] == verify_label_store(full)["digest"]
    remove_partial_files(store.path)
    assert not list(path.glob("**/*.partial"))
    assert verify_label_store(path)["digest"] == verify_label_store(full)["digest"]


def test_an_open_store_is_read_in_forked_workers_and_pickled(full: Path) -> None:
    store = open_label_store(full)
    expected = store.read(1).margin
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for labels in pool.map_async(store.read, [1, 1]).get(timeout=20):
            np.testing.assert_array_equal(labels.margin, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(1).margin, expected)
