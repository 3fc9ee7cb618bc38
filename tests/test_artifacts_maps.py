"""Stores of maps, of evidence and of labels: complete or named as faulty, whoever is killed while writing."""

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from caguda.artifacts.atomic import at_work
from caguda.artifacts.evidence import EVIDENCE, create_evidence_store, evidence_faults
from caguda.artifacts.labels import LABELS, create_label_store, label_faults
from caguda.artifacts.maps import MapStore, open_store, remove_partial_files, write_shard
from caguda.artifacts.maps_metadata import MOST_SHARDS, shard_size
from caguda.artifacts.vouched import verify_store
from caguda.classes import IGNORE, UNWRITTEN, ClassTable
from caguda.errors import UserError

TABLE = ClassTable(("road", "traffic light", "sky"), ((128, 64, 128), (250, 170, 30), (70, 130, 180)), {})
H, W = 6, 9
IDS = ("aachen_0", "bochum_1", "ulm_2", "zürich_3")
PER_SHARD = 3
NAMES = tuple(EVIDENCE.dtypes)
Maps = Mapping[str, NDArray[Any]]


def some_evidence(seed: int, c: int = 3, shape: tuple[int, int] = (H, W)) -> dict[str, NDArray[Any]]:
    """Evidence of a random image that has no faults."""
    random = np.random.default_rng(seed)
    margin = random.exponential(2.0, shape).astype(np.float32)
    margin[random.random(shape) < 0.05] = np.inf
    return {
        "nearest_anchor": random.integers(0, c, shape).astype(np.uint8),
        "margin": margin,
        "predicted": random.integers(0, c, shape).astype(np.uint8),
        "confidence": random.random(shape).astype(np.float32),
    }


def some_labels(seed: int, c: int = 3, shape: tuple[int, int] = (H, W)) -> dict[str, NDArray[Any]]:
    """Labels of a random image that have no faults."""
    random = np.random.default_rng(seed)
    active = random.integers(0, 2, shape).astype(np.uint8)
    label = np.where(active, random.integers(0, c, shape), IGNORE).astype(np.uint8)
    return {"active": active, "label": label}


def shard_of(seeds: range, make: Any = some_evidence) -> dict[str, NDArray[Any]]:
    """The maps of some images as a shard has them."""
    images = [make(seed) for seed in seeds]
    return {name: np.stack([image[name] for image in images]) for name in images[0]}


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "evidence.zarr"
    create_evidence_store(path, IDS, (H, W), PER_SHARD, TABLE, {"anchor_distance": 2.5})
    return path


def opened(path: Path) -> MapStore:
    return open_store(path, EVIDENCE)


def fill(path: Path) -> Path:
    store = opened(path)
    for number, images in enumerate(store.shards):
        write_shard(store, number, shard_of(images))
    return path


@pytest.fixture
def full(empty: Path) -> Path:
    return fill(empty)


def digest_of(path: Path) -> str:
    digest: str = verify_store(opened(path), evidence_faults)["digest"]
    return digest


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        verify_store(opened(path), evidence_faults)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


# --- the format


def test_maps_come_back_as_they_were(full: Path) -> None:
    store = opened(full)
    assert (store.image_ids, store.count, store.shape, store.per_shard) == (IDS, len(IDS), (H, W), PER_SHARD)
    assert store.categories == TABLE.names and store.attributes["anchor_distance"] == 2.5 and store.missing() == []
    for index in range(store.count):
        for name, values in store.read_all(index).items():
            np.testing.assert_array_equal(values, some_evidence(index)[name], strict=True)


