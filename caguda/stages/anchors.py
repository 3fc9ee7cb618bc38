"""Category anchor construction (CAC): mean features of the frozen model over the source (Algorithm 1, line 4)."""

import sys
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from caguda.artifacts.anchors import Anchors, save_anchors
from caguda.artifacts.checks import refuse_other_origin
from caguda.artifacts.class_sums import load_class_sums, save_class_sums
from caguda.artifacts.provenance import new_provenance
from caguda.classes import class_table
from caguda.config import AnchorSettings, Configuration
from caguda.datasets.image_batches import frame_images, scaled
from caguda.datasets.io import frame_labels
from caguda.datasets.manifest import read_manifest
from caguda.datasets.workers import in_background, prefetched
from caguda.equations.anchors import ClassSums, anchors_from, class_sums, correctly_predicted, image_means
from caguda.equations.grid import labels_at
from caguda.errors import UserError
from caguda.recorded_settings import recorded_network, settings_of_pass
from caguda.stages.parts import refuse_gaps, refuse_other_part, units_of_part
from caguda.stages.runtime import configure_torch, estimate_domain_statistics, restore_network

BLOCKS = 64  # at most; the sums of each block are saved, and added in the order of the blocks


@torch.inference_mode()
def sum_part(
    configuration: Configuration, manifest: Path, checkpoint: Path, part: int, parts: int, output: Path
) -> None:
    """Write the sums of Eq. 4 over part `part` of `parts` (1-based) of the source, by the settings in `anchors`.

    Labels are reduced to the resolution of f_D by nearest neighbour. The source is cut into at most BLOCKS fixed blocks of
    whole batches; a part is a run of blocks. If the checkpoint has the target's statistics of batch normalisation, they
    are estimated anew on the whole source first, in every part, so that each domain is seen with its own statistics.
    """
    started = time.time()
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    table, size = class_table(configuration, configuration.source), configuration.compute.inference_batch_size
    checked = read_manifest(manifest, configuration=configuration)
    frames = checked.frames("source")
    network, description = restore_network(checkpoint, device, table, configuration, manifest)
    blocks = blocks_of(len(frames), size)
    part_blocks = units_of_part(blocks, part, parts, "source")
    if description["target_statistics"]:
        estimate_domain_statistics(network, checked, "source", size, device)

    def read() -> Iterator[tuple[range, Tensor, Tensor]]:
        for block in part_blocks:
            for batch in checked.batches("source", size, block):
                yield block, frame_images(frames, batch), torch.stack([frame_labels(frames[i], table) for i in batch])

    def outputs() -> Iterator[tuple[range, Tensor, Tensor, Tensor]]:
        for block, images, labels in prefetched(read()):
            features, logits, _ = network(scaled(images, device))
            yield block, features, logits, labels.to(device)

    @torch.inference_mode()  # again: it holds for one thread
    def batch_sums(batch: tuple[range, Tensor, Tensor, Tensor]) -> tuple[range, ClassSums]:
        block, features, logits, labels = batch
        bar.update(len(labels))
        return block, _sums(features, logits, labels, configuration.anchors, network.align_corners)

    total = sum(map(len, part_blocks))
    with tqdm(total=total, desc=f"anchors {part}/{parts}", disable=not sys.stderr.isatty()) as bar:
        by_block = groupby(in_background(outputs(), batch_sums), key=itemgetter(0))
        sums_of_blocks = [reduce(ClassSums.__add__, (sums for _, sums in batches)) for _, batches in by_block]
    provenance = new_provenance("anchor-part", _settings(configuration), [manifest, checkpoint], None, started, output)
    first, last = part_blocks[0], part_blocks[-1]
    save_class_sums(output, sums_of_blocks, {"first_block": blocks.index(first), "provenance": provenance})
    print(f"anchors: part {part} of {parts}, frames {first.start} to {last.stop - 1} -> {output}")


def blocks_of(frames: int, batch_size: int) -> list[range]:
    """The ranges of frames of the blocks: consecutive whole batches, in numbers that differ by at most one."""
    batches = -(-frames // batch_size)
    blocks = min(BLOCKS, batches)
    bounds = [min(batches * block // blocks * batch_size, frames) for block in range(blocks + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]


def construct_anchors(
    configuration: Configuration, manifest: Path, checkpoint: Path, part_files: Sequence[Path], output: Path
) -> None:
    """Write the category anchors: the mean feature f_D of every category over the source (Eq. 4).

    The sums of the blocks are added in the order of the blocks: any number of parts gives the same bits. Categories
    without pixels are marked absent and printed. UserError if fewer than two categories are present, because the distance
    between anchors is the unit, and if a part is of another manifest, checkpoint or other settings.
    """
    started = time.time()
    table, size = class_table(configuration, configuration.source), configuration.compute.inference_batch_size
    frames = len(read_manifest(manifest, configuration=configuration).entries("source"))
    refuse_other_origin(checkpoint, configuration, manifest)
    provenance = new_provenance("anchors", _settings(configuration), [manifest, checkpoint], None, started, output)
    numbered_sums: list[tuple[int, ClassSums]] = []
    for path in part_files:
        sums_of_blocks, attributes = load_class_sums(path)
        refuse_other_part(path, attributes["provenance"], provenance)
        numbered_sums += enumerate(sums_of_blocks, attributes["first_block"])
    blocks = range(len(blocks_of(frames, size)))
    refuse_gaps(part_files, [block for block, _ in numbered_sums], blocks)
    sums_by_block = dict(numbered_sums)
    total = reduce(ClassSums.__add__, (sums_by_block[block] for block in blocks))
    if (present := int((total.counts > 0).sum())) < 2:
        raise UserError(
            f"{manifest}: the source must have pixels of two categories or more that make an anchor, found {present}; "
            "check the keys classes and anchors, or train the network for longer"
        )
    anchors = Anchors(*(values.numpy() for values in anchors_from(total)))
    if anchors.mean_distance == 0:
        raise UserError(f"{checkpoint}: anchors must differ between categories, found all of them equal: the features have collapsed; "
                        "train with a lower learning rate or a lower weight of the distance")  # fmt: skip
    if absent := [name for name, present in zip(table.names, anchors.present, strict=True) if not present]:
        print(f"anchors: no source pixel of {', '.join(absent)}: absent, these can never become pseudo-labels")
    save_anchors(output, anchors, {"categories": list(table.names), "provenance": provenance})
    print(f"anchors: {int(anchors.pixel_count.sum())} pixels, mean distance {anchors.mean_distance:.3f} -> {output}")


def _settings(configuration: Configuration) -> dict[str, Any]:
    """The settings that decide the sums. `every_stage` decides only for which models they are made."""
    return {
        **recorded_network(configuration),
        **settings_of_pass(configuration),
        "anchors": configuration.anchors.model_dump(mode="json", exclude={"every_stage"}),
        "inference_batch_size": configuration.compute.inference_batch_size,
    }


def _sums(features: Tensor, logits: Tensor, labels: Tensor, settings: AnchorSettings, align_corners: bool) -> ClassSums:
    """The sums of Eq. 4 over a batch: features (n, d, h, w), logits (n, c, h, w), labels of the images (n, H, W)."""
    labels = labels_at(labels, features.shape[-2:], align_corners)
    if settings.pixels == "correct":
        labels = correctly_predicted(labels, logits)
    if settings.mean == "pixels":
        return class_sums(features, labels, logits.shape[1])
    images = [class_sums(features[i, None], labels[i, None], logits.shape[1]) for i in range(len(features))]
    return reduce(ClassSums.__add__, (image_means(sums, settings.min_pixels) for sums in images))
