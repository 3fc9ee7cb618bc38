"""The packed cache as a file: what was written is read, in part or whole, and damage is found."""

import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from jaxtyping import UInt8

from caguda.artifacts.hdf5 import digest_of
from caguda.artifacts.packed import Decoded, PackedFrames, check_packed, open_packed, write_packed
from caguda.classes import IGNORE
from caguda.errors import UserError

SIZES = [(150, 20), (130, 21), (150, 20), (9, 8)]
IDS = ["a", "bö", "ccc", "d"]
ATTRIBUTES = {"categories": ["road", "sky"], "domain": "source", "provenance": {"made_by": "pack"}}


def decoded(seed: int = 0) -> list[tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]]:
    """Frames of noise, with labels of two categories and some pixels ignored."""
    random = np.random.default_rng(seed)
    return [
        (random.integers(0, 256, (*size, 3), dtype=np.uint8),
         random.choice([0, 1, IGNORE], size).astype(np.uint8))
        for size in SIZES
    ]  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "source.h5"
    write_packed(path, IDS, SIZES, decoded(), lambda: ATTRIBUTES, labelled=True)
    return path


def whole(frames: PackedFrames) -> list[np.ndarray]:
    """Everything in a file."""
    pixels = [read(index) for read in (frames.image, frames.label) for index in range(len(frames.ids))]
    return [values[..., slice(0, values.shape[-2]), slice(0, values.shape[-1])].numpy() for values in pixels]


def test_frames_of_all_sizes_come_back_as_they_were(packed: Path) -> None:
    frames = open_packed(packed)
    assert frames.ids == tuple(IDS) and frames.sizes == tuple(SIZES) and frames.labelled
    assert frames.attributes == ATTRIBUTES
    assert [frames.image(i).shape for i in range(4)] == [(3, *size) for size in SIZES]
    assert [frames.label(i).shape for i in range(4)] == SIZES
    images, labels = zip(*decoded(), strict=True)
    for found, written in zip(whole(frames), [*(image.transpose(2, 0, 1) for image in images), *labels], strict=True):
        assert np.array_equal(found, written)
    assert check_packed(packed) == {"frames": 4, "bytes": sum(4 * h * w for h, w in SIZES)}


@pytest.mark.parametrize("rows", [slice(0, 1), slice(100, 150), slice(127, 129), slice(128, 129)])
@pytest.mark.parametrize("columns", [slice(0, 20), slice(3, 17), slice(19, 20)])
def test_a_part_is_that_part(packed: Path, rows: slice, columns: slice) -> None:
    frames, (image, label) = open_packed(packed), decoded()[2]
    found = frames.image(2)[..., rows, columns]
    assert found.dtype == torch.uint8 and np.array_equal(found, image[rows, columns].transpose(2, 0, 1))
    assert np.array_equal(frames.label(2)[..., rows, columns], label[rows, columns])


def test_a_reader_of_another_language_finds_what_the_description_says(packed: Path) -> None:
    with h5py.File(packed, "r") as file:
        assert sorted(file) == sorted(
            ["130x21", "150x20", "9x8", "id", "height", "width", "row"]
            + [f"{kind}_{digest}" for kind in ("image", "label") for digest in ("sha256", "crc32")]
        )
        assert file["150x20/image"].shape == (2, 150, 20, 3) and file["150x20/image"].chunks == (1, 128, 20, 3)
        assert file["150x20/label"].shape == (2, 150, 20) and file["150x20/label"].chunks == (1, 128, 20)
        assert file["9x8/image"].chunks == (1, 9, 8, 3) and file["9x8/image"].dtype == np.uint8
        rows = file["150x20/label"][1]
        assert file["label_crc32"][:].tolist()[2] == [
            zlib.crc32(rows[:128].tobytes()),
            zlib.crc32(rows[128:].tobytes()),
        ]
        assert file["label_crc32"].dtype == "<u4" and file["label_crc32"][3, 1] == 0
        assert file["row"][:].tolist() == [0, 0, 1, 0] and file["row"].dtype == "<i4"
        assert file["id"][:].tolist() == [name.encode() for name in IDS]
        assert file["image_sha256"].shape == (4, 32)
        assert file.attrs["format"] == b"caguda-packed" and file.attrs["format_version"] == b"3"
        names = ("id", "height", "width", "row", "image_sha256", "label_sha256", "image_crc32", "label_crc32")
        texts = {name: bytes(file.attrs[name]).decode() for name in ATTRIBUTES}
        assert bytes(file.attrs["sha256"]).decode() == digest_of({name: file[name][:] for name in names}, texts)


def test_a_set_without_labels_has_none(tmp_path: Path) -> None:
    path = tmp_path / "target.h5"
    write_packed(path, IDS, SIZES, [(image, None) for image, _ in decoded()], lambda: ATTRIBUTES, labelled=False)
    assert not open_packed(path).labelled
    assert check_packed(path)["bytes"] == sum(3 * h * w for h, w in SIZES)


