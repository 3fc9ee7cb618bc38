"""Frames in batches: for training in a random order fixed by (seed, position), for inference in the given order."""

import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import parent_process
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from caguda.config_frames import Augmentation
from caguda.datasets.frames import Frame
from caguda.datasets.io import image_of
from caguda.datasets.transforms import Pixels, augmented
from caguda.datasets.workers import end_with_the_starter, fork_server, prefetched
from caguda.errors import UserError

LabelMaps = Callable[[int], Mapping[str, Pixels]]
Sample = dict[str, Tensor]
T = TypeVar("T", bound=Sequence[int])
PRELOAD = ["caguda.datasets.loader"]


@dataclass
class TrainingFrames(Dataset[Sample]):
    """Frames drawn for training; position p is frame p mod n of a fresh permutation for every epoch.

    Order and random augmentation depend on (seed, domain, position) alone: neither the number of workers nor an
    interruption changes a sample. `label_maps(i)` gives the label maps of frame i, (H, W) uint8 at the size of its
    image or smaller (enlarged by nearest neighbour); they go through the geometry of the image. `images(i)` gives the
    image of frame i; without it, images are read from the frames' files.
    """

    frames: Sequence[Frame]
    label_maps: LabelMaps | None
    augmentation: Augmentation
    seed: int
    domain: str
    images: Callable[[int], Pixels] | None = None

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of the frames in one epoch."""
        return self._generator("order", epoch).permutation(len(self.frames))

    def _generator(self, purpose: str, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.domain} {purpose}".encode()), number])

    def __getitem__(self, position: int) -> Sample:
        epoch, place = divmod(position, len(self.frames))
        index = int(self.order(epoch)[place])
        image = self.images(index) if self.images else image_of(self.frames[index])
        maps = self.label_maps(index) if self.label_maps else {}
        maps = {name: enlarge(values, image.shape[-2:]) for name, values in maps.items()}
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPU's dropout as well, and takes half a millisecond for that:
            torch.default_generator.manual_seed(int(self._generator("transform", position).integers(2**62)))
            return augmented(self.augmentation, image, maps)


def enlarge(label_map: Pixels, size: Sequence[int]) -> Pixels:
    """A label map (h, w) at the size (H, W) of its image by nearest neighbour; unchanged when it has that size already.

    The inverse of `labels_at` for every size with h <= H and w <= W: a pseudo-label comes back where it was made.
    """
    if tuple(label_map.shape) == tuple(size):
        return label_map
    (h, w), (height, width) = label_map.shape, size
    rows = (torch.arange(1, height + 1) * h - 1) // height
    columns = (torch.arange(1, width + 1) * w - 1) // width
    return label_map[..., :, :][:, columns][rows]


def training_batches(
    frames: TrainingFrames, batch_size: int, start: int, end: int, workers: int, share: tuple[int, int] = (0, 1)
) -> Iterator[Sample]:
    """The batches `start` to `end` - 1, each of `batch_size` samples; UserError if a file cannot be read.

    Of `share` (i, n), the i-th of n equal parts of every batch; `batch_size` must be a multiple of n.
    """
    part, parts = share
    own = batch_size // parts
    positions = [b * batch_size + part * own + i for b in range(start, end) for i in range(own)]
    loader = DataLoader(
        frames,
        own,
        sampler=positions,
        num_workers=workers,
        collate_fn=_batch,
        worker_init_fn=_obey_the_trainer_alone,
        multiprocessing_context=fork_server(PRELOAD) if workers else None,
    )
    try:
        yield from loader
    except UserError as error:  # from a worker it comes wrapped in a traceback
        raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from None


def _batch(samples: list[Sample]) -> Sample:
    """Samples of one size, stacked."""
    sizes = {tuple(sample["image"].shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        told = " and ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise UserError(f"frames of one batch must have one size, found {told}; give the augmentation a crop")
    batch: Sample = default_collate(samples)
    return batch


def _obey_the_trainer_alone(_worker: int) -> None:
    """Signals to all processes of a job leave a worker alive, as the trainer still has to finish its iteration."""
    trainer = parent_process()
    assert trainer is not None

    def obey() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer.pid:
            pass
        os._exit(0)

    threading.Thread(target=obey, daemon=True).start()
    end_with_the_starter()


def inference_batches(frames: Sequence[Frame], batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
    """Every frame once in order: (indices, uint8 images); a batch holds neighbouring frames of one size.

    The next batch is read in a thread of its own while a batch is at work.
    """
    return prefetched(read_batches(frames, range(len(frames)), batch_size))


def read_ahead(frames: Sequence[Frame], batches: Sequence[T]) -> Iterator[tuple[T, Tensor]]:
    """Each of the batches, which are places of frames of one size, with its images; read as those above are."""
    return prefetched((batch, torch.stack([image_of(frames[i]) for i in batch])) for batch in batches)


def read_batches(frames: Sequence[Frame], places: range, batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
    """The same of the frames at some places, read when they are asked for."""
    images = ((index, image_of(frames[index])) for index in places)
    for _, same_size in groupby(images, key=lambda item: item[1].shape):
        batch: list[tuple[int, Tensor]] = []
        for item in same_size:
            batch.append(item)
            if len(batch) == batch_size:
                yield [i for i, _ in batch], torch.stack([image for _, image in batch])
                batch = []
        if batch:
            yield [i for i, _ in batch], torch.stack([image for _, image in batch])
