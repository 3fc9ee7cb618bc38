"""The pictures of the page of methods: the same evaluation frames by every run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from caguda.artifacts.identity import CHECKPOINT, model_of, read_artifact
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.image_batches import scaled
from caguda.datasets.io import frame_image, frame_labels
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.networks.layers.inference import most_probable
from caguda.networks.layers.network import SegmentationNetwork
from caguda.paper.figures import Block, write_figure
from caguda.paper.pictures import description as picture_description
from caguda.paper.rows import ModelRow, rows_of_runs
from caguda.stages.figure import evenly_spaced
from caguda.stages.runtime import configure_torch, restore_network


@torch.inference_mode()
def draw_methods(
    configuration: Configuration, manifest: Path, seed: int, checkpoints: Sequence[Path], output: Path
) -> None:
    """Draw evenly spaced evaluation frames, a column each, with the predictions of every run's last model, a block each.

    `checkpoints` are those of these models and of one seed, in any order; UserError for others.
    """
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    table = class_table(configuration)
    checked = read_manifest(manifest, configuration=configuration)
    frames = [frame for _, frame in evenly_spaced(checked.frames("evaluation"))]
    columns = [f"frame {number}" for number in range(1, len(frames) + 1)]
    images = [frame_image(frame) for frame in frames]
    evaluation_table = class_table(configuration, configuration.evaluation)
    truths = [None if frame.label is None else frame_labels(frame, evaluation_table).numpy() for frame in frames]
    rows = rows_of_runs(configuration)
    predictions = {
        row.model: [most_probable(network, image, configuration.inference, network.align_corners)[0].cpu().numpy()
                    for image in (scaled(image[None], device) for image in images)]
        for row, network in _networks(configuration, rows, manifest, seed, checkpoints, device)
    }  # fmt: skip
    known = {column: truth for column, truth in zip(columns, truths, strict=True) if truth is not None}
    blocks = [
        Block(
            "input", columns, [dict(zip(columns, (image.permute(1, 2, 0).numpy() for image in images), strict=True))]
        ),
        Block("truth", columns, [known]),
        *(Block(row.title, columns, [dict(zip(columns, predictions[row.model], strict=True))]) for row in rows),
    ]
    write_figure(blocks, table, output, picture_description("methods-figure", checkpoints))
    print(f"methods-figure: {len(frames)} evaluation frames by {len(rows)} runs -> {output}")


def _networks(
    configuration: Configuration, rows: Sequence[ModelRow], manifest: Path, seed: int, checkpoints: Sequence[Path],
    device: torch.device,
) -> Iterator[tuple[ModelRow, SegmentationNetwork]]:  # fmt: skip
    """Each row with its network, one after another; UserError unless the checkpoints are those of the rows, of one seed."""
    provenances = {path: read_artifact(path.with_suffix(".json"), CHECKPOINT)["provenance"] for path in checkpoints}
    paths = {model_of(provenance): path for path, provenance in provenances.items()}
    if sorted(paths) != sorted(row.model for row in rows) or len(paths) < len(checkpoints):
        raise UserError(f"--checkpoints: the figure must have each of {', '.join(row.model for row in rows)} once, found "
                        f"{', '.join(paths)}; name their checkpoints")  # fmt: skip
    for path, provenance in provenances.items():
        if (found := provenance["seed"]) not in (None, seed):
            raise UserError(
                f"{path}: the figure is of seed {seed}, found a model of seed {found}; name that of seed {seed}"
            )
    table = class_table(configuration)
    for row in rows:
        yield row, restore_network(paths[row.model], device, table, configuration, manifest)[0]
