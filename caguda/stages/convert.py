"""What comes from elsewhere, as artifacts of this pipeline: the authors' anchors and checkpoints, and a user's own."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from caguda.artifacts.anchors import Anchors, save_anchors
from caguda.artifacts.checkpoint import load_checkpoint, load_weights, not_finite, save_checkpoint
from caguda.artifacts.provenance import provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.errors import UserError, first
from caguda.networks.deeplab_v3plus import DeepLabV3Plus
from caguda.networks.layers.weights import misfit, read_pickle
from caguda.runs import described, imported_files

# How names in our state dict of DeepLab v3+ begin, and in the authors'.
NAMES = {
    "encoder.": "backbone.",
    **{f"transformer.aspp.branches.{i}.0.": f"aspp.aspp{i + 1}.atrous_conv." for i in range(4)},
    **{f"transformer.aspp.branches.{i}.1.": f"aspp.aspp{i + 1}.bn." for i in range(4)},
    "transformer.aspp.branches.4.convolution.": "aspp.global_avg_pool.1.",
    "transformer.aspp.branches.4.norm.": "aspp.global_avg_pool.2.",
    "transformer.aspp.fuse.0.": "aspp.conv1.",
    "transformer.aspp.fuse.1.": "aspp.bn1.",
    "transformer.skip.0.": "decoder.conv1.",
    "transformer.skip.1.": "decoder.bn1.",
    "transformer.fuse.": "decoder.last_conv.",
    "classifier.": "decoder.last_conv.8.",
}


def convert_anchors(configuration: Configuration, input: Path, output: Path) -> None:
    """Write the authors' file of category anchors in the format of `anchors`.

    Eq. 4 as their code reads it: means over images of a category's mean feature. Their counts are of images, and end
    at 3000; the file that their own script writes has none, so that 1 stands for "present". How far features are
    spread around an anchor is not in either: nan. A category without images, or with a zero vector, is absent.
    """
    started = time.time()
    table = class_table(configuration)
    vectors, images = _read_anchors(input, table.count)
    present = (images > 0) & vectors.any(axis=1)
    if present.sum() < 2 or not np.isfinite(vectors[present]).all():
        raise UserError(f"{input}: two finite anchors or more are needed, found {present.sum()}; get the file again")
    vectors[~present] = np.nan
    anchors = Anchors(
        vectors.astype(np.float32),
        np.where(present, images, 0).astype(np.int64),
        np.full(table.count, np.nan, np.float32),
        np.linalg.norm(vectors[:, None] - vectors, axis=2).astype(np.float32),
    )
    made_by = provenance("convert-anchors", {}, [input], None, started, output)
    save_anchors(output, anchors, {"categories": list(table.names), "counted": "images", "provenance": made_by})
    print(f"convert-anchors: {present.sum()} anchors, mean distance {anchors.mean_distance:.3f} -> {output}")


def convert_checkpoint(configuration: Configuration, input: Path, output: Path) -> None:
    """Write a checkpoint of the authors' DeepLab v3+ as one of ours, which `import` can bring into an experiment.

    Their networks see RGB in 0..1 as it is, so the configured one must be a deeplab_v3plus with normalisation `unit`.
    UserError unless the file has all of that network's weights, and no others.
    """
    started = time.time()
    network, table = configuration.network, class_table(configuration)
    if not isinstance(network, DeepLabV3Plus) or network.normalisation != "unit":
        raise UserError(
            "network: the authors' checkpoints are of a deeplab_v3plus with normalisation unit, found "
            f"{network.name} with {network.normalisation}; configure the network that was trained"
        )
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: a checkpoint's name must end in .safetensors; give --output such a name")
    built = network.build(table.count)
    expected = {_their_name(name): value for name, value in built.state_dict().items()}
    given = _read_weights(input)
    if found := misfit(given, expected):
        raise UserError(
            f"{input}: the weights of a {network.backbone} with {table.count} categories are needed, found {found}; "
            "check network.backbone and classes, or take another file"
        )
    built.load_state_dict({name: given[_their_name(name)] for name in built.state_dict()})
    description = {
        "architecture": network.model_dump(mode="json"),
        "classes": list(table.names),
        "target_statistics": False,
        "metrics": {},
        "provenance": provenance(
            "convert-checkpoint",
            configuration.model_dump(mode="json", include={"network"}),
            [input],
            None,
            started,
            output,
        ),
    }
    save_checkpoint(output, built.state_dict(), description)
    print(f"convert-checkpoint: {len(given)} arrays -> {output}")


def import_checkpoint(configuration: Configuration, run: str, seed: int, input: Path, output: Path) -> None:
    """Write a checkpoint of elsewhere as that of a run whose method is `imported`.

    `input` is a checkpoint of this pipeline, or the weights alone, of which the configured network and classes are then
    believed. The provenance says that it was imported and, if it is known, what made it. UserError unless the weights
    are those of the configured network for the configured classes.
    """
    started = time.time()
    if run not in imported_files(configuration):
        raise UserError(f"--run {run}: must be a run whose method is imported, found {first(list(imported_files(configuration))) or 'none'} "
                        "in the configuration; name one")  # fmt: skip
    network, table = configuration.network, class_table(configuration)
    theirs: dict[str, Any] = {}
    if input.with_suffix(".json").exists():
        given, theirs = load_checkpoint(input)
        _refuse_another(input, theirs, network.model_dump(mode="json"), list(table.names))
    else:
        given = load_weights(input)
    built = network.build(table.count)
    if found := misfit(given, built.state_dict()):
        raise UserError(
            f"{input}: the weights of the configured network with {table.count} categories are needed, found {found}; "
            "check the keys network, classes and runs"
        )
    if broken := not_finite(given):
        raise UserError(f"{input}: every weight must be finite, found {broken} that is not; take another model")
    built.load_state_dict(given)
    settings = {**configuration.model_dump(mode="json", include={"network"}), "run": described(configuration, run)}
    made_by = provenance("import", settings, [input], seed, started, output)
    description = {
        "architecture": network.model_dump(mode="json"),
        "classes": list(table.names),
        "target_statistics": theirs.get("target_statistics", False),
        "metrics": {},
        "provenance": made_by | {"imported": {"path": str(input.absolute()), "provenance": theirs.get("provenance")}},
    }
    save_checkpoint(output, built.state_dict(), description)
    print(f"import: {input}, made by {theirs.get('provenance', {}).get('made_by', 'somebody')} -> {output}")


def _refuse_another(path: Path, found: Mapping[str, Any], network: Mapping[str, Any], classes: Sequence[str]) -> None:
    """UserError unless a checkpoint's description has this network, wherever its backbone's weights, and these classes."""
    if found["classes"] != classes:
        raise UserError(
            f"{path}: the checkpoint must be for the configured categories, {len(classes)} of them, found one for "
            f"{len(found['classes'])} other or otherwise ordered ones; check the keys classes and runs"
        )
    for key in sorted({*network, *found["architecture"]} - {"weights"}):
        if (given := found["architecture"].get(key)) != network.get(key):
            raise UserError(
                f"{path}: the checkpoint must be of the configured network, found {key} {given} instead of "
                f"{network.get(key)}; check the keys network and runs"
            )


def _read_anchors(path: Path, categories: int) -> tuple[Float64[np.ndarray, "c d"], Float64[np.ndarray, " c"]]:
    """The vectors and counts of the authors' file, which is a dict, or of what their script writes: the vectors."""
    content = read_pickle(path)
    if isinstance(content, np.ndarray):
        content = {"objective_vectors": content, "objective_num": np.ones(len(content))}
    pair = [content.get(name) for name in ("objective_vectors", "objective_num")] if isinstance(content, dict) else []
    shapes = [value.shape for value in pair if isinstance(value, np.ndarray) and value.dtype.kind in "fi"]
    if [len(shape) for shape in shapes] != [2, 1] or {shape[0] for shape in shapes} != {categories}:
        raise UserError(
            f"{path}: objective_vectors and objective_num of {categories} categories are needed, found arrays of "
            f"shapes {shapes}; take the authors' category_anchors, and the key classes that it was made for"
        )
    vectors, images = (np.asarray(value, np.float64) for value in pair)
    return vectors, images


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in the authors' file: that of their class DeepLab, without what DataParallel puts before names."""
    content: Any = read_pickle(path)
    for key in ("DeepLab", "model_state"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise UserError(f"{path}: a state dict is needed, found {type(content).__name__}; take another file")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _their_name(name: str) -> str:
    (ours,) = [beginning for beginning in NAMES if name.startswith(beginning)]
    return NAMES[ours] + name.removeprefix(ours)