def test_any_reader_of_zarr_reads_them(full: Path) -> None:
    group = zarr.open_group(full, mode="r")
    for name in NAMES:
        array = group[name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(np.asarray(array[:]), shard_of(range(4))[name], strict=True)
    assert list(np.asarray(group["image_id"])) == list(IDS)


def test_the_metadata_are_the_documented_ones(full: Path) -> None:
    assert sorted(entry.name for entry in full.iterdir()) == sorted([*NAMES, "image_id", "zarr.json"])
    assert "consolidated_metadata" not in json.loads((full / "zarr.json").read_text())
    for name in NAMES:
        found = json.loads((full / name / "zarr.json").read_text())
        is_float = name in ("margin", "confidence")
        assert found["fill_value"] == ("NaN" if is_float else 254)
        assert found["data_type"] == ("float32" if is_float else "uint8")
        assert found["shape"] == [len(IDS), H, W] and found["dimension_names"] == ["image", "y", "x"]
        assert found["chunk_grid"]["configuration"]["chunk_shape"] == [PER_SHARD, H, W]
        assert found["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
        (sharding,) = found["codecs"]
        inner = sharding["configuration"]
        assert sharding["name"] == "sharding_indexed" and inner["chunk_shape"] == [1, H, W]
        assert inner["codecs"][-1] == {"name": "zstd", "configuration": {"level": 1, "checksum": True}}
        assert inner["index_location"] == "end" and inner["index_codecs"][-1] == {"name": "crc32c"}
        assert {"c.0.0.0", "c.1.0.0", "zarr.json"} == set(os.listdir(full / name))


def test_the_flags_say_what_the_values_mean(tmp_path: Path, empty: Path) -> None:
    create_label_store(tmp_path / "labels.zarr", IDS, (H, W), PER_SHARD, TABLE, {})
    found = {
        name: json.loads((store / name / "zarr.json").read_text())["attributes"]
        for store, name in (
            (tmp_path / "labels.zarr", "label"),
            (tmp_path / "labels.zarr", "active"),
            (empty, "predicted"),
        )
    }
    assert found["label"] == {
        "flag_values": [0, 1, 2, 255],
        "flag_meanings": "road traffic_light sky ignore",
        "flag_colors": "#804080 #faaa1e #4682b4 #000000",
    }
    assert found["predicted"]["flag_values"] == [0, 1, 2]
    assert found["active"] == {"flag_values": [0, 1], "flag_meanings": "ignored active"}


@given(images=st.integers(1, 5000), batch_size=st.integers(1, 64))
def test_shards_are_few_and_whole_batches(images: int, batch_size: int) -> None:
    size = shard_size(images, batch_size)
    assert size % batch_size == 0 and -(-images // size) <= MOST_SHARDS
    assert size == batch_size or -(-images // (size - batch_size)) > MOST_SHARDS, "no larger than needed"


def test_a_store_of_cityscapes_training_frames_has_at_most_500_files() -> None:
    files = -(-2975 // shard_size(2975, 8)) * len(NAMES) + len(NAMES) + 3
    assert files <= 500


def test_an_empty_store_is_254_and_nan_everywhere_and_refused(empty: Path) -> None:
    maps = opened(empty).read_all(2)
    assert (maps["predicted"] == UNWRITTEN).all() and np.isnan(maps["margin"]).all()
    assert opened(empty).missing() == [0, 1, 2, 3]
    assert "image aachen_0: not completely written" in refusal(empty)


def test_what_equals_the_fill_value_is_written_too(full: Path) -> None:
    maps = shard_of(range(3))
    maps["nearest_anchor"][1] = UNWRITTEN
    write_shard(opened(full), 0, maps)
    assert opened(full).missing() == []
    assert "image bochum_1: nearest_anchor holds 254" in refusal(full)


def test_every_shard_has_the_bytes_that_zarr_writes(full: Path, tmp_path: Path) -> None:
    """Negative zeros, infinities and numbers that compress badly among them, whatever their order in memory."""
    maps = shard_of(range(10, 13))
    maps["margin"][1] = np.array([[-0.0, np.inf, 1.5] * 3] * H, "f4").copy("F")
    write_shard(opened(full), 0, maps)
    shutil.copytree(full, tmp_path / "other.zarr")
    with zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.open_group(tmp_path / "other.zarr", mode="r+")
        for name in NAMES:
            for number, images, values in ((0, slice(0, 3), maps[name]), (1, slice(3, 4), shard_of(range(3, 4))[name])):
                ours, theirs = (path / name / f"c.{number}.0.0" for path in (full, tmp_path / "other.zarr"))
                theirs.unlink()
                group[name][images] = values
                assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_shard_that_cannot_be_written_leaves_the_one_before(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in full.rglob("c.0.*")}

    def refused(path: str, _: str) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="No space left"):
        write_shard(opened(full), 0, shard_of(range(5, 8)))
    assert {path: path.read_bytes() for path in full.rglob("c.0.*")} == before


def create(path: Path, ids: tuple[str, ...] = IDS, **attributes: Any) -> None:
    create_evidence_store(path, ids, (H, W), PER_SHARD, TABLE, attributes)


def test_creating_again_starts_afresh_but_replaces_only_stores(full: Path) -> None:
    full.with_name("evidence.zarr.partial").mkdir()
    (full.with_name("evidence.zarr.partial") / "thesis.tex").touch()
    create(full, IDS[:2])
    assert opened(full).missing() == [0, 1]
    assert sorted(e.name for e in full.parent.iterdir()) == ["evidence.zarr", "evidence.zarr.partial"]
    assert (full.with_name("evidence.zarr.partial") / "thesis.tex").exists()
    other = full.parent / "folder"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(UserError, match="move it away"):
        create(other)
    assert (other / "thesis.tex").exists()
    (other / "thesis.tex").unlink()
    create(other)  # an empty folder, as a workflow makes for its output, is no obstacle
    assert opened(other).count == 4


def test_a_store_of_another_format_is_not_replaced(full: Path) -> None:
    with pytest.raises(UserError, match="only an older label store is replaced"):
        create_label_store(full, IDS, (H, W), PER_SHARD, TABLE, {})
    assert digest_of(full)


def test_what_a_killed_creation_left_goes_with_the_next_one_that_is_alone(full: Path) -> None:
    left = full.with_name("evidence.zarr.0123abcd.partial")
    full.rename(left)
    with at_work(full.parent):
        create(full, IDS[:2])
        assert left.exists()
    create(full, IDS[:2])
    assert list(full.parent.iterdir()) == [full]


@pytest.mark.parametrize("ids", [(), ("a", "a")])
def test_every_image_needs_an_id_of_its_own(tmp_path: Path, ids: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="one id each"):
        create(tmp_path / "evidence.zarr", ids)


# --- damage


@pytest.mark.parametrize("name", NAMES)
def test_any_damage_to_a_shard_names_an_image_of_it(full: Path, name: str) -> None:
    """A flipped bit of a chunk is noticed when its image is read; one of the index as well, or leaves the images as they are."""
    shard = full / name / "c.0.0.0"
    content = shard.read_bytes()
    store = opened(full)
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        shard.write_bytes(flipped)
        for index in range(3):
            try:
                found = store.read(index, name)
            except UserError as error:
                assert f"image {IDS[index]}: {name} is damaged" in str(error)
            else:
                np.testing.assert_array_equal(found, some_evidence(index)[name])
    shard.write_bytes(content[: len(content) // 2])
    assert f": {name} is damaged" in refusal(full)
    shard.unlink()
    assert "image ulm_2: not completely written" in refusal(full)
    assert opened(full).missing() == [0, 1, 2]


@pytest.mark.parametrize("part", ["zarr.json", "predicted/zarr.json", "image_id/zarr.json", "image_id/c.0"])
@pytest.mark.parametrize("length", [0.0, 0.5])
def test_truncated_metadata_are_a_user_error(full: Path, part: str, length: float) -> None:
    file = full / part
    content = file.read_bytes()
    file.write_bytes(content[: int(length * len(content))])
    refusal(full)


def test_flipped_bits_in_metadata_are_never_a_traceback(full: Path) -> None:
    expected = digest_of(full)
    for part in ("zarr.json", "predicted/zarr.json", "image_id/c.0"):
        content = (full / part).read_bytes()
        for position in range(0, len(content), 7):
            flipped = bytearray(content)
            flipped[position] ^= 1 << (position % 8)
            (full / part).write_bytes(flipped)
            try:
                assert digest_of(full) == expected
            except UserError as error:
                assert str(full) in str(error)
        (full / part).write_bytes(content)


def test_what_is_no_store_of_the_format_is_a_user_error(full: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the evidence store must exist, found no zarr group; make it first"):
        opened(tmp_path / "absent.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(UserError, match="must be caguda-evidence 1, found None"):
        opened(tmp_path / "other.zarr")
    with pytest.raises(UserError, match="the label store must be caguda-labels 3, found caguda-evidence 1"):
        open_store(full, LABELS)


def test_many_faults_are_counted_and_some_are_listed(empty: Path) -> None:
    create(empty, tuple(f"frame{i}" for i in range(9)))
    message = refusal(empty)
    assert "frame4" in message and "frame5" not in message and "and 4 more" in message


# --- faults


@given(seed=st.integers(0, 1 << 30), position=st.integers(0, H * W - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_single_inconsistency_of_evidence_is_found(seed: int, position: int, data: st.DataObject) -> None:
    maps = some_evidence(seed)
    assert evidence_faults(maps, 3) == []
    name = data.draw(st.sampled_from(NAMES))
    values = maps[name].copy()
    if values.dtype == np.uint8:
        wrong: float = data.draw(st.sampled_from([3, 4, 200, 254]))
    else:
        wrong = data.draw(st.sampled_from([-1.0, np.nan, -np.inf] if name == "margin" else [-0.1, 1.1, np.nan, np.inf]))
    values.flat[position] = wrong
    assert evidence_faults(maps | {name: values}, 3)


@given(seed=st.integers(0, 1 << 30), position=st.integers(0, H * W - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_single_inconsistency_of_labels_is_found(seed: int, position: int, data: st.DataObject) -> None:
    maps = some_labels(seed)
    assert label_faults(maps, 3) == []
    active = bool(maps["active"].flat[position])
    name = data.draw(st.sampled_from(["active", "label"]))
    wrong = {"active": [0 if active else 1, 2, 254, 255], "label": [3, 200, 254, 255] if active else [0, 2, 3, 254]}
    values = maps[name].copy()
    values.flat[position] = data.draw(st.sampled_from(wrong[name]))
    assert label_faults(maps | {name: values}, 3)


def test_the_digest_is_of_the_content_and_the_ids(full: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    create_evidence_store(other, IDS, (H, W), 1, TABLE, {"made": "later"})
    store = opened(other)
    for index in (3, 1, 0, 2):
        write_shard(store, index, shard_of(range(index, index + 1)))
    assert digest_of(other) == digest_of(full), "however many images a shard holds"
    write_shard(store, 3, shard_of(range(5, 6)))
    assert digest_of(other) != digest_of(full)
    json.dumps(verify_store(opened(other), evidence_faults), allow_nan=False)


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
            shard = (full / name / f"c.{index // PER_SHARD}.0.0").read_bytes()
            offset, size = struct.unpack_from("<QQ", shard, len(shard) - 4 - 16 * (PER_SHARD - index % PER_SHARD))
            digest.update(zstd.decode(shard[offset : offset + size]))
    assert digest.hexdigest() == digest_of(full)


# --- processes

WRITER = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_artifacts_maps import opened, shard_of, write_shard
store, numbers, rounds = opened(Path(sys.argv[1])), [int(i) for i in sys.argv[2].split(",")], int(sys.argv[3])
print("ready", flush=True)
for _ in range(rounds):
    for number in numbers:
        write_shard(store, number, shard_of(store.shards[number]))
"""


def writer(path: Path, numbers: str, rounds: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), numbers, str(rounds)], stdout=subprocess.PIPE)


def test_two_processes_write_different_shards(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "shared.zarr"
    create(path)
    both = [writer(path, "0", 5), writer(path, "1", 5)]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    assert digest_of(path) == digest_of(full)


def test_a_killed_writer_leaves_whole_shards_and_can_be_followed(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.zarr"
    create(path)
    for delay in (0.0, 0.02, 0.05):
        with writer(path, "0,1", 10_000) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        store = opened(path)
        for index in set(range(4)) - set(store.missing()):
            np.testing.assert_array_equal(store.read(index, "margin"), some_evidence(index)["margin"])
    stale = path / "predicted" / "c.0.0.0.01234567.partial"
    stale.write_bytes(b"half")
    fill(path)
    assert not stale.exists()
    stale.write_bytes(b"half")
    assert digest_of(path) == digest_of(full)
    remove_partial_files(opened(path))
    assert not list(path.glob("**/*.partial"))
    assert digest_of(path) == digest_of(full)


def test_an_open_store_is_read_in_forked_workers_and_pickled(full: Path) -> None:
    store = opened(full)
    expected = some_evidence(1)["margin"]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for maps in pool.map_async(store.read_all, [1, 1]).get(timeout=20):
            np.testing.assert_array_equal(maps["margin"], expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(1, "margin"), expected)
