"""Category anchor construction (CAC): the frozen network over the labelled source (Algorithm 1, line 4)."""

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
from caguda.artifacts.class_sums import load_class_sums, save_class_sums
from caguda.artifacts.identity import refuse_other_checkpoint
from caguda.artifacts.provenance import provenance
from caguda.classes import class_table
from caguda.config import Anchors as Choice
from caguda.config import Configuration
from caguda.datasets.io import labels_of
from caguda.datasets.loader import inference_batches, read_batches
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.datasets.workers import in_background, prefetched
from caguda.equations.anchors import ClassSums, anchors_from, class_sums, correctly_predicted, image_means, labels_at
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import estimate_statistics
from caguda.stages.parts import refuse_gaps, refuse_others, units_of_part
from caguda.stages.runtime import prepare, restore_network

BLOCKS = 64  # of the source's frames; sums are kept of each, and added in their order


@torch.inference_mode()
def sum_part(
    configuration: Configuration, manifest: Path, checkpoint: Path, part: int, parts: int, output: Path
) -> None:
    """Write what Eq. 4 adds up over part `part` of `parts` (1-based) of the source, with the section `anchors`' choices.

    Labels are taken at the resolution of f_D by nearest neighbour. A part is some consecutive ones of at most BLOCKS
    blocks of whole batches, which lie where they do whatever the number of parts. A checkpoint with the target's
    statistics of batch normalisation gets the source's for this pass, so that either domain is seen with its own: every
    part makes a pass over the whole source for them.
    """
    started = time.time()
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    table, size = class_table(configuration, configuration.source), configuration.compute.inference_batch_size
    frames = read_manifest(manifest, configuration=configuration).frames("source")
    network, description = restore_network(checkpoint, device, table, configuration, manifest)
    blocks = blocks_of(len(frames), size)
    own = units_of_part(blocks, part, parts, "source")
    if description["target_statistics"]:
        batches = inference_batches(frames, size)
        estimate_statistics(network, (scaled(batch, device) for _, batch in batches))

    def read() -> Iterator[tuple[range, Tensor, Tensor]]:
        for block in own:
            for places, images in read_batches(frames, block, size):
                yield block, images, torch.stack([labels_of(frames[i], table) for i in places])

    def passed() -> Iterator[tuple[range, Tensor, Tensor, Tensor]]:
        for block, images, labels in prefetched(read()):
            features, logits, _ = network(scaled(images, device))
            yield block, features, logits, labels.to(device)

    @torch.inference_mode()  # which holds for one thread alone
    def added(batch: tuple[range, Tensor, Tensor, Tensor]) -> tuple[range, ClassSums]:
        block, features, logits, labels = batch
        bar.update(len(labels))
        return block, _sums(features, logits, labels, configuration.anchors)

    total = sum(map(len, own))
    with tqdm(total=total, desc=f"anchors {part}/{parts}", disable=not sys.stderr.isatty()) as bar:
        blockwise = groupby(in_background(passed(), added), key=itemgetter(0))
        found = [reduce(ClassSums.__add__, (sums for _, sums in batches)) for _, batches in blockwise]
    made_by = provenance("anchor-part", _settings(configuration), [manifest, checkpoint], None, started, output)
    save_class_sums(output, found, {"first_block": blocks.index(own[0]), "provenance": made_by})
    print(f"anchors: part {part} of {parts}, frames {own[0].start} to {own[-1].stop - 1} -> {output}")


def blocks_of(frames: int, batch_size: int) -> list[range]:
    """The places of the frames of each block: consecutive whole batches, as many as in the others or one more."""
    batches = -(-frames // batch_size)
    blocks = min(BLOCKS, batches)
    bounds = [min(batches * done // blocks * batch_size, frames) for done in range(blocks + 1)]
    return [range(first, last) for first, last in pairwise(bounds)]


def construct_anchors(
    configuration: Configuration, manifest: Path, checkpoint: Path, part_files: Sequence[Path], output: Path
) -> None:
    """Write the category anchors: the mean feature f_D of every category over the source (Eq. 4).

    The sums of all blocks are added in their order: the same bits for any number of parts. Categories that the source
    lacks are marked absent, and named; fewer than two present ones are a UserError, since distances between anchors
    are the unit. So are parts of something else than the manifest, the checkpoint and the configured settings.
    """
    started = time.time()
    table, size = class_table(configuration, configuration.source), configuration.compute.inference_batch_size
    frames = len(read_manifest(manifest, configuration=configuration).entries("source"))
    refuse_other_checkpoint(checkpoint, configuration, manifest)
    made_by = provenance("anchors", _settings(configuration), [manifest, checkpoint], None, started, output)
    found: list[tuple[int, ClassSums]] = []
    for path in part_files:
        blocks, attributes = load_class_sums(path)
        refuse_others(path, attributes["provenance"], made_by)
        found += enumerate(blocks, attributes["first_block"])
    sums, expected = dict(found), range(len(blocks_of(frames, size)))
    refuse_gaps(part_files, [block for block, _ in found], expected)
    total = reduce(ClassSums.__add__, (sums[block] for block in expected))
    if (present := int((total.counts > 0).sum())) < 2:
        raise UserError(
            f"{manifest}: the source must have pixels of two categories or more that make an anchor, found {present}; "
            "check the keys classes and anchors, or train the network for longer"
        )
    anchors = Anchors(*(values.numpy() for values in anchors_from(total)))
    absent = [name for name, here in zip(table.names, anchors.present, strict=True) if not here]
    if absent:
        print(f"anchors: no source pixel of {', '.join(absent)}: absent, these can never become pseudo-labels")
    save_anchors(output, anchors, {"categories": list(table.names), "provenance": made_by})
    print(f"anchors: {int(anchors.pixel_count.sum())} pixels, mean distance {anchors.mean_distance:.3f} -> {output}")


def _settings(configuration: Configuration) -> dict[str, Any]:
    """What decides the sums, beside the files."""
    return {
        **configuration.model_dump(mode="json", include={"network", "anchors"}),
        "inference_batch_size": configuration.compute.inference_batch_size,
    }


def _sums(features: Tensor, logits: Tensor, labels: Tensor, choice: Choice) -> ClassSums:
    """What a batch adds to Eq. 4: features (n, d, h, w), logits (n, c, h, w) and the labels of images (n, H, W)."""
    truth = labels_at(labels, (features.shape[-2], features.shape[-1]))
    if choice.pixels == "correct":
        truth = correctly_predicted(truth, logits)
    if choice.mean == "pixels":
        return class_sums(features, truth, logits.shape[1])
    images = [class_sums(features[i, None], truth[i, None], logits.shape[1]) for i in range(len(features))]
    return reduce(ClassSums.__add__, (image_means(sums, choice.min_pixels) for sums in images))
