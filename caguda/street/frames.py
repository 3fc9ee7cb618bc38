"""Rendering of frames, and writing them as files in the layouts of GTA5 and Cityscapes.

A pinhole camera stands on a street; sky, ground, facades and objects are painted from far to near at twice the frame's
size. `scene` samples the street, `backdrop`, `traffic` and `objects` paint it, `photo` turns the painting into a photograph.
`domain` has the differences of the domains: `street.strength` moves Layout and Palette from source to target, and
`street.photo` moves Photo.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.ownership import MADE_BY, refuse_foreign
from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.config_frames import Street
from caguda.datasets.workers import workers
from caguda.street.backdrop import paint_facades, paint_ground, paint_sky
from caguda.street.camera import Air, Canvas
from caguda.street.domain import (
    SOURCE_LAYOUT,
    SOURCE_PALETTE,
    SOURCE_PHOTO,
    TARGET_LAYOUT,
    TARGET_PALETTE,
    TARGET_PHOTO,
    Layout,
    Palette,
    Photo,
    mix,
)
from caguda.street.photo import add_texture, expose, reduce_canvas
from caguda.street.scene import sample_scene
from caguda.street.traffic import paint_item, paint_shadows, paint_skyline, paint_yards, sample_items

SPLITS = ("source", "train", "val")  # train and val are the target domain
CITIES = {"train": ("ahlfeld", "brunnstadt", "corvingen"), "val": ("dornbach",)}
Job = tuple[Path, Path, Street, str, int]
"""A frame to be written: paths of its image and its label, settings, split, index."""


def domain(street: Street, split: str) -> tuple[Layout, Palette, Photo]:
    """The geometry, the appearance and the photographic effects of a split's domain."""
    strength, photo = (0.0, 0.0) if split == "source" else (street.strength, street.photo)
    return (
        mix(SOURCE_LAYOUT, TARGET_LAYOUT, strength),
        mix(SOURCE_PALETTE, TARGET_PALETTE, strength),
        mix(SOURCE_PHOTO, TARGET_PHOTO, photo),
    )


def render(street: Street, split: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image (H, W, 3) and raw Cityscapes ids (H, W) of one frame.

    They depend on (street.seed, split, index) and the settings alone. `split` is source, train or val; index from 0.
    """
    rng = np.random.default_rng([street.seed, SPLITS.index(split), index])
    layout, palette, photo = domain(street, split)
    frame = (street.height, street.width)
    shape = (2 * street.height, 2 * street.width)
    air = Air(photo.air[0], photo.haze * float(rng.uniform(0.6, 1.4)))
    scene = sample_scene(rng, layout, palette, air, shape)
    pixels = np.zeros(shape, dtype=np.uint32)
    paint_sky(pixels, scene, rng)
    paint_ground(pixels, scene)
    canvas = Canvas(pixels.view(np.uint8).reshape(*shape, 4), scene.camera, air)
    paint_skyline(canvas, scene, rng)
    paint_yards(canvas, scene, rng)
    pixels = np.array(canvas.image).view(np.uint32)[..., 0]
    for side in scene.sides:
        paint_facades(pixels, scene, side)
    canvas = Canvas(pixels.view(np.uint8).reshape(*shape, 4), scene.camera, air)
    items = sample_items(scene, rng)
    for item in items:
        paint_item(canvas, scene, item, rng)
    image, labels = reduce_canvas(canvas.image)
    colours = np.array(image, dtype=np.float32)
    add_texture(colours, labels, paint_shadows(scene, items, frame), scene.camera, rng)
    return expose(colours, photo, rng), labels.copy()


def frame_paths(root: Path, split: str, index: int) -> tuple[Path, Path]:
    """The paths of the image and the label of frame `index` (from 0): in GTA5's layout for the source, else Cityscapes'."""
    if split == "source":
        name = f"{index + 1:05}.png"
        return root / "source" / "images" / name, root / "source" / "labels" / name
    cities = CITIES[split]
    city = cities[index % len(cities)]
    stem = f"{city}_{index // len(cities):06}_{19:06}"
    target = root / "target"
    return (
        target / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png",
        target / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png",
    )


def palette_of_ids() -> list[int]:
    """The palette of the source labels, 256 x 3 values: the RGB colour of every raw id, black for void."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for raw, train in CITYSCAPES_19.train_id.items():
        if train != IGNORE:
            table[raw] = CITYSCAPES_19.colors[train]
    return [int(value) for value in table.ravel()]


def write_frame(job: Job) -> None:
    """Renders one frame and writes its two files, marked as made by caguda; UserError if another file has their place."""
    image_path, label_path, street, split, index = job
    image, ids = render(street, split, index)
    label, mark = Image.fromarray(ids), PngInfo()
    mark.add_text("Software", MADE_BY)
    if split == "source":
        label.putpalette(palette_of_ids())
    for path, content in ((image_path, Image.fromarray(image)), (label_path, label)):
        with write_atomically(path) as part:
            content.save(part, format="PNG", compress_level=1, pnginfo=mark)


def jobs(root: Path, street: Street) -> Iterator[Job]:
    """The job of every frame."""
    counts = (street.source_frames, street.target_frames, street.evaluation_frames)
    for split, count in zip(SPLITS, counts, strict=True):
        for index in range(count):
            yield *frame_paths(root, split, index), street, split, index


def write_street(root: Path, street: Street) -> None:
    """Writes root/source (GTA5 layout, palette labels) and root/target (Cityscapes layout, train and val).

    Uses every core that this process may use. A second run overwrites every file with the same bytes. UserError, before
    anything is written, if a file that caguda did not make has the name of a frame.
    """
    frame_jobs = list(jobs(root, street))
    paths = [path for job in frame_jobs for path in job[:2]]
    refuse_foreign(*paths)
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    total, terminal = len(frame_jobs), sys.stderr.isatty()
    with workers(total, [__name__], "generate") as pool:
        written = pool.map(write_frame, frame_jobs, chunksize=min(16, -(-total // 64)))
        for count, _ in enumerate(tqdm(written, total=total, unit="frame", disable=not terminal), start=1):
            if not terminal and (count == total or count % 500 == 0):
                print(f"street: {count} of {total} frames", file=sys.stderr, flush=True)
