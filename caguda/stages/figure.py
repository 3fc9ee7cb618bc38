"""The qualitative figure, after the paper's Figure 2: what the networks see, and what the pseudo-labels say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from caguda.ablations import chains
from caguda.artifacts.identity import ModelOf, model_of, refuse_other_recipe
from caguda.artifacts.provenance import content_of
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration, Inference
from caguda.datasets.frame import Frame
from caguda.datasets.io import image_of, labels_of
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.errors import UserError
from caguda.networks.layers.inference import most_probable
from caguda.paper.figures import Block, write_figure
from caguda.paper.pictures import description as told
from caguda.stages.labelling import verified_labelling
from caguda.stages.runtime import prepare, restore_network

ROWS = 4


@torch.inference_mode()
def qualitative(
    configuration: Configuration,
    manifest: Path,
    recipe: str,
    seed: int,
    checkpoints: Sequence[Path],
    evidence: Path,
    labels: Sequence[Path],
    output: Path,
) -> None:
    """Draw evenly spaced evaluation frames with the networks' predictions, and target frames with their pseudo-labels.

    `checkpoints` are those of source only and warm-up, as far as they are there, and of the recipe's last stage; `labels` are
    those that the last stage was trained on, else a UserError. The frames are chosen by their place in the set alone.
    """
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    table = class_table(configuration)
    evaluation_table, target_table = (
        class_table(configuration, d) for d in (configuration.evaluation, configuration.target)
    )
    read = read_manifest(manifest, configuration=configuration)
    refuse_other_recipe(recipe, list(chains(configuration)))
    restored = [restore_network(path, device, table, configuration, manifest) for path in checkpoints]
    last = ModelOf(f"stage {configuration.stages.count}", recipe)
    names = _columns(checkpoints, [description["provenance"] for _, description in restored], last)
    networks = {name: network for name, (network, _) in zip(names, restored, strict=True)}
    for path, name, (_, description) in zip(checkpoints, names, restored, strict=True):
        _refuse_others(path, description["provenance"], seed, labels if name == "last stage" else ())
    target = read.frames("target")
    labelling = verified_labelling(configuration, manifest, evidence, labels, output)
    evaluated = _spaced(read.frames("evaluation"))
    predicted = Block(
        f"(a) evaluation frames, {recipe}, seed {seed}",
        ("input", "truth", *networks),
        [
            _row(frame, evaluation_table) | _predictions(networks, frame, configuration.inference, device)
            for _, frame in evaluated
        ],
    )
    columns = ("input", "truth", "by anchors", "by probability")
    rows = []
    for index, frame in _spaced(target):
        arrays = labelling.read(index)
        labelled = {"by anchors": arrays.anchor_label, "by probability": arrays.probability_label}
        rows.append(_row(frame, target_table) | labelled)
    assigned = Block(f"(b) pseudo-labels of stage {configuration.stages.count} on target frames", columns, rows)
    write_figure([predicted, assigned], table, output, told("figure", recipe, [*checkpoints, *labels]))
    print(f"figure: {len(evaluated)} evaluation and {len(rows)} target frames -> {output}")


def _columns(checkpoints: Sequence[Path], made: Sequence[Mapping[str, Any]], last: ModelOf) -> list[str]:
    """What the predictions of each model are called, by its provenance; UserError unless they are those of the figure."""
    known = {ModelOf("pretrain"): "source only", ModelOf("warmup"): "warm-up", last: "last stage"}
    names = [known.get(model_of(each), "") for each in made]
    for path, name in zip(checkpoints, names, strict=True):
        if not name or names.count(name) > 1:
            raise UserError(f"{path}: the figure must have one model each of source only, warm-up and {last}, found "
                            f"{'two of one' if name else 'another'}; leave it out")  # fmt: skip
    if "last stage" not in names:
        raise UserError(f"--checkpoints: the figure must have the model of {last}, found none; name its checkpoint")
    return names


def _refuse_others(path: Path, made: Mapping[str, Any], seed: int, labels: Sequence[Path]) -> None:
    """UserError unless a model is of this seed, and was trained on these labels where some are given."""
    if made["seed"] not in (None, seed):
        raise UserError(f"{path}: the figure is of seed {seed}, found a model of another one; name that of this seed")
    trained_on = {recorded.get("content") for recorded in made["inputs"].values()}
    if others := [file for file in labels if content_of(file) not in trained_on]:
        raise UserError(f"{others[0]}: the labels must be those that {path} was trained on, found others; name those")


def _spaced(frames: Sequence[Frame]) -> list[tuple[int, Frame]]:
    count = min(ROWS, len(frames))
    return [(i, frames[i]) for i in (len(frames) * (2 * k + 1) // (2 * count) for k in range(count))]


def _row(frame: Frame, table: ClassTable) -> dict[str, np.ndarray]:
    row = {"input": image_of(frame).permute(1, 2, 0).numpy()}
    return row if frame.label is None else row | {"truth": labels_of(frame, table).numpy()}


def _predictions(
    networks: Mapping[str, nn.Module], frame: Frame, inference: Inference, device: torch.device
) -> dict[str, np.ndarray]:
    image = scaled(image_of(frame)[None], device)
    return {name: most_probable(network, image, inference)[0].cpu().numpy() for name, network in networks.items()}
