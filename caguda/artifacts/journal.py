"""Journals of finished work, from which a killed job goes on: files of JSON lines beside a folder, one for each job."""

import glob
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caguda.errors import UserError
from caguda.files import read_regular


@dataclass(frozen=True)
class Journals:
    """The journals of a folder: `FOLDER.PART.journal` beside it for each part of the work, such as `1-of-2`.

    Each part has its own, as no two jobs may append to one file. A line is a JSON object with three keys: `item_key` has the
    name of a finished item, "key" the SHA-256 of all that decides the item, and `digest_key` that of its files.
    """

    folder: Path
    item_key: str
    digest_key: str

    def path(self, part: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{part}.journal")

    def paths(self) -> list[Path]:
        """The journals of all parts, sorted."""
        return sorted(self.folder.parent.glob(f"{glob.escape(self.folder.name)}.*.journal"))

    def lines(self) -> list[dict[str, Any]]:
        """The lines of all journals; torn and other lines are left out. UserError if a journal is no regular file."""
        texts = [read_regular(path, "move it away").decode("utf-8", errors="replace") for path in self.paths()]
        lines = [_parsed(line) for text in texts for line in text.splitlines()]
        keys = {self.item_key, "key", self.digest_key}
        return [line for line in lines if line.keys() >= keys and isinstance(line[self.item_key], str | int)]

    def finished(self, keys: Mapping[Any, str], current_digest: Callable[[Any], Any]) -> dict[Any, Any]:
        """The digests of the finished items among those of `keys`, in the order of their first lines.

        An item is finished if a line, of any part, has its key in `keys` and its current digest. `current_digest(item)` is
        None where its files are absent or damaged. UserError if a journal is no regular file.
        """
        for path in self.paths():
            refuse_irregular_journal(path)
        recorded: dict[Any, list[Any]] = {}
        for line in self.lines():
            if line["key"] == keys.get(line[self.item_key]):
                recorded.setdefault(line[self.item_key], []).append(line[self.digest_key])
        current = {item: current_digest(item) for item in recorded}
        return {item: digest for item, digest in current.items() if digest is not None and digest in recorded[item]}

    def append(self, part: str, item: Any, key: str, digest: Any) -> None:
        """Appends a line to a part's journal; UserError if something else than a regular file is there."""
        line = json.dumps({self.item_key: item, "key": key, self.digest_key: digest})
        refuse_irregular_journal(self.path(part))
        with self.path(part).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")  # the first break ends a line that a killed writer may have begun


def refuse_irregular_journal(path: Path) -> None:
    """UserError if a link, or anything else that is no regular file, lies at the path of a journal."""
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise UserError(f"{path}: the journal must be a regular file, found something else; move it away")


def _parsed(line: str) -> dict[str, Any]:
    """The JSON object in a line; empty if there is none."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
