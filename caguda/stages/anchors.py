"""Category anchor construction (CAC): the frozen network over the labelled source (Algorithm 1, line 4)."""

import sys
import time
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from caguda.artifacts.anchors import Anchors, save_anchors
from caguda.artifacts.provenance import provenance
from caguda.classes import class_table
from caguda.config import Anchors as Choice
from caguda.config import Configuration
from caguda.datasets.frame import label_of
from caguda.datasets.io import read_label
from caguda.datasets.loader import inference_batches
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.errors import UserError
from caguda.method.anchors import ClassSums, anchors_from, class_sums, correctly_predicted, image_means, labels_at
from caguda.models.batch_norm import estimate_statistics
from caguda.stages.runtime import prepare, restore_network


@torch.inference_mode()
def construct_anchors(configuration: Configuration, manifest: Path, checkpoint: Path, output: Path) -> None:
    """Write the category anchors: the mean feature f_D of every category over the source.

    Eq. 4, over the pixels and with the weights that the section `anchors` says. Labels are taken at the resolution of
    f_D by nearest neighbour. A checkpoint with the target's statistics of batch normalisation gets the source's for
    this pass, so that either domain is seen with its own. Categories that the source lacks are marked absent, and
    named; fewer than two present ones are a UserError, since distances between anchors are the unit.
    """
    started = time.time()
    device = prepare(configuration.compute.threads)
    table, size = class_table(configuration, configuration.source), configuration.compute.inference_batch_size
    network, description = restore_network(checkpoint, device, table)
    frames = read_manifest(manifest).frames("source")
    if description["target_statistics"]:
        batches = inference_batches(frames, size)
        estimate_statistics(network, (scaled(batch, device) for _, batch in batches))

    total: ClassSums | None = None
    with tqdm(total=len(frames), desc="anchors", disable=not sys.stderr.isatty()) as bar:
        for indices, images in inference_batches(frames, size):
            features, logits = network(scaled(images, device))
            labels = torch.stack([read_label(label_of(frames[i]), table) for i in indices]).to(device)
            sums = _sums(features, logits, labels, configuration.anchors)
            total = sums if total is None else total + sums
            bar.update(len(indices))
    assert total is not None, "a checked set has frames"
    if (found := int((total.counts > 0).sum())) < 2:
        raise UserError(
            f"{manifest}: the source must have pixels of two categories or more that make an anchor, found {found}; "
            "check the keys classes and anchors, or train the network for longer"
        )
    made = anchors_from(total)
    anchors = Anchors(*(values.cpu().numpy() for values in made))
    absent = [name for name, here in zip(table.names, anchors.present, strict=True) if not here]
    if absent:
        print(f"anchors: no source pixel of {', '.join(absent)}: absent, these can never become pseudo-labels")
    settings = configuration.model_dump(mode="json", include={"network", "anchors"})
    made_by = provenance("anchors", settings, [manifest, checkpoint], None, started)
    save_anchors(output, anchors, {"categories": list(table.names), "provenance": made_by})
    pixels = int(anchors.pixel_count.sum())
    print(f"anchors: {pixels} pixels of {len(frames)} images, mean distance {anchors.mean_distance:.3f} -> {output}")


def _sums(features: Tensor, logits: Tensor, labels: Tensor, choice: Choice) -> ClassSums:
    """What a batch adds to Eq. 4: features (n, d, h, w), logits (n, c, h, w) and the labels of images (n, H, W)."""
    truth = labels_at(labels, (features.shape[-2], features.shape[-1]))
    if choice.pixels == "correct":
        truth = correctly_predicted(truth, logits)
    if choice.mean == "pixels":
        return class_sums(features, truth, logits.shape[1])
    images = [class_sums(features[i, None], truth[i, None], logits.shape[1]) for i in range(len(features))]
    return reduce(ClassSums.__add__, (image_means(sums, choice.min_pixels) for sums in images))
