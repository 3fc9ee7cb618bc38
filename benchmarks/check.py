"""How many frames a second the check takes, what bounds it, and what a second check of the same files costs.

    python benchmarks/check.py [--frames 480]

Frames of GTA5's size, 1914x1052: eight different ones under many names, which the check opens one by one all the same;
images as benchmarks/loader.py makes them, labels of a palette with some hundred regions. They are in memory when the check
begins, which reads them on all cores. Half a minute.
"""

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import loader
import torch
from evaluation import label_maps
from PIL import Image

from caguda.classes import CITYSCAPES_19
from caguda.datasets.check import check_frames
from caguda.datasets.frame import Frame
from caguda.datasets.io import decode_image, decode_label, to_train_ids

HEIGHT, WIDTH, DIFFERENT = 1052, 1914, 8


def write_tree(folder: Path, count: int) -> list[Frame]:
    """Frames whose files are links to a few different ones."""
    loader.FRAME = (HEIGHT, WIDTH)
    images = loader.write_frames(folder, DIFFERENT)
    label = Image.fromarray(label_maps()["labelIds"]).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    label.putpalette(list(range(256)) * 3)
    label.save(folder / "label.png")
    frames = []
    for number in range(count):
        image, path = folder / f"image {number}.png", folder / f"label {number}.png"
        image.symlink_to(images[number % DIFFERENT])
        path.symlink_to(folder / "label.png")
        frames.append(Frame(str(number), image, path))
    return frames


def milliseconds(run: Callable[[], object]) -> float:
    """The CPU time of a call, the best of five."""
    times = []
    for _ in range(5):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return 1000 * min(times)


def parts(frame: Frame) -> dict[str, float]:
    """What a frame costs one core, by what is done with it."""
    assert frame.label is not None
    path, place = frame.label, frame.image
    image, label = place.read_bytes(), path.read_bytes()
    raw = decode_label(label, path)
    return {
        "decoding the image": milliseconds(lambda: decode_image(image, place)),
        "decoding the label": milliseconds(lambda: decode_label(label, path)),
        "SHA-256 of both files": milliseconds(lambda: (hashlib.sha256(image).digest(), hashlib.sha256(label).digest())),
        "train ids, counted": milliseconds(
            lambda: to_train_ids(raw, CITYSCAPES_19, path).flatten().bincount(minlength=256)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=480)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = write_tree(folder, options.frames)
        print(loader.caption(sorted(folder.glob("0*.png"))))
        for which in ("first", "second"):
            started = time.perf_counter()
            found = check_frames(frames, CITYSCAPES_19, record=folder / "frames.jsonl")
            seconds = time.perf_counter() - started
            assert len(found.entries) == len(frames)
            print(
                f"{which} check: {len(frames)} frames of {WIDTH}x{HEIGHT} in {seconds:.3f} s, {len(frames) / seconds:.0f}/s"
            )
        for part, cost in parts(frames[0]).items():
            print(f"{part}: {cost:.1f} ms of a core")


if __name__ == "__main__":
    main()