def test_every_flipped_bit_is_found_or_means_nothing(packed: Path, tmp_path: Path) -> None:
    path, content = tmp_path / "flipped.h5", bytearray(packed.read_bytes())
    expected, refused = whole(open_packed(packed)), 0
    random = np.random.default_rng(0)
    positions = [*range(0, 400, 7), *random.integers(0, len(content), 150).tolist()]
    for position in positions:
        content[position] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        content[:] = packed.read_bytes()
        try:
            check_packed(path)
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            continue
        with closing(open_packed(path)) as frames:
            assert frames.ids == tuple(IDS) and frames.attributes == ATTRIBUTES
            assert all(np.array_equal(a, b) for a, b in zip(expected, whole(frames), strict=True)), position
    assert refused > len(positions) / 3, "the last rows of chunks, which belong to no frame, are 4 of 10"


def test_a_flipped_bit_in_any_pixels_is_found_and_its_frame_named(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "flipped.h5"
    with h5py.File(packed, "r") as file:
        chunks = [
            (kind, IDS[index], file[f"{size[0]}x{size[1]}/{kind}"].id.get_chunk_info_by_coord(
                (row, top, *([0] if kind == "label" else [0, 0]))))
            for kind in ("image", "label")
            for index, (size, row) in enumerate(zip(SIZES, [0, 0, 1, 0], strict=True))
            for top in range(0, size[0], 128)
        ]  # fmt: skip
    assert len(chunks) == 2 * 7
    for kind, name, chunk in chunks:
        content = bytearray(packed.read_bytes())
        content[chunk.byte_offset + 5] ^= 4
        path.write_bytes(content)
        frames, index = open_packed(path), IDS.index(name)
        with pytest.raises(UserError, match=f"frame {name}: "):
            frames.read(kind, index, slice(0, SIZES[index][0]), slice(0, 2))
        frames.close()
        with pytest.raises(UserError, match=f"frame {name}: "):
            check_packed(path)


def test_a_zeroed_block_is_found_in_white_and_in_void_too(tmp_path: Path) -> None:
    """A sum of words modulo 2^16 - 1, as HDF5's own checksum is, does not tell 0xffff from 0, nor a whole chunk of zeros."""
    path, size = tmp_path / "white.h5", (130, 20)
    white = [(np.full((*size, 3), 255, np.uint8), np.full(size, IGNORE, np.uint8))]
    write_packed(path, ["a"], [size], white, lambda: ATTRIBUTES, labelled=True)
    content = path.read_bytes()
    for kind, whole_chunk in (("image", 128 * 60), ("label", 128 * 20)):
        with h5py.File(path, "r") as file:
            corner = (0, 0, 0) if kind == "label" else (0, 0, 0, 0)
            start = file[f"130x20/{kind}"].id.get_chunk_info_by_coord(corner).byte_offset
        for length in (2, 512, whole_chunk):
            path.write_bytes(content[:start] + bytes(length) + content[start + length :])
            with closing(open_packed(path)) as frames, pytest.raises(UserError, match=f"frame a: {kind} pixels"):
                frames.read("image" if kind == "image" else "label", 0, slice(100, 129), slice(3, 9))
        path.write_bytes(content)


@pytest.mark.parametrize("length", [0, 100, 5000, -1])
def test_a_truncated_file_is_refused(packed: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "short.h5"
    path.write_bytes(packed.read_bytes()[:length])
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: the packed cache must be whole"):
        check_packed(path)


def test_what_is_no_packed_cache_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no file; make it with `pack`"):
        open_packed(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = np.bytes_("caguda-anchors")
    with pytest.raises(UserError, match="must be caguda-packed 3, found caguda-anchors None"):
        open_packed(tmp_path / "other.h5")


def test_a_writer_that_fails_leaves_what_was_there(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "source.h5"
    shutil.copy(packed, path)

    def some() -> Iterator[Decoded]:
        yield from decoded(1)[:2]
        raise UserError("a damaged file")

    with pytest.raises(UserError, match="a damaged file"):
        write_packed(path, IDS, SIZES, some(), lambda: ATTRIBUTES, labelled=True)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == packed.read_bytes()


def test_nothing_is_published_that_does_not_pass_its_check(tmp_path: Path) -> None:
    frames = decoded()
    frames[1][1][7, 7] = 2
    with pytest.raises(UserError, match="frame bö: a label that is no category"):
        write_packed(tmp_path / "source.h5", IDS, SIZES, frames, lambda: ATTRIBUTES, labelled=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_went_away_is_one_line(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "source.h5"
    shutil.copy(packed, path)
    frames = open_packed(path)
    path.unlink()
    with pytest.raises(UserError, match=r"source\.h5: the packed cache must be whole, found frame a: "):
        frames.image(0)[..., slice(0, 1), slice(0, 1)]
