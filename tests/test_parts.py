"""Work that is divided over jobs: the same results, bit by bit, for any number of parts, and no part without work."""

import errno
import shutil
from collections.abc import Mapping
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from random import Random
from typing import Any

import h5py
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from miniature import Miniature, label_files
from numpy.typing import NDArray

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.atomic import read_json
from caguda.artifacts.class_sums import save_class_sums
from caguda.artifacts.evidence import EVIDENCE, evidence_faults
from caguda.artifacts.labels import LABELS
from caguda.artifacts.maps import MapStore, open_store
from caguda.artifacts.provenance import new_provenance
from caguda.artifacts.vouched import verify_store
from caguda.equations.anchors import ClassSums, anchors_from
from caguda.errors import UserError
from caguda.stages import evidence as stage
from caguda.stages.anchors import BLOCKS, _settings, blocks_of, construct_anchors
from caguda.stages.evidence import write_part
from caguda.stages.parts import units_of_part

ARRAYS = {*EVIDENCE.dtypes, *LABELS.dtypes}


@given(st.integers(1, 5000), st.integers(1, 16))
def test_blocks_are_whole_batches_and_of_nearly_one_size(frames: int, size: int) -> None:
    blocks = blocks_of(frames, size)
    assert [place for block in blocks for place in block] == list(range(frames))
    assert all(block.stop % size == 0 for block in blocks[:-1]) and len(blocks) <= BLOCKS
    batches = [-(-len(block) // size) for block in blocks]
    assert max(batches) - min(batches) <= 1 and (len(blocks) == BLOCKS or max(batches) == 1)


@given(st.integers(1, 300), st.data())
def test_parts_are_all_units_once_and_of_nearly_one_size(count: int, data: st.DataObject) -> None:
    units, parts = range(count), data.draw(st.integers(1, count))
    found = [units_of_part(units, part, parts, "source") for part in range(1, parts + 1)]
    assert [unit for part in found for unit in part] == list(units)
    assert max(map(len, found)) - min(map(len, found)) <= 1
    with pytest.raises(
        UserError, match=f"^compute.parts: the source frames .* at most {count} parts, found {count + 1};"
    ):
        units_of_part(units, 1, count + 1, "source")


def arrays_of(path: Path) -> dict[str, bytes]:
    with h5py.File(path) as file:
        return {name: file[name][()].tobytes() for name in file}


def some_sums(seed: int, blocks: int) -> list[ClassSums]:
    """Sums of which the first and the last cancel, so that the order of addition decides the leading digits."""
    generator = torch.Generator().manual_seed(seed)
    large = [1e16, *(blocks - 2) * [0.0], -1e16]
    return [
        ClassSums(
            torch.randn(20, 5, generator=generator, dtype=torch.float64) + offset,
            torch.rand(20, generator=generator, dtype=torch.float64) + 99,
            torch.rand(20, generator=generator, dtype=torch.float64) + 1,
            torch.ones(20, dtype=torch.int64),
        )
        for offset in large
    ]


@given(st.integers(0, 99), st.sets(st.integers(1, 9)), st.randoms())
def test_sums_are_added_in_the_order_of_the_images_whatever_the_parts(
    mini: Miniature, tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: set[int], random: Random
) -> None:
    settings = mini.configuration(compute__inference_batch_size=1)
    folder, blocks, inputs = (
        tmp_path_factory.mktemp("sums"),
        some_sums(seed, 10),
        [mini.manifest, mini.weights("warmup")],
    )
    made_by = new_provenance("anchor-part", _settings(settings), inputs, None, 0.0, inputs[0])
    files = []
    for first, last in pairwise([0, *sorted(cuts), 10]):
        files.append(folder / f"{first}.h5")
        save_class_sums(files[-1], blocks[first:last], {"first_block": first, "provenance": made_by})
    random.shuffle(files)
    construct_anchors(settings, mini.manifest, mini.weights("warmup"), files, folder / "anchors.h5")
    expected = anchors_from(reduce(add, blocks))
    assert not torch.equal(anchors_from(reduce(add, blocks[:5]) + reduce(add, blocks[5:])).vectors, expected.vectors)
    found, _ = load_anchors(folder / "anchors.h5")
    for ours, theirs in zip((found.vectors, found.pixel_count, found.spread, found.pairwise), expected, strict=True):
        assert ours.tobytes() == theirs.numpy().tobytes()


@pytest.mark.parametrize("mean", ["pixels", "images"])
@pytest.mark.parametrize("run", ["pretrain", "warmup"])
def test_the_number_of_parts_changes_no_bit_of_the_anchors(
    mini: Miniature, elsewhere: Miniature, run: str, mean: str
) -> None:
    settings = elsewhere.configuration(compute__inference_batch_size=1, anchors={"mean": mean})
    found = []
    for parts in (1, 2, 3, 7):
        found.append(arrays_of(elsewhere.anchors(elsewhere.folder / f"{parts}.h5", settings, mini.weights(run), parts)))
    assert found[1:] == found[:-1]


def test_parts_that_do_not_belong_together_make_no_anchors(mini: Miniature, elsewhere: Miniature) -> None:
    settings = elsewhere.configuration(compute__inference_batch_size=2)
    output = elsewhere.folder / "anchors.h5"
    elsewhere.anchors(output, settings, mini.weights("warmup"), 3)
    output.unlink()
    files = [elsewhere.folder / f"anchors.{part}-of-3.h5" for part in (1, 2, 3)]
    inputs = (elsewhere.manifest, mini.weights("warmup"))
    with pytest.raises(UserError, match=r"1-of-3\.h5, .*3-of-3\.h5: these parts must make a whole, found 2 of 5 "):
        construct_anchors(settings, *inputs, [files[0], files[2]], output)
    for other, checkpoint in (
        (settings, mini.weights("pretrain")),
        (elsewhere.configuration(compute__inference_batch_size=5), mini.weights("warmup")),
        (elsewhere.configuration(anchors={"pixels": "correct"}), mini.weights("warmup")),
    ):
        with pytest.raises(UserError, match=r"1-of-3\.h5: a part must be made of the given files"):
            construct_anchors(other, elsewhere.manifest, checkpoint, files, output)
    construct_anchors(
        elsewhere.configuration(compute__inference_batch_size=2, anchors={"every_stage": False}), *inputs, files, output
    )  # which changes no sum
    output.unlink()
    files[1].write_bytes(files[1].read_bytes()[:-100])
    with pytest.raises(UserError, match=r"2-of-3\.h5: the file must be a whole one"):
        construct_anchors(settings, *inputs, files, output)
    assert not output.exists()


def digests_of(labelling: Path) -> tuple[str, ...]:
    """The digests of the evidence and of the labels of both rules."""
    return tuple(read_json(file)["digest"] for file in (labelling.with_name("evidence.json"), *label_files(labelling)))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_number_of_parts_changes_no_evidence_and_no_label(
    mini: Miniature, elsewhere: Miniature, batch: int
) -> None:
    settings = elsewhere.configuration(compute__inference_batch_size=batch)
    found = {digests_of(elsewhere.label(f"{n} parts", settings, mini.weights("warmup"), n)) for n in (1, 2, 3)}
    assert len(found) == 1


def test_how_many_batches_a_shard_holds_changes_no_evidence_and_no_label(
    mini: Miniature, elsewhere: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = elsewhere.configuration(compute__inference_batch_size=1)
    found = set()
    for most, files in ((100, 8), (3, 3), (1, 1)):
        monkeypatch.setattr("caguda.artifacts.maps_metadata.MOST_SHARDS", most)
        labelling = elsewhere.label(f"at most {most}", settings, mini.weights("warmup"), min(files, 2))
        found.add(digests_of(labelling))
        for store in (labelling.with_name("evidence.zarr"), label_files(labelling)[0].with_suffix(".zarr")):
            assert all(
                len(list(folder.glob("c.*.0.0"))) == files for folder in store.iterdir() if folder.name in ARRAYS
            )
    assert len(found) == 1


def test_a_disk_that_is_full_is_told_and_what_was_written_is_kept(
    mini: Miniature, elsewhere: Miniature, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evidence is written in a thread of its own: its error is the verb's, and no JSON says that the part is done."""
    settings = elsewhere.configuration(compute__inference_batch_size=2)
    evidence = elsewhere.evidence("full", settings, mini.weights("warmup"))
    store, digest = evidence.with_suffix(".zarr"), read_json(evidence)["digest"]
    for shard in store.glob("*/c.*.0.0"):
        shard.unlink()
    inputs = (elsewhere.manifest, mini.weights("warmup"), evidence.with_name("anchors.h5"))
    output, write = elsewhere.folder / "part.json", stage.write_shard

    def full(opened: MapStore, number: int, maps: Mapping[str, NDArray[Any]]) -> dict[str, list[str | None]]:
        if number == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(store))
        return write(opened, number, maps)

    monkeypatch.setattr(stage, "write_shard", full)
    with pytest.raises(OSError, match="No space left"):
        write_part(settings, *inputs, store, 1, 1, output)
    assert open_store(store, EVIDENCE).missing() == [4, 5, 6, 7] and not output.exists()
    monkeypatch.setattr(stage, "write_shard", write)
    write_part(settings, *inputs, store, 1, 1, output)
    assert "2 of 4 shards from an earlier call" in capsys.readouterr().out
    assert verify_store(open_store(store, EVIDENCE), evidence_faults)["digest"] == digest


def test_shards_that_are_finished_and_sound_are_kept(
    mini: Miniature, elsewhere: Miniature, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not one of which an array is gone, cut or changed, nor one that no line of a journal tells of."""
    settings = elsewhere.configuration(compute__inference_batch_size=1)
    evidence = elsewhere.evidence("evidence", settings, mini.weights("warmup"))
    store, digest = evidence.with_suffix(".zarr"), read_json(evidence)["digest"]
    (store / "predicted" / "c.2.0.0").unlink()
    cut, changed = store / "margin" / "c.7.0.0", store / "confidence" / "c.4.0.0"
    cut.write_bytes(cut.read_bytes()[:-9])
    changed.write_bytes(changed.read_bytes()[:20] + b"?" + changed.read_bytes()[21:])
    journal = store.with_name("evidence.zarr.1-of-1.journal")
    journal.write_text("".join(line for line in journal.read_text().splitlines(True) if '"shard": 5' not in line))
    written: list[int] = []
    write = stage.write_shard

    def noted(opened: MapStore, number: int, maps: Mapping[str, NDArray[Any]]) -> dict[str, list[str | None]]:
        written.append(number)
        return write(opened, number, maps)

    monkeypatch.setattr(stage, "write_shard", noted)
    inputs = (elsewhere.manifest, mini.weights("warmup"), evidence.with_name("anchors.h5"))
    write_part(settings, *inputs, store, 1, 1, elsewhere.folder / "part.json")
    assert written == [2, 4, 5, 7] and "4 of 8 shards from an earlier call" in capsys.readouterr().out
    assert verify_store(open_store(store, EVIDENCE), evidence_faults)["digest"] == digest
    shutil.copy(mini.weights("pretrain"), elsewhere.folder / "other.safetensors")
    shutil.copy(mini.weights("pretrain").with_suffix(".json"), elsewhere.folder / "other.json")
    other = (elsewhere.manifest, elsewhere.folder / "other.safetensors", inputs[2])
    with pytest.raises(UserError, match="must be of the features of"):
        write_part(settings, *other, store, 1, 1, elsewhere.folder / "part.json")
    assert written[4:] == [], "nothing is written for another network"
