"""A scattered evidence job, killed at any moment or at work in several processes: no image is lost, none is wrong."""

import multiprocessing
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from miniature import Miniature
from test_artifacts_maps import NAMES, TABLE, opened, shard_of, some_evidence

from caguda.artifacts.evidence import create_evidence_store, evidence_faults
from caguda.artifacts.maps import write_shard
from caguda.artifacts.vouched import verify_store
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import verify_evidence

# A fork of this process, in which other tests have computed with several threads, would hang at its first OpenMP loop.
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["caguda.stages.evidence"])
PARTS = 2


def chunks(store: Path) -> list[Path]:
    return [path for name in NAMES for path in (store / name).glob("c.*.0.0")]


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_leave_no_image_that_reads_as_valid_but_is_wrong(
    mini: Miniature, elsewhere: Miniature, kills: int
) -> None:
    """Each starts from an empty store; the last one is followed by the parts that were not finished."""
    configuration, initial = mini.configuration(compute__inference_batch_size=1), mini.weights("warmup")
    whole = opened(elsewhere.evidence("whole", configuration, initial, PARTS).with_suffix(".zarr"))
    expected = [whole.read_all(index) for index in range(whole.count)]
    empty, folder = elsewhere.folder / "empty", elsewhere.folder / "job"
    shutil.copytree(whole.path.parent, empty)
    for path in [*chunks(empty / "evidence.zarr"), *(empty / f"{k}.json" for k in (1, 2)), empty / "evidence.json"]:
        path.unlink()
    store = folder / "evidence.zarr"
    inputs = (configuration, elsewhere.manifest, initial, folder / "anchors.h5", store)
    random = np.random.default_rng(11)
    torn = 0
    for _ in range(kills):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(empty, folder)
        parts = {k: CLEAN.Process(target=write_part, args=(*inputs, k, PARTS, folder / f"{k}.json"))
                 for k in range(1, PARTS + 1)}  # fmt: skip
        for process in parts.values():
            process.start()
        until, victim = int(random.integers(whole.count * len(NAMES))), int(random.integers(1, PARTS + 1))
        while len(chunks(store)) < until and any(process.is_alive() for process in parts.values()):
            time.sleep(0.0005)
        time.sleep(random.uniform(0, 0.001))
        for k in (victim, PARTS + 1 - victim):
            parts[k].kill()
            parts[k].join()
        found = opened(store)
        missing = found.missing()
        torn += 0 < len(chunks(store)) < whole.count * len(NAMES)
        for index in set(range(whole.count)) - set(missing):
            for name in NAMES:
                np.testing.assert_array_equal(found.read(index, name), expected[index][name])
        finished = [k for k in parts if (folder / f"{k}.json").exists()]
        assert not {index for k in finished for index in range(4 * (k - 1), 4 * k)} & set(missing)
    assert torn > kills / 2, "most kills came in the middle"
    before = {path: path.stat().st_mtime_ns for path in chunks(store)}
    for k in {1, 2} - set(finished):
        write_part(*inputs, k, PARTS, folder / f"{k}.json")
    kept = [path for path in before if path.stat().st_mtime_ns == before[path]]
    assert all(path in kept for path in before if int(path.name.split(".")[1]) // 4 + 1 in finished)
    verify_evidence(store, [folder / f"{k}.json" for k in range(1, PARTS + 1)], folder / "evidence.json")
    assert not list(store.rglob("*.partial"))
    again, first = (verify_store(each, evidence_faults)["chunk_sha256"] for each in (opened(store), whole))
    assert again == first


IMAGES, WRITERS = 1000, 4


def write_every_fourth(path: Path, first: int) -> None:
    store = opened(path)
    for number in range(first, len(store.shards), WRITERS):
        write_shard(store, number, shard_of(store.shards[number], partial(some_evidence, shape=(2, 3))))


@pytest.mark.parametrize("repetition", [0, *(pytest.param(r, marks=pytest.mark.slow) for r in (1, 2))])
def test_parts_at_work_at_once_lose_no_image(repetition: int, tmp_path: Path) -> None:
    path = tmp_path / "evidence.zarr"
    create_evidence_store(path, [str(index) for index in range(IMAGES)], (2, 3), 3, TABLE, {})
    writers = [CLEAN.Process(target=partial(write_every_fourth, path, first)) for first in range(WRITERS)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * WRITERS
    store = opened(path)
    verify_store(store, evidence_faults)
    for index in range(repetition, IMAGES, 3):
        expected = some_evidence(index, shape=(2, 3))
        for name in NAMES:
            np.testing.assert_array_equal(store.read(index, name), expected[name])
