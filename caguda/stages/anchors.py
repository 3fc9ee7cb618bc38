"""Category anchor construction (CAC): the frozen network over the labelled source (Algorithm 1, line 4)."""

import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from caguda.artifacts.anchors import Anchors, save_anchors
from caguda.artifacts.provenance import provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.frame import label_of
from caguda.datasets.io import read_label
from caguda.datasets.loader import inference_batches
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import normalise
from caguda.errors import UserError
from caguda.method.anchors import ClassSums, anchors_from, class_sums, labels_at
from caguda.models.batch_norm import estimate_statistics
from caguda.stages.common import INFERENCE_BATCH
from caguda.stages.runtime import prepare, restore_network


@torch.inference_mode()
def construct_anchors(configuration: Configuration, manifest: Path, checkpoint: Path, output: Path) -> None:
    """Write the category anchors: the mean feature f_D of every category over all pixels of the source.

    Eq. 4. Labels are taken at the resolution of f_D by nearest neighbour. A checkpoint with the target's statistics of
    batch normalisation gets the source's for this pass, so that either domain is seen with its own. Categories that
    the source lacks are marked absent, and named; fewer than two present ones are a UserError, since distances between
    anchors are the unit.
    """
    started = time.time()
    device = prepare(configuration.compute.threads)
    table = class_table(configuration)
    network, description = restore_network(checkpoint, device, table)
    frames = read_manifest(manifest).frames("source")
    if description["target_statistics"]:
        batches = inference_batches(frames, INFERENCE_BATCH)
        estimate_statistics(network, (normalise(batch, device) for _, batch in batches))

    def sums_of(indices: list[int], images: torch.Tensor) -> ClassSums:
        features, _ = network(normalise(images, device))
        labels = torch.stack([read_label(label_of(frames[i]), table) for i in indices]).to(device)
        return class_sums(features, labels_at(labels, (features.shape[-2], features.shape[-1])), table.count)

    total: ClassSums | None = None
    with tqdm(total=len(frames), desc="anchors", disable=not sys.stderr.isatty()) as bar:
        for indices, images in inference_batches(frames, INFERENCE_BATCH):
            sums = sums_of(indices, images)
            total = sums if total is None else total + sums
            bar.update(len(indices))
    assert total is not None, "a checked set has frames"
    if int((total.counts > 0).sum()) < 2:
        raise UserError(f"{manifest}: the source must have pixels of two categories or more; check the key classes")
    made = anchors_from(total)
    anchors = Anchors(*(values.cpu().numpy() for values in made))
    absent = [name for name, here in zip(table.names, anchors.present, strict=True) if not here]
    if absent:
        print(f"anchors: no source pixel of {', '.join(absent)}: absent, these can never become pseudo-labels")
    settings = configuration.model_dump(mode="json", include={"network"})
    made_by = provenance("anchors", settings, [manifest, checkpoint], None, started)
    save_anchors(output, anchors, {"categories": list(table.names), "provenance": made_by})
    pixels = int(anchors.pixel_count.sum())
    print(f"anchors: {pixels} pixels of {len(frames)} images, mean distance {anchors.mean_distance:.3f} -> {output}")
