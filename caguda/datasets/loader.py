"""Batches of frames for training, in a random order fixed by the seed."""

import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing import parent_process

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from caguda.config_frames import Augmentation
from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_image
from caguda.datasets.rare_classes import RareClasses
from caguda.datasets.transforms import Pixels, augmented
from caguda.datasets.workers import exit_with_parent, fork_server
from caguda.equations.grid import enlarged_labels
from caguda.errors import UserError

LabelMaps = Callable[[int], Mapping[str, Pixels]]
Sample = dict[str, Tensor]
PRELOAD = ["caguda.datasets.loader"]
CROPS = 11
"""The crops that are drawn of a frame, at most, until one has enough pixels of a category: those of DAFormer's code."""


@dataclass
class TrainingFrames(Dataset[Sample]):
    """The endless sequence of training samples; every epoch is a new permutation of the n frames.

    With `rare_classes` there are no epochs: the frame of every sample is drawn by it, for a category of its map `label`.
    Order and random augmentation depend on (seed, stream, position) alone: neither the number of workers nor an
    interruption changes a sample. `label_maps(i)` returns the label maps of frame i by name, (H, W) uint8 at the size of
    the image or smaller; smaller ones are enlarged by nearest neighbour, as `align_corners` says, and all are augmented
    with the geometry of the image. `images(i)` returns the image of frame i; by default it is read from the frame's file.
    """

    frames: Sequence[Frame]
    label_maps: LabelMaps | None
    augmentation: Augmentation
    seed: int
    stream: str
    images: Callable[[int], Pixels] | None = None
    align_corners: bool = False
    rare_classes: RareClasses | None = None

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of the frames in one epoch."""
        return self._generator("order", epoch).permutation(len(self.frames))

    def _generator(self, purpose: str, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.stream} {purpose}".encode()), number])

    def __getitem__(self, position: int) -> Sample:
        if self.rare_classes is not None:
            return self._rare_sample(self.rare_classes, position)
        epoch, position_in_epoch = divmod(position, len(self.frames))
        return next(self._samples(int(self.order(epoch)[position_in_epoch]), position))

    def _rare_sample(self, rare_classes: RareClasses, position: int) -> Sample:
        """A sample of a drawn frame; of its random crops the first with enough pixels of the drawn category, or the last."""
        category, index = rare_classes.draw(self._generator("rare class", position))
        for sample in islice(self._samples(index, position), CROPS if self.augmentation.crop else 1):
            if int((sample["label"] == category).sum()) > rare_classes.least_in_crop:
                break
        return sample

    def _samples(self, index: int, position: int) -> Iterator[Sample]:
        """Yields a frame in one random augmentation after another."""
        image = self.images(index) if self.images else frame_image(self.frames[index])
        maps = self.label_maps(index) if self.label_maps else {}
        maps = {name: enlarge(values, image.shape[-2:], self.align_corners) for name, values in maps.items()}
        generator = self._generator("transform", position)
        while True:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed: it would also seed the GPU's dropout, which takes half a millisecond.
                torch.default_generator.manual_seed(int(generator.integers(2**62)))
                sample = augmented(self.augmentation, image, maps)
            yield sample


def enlarge(label_map: Pixels, size: Sequence[int], align_corners: bool = False) -> Pixels:
    """A label map (h, w) enlarged to the size (H, W) of its image; see enlarged_labels. The map itself if h = H, w = W."""
    if tuple(label_map.shape) == tuple(size):
        return label_map
    return enlarged_labels(label_map[..., :, :], size, align_corners)


def training_batches(
    frames: TrainingFrames, batch_size: int, start: int, end: int, workers: int, share: tuple[int, int] = (0, 1)
) -> Iterator[Sample]:
    """Yields the batches `start` to `end` - 1 of `batch_size` samples; UserError if a file cannot be read.

    With `share` (rank, size), yields that process's equal part of every batch; `batch_size` must be a multiple of size.
    """
    rank, processes = share
    local_size = batch_size // processes
    positions = [b * batch_size + rank * local_size + i for b in range(start, end) for i in range(local_size)]
    loader = DataLoader(
        frames,
        local_size,
        sampler=positions,
        num_workers=workers,
        collate_fn=_stacked,
        worker_init_fn=_obey_only_the_trainer,
        multiprocessing_context=fork_server(PRELOAD) if workers else None,
    )
    try:
        yield from loader
    except UserError as error:  # a worker's error has a traceback in its message
        raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from None


def _stacked(samples: list[Sample]) -> Sample:
    """A batch of samples; UserError unless their images have one size."""
    sizes = {tuple(sample["image"].shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        listed = " and ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise UserError(f"frames of one batch must have one size, found {listed}; give the augmentation a crop")
    batch: Sample = default_collate(samples)
    return batch


def _obey_only_the_trainer(_worker: int) -> None:
    """Makes a worker exit on a SIGTERM from the trainer, and ignore one that a scheduler sends to all processes of a job.

    The trainer still needs the worker to finish its iteration.
    """
    trainer = parent_process()
    assert trainer is not None

    def wait_for_trainer() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer.pid:
            pass
        os._exit(0)

    threading.Thread(target=wait_for_trainer, daemon=True).start()
    exit_with_parent()
