"""Conversion of anchors and checkpoints from elsewhere: from the authors' code, or imported by a run."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from caguda.artifacts.anchors import Anchors, load_anchors, save_anchors
from caguda.artifacts.checkpoint import load_checkpoint, load_weights, not_finite
from caguda.artifacts.checks import refuse_other_classes, refuse_other_network
from caguda.artifacts.provenance import new_provenance
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.errors import UserError, first
from caguda.networks.deeplab_v3plus import DeepLabV3Plus
from caguda.networks.layers.weights import misfit, read_pickle
from caguda.recorded_settings import recorded_network
from caguda.runs import deciding_settings, imported_files
from caguda.stages.runtime import save_network

LARGEST = 1e18
"""Values of anchors are smaller: distances between larger ones could not be squared in float32."""
# Prefixes of names in the state dict of DeepLab v3+: ours, and the authors'.
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
    """Write anchors from elsewhere in the format of `anchors`: an anchors file, NAME.h5, or the authors' file.

    The provenance holds the path of the file and, if known, its provenance. UserError unless the anchors are of the
    configured classes, and have the channels of the features of the configured network.
    """
    started = time.time()
    table = class_table(configuration)
    anchors, attributes = _own_anchors(input, table) if input.suffix == ".h5" else _authors_anchors(input, table)
    if anchors.mean_distance == 0:
        raise UserError(f"{input}: anchors must differ between categories, found all of them equal; take another file")
    expected = configuration.network.build(table.count).classifier.weight.shape[1]
    if (channels := anchors.vectors.shape[1]) != expected:
        raise UserError(
            f"{input}: anchors must have the {expected} channels of the network's features, found {channels}; check the keys "
            "network and runs, or take another file"
        )
    settings = recorded_network(configuration) | configuration.model_dump(mode="json", include={"classes"})
    provenance = new_provenance("convert-anchors", settings, [input], None, started, output)
    provenance["imported"] = {"path": str(input.absolute()), "provenance": attributes.pop("provenance", None)}
    save_anchors(output, anchors, {**attributes, "provenance": provenance})
    print(f"convert-anchors: {anchors.present.sum()} anchors, mean distance {anchors.mean_distance:.3f} -> {output}")


def _own_anchors(path: Path, table: ClassTable) -> tuple[Anchors, dict[str, Any]]:
    """The anchors and attributes of an anchors file; UserError unless they are two or more, of the categories in order."""
    anchors, attributes = load_anchors(path)
    if (found := attributes["categories"]) != list(table.names):
        raise UserError(
            f"{path}: the anchors must be of the configured categories, {table.count} of them, found those of {len(found)} "
            "other or otherwise ordered ones; check the keys classes and runs, or take another file"
        )
    _refuse_too_few(path, anchors.present, anchors.vectors)
    return anchors, attributes


def _authors_anchors(path: Path, table: ClassTable) -> tuple[Anchors, dict[str, Any]]:
    """The anchors and attributes of the authors' file.

    Their code reads Eq. 4 as the mean over images of a category's mean feature. Their counts are of images, at most 3000;
    the file of their own script has no counts, and the count of a present category becomes 1. The spread is unknown: nan.
    A category without images, or with a zero vector, is absent.
    """
    vectors, images = _read_anchors(path, table.count)
    present = (images > 0) & vectors.any(axis=1)
    _refuse_too_few(path, present, vectors)
    vectors[~present] = np.nan
    anchors = Anchors(
        vectors.astype(np.float32),
        np.where(present, images, 0).astype(np.int64),
        np.full(table.count, np.nan, np.float32),
        np.linalg.norm(vectors[:, None] - vectors, axis=2).astype(np.float32),
    )
    return anchors, {"categories": list(table.names), "counted": "images"}


def _refuse_too_few(path: Path, present: Bool[np.ndarray, " c"], vectors: Float[np.ndarray, "c d"]) -> None:
    """UserError for fewer than two anchors, which have no distance, or for an anchor that is too large or not finite."""
    if present.sum() < 2 or not (np.abs(vectors[present]) < LARGEST).all():
        raise UserError(
            f"{path}: two finite anchors or more are needed, found {present.sum()}, and values below {LARGEST:g}; get the file again"
        )


def convert_checkpoint(configuration: Configuration, input: Path, output: Path) -> None:
    """Write a checkpoint of the authors' DeepLab v3+ in our format, which `import` reads.

    Their networks take RGB in 0..1, and their logits are enlarged with aligned corners: the configured network must be a
    deeplab_v3plus with normalisation `unit` and `align_corners`.
    UserError unless the file has exactly the weights of that network.
    """
    started = time.time()
    network, table = configuration.network, class_table(configuration)
    if not isinstance(network, DeepLabV3Plus) or network.normalisation != "unit" or not network.align_corners:
        raise UserError(
            "network: the authors' checkpoints are of a deeplab_v3plus with normalisation unit and align_corners true, found "
            f"{network.name} with {network.normalisation} and {str(network.align_corners).lower()}; configure the network "
            "that was trained"
        )
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: a checkpoint's name must end in .safetensors; give --output such a name")
    built = network.build(table.count)
    expected = {_their_name(name): value for name, value in built.state_dict().items()}
    weights = _read_weights(input)
    if faults := misfit(weights, expected):
        raise UserError(
            f"{input}: the weights of a {network.backbone} with {table.count} categories are needed, found {faults}; "
            "check network.backbone and classes, or take another file"
        )
    built.load_state_dict({name: weights[_their_name(name)] for name in built.state_dict()})
    provenance = new_provenance("convert-checkpoint", recorded_network(configuration), [input], None, started, output)
    save_network(output, built, configuration, provenance)
    print(f"convert-checkpoint: {len(weights)} arrays -> {output}")


def import_checkpoint(configuration: Configuration, model: str, seed: int, input: Path, output: Path) -> None:
    """Write a checkpoint from elsewhere as that of a run whose method is `imported`.

    `input` is a checkpoint of this pipeline, or its weights alone, which are taken to be of the configured classes. The
    provenance holds the path of the file and, if known, its provenance. UserError unless the weights are those of the
    configured network for the configured classes.
    """
    started = time.time()
    if model not in imported_files(configuration):
        raise UserError(f"--model {model}: must be a run whose method is imported, found {first(list(imported_files(configuration))) or 'none'} "
                        "in the configuration; name one")  # fmt: skip
    table = class_table(configuration)
    description: dict[str, Any] = {}
    if input.with_suffix(".json").exists():
        weights, description = load_checkpoint(input)
        refuse_other_classes(input, description["classes"], table, "check the keys classes and runs")
        refuse_other_network(input, description["architecture"], configuration, "check the keys network and runs")
    else:
        weights = load_weights(input)
    network = configuration.network.build(table.count)
    if faults := misfit(weights, network.state_dict()):
        raise UserError(
            f"{input}: the weights of the configured network with {table.count} categories are needed, found {faults}; "
            "check the keys network, classes and runs"
        )
    if broken := not_finite(weights):
        raise UserError(f"{input}: every weight must be finite, found {broken} that is not; take another model")
    network.load_state_dict(weights)
    settings = {**recorded_network(configuration), "run": deciding_settings(configuration, model)}
    provenance = new_provenance("import", settings, [input], seed, started, output)
    provenance["imported"] = {"path": str(input.absolute()), "provenance": description.get("provenance")}
    target_statistics = description.get("target_statistics", False)
    save_network(output, network, configuration, provenance, target_statistics=target_statistics)
    print(f"import: {input}, made by {description.get('provenance', {}).get('made_by', 'somebody')} -> {output}")


def _read_anchors(path: Path, categories: int) -> tuple[Float64[np.ndarray, "c d"], Float64[np.ndarray, " c"]]:
    """The vectors and counts of the authors' file, a dict, or of the file of their script, which has vectors alone."""
    content = read_pickle(path)
    if isinstance(content, np.ndarray):
        content = {"objective_vectors": content, "objective_num": np.ones(content.shape[:1])}
    pair = [content.get(name) for name in ("objective_vectors", "objective_num")] if isinstance(content, dict) else []
    shapes = [value.shape for value in pair if isinstance(value, np.ndarray) and value.dtype.kind in "fi"]
    if [len(shape) for shape in shapes] != [2, 1] or {shape[0] for shape in shapes} != {categories}:
        raise UserError(
            f"{path}: objective_vectors and objective_num of {categories} categories are needed, found arrays of "
            f"shapes {shapes}; take the authors' category_anchors, and the key classes that it was made for"
        )
    vectors, images = (np.asarray(value, np.float64) for value in pair)
    if odd := [count for count in images.tolist() if not (count >= 0 and count.is_integer() and count < 2**53)]:
        raise UserError(f"{path}: objective_num must be whole numbers, 0 or more, found {odd[0]}; get the file again")
    return vectors, images


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of DeepLab in the authors' file, without the prefix of DataParallel."""
    content: Any = read_pickle(path)
    for key in ("DeepLab", "model_state"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise UserError(f"{path}: a state dict is needed, found {type(content).__name__}; take another file")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _their_name(name: str) -> str:
    (prefix,) = [prefix for prefix in NAMES if name.startswith(prefix)]
    return NAMES[prefix] + name.removeprefix(prefix)
