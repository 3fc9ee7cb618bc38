"""The number and size of the frames of each set: counted where they exist, otherwise as published."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from caguda.config import Configuration
from caguda.config_frames import Domain
from caguda.datasets.header import read_header
from caguda.datasets.layout import layout_of
from caguda.datasets.listing import list_frames
from caguda.datasets.manifest import SetName, read_manifest
from caguda.errors import UserError
from caguda.files import read_regular

Size = tuple[int, int]


@dataclass(frozen=True)
class FrameSet:
    """The frames of a set: their number, their most frequent size (H, W), and the pixels of all; None if unknown.

    `origin` says in words where the numbers come from.
    """

    count: int | None
    size: Size | None
    pixels: int | None
    origin: str

    @property
    def is_known(self) -> bool:
        return self.count is not None and self.size is not None


def frame_sets(configuration: Configuration, results: Path) -> dict[SetName, FrameSet]:
    """The frames of each set of an experiment; `results` is the folder of its results, which may be absent."""
    names: list[SetName] = ["source", "target", "evaluation"]
    manifests = dict.fromkeys(names, results / "manifest.json")
    if configuration.test is not None:
        manifests["test"] = results / "manifest.test.json"
    return {name: _frames_of(configuration, name, manifest) for name, manifest in manifests.items()}


def _frames_of(configuration: Configuration, name: SetName, manifest: Path) -> FrameSet:
    """The frames by the manifest, by the key `street`, by the folder, or as published: the first of these that is there."""
    domain: Domain = getattr(configuration, name)
    if (checked := _by_manifest(configuration, name, manifest)) is not None:
        return checked
    if (street := configuration.street) is not None and name != "test":
        count, size = int(getattr(street, f"{name}_frames")), (street.height, street.width)
        return FrameSet(count, size, count * size[0] * size[1], "by the key street")
    folder = configuration.domain_root(domain)
    if not folder.is_dir():
        return _published(domain, f"there is no folder {folder}")
    try:
        return _counted(domain, folder)
    except UserError as error:
        return _published(domain, str(error))


def _by_manifest(configuration: Configuration, name: SetName, path: Path) -> FrameSet | None:
    """The frames that a manifest lists; None without one, or for one of other settings, which will be made again."""
    if not os.path.lexists(path):
        return None
    try:
        entries = read_manifest(path, [name], configuration).entries(name)
    except UserError:
        return None
    sizes = Counter((entry["height"], entry["width"]) for entry in entries)
    pixels = sum(height * width * count for (height, width), count in sizes.items())
    others = "" if len(sizes) == 1 else f" and {len(sizes) - 1} other sizes"
    return FrameSet(len(entries), sizes.most_common(1)[0][0], pixels, f"counted in {path}{others}")


def _counted(domain: Domain, folder: Path) -> FrameSet:
    """The frames in a folder, all taken to have the size of the first."""
    frames = list_frames(domain, folder)
    header = read_header(read_regular(frames[0].image, "correct the folder"), frames[0].image, "image")
    pixels = len(frames) * header.height * header.width
    origin = f"counted in {folder}, all with the size of {frames[0].image.name}"
    return FrameSet(len(frames), (header.height, header.width), pixels, origin)


def _published(domain: Domain, reason: str) -> FrameSet:
    """The published frames of a layout without those of `skip`; a `list` selects an unknown number."""
    layout = layout_of(domain)
    published, size = layout.published(domain), layout.published_size
    if published is None or domain.list is not None:
        return FrameSet(None, size, None, reason)
    count = published - len(domain.skip)
    if size is None:
        return FrameSet(count, None, None, f"as published for {domain.layout}, of unknown size, {reason}")
    return FrameSet(count, size, count * size[0] * size[1], f"as published for {domain.layout}, {reason}")
