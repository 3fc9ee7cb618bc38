"""How good a checkpoint is on labelled frames, and how right the pseudo-labels were: for people, never for training."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from caguda.artifacts.atomic import write_json
from caguda.artifacts.labels import LabelArrays
from caguda.artifacts.provenance import provenance
from caguda.classes import IGNORE, ClassTable, class_table, smaller_sets
from caguda.config import Configuration, Inference
from caguda.datasets.frame import Frame, label_of
from caguda.datasets.io import read_label
from caguda.datasets.loader import inference_batches
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.method.anchors import labels_at
from caguda.method.metrics import confusion_matrix, iou, mean_iou
from caguda.models.batch_norm import batch_norms, estimate_statistics
from caguda.models.inference import most_probable
from caguda.stages.common import verified_labels
from caguda.stages.runtime import prepare, restore_network

ROWS = {"pretrain": "source only", "warmup": "warm-up"}


@torch.inference_mode()
def evaluate(configuration: Configuration, manifest: Path, checkpoint: Path, output: Path) -> None:
    """Write the confusion matrix, IoU and mIoU of a checkpoint on the evaluation frames at image resolution.

    Twice: as trained, and with batch normalisation statistics re-estimated on the target's training images (AdaBN),
    null for a network without batch normalisation. With Cityscapes' 19 or 16 categories, the means over 16 and over 13
    of them are given too.
    """
    started = time.time()
    device = prepare(configuration.compute.threads)
    table = class_table(configuration, configuration.evaluation)
    read = read_manifest(manifest)
    frames = read.frames("evaluation")
    network, description = restore_network(checkpoint, device, table)
    inference, size = configuration.inference, configuration.compute.inference_batch_size
    trained = _confusion(network, frames, table, inference, size, device)
    adapted = None
    if batch_norms(network):
        images = inference_batches(read.frames("target"), size)
        estimate_statistics(network, (scaled(batch, device) for _, batch in images))
        adapted = _confusion(network, frames, table, inference, size, device)
    made_by = description["provenance"]
    settings = configuration.model_dump(mode="json", include={"inference"})
    result = {
        "row": ROWS.get(made_by["made_by"], made_by["made_by"]),
        "recipe": made_by["settings"].get("recipe", {}).get("name"),
        "seed": made_by["seed"],
        "frames": len(frames),
        "classes": list(table.names),
        "as_trained": _scores(trained, table),
        "target_statistics": None if adapted is None else _scores(adapted, table),
        "provenance": provenance("evaluate", settings, [manifest, checkpoint], made_by["seed"], started),
    }
    write_json(output, result)
    second = "" if adapted is None else f", with target statistics {100 * float(mean_iou(adapted)):.1f}"
    print(f"evaluate: {made_by['made_by']} mIoU {100 * float(mean_iou(trained)):.1f}{second} -> {output}")


def _confusion(
    network: nn.Module,
    frames: list[Frame],
    table: ClassTable,
    inference: Inference,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    total = torch.zeros(table.count, table.count, dtype=torch.int64)
    with tqdm(total=len(frames), desc="evaluate", disable=not sys.stderr.isatty()) as bar:
        for indices, images in inference_batches(frames, batch_size):
            truth = torch.stack([read_label(label_of(frames[i]), table) for i in indices]).to(device)
            predicted = most_probable(network, scaled(images, device), inference)
            total += confusion_matrix(predicted, truth, table.count).cpu()
            bar.update(len(indices))
    return total


def _scores(confusion: Tensor, table: ClassTable) -> dict[str, Any]:
    means = {"miou": mean_iou(confusion)}
    means |= {f"miou{n}": mean_iou(confusion, among) for n, among in smaller_sets(table.names).items()}
    return {
        "confusion": confusion.tolist(),
        "iou": [_known(value) for value in iou(confusion).tolist()],
        **{name: _known(value.item()) for name, value in means.items()},
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def diagnose(configuration: Configuration, manifest: Path, labels: Path, output: Path) -> None:
    """Write how right the pseudo-labels of a store are, where the target's truth is known; null where it is not.

    Diagnostics only: no training reads this. Shares and accuracies are over pixels with a truth, at the resolution of
    the store. "anchor only" are the pixels that anchors activate and probability does not.
    """
    table = class_table(configuration, configuration.target)
    frames = read_manifest(manifest).frames("target")
    store = verified_labels(labels, frames, manifest)
    kinds = ("anchor", "probability", "anchor_only", "nearest_anchor_all", "predicted_all")
    known = [index for index, frame in enumerate(frames) if frame.label is not None]
    confusions = {kind: torch.zeros(table.count, table.count, dtype=torch.int64) for kind in kinds}
    truths = torch.zeros(table.count, dtype=torch.int64)
    for index in tqdm(known, desc="diagnose", disable=not sys.stderr.isatty()):
        row = store.read(index)
        truth = labels_at(read_label(label_of(frames[index]), table)[None], row.predicted.shape)[0]
        truths += torch.bincount(truth[truth != IGNORE].int(), minlength=table.count)
        for kind, label in _label_kinds(row).items():
            where = torch.where(label != IGNORE, truth, torch.full_like(truth, IGNORE))
            confusions[kind] += confusion_matrix(label[None].where(label != IGNORE, 0), where[None], table.count)
    result = {kind: _label_scores(confusions[kind], truths, table) if known else None for kind in kinds}
    write_json(output, {"images_with_truth": len(known), **result})


def _label_kinds(row: LabelArrays) -> Mapping[str, Tensor]:
    anchor, probability = torch.from_numpy(row.anchor_label), torch.from_numpy(row.probability_label)
    return {
        "anchor": anchor,
        "probability": probability,
        "anchor_only": anchor.masked_fill(probability != IGNORE, IGNORE),
        "nearest_anchor_all": torch.from_numpy(row.nearest_anchor),
        "predicted_all": torch.from_numpy(row.predicted),
    }


def _label_scores(confusion: Tensor, truths: Tensor, table: ClassTable) -> dict[str, Any]:
    def ratio(part: Tensor, whole: Tensor) -> float | None:
        return float(part / whole) if whole > 0 else None

    hits = confusion.diagonal()
    return {
        "accuracy": ratio(hits.sum(), confusion.sum()),
        "coverage": ratio(confusion.sum(), truths.sum()),
        "per_category": [
            {"name": name, "precision": ratio(hits[c], confusion[:, c].sum()), "recall": ratio(hits[c], truths[c])}
            for c, name in enumerate(table.names)
        ],
    }
