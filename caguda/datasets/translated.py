"""Source frames in the style of the target, translated elsewhere: one image by the id of each source frame. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from caguda.config import Configuration
from caguda.datasets.frame import Frame, shortened
from caguda.datasets.layout import Layout, layout_of
from caguda.datasets.listing import find_images, images_by_id, select_frames
from caguda.datasets.manifest import Entry, Manifest, read_manifest
from caguda.errors import UserError, first

SUFFIXES = (".png", ".jpg", ".jpeg")
"""The suffixes of translated images, in lower case, whatever those of the layout are."""


def find_frames(configuration: Configuration, name: str) -> tuple[dict[str, Path], list[Frame]]:
    """All images of a set by id, and the frames that are selected among them, sorted by id."""
    if name == "translated":
        return _find_translated(configuration)
    domain = configuration.frame_set(name)
    assert domain is not None
    root = configuration.domain_root(domain)
    images = find_images(domain, root)
    return images, select_frames(domain, root, images)


def _find_translated(configuration: Configuration) -> tuple[dict[str, Path], list[Frame]]:
    """The translated images by id, and the frames: all of them but those of source images that `list` or `skip` leave out.

    They lie in the folders that the source's layout has below its root, with the names of the source's images or, with
    another suffix, their stems. UserError if a folder of the source has no counterpart.
    """
    source, domain = configuration.source, configuration.frame_set("translated")
    assert domain is not None
    source_root, root = configuration.domain_root(source).absolute(), configuration.domain_root(domain).absolute()
    of_source = find_images(source, source_root)
    folders = {root / shortened(image.parent, os.path.abspath(source_root)) for image in of_source.values()}
    if missing := sorted(folder for folder in folders if not folder.is_dir()):
        raise UserError(
            f"{missing[0]}: translated images must lie below the key root as those of the source do below its root, found no "
            "such folder; put them there, or correct the key"
        )
    layout = layout_of(source)
    images = images_by_id(domain, root, lambda path: _id_of(path, layout))
    left_out = of_source.keys() - {frame.id for frame in select_frames(source, source_root, of_source)}
    return images, [Frame(name, images[name], None) for name in sorted(images.keys() - left_out)]


def _id_of(path: Path, layout: Layout) -> str | None:
    """The id of the source frame that a translated image is of; None for a file that is no image."""
    if (name := layout.image_id(path)) is not None or path.suffix.lower() not in SUFFIXES:
        return name
    return layout.image_id(path.with_suffix(layout.suffixes[0]))


def translation_problems(source: Sequence[Entry], frames: Sequence[Frame], entries: Sequence[Entry]) -> list[str]:
    """At most one line each: translated frames without a source frame, source frames without one, frames of other sizes.

    `source` are the checked source frames, `entries` those translated `frames` that can be decoded.
    """
    sizes, found, problems = _sizes(source), {frame.id for frame in frames}, []
    if strays := [frame.image for frame in frames if frame.id not in sizes]:
        problems.append(
            f"{first(strays)}: every translated frame must have a source frame of its name, found {len(strays)} of "
            f"{len(frames)} without; remove them, or add the source frames"
        )
    if missing := [entry["image"] for entry in source if entry["id"] not in found]:
        problems.append(
            f"{first(missing)}: every source frame must have a translated frame of its name, found {len(missing)} of "
            f"{len(source)} without; translate them too, or leave them out with the key skip of the source"
        )
    unequal = [entry for entry in entries if _size(entry) != sizes.get(entry["id"], _size(entry))]
    if unequal:
        pairs = [
            f"{entry['image']} {entry['width']}x{entry['height']}, not {width}x{height}"
            for entry in unequal
            for height, width in [sizes[entry["id"]]]
        ]
        problems.append(
            f"{first(pairs)}: every translated frame must have the size of its source frame, found {len(unequal)} of "
            f"{len(frames)} with another; resize them to it"
        )
    return problems


def with_translated(manifest: Manifest, path: Path, configuration: Configuration) -> Manifest:
    """A manifest with the set `translated` of another one; UserError unless that has a frame of equal size for each source frame."""
    translated = read_manifest(path, ["translated"], configuration)
    if list(_sizes(translated.entries("translated")).items()) != list(_sizes(manifest.entries("source")).items()):
        raise UserError(
            f"{path}: the translated frames must be of the manifest's source frames, found those of others; make it again with "
            "`check-translated`"
        )
    return replace(manifest, sets={**manifest.sets, **translated.sets}, roots={**manifest.roots, **translated.roots})


def _sizes(entries: Sequence[Entry]) -> Mapping[str, tuple[int, int]]:
    """The size (H, W) of each frame by its id."""
    return {entry["id"]: _size(entry) for entry in entries}


def _size(entry: Entry) -> tuple[int, int]:
    return entry["height"], entry["width"]
