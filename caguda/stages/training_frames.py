"""The frames that a training reads, with their labels or pseudo-labels, in batches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from caguda.artifacts.maps import MapStore
from caguda.artifacts.packed import PackedFrames
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.config_run import DomainName, Method
from caguda.config_training import SourceSampling
from caguda.datasets.frame import Frame, require_labels
from caguda.datasets.io import frame_labels
from caguda.datasets.loader import LabelMaps, TrainingFrames, training_batches
from caguda.datasets.manifest import Manifest, SetName, read_manifest
from caguda.datasets.rare_classes import RareClasses, rare_classes
from caguda.datasets.requirements import refuse_sizes
from caguda.datasets.transforms import Pixels
from caguda.datasets.translated import with_translated
from caguda.errors import UserError
from caguda.stages import parallel
from caguda.stages.pack import open_caches
from caguda.stages.session import Batch

Batches = Callable[[int], Iterator[Batch]]


@dataclass(frozen=True)
class _Truth:
    """The label maps of labelled frames; a class, so that loader processes can receive it."""

    frames: Sequence[Frame]
    table: ClassTable
    cache: PackedFrames | None

    def __call__(self, index: int) -> dict[str, Pixels]:
        return {"label": self.cache.label(index) if self.cache else frame_labels(self.frames[index], self.table)}


@dataclass(frozen=True)
class _PseudoLabels:
    """The pseudo-labels of frames by the name of their rule; a class, so that loader processes can receive it."""

    stores: Mapping[str, MapStore]

    def __call__(self, index: int) -> dict[str, Pixels]:
        return {f"{rule}_label": torch.from_numpy(store.read(index, "label")) for rule, store in self.stores.items()}


@dataclass(frozen=True)
class Frames:
    """The checked frames of an experiment, and their packed caches by domain."""

    configuration: Configuration
    manifest: Manifest
    caches: Mapping[str, PackedFrames]

    def training(
        self, domain: DomainName, method: Method, order: str, seed: int, maps: LabelMaps | None
    ) -> TrainingFrames:
        """The frames of a domain for training, with label maps; `order` and the seed decide their random order.

        Translated source frames have the order and the augmentation of the original ones. The pixels of the source's labels are
        counted first for a method that samples rare classes.
        """
        read: SetName = "translated" if domain == "source" and method.source_images == "translated" else domain
        cache = self.caches.get(read)
        stream, augmentation = f"{order} {domain}", method.augmentation_of(domain)
        images = cache.image if cache is not None else None
        align_corners = self.configuration.network.align_corners
        rare = None
        if domain == "source" and maps is not None and method.source_sampling is not None:
            rare = self._rare_classes(maps, method.source_sampling)
        return TrainingFrames(self.manifest.frames(read), maps, augmentation, seed, stream, images, align_corners, rare)

    def _rare_classes(self, maps: LabelMaps, settings: SourceSampling) -> RareClasses:
        """The rare class sampling of the source's frames; each process counts the pixels of a part of them."""
        table, count = class_table(self.configuration), len(self.manifest.frames("source"))
        pixels = torch.zeros(count, table.count, dtype=torch.int64)
        silent = parallel.rank() > 0 or not sys.stderr.isatty()
        for index in tqdm(range(parallel.rank(), count, parallel.size()), "pixels of the source", disable=silent):
            label = maps(index)["label"][..., :, :]
            pixels[index] = label.flatten().bincount(minlength=256)[: table.count]
        made = rare_classes(parallel.all_reduce_sum(pixels), settings)
        never = [name for name, frames in zip(table.names, made.frames, strict=True) if len(frames) == 0]
        parallel.print_once(f"source_sampling: categories are drawn by the pixels of {count} frames; never, since no frame has "
                            f"more than {settings.least_pixels} pixels: {', '.join(never) or 'none'}")  # fmt: skip
        return made

    def truth(self, domain: DomainName) -> LabelMaps:
        """The label maps of a domain's frames; UserError unless all have labels."""
        frames, cache = self.manifest.frames(domain), self.caches.get(domain)
        require_labels(frames)
        table = class_table(self.configuration, getattr(self.configuration, domain))
        return _Truth(frames, table, cache if cache is not None and cache.labelled else None)


def open_frames(
    configuration: Configuration, manifest: Path, packed: Sequence[Path], method: Method, translated: Path | None = None
) -> Frames:
    """The checked frames of a manifest, and of that of the translated frames where the method reads these.

    UserError if they do not fit the trainings, or if a cache is of a set that is not read.
    """
    checked = read_manifest(manifest, configuration=configuration)
    if translated is not None:
        checked = with_translated(checked, translated, configuration)
    refuse_sizes(configuration, manifest, {name: checked.entries(name) for name in ("source", "target")})
    caches = open_caches(packed, checked, configuration)
    if unread := caches.keys() - set(method.sets_read):
        raise UserError(f"--packed: {method.method} must be given caches of the {' and '.join(method.sets_read)} alone, found one of the "
                        f"{min(unread)}; leave it out")  # fmt: skip
    return Frames(configuration, checked, caches)


def batches_of(frames: Frames, method: Method, order: str, seed: int, stores: Mapping[str, MapStore]) -> Batches:
    """A function `batches(i)` that yields this process's share of every batch from iteration i on."""
    sets: dict[str, TrainingFrames] = {}
    for domain, read in method.reads.items():
        maps: LabelMaps | None = None
        if read != "images":
            maps = frames.truth(domain) if read == "truth" else _PseudoLabels(dict(sorted(stores.items())))
        sets[domain] = frames.training(domain, method, order, seed, maps)
    end, workers = method.iterations * method.accumulate, frames.configuration.compute.workers
    share = (parallel.rank(), parallel.size())

    def batches(iteration: int) -> Iterator[Batch]:
        start = iteration * method.accumulate
        loaders = (training_batches(part, method.batch_size, start, end, workers, share) for part in sets.values())
        for samples in zip(*loaders, strict=True):
            yield dict(zip(sets, samples, strict=True))

    return batches
