"""How good a checkpoint is on labelled frames, and how right the pseudo-labels were: for people, never for training."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from caguda.artifacts.atomic import write_json
from caguda.artifacts.identity import KINDS, model_of, read_artifact
from caguda.artifacts.label_arrays import LabelStatistics, relabelled
from caguda.artifacts.provenance import provenance
from caguda.classes import UNWRITTEN, ClassTable, class_table, smaller_sets
from caguda.config import Configuration, Inference
from caguda.datasets.frame import Frame, label_of
from caguda.datasets.io import labels_of, raw_values, read_bytes, to_train_ids
from caguda.datasets.loader import inference_batches
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.datasets.workers import behind
from caguda.equations.anchors import labels_at
from caguda.equations.metrics import confusion_matrix, counts_by_value, iou, mean_iou
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import batch_norms, estimate_statistics
from caguda.networks.layers.inference import Views, largest, views
from caguda.stages.labelling import relative_files, verified_labelling
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
        "row": ROWS.get(model.name, model.name),
        "recipe": model.recipe,
        "seed": made_by["seed"],
        "frames": len(frames),
        "classes": list(table.names),
        "as_trained": _scores(trained, table),
        "target_statistics": None if adapted is None else _scores(adapted, table),
        "provenance": provenance("evaluate", settings, [manifest, checkpoint], made_by["seed"], started, output),
    }
    write_json(output, result)
    second = "" if adapted is None else f", with target statistics {100 * float(mean_iou(adapted)):.1f}"
    print(f"evaluate: {made_by['made_by']} mIoU {100 * float(mean_iou(trained)):.1f}{second} -> {output}")


def _refuse_other_evaluation(output: Path, made: Mapping[str, Any]) -> None:
    """UserError where the output would replace the evaluation of another model than one with this provenance."""
    if not output.exists():
        return
    before = read_artifact(output, KINDS["evaluate"])
    model = model_of(made)
    of = f" of recipe {before['recipe']}" if before["recipe"] else ""
    if (before["row"], before["recipe"], before["seed"]) != (
        ROWS.get(model.name, model.name),
        model.recipe,
        made["seed"],
    ):
        raise UserError(f"{output}: an output must be new or replace the evaluation of the same model, found one of "
                        f"{before['row']}{of}, seed {before['seed']}; choose another output")  # fmt: skip


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
        return [judged(prediction, label_of(frames[i]), table, frames[i].label_sha256) for i, prediction in pairs]

    batches = inference_batches(frames, batch_size)
    seen = ((indices, views(network, scaled(images, device), inference)) for indices, images in batches)
    total = torch.zeros(table.count, table.count, dtype=torch.int64)
    with tqdm(total=len(frames), desc="evaluate", disable=not sys.stderr.isatty()) as bar:
        for matrices in behind(seen, judge):
            for matrix in matrices:
                total += matrix
            bar.update(len(matrices))
    return total


def judged(
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


def diagnose(
    configuration: Configuration, manifest: Path, evidence: Path, labels: Sequence[Path], output: Path
) -> None:
    """Write what the pseudo-labels of both rules are together, and how right they are where a truth is known.

    Diagnostics only: no training reads this. Shares are of all pixels at the resolution of f_D, `accuracy` is over those
    with a truth, null where none is known. "anchor only" are the pixels that anchors activate and probability does not.
    """
    started = time.time()
    table = class_table(configuration, configuration.target)
    frames = read_manifest(manifest, configuration=configuration).frames("target")
    labelling = verified_labelling(configuration, manifest, evidence, labels, output)
    c = table.count
    every, assigned, everywhere = LabelStatistics(c), LabelStatistics(c), LabelStatistics(c)
    for index in tqdm(range(labelling.count), desc="diagnose", disable=not sys.stderr.isatty()):
        row = labelling.read(index)
        every.add(row)
        if frames[index].label is not None:
            truth = truth_at(frames[index], table, labelling.shape)
            assigned.add(row, truth)
            everywhere.add(relabelled(row, -1.0, -1.0), truth)
    known = sum(frame.label is not None for frame in frames)
    scores, all_pixels = assigned.scores(table.names), everywhere.scores(table.names)
    scores |= {"nearest_anchor_all": all_pixels["anchor"], "predicted_all": all_pixels["probability"]}
    inputs, seed = [manifest, evidence, *labels], labelling.evidence.attributes["provenance"]["seed"]
    content = {
        **relative_files(evidence, labels, output),
        "margin": None if np.isnan(labelling.margin) else labelling.margin,
        "p0": labelling.p0,
        "seed": seed,
        "images": labelling.count,
        **every.summary(table.names),
        "images_with_truth": known,
        "accuracy": scores if known else None,
        "provenance": provenance("diagnose", {}, inputs, seed, started, output),
    }
    write_json(output, content)
    share = content["share"]
    print(f"diagnose: {labelling.count} images, active by anchors {share['anchor']:.1%}, by probability "
          f"{share['probability']:.1%}, by either {share['either']:.1%} -> {output}")  # fmt: skip


def truth_at(frame: Frame, table: ClassTable, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The train ids of a frame's label at the resolution (h, w) of a store, IGNORE where void."""
    return labels_at(labels_of(frame, table)[None], size)[0].numpy()
