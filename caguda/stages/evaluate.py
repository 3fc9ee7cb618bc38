"""The verb `evaluate`: IoU and mIoU of a checkpoint on labelled frames. Training never uses them."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from caguda.artifacts.atomic import write_json
from caguda.artifacts.identity import KIND_BY_VERB, model_of, read_artifact
from caguda.artifacts.provenance import new_provenance
from caguda.classes import UNWRITTEN, ClassTable, class_table, smaller_sets
from caguda.config import Configuration, Inference
from caguda.datasets.frame import Frame, label_file
from caguda.datasets.image_batches import read_ahead, scaled
from caguda.datasets.io import raw_values, read_bytes, to_train_ids
from caguda.datasets.manifest import read_manifest
from caguda.datasets.workers import in_background
from caguda.equations.metrics import confusion_matrix, counts_by_value, iou, mean_iou
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import batch_norms
from caguda.networks.layers.inference import Views, largest, views
from caguda.networks.layers.network import SegmentationNetwork
from caguda.recorded_settings import settings_of_pass
from caguda.stages.runtime import configure_torch, estimate_domain_statistics, restore_network


@torch.inference_mode()
def evaluate(configuration: Configuration, manifest: Path, checkpoint: Path, output: Path) -> None:
    """Write the confusion matrix, IoU and mIoU of a checkpoint on the evaluation frames at image resolution.

    Twice: as trained, and with statistics of batch normalisation from the target's training images (AdaBN); the second is
    null for a network without batch normalisation. With Cityscapes' 19 or 16 categories, also the mIoU over 16 and over
    13 of them.
    """
    started = time.time()
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    table = class_table(configuration, configuration.evaluation)
    checked = read_manifest(manifest, configuration=configuration)
    frames = checked.frames("evaluation")
    network, description = restore_network(checkpoint, device, table, configuration, manifest)
    _refuse_other_evaluation(output, description["provenance"])
    inference, size = configuration.inference, configuration.compute.inference_batch_size
    batches = checked.batches("evaluation", size)
    trained = _confusion(network, frames, batches, table, inference, device)
    adapted = None
    if batch_norms(network):
        estimate_domain_statistics(network, checked, "target", size, device)
        adapted = _confusion(network, frames, batches, table, inference, device)
    provenance = description["provenance"]
    model = model_of(provenance)
    settings = configuration.model_dump(mode="json", include={"inference"}) | settings_of_pass(configuration)
    result = {
        "model": model,
        "seed": provenance["seed"],
        "frames": len(frames),
        "classes": list(table.names),
        "as_trained": _scores(trained, table),
        "target_statistics": None if adapted is None else _scores(adapted, table),
        "provenance": new_provenance("evaluate", settings, [manifest, checkpoint], provenance["seed"], started, output),
    }
    write_json(output, result)
    with_target = "" if adapted is None else f", with target statistics {100 * float(mean_iou(adapted)):.1f}"
    print(
        f"evaluate: {model or provenance['made_by']} mIoU {100 * float(mean_iou(trained)):.1f}{with_target} -> {output}"
    )


def _refuse_other_evaluation(output: Path, provenance: Mapping[str, Any]) -> None:
    """UserError if the output is the evaluation of another model than that with this provenance."""
    if not output.exists():
        return
    before, model = read_artifact(output, KIND_BY_VERB["evaluate"]), model_of(provenance)
    if (found := before.get("model"), before["seed"]) != (model, provenance["seed"]):
        raise UserError(f"{output}: an output must be new or replace the evaluation of the same model, found one of "
                        f"{found or 'a model from elsewhere'}, seed {before['seed']}; choose another output")  # fmt: skip


def _confusion(
    network: SegmentationNetwork,
    frames: Sequence[Frame],
    batches: Sequence[Sequence[int]],
    table: ClassTable,
    inference: Inference,
    device: torch.device,
) -> Tensor:
    """The confusion matrix (c, c) of a network on some frames."""

    @torch.inference_mode()  # again: it holds for one thread
    def confusions(batch: tuple[Sequence[int], Views]) -> list[Tensor]:
        indices, logits = batch
        pairs = zip(indices, largest(logits, network.align_corners), strict=True)
        return [
            confusion_of(prediction, label_file(frames[i]), table, frames[i].label_sha256) for i, prediction in pairs
        ]

    logits_by_batch = (
        (indices, views(network, scaled(images, device), inference)) for indices, images in read_ahead(frames, batches)
    )
    total = torch.zeros(table.count, table.count, dtype=torch.int64)
    with tqdm(total=len(frames), desc="evaluate", disable=not sys.stderr.isatty()) as bar:
        for matrices in in_background(logits_by_batch, confusions):
            for matrix in matrices:
                total += matrix
            bar.update(len(matrices))
    return total


def confusion_of(
    prediction: UInt8[Tensor, "H W"], label: Path, table: ClassTable, sha256: str | None = None
) -> Int64[Tensor, "c c"]:
    """The confusion matrix of one image with its label file; UserError if the file is unreadable or has unknown values.

    In a file of bytes, pixels are counted by raw value, and the 256 counts are mapped to categories afterwards.
    """
    values = raw_values(read_bytes(label, sha256), label, table)
    if values.dtype != np.uint8:
        truth = to_train_ids(values, table, label).to(prediction.device)
        return confusion_matrix(prediction[None], truth[None], table.count).cpu()
    truth = torch.from_numpy(np.require(values, requirements="W")).to(prediction.device)
    counts = counts_by_value(prediction[None], truth[None], table.count).cpu()
    category = torch.from_numpy(table.lookup[:256].copy())
    if counts[category == UNWRITTEN].any():
        to_train_ids(values, table, label)  # its UserError names the unknown value
    valid = category < table.count
    return torch.zeros(table.count, table.count, dtype=torch.int64).index_add_(0, category[valid].long(), counts[valid])


def _scores(confusion: Tensor, table: ClassTable) -> dict[str, Any]:
    means = {"miou": mean_iou(confusion)}
    means |= {f"miou{n}": mean_iou(confusion, among) for n, among in smaller_sets(table.names).items()}
    return {
        "confusion": confusion.tolist(),
        "iou": [_none_if_nan(value) for value in iou(confusion).tolist()],
        **{name: _none_if_nan(value.item()) for name, value in means.items()},
    }


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
