"""Atomic files, provenance, checkpoints and anchors: whole or absent, and damage is one line, never a traceback."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caguda.artifacts.anchors import Anchors, load_anchors, save_anchors
from caguda.artifacts.atomic import read_json, write_atomically, write_json
from caguda.artifacts.checkpoint import load_checkpoint, save_checkpoint
from caguda.artifacts.provenance import json_digest, new_provenance
from caguda.errors import UserError
from caguda.files import sha256
from caguda.version import METHOD_VERSION

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def one_line(error: pytest.ExceptionInfo[UserError], path: Path) -> bool:
    message = str(error.value)
    return str(path) in message and "\n" not in message


# --- atomic files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_json(path, {"is": "old"})

    def write_and_fail() -> None:
        with write_atomically(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert read_json(path) == {"is": "old"} and list(path.parent.iterdir()) == [path]


def test_a_killed_write_leaves_the_old_file_and_a_part_that_the_next_one_removes(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"is": "old"})
    code = (
        "import os, sys; from pathlib import Path; from caguda.artifacts.atomic import write_atomically\n"
        "with write_atomically(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_json(path) == {"is": "old"} and len(list(tmp_path.glob("file.json.*.partial"))) == 1
    others = [tmp_path / "file.json.json.01234567.partial", tmp_path / "file.json.my-notes.partial"]
    for other in others:
        other.touch()
    write_json(path, {"is": "new"})
    assert read_json(path) == {"is": "new"}
    assert sorted(tmp_path.iterdir()) == sorted([path, *others]), "of another file, or of somebody else"


def test_a_library_that_fails_for_want_of_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        with write_atomically(tmp_path / "file"):
            raise RuntimeError("unexpected pos 704 vs 598")

    with pytest.raises(RuntimeError, match="unexpected pos"):
        fail()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"No space left on device: .*file"):
        fail()
    assert list(tmp_path.iterdir()) == []


@given(content=st.dictionaries(st.text(), JSON_VALUES, max_size=4))
@settings(max_examples=25, deadline=None)
def test_json_comes_back_as_it_was(content: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("json") / "content.json"
    write_json(path, content)
    assert read_json(path) == content


def test_json_refuses_what_json_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "", "{", "[1]", b"\xff"])
def test_unreadable_json_is_a_user_error(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read_json(path)
    assert one_line(error, path)


# --- provenance


def test_the_digest_of_json_does_not_depend_on_the_order_of_keys() -> None:
    assert json_digest({"a": 1, "b": {"c": 2, "d": 3}}) == json_digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert json_digest({"a": 1}) != json_digest({"a": 2})


def test_provenance_says_what_made_an_artifact(tmp_path: Path) -> None:
    made = tmp_path / "input"
    made.write_bytes(b"abc")
    found = new_provenance("anchors", {"p0": 0.95}, [made], 3, time.time() - 2, made)
    assert found["inputs"][str(made)]["sha256"].startswith("ba7816bf8f01cfea")
    assert (found["made_by"], found["seed"], found["method_version"]) == ("anchors", 3, METHOD_VERSION)
    assert found["configuration"] == json_digest({"p0": 0.95}) and found["seconds"] >= 2
    assert found["libraries"]["torch"].startswith("2.") and json.dumps(found)
    with pytest.raises(UserError, match="make it first"):
        new_provenance("anchors", {}, [tmp_path / "absent"], None, time.time(), tmp_path / "a")


@pytest.mark.parametrize("module", ["labels", "anchors", "provenance", "atomic"])
def test_these_modules_do_without_torch(module: str) -> None:
    code = f"import sys, caguda.artifacts.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- checkpoints

WEIGHTS = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.tensor(7), "c": torch.ones(3).expand(2, 3)}
DESCRIPTION = {"architecture": {"width": 8}, "classes": ["road"], "metrics": {}, "provenance": {"seed": 0}}


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "checkpoint.safetensors"
    tied = WEIGHTS | {"d": WEIGHTS["b"]}
    save_checkpoint(path, tied, DESCRIPTION)
    weights, description = load_checkpoint(path)
    assert weights.keys() == tied.keys() and all(torch.equal(weights[name], tied[name]) for name in tied)
    assert DESCRIPTION.items() <= description.items() and description["weights_sha256"] == sha256(path)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["checkpoint.json", "checkpoint.safetensors"]
    assert path.stat().st_mode == path.with_suffix(".json").stat().st_mode


def test_what_a_killed_writer_left_of_both_files_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    for name in ("checkpoint.safetensors", "checkpoint.json"):
        (tmp_path / f"{name}.01234567.partial").touch()
    save_checkpoint(path, WEIGHTS, DESCRIPTION)
    assert sorted(tmp_path.iterdir()) == [path.with_suffix(".json"), path]


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_checkpoint(first, WEIGHTS, DESCRIPTION)
    save_checkpoint(second, dict(reversed(WEIGHTS.items())), DESCRIPTION | {"metrics": {"seconds": 1.5}})
    assert first.read_bytes() == second.read_bytes()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit, Path.unlink])
def test_damaged_weights_are_a_user_error(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, WEIGHTS, DESCRIPTION)
    assert callable(damage)
    damage(path)
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    assert one_line(error, path)


@pytest.mark.parametrize("content", [None, "{", "{}", '{"format": "caguda-checkpoint", "format_version": 2}'])
def test_a_checkpoint_without_a_sound_description_is_a_user_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, WEIGHTS, DESCRIPTION)
    side = path.with_suffix(".json")
    side.unlink()
    if content is not None:
        side.write_text(content)
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    assert one_line(error, side)


def test_weights_that_are_no_safetensors_are_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, WEIGHTS, DESCRIPTION)
    path.write_bytes(b"not weights")
    write_json(path.with_suffix(".json"), read_json(path.with_suffix(".json")) | {"weights_sha256": sha256(path)})
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    assert one_line(error, path)


# --- anchors


def some_anchors(absent: tuple[int, ...] = (1,), c: int = 4, d: int = 3) -> Anchors:
    vectors = np.random.default_rng(0).normal(size=(c, d)).astype(np.float32)
    vectors[list(absent)] = np.nan
    count = np.arange(1, c + 1, dtype=np.int64) * 10**9
    count[list(absent)] = 0
    pairwise = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1).astype(np.float32)
    return Anchors(vectors, count, np.where(count > 0, 0.5, np.nan).astype(np.float32), pairwise)


ATTRIBUTES = {"categories": ["road", "sidewalk", "Gebäude", "wall"], "provenance": {"seed": 0, "long": "x" * 70_000}}


def test_anchors_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "anchors.h5"
    anchors = some_anchors()
    save_anchors(path, anchors, ATTRIBUTES)
    loaded, attributes = load_anchors(path)
    assert attributes == ATTRIBUTES and loaded.present.tolist() == [True, False, True, True]
    for name in ("vectors", "pixel_count", "spread", "pairwise"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(anchors, name), strict=True)
    with h5py.File(path) as file:
        assert json.loads(bytes(file.attrs["categories"])) == ATTRIBUTES["categories"]
        assert file["anchors"].dtype == np.float32 and file["pixel_count"].dtype == np.int64


def test_the_digest_of_anchors_is_the_documented_one(tmp_path: Path) -> None:
    path = tmp_path / "anchors.h5"
    save_anchors(path, some_anchors(), ATTRIBUTES)
    digest = hashlib.sha256()
    with h5py.File(path) as file:
        for name, kind in (("anchors", "<f4"), ("pixel_count", "<i8"), ("spread", "<f4"), ("pairwise", "<f4")):
            digest.update(f"{name} {kind} {file[name].shape}\n".encode() + file[name][()].tobytes())
        for name in ("categories", "provenance"):
            digest.update(name.encode() + b"\0" + bytes(file.attrs[name]) + b"\0")
        assert bytes(file.attrs["sha256"]).decode() == digest.hexdigest()


def test_the_mean_distance_is_over_pairs_of_present_categories() -> None:
    anchors = some_anchors()
    pairs = [(0, 2), (0, 3), (2, 3)]
    expected = np.mean([np.linalg.norm(anchors.vectors[i] - anchors.vectors[j]) for i, j in pairs])
    assert anchors.mean_distance == pytest.approx(expected, rel=1e-6)
    assert np.isnan(some_anchors(absent=(0, 1, 3)).mean_distance)


def test_anchors_that_cannot_be_are_refused(tmp_path: Path) -> None:
    good = some_anchors()
    zeros = np.nan_to_num(good.vectors)
    with pytest.raises(UserError, match="finite where its category has pixels"):
        save_anchors(tmp_path / "a.h5", Anchors(zeros, good.pixel_count, good.spread, good.pairwise), {})
    with pytest.raises(UserError, match="must be <f4"):
        save_anchors(tmp_path / "a.h5", Anchors(good.vectors, good.pixel_count, good.spread[1:], good.pairwise), {})
    assert list(tmp_path.iterdir()) == []


def test_damaged_anchors_are_a_user_error_wherever_the_damage_is(tmp_path: Path) -> None:
    path = tmp_path / "anchors.h5"
    anchors = some_anchors()
    save_anchors(path, anchors, {"categories": ["road"]})
    content = path.read_bytes()
    unharmed = 0
    for position in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        try:
            loaded, attributes = load_anchors(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # a byte that means nothing
            unharmed += 1
            np.testing.assert_array_equal(loaded.vectors, anchors.vectors)
            np.testing.assert_array_equal(loaded.pairwise, anchors.pairwise)
            assert attributes == {"categories": ["road"]}
    assert unharmed < len(content) / 3
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError) as refused:
            load_anchors(path)
        assert one_line(refused, path)
    path.unlink()
    with pytest.raises(UserError, match="make it first"):
        load_anchors(path)


def test_an_hdf5_file_of_another_kind_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "anchors.h5"
    with h5py.File(path, "w") as file:
        file["anchors"] = np.zeros((2, 2))
    with pytest.raises(UserError) as error:
        load_anchors(path)
    assert one_line(error, path) and os.fspath(path) in str(error.value)
