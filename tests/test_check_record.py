"""A second check believes what an earlier one has found of a file that is as it was, and nothing else."""

import json
import os
from pathlib import Path

import pytest
from frame_trees import make_root

from caguda.classes import CITYSCAPES_19
from caguda.config_frames import Domain
from caguda.datasets.check import check_frames
from caguda.datasets.listing import list_frames
from caguda.datasets.record import read_record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "data") / "gta"


def digests(root: Path) -> dict[str, str]:
    """The digest of each image by a check that keeps its record."""
    found = check_frames(list_frames(Domain(layout="gta5"), root), CITYSCAPES_19, record=root / "frames.jsonl")
    return {entry["id"]: entry["image_sha256"] for entry in found.entries}


def test_a_change_in_place_under_the_old_size_and_time_is_noticed(root: Path) -> None:
    path = root / "images/00002.png"
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    before, status = digests(root), path.stat()
    path.write_bytes(content + b"\1")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = digests(root)
    assert after["00002"] != before["00002"] and after["00001"] == before["00001"]


def changed(line: str) -> str:
    """A line of the record that calls another content sound."""
    content = json.loads(line)
    content[1]["image_sha256"] = "0" * 64
    return json.dumps(content, ensure_ascii=False)


@pytest.mark.parametrize(
    "edit",
    [changed, lambda line: line.replace(': "', ': "1', 1), lambda line: line[:-19] + "]", lambda line: line[:-1]],
)
def test_a_line_that_was_edited_is_not_believed(root: Path, edit: object) -> None:
    before, record = digests(root), root / "frames.jsonl"
    assert len(read_record(record)) == 3
    lines = record.read_text(encoding="utf-8").splitlines()
    record.write_text("\n".join([edit(line) if "00002.png" in line else line for line in lines]), encoding="utf-8")  # type: ignore[operator]
    assert len(read_record(record)) == 2
    assert digests(root) == before
    assert len(read_record(record)) == 3
