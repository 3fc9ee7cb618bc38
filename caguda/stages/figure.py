"""The qualitative figure, after the paper's Figure 2: what the networks see, and what the pseudo-labels say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from caguda.artifacts.identity import KINDS, model_of, read_artifact
from caguda.artifacts.provenance import content_of
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration, Inference
from caguda.config_run import Method
from caguda.datasets.frame import Frame
from caguda.datasets.io import image_of, labels_of
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.errors import UserError
from caguda.networks.layers.inference import most_probable
from caguda.paper.figures import Block, write_figure
from caguda.paper.pictures import description as told
from caguda.paper.rows import ModelRow, main_model, models_of_figure
from caguda.paper.table import report_rows
from caguda.runs import place_in_chain, rules_of, run_of
from caguda.stages.labelling import Labelling, verified_labelling
from caguda.stages.runtime import prepare, restore_network

ROWS = 4
COLUMNS = {"anchor": "anchors"}
"""What the labels of a rule are by, where that is another word than the rule's name."""


@torch.inference_mode()
def draw_figure(
    configuration: Configuration,
    manifest: Path,
    report: str,
    seed: int,
    checkpoints: Sequence[Path],
    output: Path,
    evidence: Path | None = None,
    labels: Sequence[Path] = (),
) -> None:
    """Draw evenly spaced evaluation frames with the networks' predictions, and target frames with their pseudo-labels.

    `checkpoints` are those of the report's main model and of the last of each run that led to it; `labels` are those that the
    main model was trained on, else a UserError. The frames are chosen by their place in the set alone.
    """
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    table = class_table(configuration)
    read = read_manifest(manifest, configuration=configuration)
    rows = report_rows(configuration, report)
    _refuse_other_rules(configuration, main_model(rows).model, evidence, labels)
    restored = [restore_network(path, device, table, configuration, manifest) for path in checkpoints]
    names = _columns(configuration, rows, checkpoints, [description["provenance"] for _, description in restored])
    networks = {name: network for name, (network, _) in zip(names, restored, strict=True)}
    for path, (_, description) in zip(checkpoints, restored, strict=True):
        is_main = model_of(description["provenance"]) == main_model(rows).model
        _refuse_others(path, description["provenance"], seed, labels if is_main else ())
    evaluated = _spaced(read.frames("evaluation"))
    evaluation_table = class_table(configuration, configuration.evaluation)
    predicted = Block(
        f"(a) evaluation frames, {report}, seed {seed}",
        ("input", "truth", *networks),
        [
            _row(frame, evaluation_table) | _predictions(networks, frame, configuration.inference, device)
            for _, frame in evaluated
        ],
    )
    blocks = [predicted]
    if evidence is not None:
        labelling = verified_labelling(configuration, manifest, evidence, labels, output)
        blocks.append(_labelled(configuration, labelling, read.frames("target"), main_model(rows).name))
    write_figure(blocks, table, output, told("figure", [*checkpoints, *labels]))
    print(f"figure: {len(evaluated)} evaluation frames, pseudo-labels of {len(labels)} rules -> {output}")


def _refuse_other_rules(
    configuration: Configuration, model: str, evidence: Path | None, labels: Sequence[Path]
) -> None:
    """UserError unless the labels are by the rules that a model is trained with, and their evidence is given with them."""
    run = run_of(configuration, model)
    reads = isinstance(run, Method) and run.reads_pseudo_labels
    wanted = sorted(rules_of(configuration, model)) if reads else []
    found = sorted(read_artifact(path, KINDS["labels"])["rule"]["name"] for path in labels)
    if found != wanted:
        raise UserError(
            f"--labels: labels {_by(wanted)} must be given, found {_by(found)}; name those that {model} was trained on"
        )
    if reads != (evidence is not None):
        raise UserError(
            f"--evidence: must be given just where labels are, found {'it alone' if evidence else 'labels alone'}"
        )


def _by(rules: Sequence[str]) -> str:
    return "by " + " and by ".join(rules) if rules else "of no rule"


def _labelled(configuration: Configuration, labelling: Labelling, frames: Sequence[Frame], name: str) -> Block:
    """Target frames with the pseudo-labels that a model was trained on, a column for each rule."""
    table = class_table(configuration, configuration.target)
    columns = {f"by {COLUMNS.get(rule, rule)}": rule for rule in sorted(labelling.rules)}
    rows = []
    for index, frame in _spaced(frames):
        labelled = {column: labelling.label(rule, index) for column, rule in columns.items()}
        rows.append(_row(frame, table) | labelled)
    return Block(f"(b) pseudo-labels of {name} on target frames", ("input", "truth", *columns), rows)


def _columns(
    configuration: Configuration,
    rows: Sequence[ModelRow],
    checkpoints: Sequence[Path],
    made: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What the predictions of each model are called, by its provenance; UserError unless they are those of the figure."""
    main, wanted = main_model(rows), models_of_figure(configuration, rows)
    is_last = main.name.endswith(f"stage {place_in_chain(main.model)}")
    called = {row.model: "last stage" if row is main and is_last else row.name for row in rows}
    found = [model_of(each) for each in made]
    for path, model in zip(checkpoints, found, strict=True):
        if model not in wanted or found.count(model) > 1:
            raise UserError(f"{path}: the figure must have one model each of {', '.join(wanted)}, found "
                            f"{'two of one' if model in wanted else 'another'}; leave it out")  # fmt: skip
    if missing := [model for model in wanted if model not in found]:
        raise UserError(
            f"--checkpoints: the figure must have the model of {missing[0]}, found none; name its checkpoint"
        )
    return [called[model] for model in found]


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
