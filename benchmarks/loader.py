"""How many crops a second the loader gives: from image files, by decoder, and from the packed cache.

    python benchmarks/loader.py [--data FOLDER] [--frames 8] [--crops 24] [--repeats 3]

Prints tables in Markdown: crops of 640x1280 from frames of 2048x1024, images alone. The frames are noise on soft
shapes, which fills as much of a PNG as a frame of Cityscapes does, made in a temporary folder; or PNG files below
FOLDER. Every number is a median; the repetitions of all rows take turns. A loader that gives the same tensor again and
again shows what is left when nothing is read. The last line says when the cache pays. A minute or two.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from caguda.artifacts.packed import open_packed, write_packed
from caguda.config_frames import Augmentation
from caguda.datasets.frame import Frame
from caguda.datasets.io import read_image
from caguda.datasets.loader import TrainingFrames, training_batches
from caguda.datasets.transforms import Pixels

FRAME, CROP = (1024, 2048), (640, 1280)
CROPPED = Augmentation(crop=CROP)
RESIZED = Augmentation(flip=True, scale=(1.0, 1.5), crop=CROP)
WORKERS = (1, 2, 4)
BASE = "PNG, torchvision"
Source = Callable[[int], Pixels]
Rates = dict[tuple[str, str, int], float]


def write_frames(folder: Path, count: int) -> list[Path]:
    """PNG files like those of a camera: soft shapes and the noise of a sensor."""
    paths = []
    for number in range(count):
        random = np.random.default_rng(number)
        shapes = Image.fromarray(random.integers(0, 256, (16, 32, 3), dtype=np.uint8)).resize(FRAME[::-1])
        noisy = np.asarray(shapes, dtype=np.float32) + random.normal(0, 1.0, (*FRAME, 3)).astype(np.float32)
        paths.append(folder / f"{number:02}.png")
        Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def by_pillow(path: Path) -> Tensor:
    """An image as Pillow decodes it."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)


def decoded(decode: Callable[[Path], Tensor], paths: Sequence[Path], index: int) -> Tensor:
    """The frame of this index from its file."""
    return decode(paths[index])


def unread(frame: Tensor, _index: int) -> Tensor:
    """The same frame for every index."""
    return frame


def pack(paths: Sequence[Path], output: Path) -> float:
    """Seconds of CPU a frame, in one process: decoded, hashed, written, read back and checked."""
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in map(read_image, paths)]
    started = time.process_time()
    frames = ((read_image(path).movedim(0, -1).numpy(), None) for path in paths)
    write_packed(output, [path.stem for path in paths], sizes, frames, lambda: {"categories": []}, labelled=False)
    return (time.process_time() - started) / len(paths)


def sources(paths: Sequence[Path], packed: Path) -> dict[str, Source]:
    """The ways to get at the pixels of a frame, by name; they can be sent to the loader's processes."""
    return {
        "PNG, Pillow": partial(decoded, by_pillow, paths),
        BASE: partial(decoded, read_image, paths),
        "packed cache": open_packed(packed).image,
        "nothing read": partial(unread, torch.zeros(3, *FRAME, dtype=torch.uint8)),
    }


def crops_per_second(frames: TrainingFrames, workers: int, crops: int) -> float:
    """The rate at which single crops arrive while all workers are busy: neither the first nor the last ones count.

    Without workers, the crops in a second of the processor's time, which a busy machine does not change much.
    """
    clock = time.perf_counter if workers else time.process_time
    ahead = 2 * workers + 1
    batches: Iterator[object] = iter(training_batches(frames, 1, 0, crops + 2 * ahead, workers))
    for _ in islice(batches, ahead):
        pass
    started = clock()
    for _ in islice(batches, crops):
        pass
    return crops / (clock() - started)


def measure(paths: Sequence[Path], folder: Path, crops: int, repeats: int) -> tuple[Rates, float]:
    """The median rate by way, kind of crop and number of workers, and the median of `pack`.

    0 workers is the trainer itself.
    """
    pack(paths, folder / "packed.h5")
    ways, seconds = sources(paths, folder / "packed.h5"), []
    frames = [Frame(path.stem, path, None) for path in paths]
    cells = [(name, "crop", workers) for name in ways for workers in WORKERS]
    cells += [(name, kind, 0) for name in ways for kind in ("crop", "resized crop")]
    found: dict[tuple[str, str, int], list[float]] = {cell: [] for cell in cells}
    for seed in range(repeats):
        seconds.append(pack(paths, folder / "again.h5"))
        for name, kind, workers in cells:
            augmentation = CROPPED if kind == "crop" else RESIZED
            data = TrainingFrames(frames, None, augmentation, seed, "benchmark", ways[name])
            count = crops if name.startswith("PNG") else 10 * crops
            found[name, kind, workers].append(crops_per_second(data, workers, count))
    return {cell: statistics.median(values) for cell, values in found.items()}, statistics.median(seconds)


def caption(paths: Sequence[Path]) -> str:
    """The machine, how busy it is, and the files."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    size = statistics.mean(path.stat().st_size for path in paths) / 2**20
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}; load before: "
        f"{os.getloadavg()[0]:.1f}; {len(paths)} PNG files of {size:.1f} MiB."
    )


def report(paths: Sequence[Path], folder: Path, crops: int, repeats: int) -> None:
    """Measure and print all of it."""
    print(f"{caption(paths)}\n")
    found, seconds = measure(paths, folder, crops, repeats)
    print("| frames from | " + " | ".join(f"crops/s, {n} worker{'s' * (n > 1)}" for n in WORKERS) + " |")
    print("|---|" + "---:|" * len(WORKERS))
    names = list(dict.fromkeys(name for name, _, _ in found))
    for name in names:
        pairs = [(found[name, "crop", n], found[BASE, "crop", n]) for n in WORKERS]
        print(f"| {name} | " + " | ".join(f"{rate:.0f} ({rate / base:.1f}x)" for rate, base in pairs) + " |")
    print("\n| frames from | ms of CPU: crop | flipped, resized by 1 to 1.5, then cropped |\n|---|---:|---:|")
    for name in names:
        print(f"| {name} | {1000 / found[name, 'crop', 0]:.2f} | {1000 / found[name, 'resized crop', 0]:.2f} |")
    saved = 1 / found[BASE, "crop", 0] - 1 / found["packed cache", "crop", 0]
    size = (folder / "packed.h5").stat().st_size / len(paths) / 2**20
    print(
        f"\nTo pack a frame takes {1000 * seconds:.0f} ms of CPU and {size:.2f} MiB of disk; a crop then takes "
        f"{1000 * saved:.0f} ms less. In CPU time, the cache pays after {seconds / saved:.1f} passes over the frames."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="PNG frames of 1280x640 or more to read instead")
    parser.add_argument("--frames", type=int, default=8, help="how many frames")
    parser.add_argument("--crops", type=int, default=24, help="in one measurement from files; ten times as many others")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each cell, of which the median counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, on purpose
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(options.data.rglob("*.png"))[: options.frames] if options.data else []
        if options.data and not paths:
            parser.error(f"{options.data}: there is no PNG file")
        report(paths or write_frames(Path(folder), options.frames), Path(folder), options.crops, options.repeats)


if __name__ == "__main__":
    main()
