"""The qualitative figure, after the paper's Figure 2: predictions of the networks, and pseudo-labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caguda.artifacts.identity import KIND_BY_VERB, model_of, read_artifact
from caguda.artifacts.provenance import content_digest
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration, Inference
from caguda.config_run import Method
from caguda.datasets.frame import Frame
from caguda.datasets.image_batches import scaled
from caguda.datasets.io import frame_image, frame_labels
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.networks.layers.inference import most_probable
from caguda.networks.layers.network import SegmentationNetwork
from caguda.paper.figures import Block, write_figure
from caguda.paper.pictures import description as picture_description
from caguda.paper.rows import ModelRow, main_model, models_of_figure
from caguda.paper.table import report_rows
from caguda.runs import rules_of, run_of, stage_number
from caguda.stages.labelling import Labelling, verified_labelling
from caguda.stages.runtime import configure_torch, restore_network

ROWS = 4
COLUMNS = {"anchor": "anchors"}
"""The words for a rule in a column's title, by its name; the default is the name."""


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

    `checkpoints` are of the report's main model and of the last model of each run before it; `labels` are those that the
    main model was trained on. UserError for others.
    """
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    table = class_table(configuration)
    checked = read_manifest(manifest, configuration=configuration)
    rows = report_rows(configuration, report)
    main = main_model(rows)
    _refuse_other_rules(configuration, main.model, evidence, labels)
    restored = [restore_network(path, device, table, configuration, manifest) for path in checkpoints]
    provenances = [description["provenance"] for _, description in restored]
    columns = _columns(configuration, rows, checkpoints, provenances)
    networks = {column: network for column, (network, _) in zip(columns, restored, strict=True)}
    for path, provenance in zip(checkpoints, provenances, strict=True):
        _refuse_other_checkpoint(path, provenance, seed, labels if model_of(provenance) == main.model else ())
    frames = [frame for _, frame in evenly_spaced(checked.frames("evaluation"))]
    evaluation_table = class_table(configuration, configuration.evaluation)
    predicted = [
        _row(frame, evaluation_table) | _predictions(networks, frame, configuration.inference, device)
        for frame in frames
    ]
    blocks = [Block(f"(a) evaluation frames, {report}, seed {seed}", ("input", "truth", *networks), predicted)]
    if evidence is not None:
        labelling = verified_labelling(configuration, manifest, evidence, labels, output)
        blocks.append(_labelled(configuration, labelling, checked.frames("target"), main.name))
    write_figure(blocks, table, output, picture_description("figure", [*checkpoints, *labels]))
    print(f"figure: {len(frames)} evaluation frames, pseudo-labels of {len(labels)} rules -> {output}")


def _refuse_other_rules(
    configuration: Configuration, model: str, evidence: Path | None, labels: Sequence[Path]
) -> None:
    """UserError unless the labels are of the rules that a model is trained with, and come with their evidence."""
    run = run_of(configuration, model)
    reads_labels = isinstance(run, Method) and run.reads_pseudo_labels
    expected = sorted(rules_of(configuration, model)) if reads_labels else []
    found = sorted(read_artifact(path, KIND_BY_VERB["labels"])["rule"]["name"] for path in labels)
    if found != expected:
        raise UserError(
            f"--labels: labels {_by(expected)} must be given, found {_by(found)}; name those that {model} was trained on"
        )
    if reads_labels != (evidence is not None):
        raise UserError(
            f"--evidence: must be given just where labels are, found {'it alone' if evidence else 'labels alone'}"
        )


def _by(rules: Sequence[str]) -> str:
    return "by " + " and by ".join(rules) if rules else "of no rule"


def _labelled(configuration: Configuration, labelling: Labelling, frames: Sequence[Frame], name: str) -> Block:
    """Target frames with the pseudo-labels that a model was trained on, one column for each rule."""
    table = class_table(configuration, configuration.target)
    columns = {f"by {COLUMNS.get(rule, rule)}": rule for rule in sorted(labelling.rules)}
    rows = [
        _row(frame, table) | {column: labelling.label(rule, index) for column, rule in columns.items()}
        for index, frame in evenly_spaced(frames)
    ]
    return Block(f"(b) pseudo-labels of {name} on target frames", ("input", "truth", *columns), rows)


def _columns(
    configuration: Configuration,
    rows: Sequence[ModelRow],
    checkpoints: Sequence[Path],
    provenances: Sequence[Mapping[str, Any]],
) -> list[str]:
    """The titles of the models' columns, by their provenances; UserError unless each model of the figure is there once."""
    main, expected = main_model(rows), models_of_figure(configuration, rows)
    is_last_stage = "/" in main.model and main.name.endswith(f"stage {stage_number(main.model)}")
    titles = {row.model: "last stage" if row is main and is_last_stage else row.name for row in rows}
    models = [model_of(provenance) for provenance in provenances]
    for path, model in zip(checkpoints, models, strict=True):
        if model not in expected or models.count(model) > 1:
            raise UserError(f"{path}: the figure must have one model each of {', '.join(expected)}, found "
                            f"{'two of one' if model in expected else 'another'}; leave it out")  # fmt: skip
    if missing := [model for model in expected if model not in models]:
        raise UserError(
            f"--checkpoints: the figure must have the model of {missing[0]}, found none; name its checkpoint"
        )
    return [titles[model] for model in models]


def _refuse_other_checkpoint(path: Path, provenance: Mapping[str, Any], seed: int, labels: Sequence[Path]) -> None:
    """UserError unless a model is of this seed and was trained on these labels."""
    if provenance["seed"] not in (None, seed):
        raise UserError(f"{path}: the figure is of seed {seed}, found a model of another one; name that of this seed")
    trained_on = {recorded.get("content") for recorded in provenance["inputs"].values()}
    if unused := [file for file in labels if content_digest(file) not in trained_on]:
        raise UserError(f"{unused[0]}: the labels must be those that {path} was trained on, found others; name those")


def evenly_spaced(frames: Sequence[Frame]) -> list[tuple[int, Frame]]:
    count = min(ROWS, len(frames))
    return [(i, frames[i]) for i in (len(frames) * (2 * k + 1) // (2 * count) for k in range(count))]


def _row(frame: Frame, table: ClassTable) -> dict[str, np.ndarray]:
    row = {"input": frame_image(frame).permute(1, 2, 0).numpy()}
    return row if frame.label is None else row | {"truth": frame_labels(frame, table).numpy()}


def _predictions(
    networks: Mapping[str, SegmentationNetwork], frame: Frame, inference: Inference, device: torch.device
) -> dict[str, np.ndarray]:
    image = scaled(frame_image(frame)[None], device)
    return {
        name: most_probable(network, image, inference, network.align_corners)[0].cpu().numpy()
        for name, network in networks.items()
    }
