"""How good a checkpoint is on labelled frames: for people, never for training."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from caguda.artifacts.atomic import write_json
from caguda.artifacts.identity import KINDS, model_of, read_artifact
from caguda.artifacts.provenance import provenance
from caguda.classes import UNWRITTEN, ClassTable, class_table, smaller_sets
from caguda.config import Configuration, Inference
from caguda.datasets.frame import Frame, label_of
from caguda.datasets.io import raw_values, read_bytes, to_train_ids
from caguda.datasets.loader import inference_batches
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.datasets.workers import in_background
from caguda.equations.metrics import confusion_matrix, counts_by_value, iou, mean_iou
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import batch_norms, estimate_statistics
from caguda.networks.layers.inference import Views, largest, views
from caguda.stages.runtime import prepare, restore_network


@torch.inference_mode()
def evaluate(configuration: Configuration, manifest: Path, checkpoint: Path, output: Path) -> None:
    """Write the confusion matrix, IoU and mIoU of a checkpoint on the evaluation frames at image resolution.

    Twice: as trained, and with batch normalisation statistics re-estimated on the target's training images (AdaBN),
    null for a network without batch normalisation. With Cityscapes' 19 or 16 categories, the means over 16 and over 13
    of them are given too.
    """
    started = time.time()
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    table = class_table(configuration, configuration.evaluation)
    read = read_manifest(manifest, configuration=configuration)
    frames = read.frames("evaluation")
    network, description = restore_network(checkpoint, device, table, configuration, manifest)
    _refuse_other_evaluation(output, description["provenance"])
    inference, size = configuration.inference, configuration.compute.inference_batch_size
    trained = _confusion(network, frames, table, inference, size, device)
    adapted = None
    if batch_norms(network):
        images = inference_batches(read.frames("target"), size)
        estimate_statistics(network, (scaled(batch, device) for _, batch in images))
        adapted = _confusion(network, frames, table, inference, size, device)
    made_by = description["provenance"]
    model = model_of(made_by)
    settings = configuration.model_dump(mode="json", include={"inference"})
    result = {
        "run": model,
        "seed": made_by["seed"],
        "frames": len(frames),
        "classes": list(table.names),
        "as_trained": _scores(trained, table),
        "target_statistics": None if adapted is None else _scores(adapted, table),
        "provenance": provenance("evaluate", settings, [manifest, checkpoint], made_by["seed"], started, output),
    }
    write_json(output, result)
    second = "" if adapted is None else f", with target statistics {100 * float(mean_iou(adapted)):.1f}"
    print(f"evaluate: {model or made_by['made_by']} mIoU {100 * float(mean_iou(trained)):.1f}{second} -> {output}")


def _refuse_other_evaluation(output: Path, made: Mapping[str, Any]) -> None:
    """UserError where the output would replace the evaluation of another model than one with this provenance."""
    if not output.exists():
        return
    before, model = read_artifact(output, KINDS["evaluate"]), model_of(made)
    if (found := before.get("run"), before["seed"]) != (model, made["seed"]):
        raise UserError(f"{output}: an output must be new or replace the evaluation of the same model, found one of "
                        f"{found or 'a model from elsewhere'}, seed {before['seed']}; choose another output")  # fmt: skip


def _confusion(
    network: nn.Module,
    frames: list[Frame],
    table: ClassTable,
    inference: Inference,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    @torch.inference_mode()  # which holds for one thread alone
    def judge(seen: tuple[list[int], Views]) -> list[Tensor]:
        indices, found = seen
        pairs = zip(indices, largest(found), strict=True)
        return [confusion_of(prediction, label_of(frames[i]), table, frames[i].label_sha256) for i, prediction in pairs]

    batches = inference_batches(frames, batch_size)
    seen = ((indices, views(network, scaled(images, device), inference)) for indices, images in batches)
    total = torch.zeros(table.count, table.count, dtype=torch.int64)
    with tqdm(total=len(frames), desc="evaluate", disable=not sys.stderr.isatty()) as bar:
        for matrices in in_background(seen, judge):
            for matrix in matrices:
                total += matrix
            bar.update(len(matrices))
    return total


def confusion_of(
    prediction: UInt8[Tensor, "H W"], label: Path, table: ClassTable, sha256: str | None = None
) -> Int64[Tensor, "c c"]:
    """The confusion matrix of one image with the truth in a label file; UserError if it cannot be read or is unknown.

    A file of bytes is counted as it is, and its 256 values are mapped to categories afterwards, not each of its pixels.
    """
    values = raw_values(read_bytes(label, sha256), label, table)
    if values.dtype != np.uint8:
        truth = to_train_ids(values, table, label).to(prediction.device)
        return confusion_matrix(prediction[None], truth[None], table.count).cpu()
    truth = torch.from_numpy(np.require(values, requirements="W")).to(prediction.device)
    counts = counts_by_value(prediction[None], truth[None], table.count).cpu()
    category = torch.from_numpy(table.lookup[:256].copy())
    if counts[category == UNWRITTEN].any():
        to_train_ids(values, table, label)  # says what is unknown
    known = category < table.count
    return torch.zeros(table.count, table.count, dtype=torch.int64).index_add_(0, category[known].long(), counts[known])


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
