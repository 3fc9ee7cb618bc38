"""Small data sets in the real layouts, and what the check says of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sixteen_bit_png
import yaml
from PIL import Image

from caguda.config import Configuration
from caguda.configfile import parse_configuration
from caguda.errors import UserError
from caguda.merging import merge
from caguda.stages.check import check

PROJECT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CAGUDA_SHARED", PROJECT.parent / "shared"))
HEIGHT, WIDTH = 24, 40
SYNTHIA = {7: 3, 8: 4, 33: 11, 0: 0, 255: 0, 34: 22}
"""Road, sidewalk, bicycle, void, and lane marking in the place of the licence plate."""


def shared(name: str) -> Path:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"genuine frames are absent: {path}; name their folder with CAGUDA_SHARED")
    return path


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def write_label(path: Path, values: Any = (7, 8, 0, 33)) -> None:
    """A label of Cityscapes' ids as the layout has it: grey; 16-bit RGB with SYNTHIA's ids for these; or GTA5's palette.

    The colours of a palette are no label values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = np.resize(np.array(values, dtype=np.uint8), (HEIGHT, WIDTH))
    if "GT" in path.parts:
        return sixteen_bit_png.write(path, np.vectorize(lambda value: SYNTHIA.get(value, value))(raw), green=5)
    image = Image.fromarray(raw)
    if "gtFine" not in path.parts:
        image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(path)


def cityscapes_frame(root: Path, split: str, city: str, number: int) -> tuple[Path, Path]:
    stem = f"{city}_{number:06}_{0:06}"
    image = root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
    label = root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
    write_image(image, number)
    write_label(label)
    return image, label


def make_root(root: Path) -> Path:
    """A GTA5 tree of three frames in `gta`, and a Cityscapes tree in `city` with two frames in each split."""
    for number in range(1, 4):
        write_image(root / "gta" / "images" / f"{number:05}.png", number)
        write_label(root / "gta" / "labels" / f"{number:05}.png")
    for split in ("train", "val"):
        for number, city in enumerate(("ulm", "aachen")):
            cityscapes_frame(root / "city", split, city, number)
    return root


@dataclass(frozen=True)
class Tree:
    """Three frames in one layout, sorted by id; `domain` is the set's section of the YAML."""

    domain: Mapping[str, Any]
    ids: tuple[str, ...]
    images: tuple[Path, ...]
    labels: tuple[Path, ...]


def make_tree(root: Path, layout: str) -> Tree:
    """A set in `root / layout`, whose names have spaces and umlauts where the layout leaves them free."""
    place = root / layout
    domain = {"layout": layout, "root": layout}
    if layout == "cityscapes":
        pairs = [cityscapes_frame(place, "val", *frame) for frame in (("bad ä", 1), ("bad ä", 2), ("ulm", 3))]
        ids = tuple(image.stem.removesuffix("_leftImg8bit") for image, _ in pairs)
        return Tree(domain | {"split": "val"}, ids, tuple(i for i, _ in pairs), tuple(label for _, label in pairs))
    ids = ("größe 1", "größe 2", "größe 3") if layout == "folder" else ("00001", "00002", "00003")
    folders = ("RGB", "GT/LABELS") if layout == "synthia" else ("images", "labels")
    images, labels = (tuple(place / folder / f"{name}.png" for name in ids) for folder in folders)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        write_image(image, number)
        write_label(label)
    return Tree(domain, ids, images, labels)


def configuration(root: Path, **keys: Any) -> Configuration:
    """The demo's experiment with the frames of `make_root`, these keys in place of its own, those of `runs` and `training` above them."""
    values = yaml.safe_load((PROJECT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    del values["street"]
    values["compute"]["parts"] = 1  # so few frames are one batch
    sets = {
        "source": {"layout": "gta5", "root": "gta"},
        "target": {"layout": "cityscapes", "root": "city", "split": "train"},
        "evaluation": {"layout": "cityscapes", "root": "city", "split": "val"},
    }
    merged = {key: merge(values[key], keys[key]) for key in ("runs", "training") if key in keys}
    return parse_configuration(values | sets | {"data_root": str(root)} | keys | merged, Path("test.yaml"))


def problems(root: Path, capsys: pytest.CaptureFixture[str], **keys: Any) -> list[str]:
    """The problems that `check` prints; it must then refuse, and write no manifest."""
    output = root.parent / "manifest.json"
    with pytest.raises(UserError) as caught:
        check(configuration(root, **keys), output)
    assert not output.exists()
    printed = [line.removeprefix("problem: ") for line in capsys.readouterr().out.splitlines() if "problem: " in line]
    assert f"found {len(printed)} problem(s)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert printed[0] in str(caught.value)
    kept = (root.parent / "check" / "findings.txt").read_text(encoding="utf-8")
    assert all(f"problem: {problem}\n" in kept for problem in printed)
    return printed
