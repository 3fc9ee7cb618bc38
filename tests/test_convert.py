"""The authors' files as artifacts of ours: what they mean stays the same, and nothing else gets through."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deeplab_reference as reference
import numpy as np
import pytest
import torch
from torch import Tensor

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.checkpoint import load_checkpoint
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.configfile import load_configuration, network_settings
from caguda.errors import UserError
from caguda.stages.convert import convert_anchors, convert_checkpoint
from caguda.stages.runtime import restore_network

DEMO = Path(__file__).parents[1] / "config" / "demo.yaml"


def configuration(**network: str | bool) -> Configuration:
    keys = {
        "name": "deeplab_v3plus",
        "backbone": "resnet50",
        "weights": "none",
        "normalisation": "unit",
        "align_corners": True,
        **network,
    }
    update = {"network": network_settings(keys, Path("test.json")), "classes": "cityscapes19", "ignore": (255,)}
    return load_configuration(DEMO).model_copy(update=update)


TABLE = class_table(configuration())


def authors_anchors() -> dict[str, Any]:
    vectors = np.random.default_rng(0).uniform(0, 3, (19, 256))
    vectors[16] = 0
    counts = np.full(19, 3000.0)
    counts[16], counts[3] = 0, 41
    return {"objective_vectors": vectors, "objective_num": counts}


@pytest.mark.parametrize("zipped", [True, False])
def test_the_authors_anchors_are_ours(tmp_path: Path, zipped: bool) -> None:
    content = authors_anchors()
    torch.save(content, tmp_path / "category_anchors", _use_new_zipfile_serialization=zipped)
    convert_anchors(configuration(), tmp_path / "category_anchors", tmp_path / "anchors.h5")
    anchors, attributes = load_anchors(tmp_path / "anchors.h5")
    vectors = content["objective_vectors"]
    assert list(np.flatnonzero(~anchors.present)) == [16]
    assert anchors.pixel_count[[0, 3, 16]].tolist() == [3000, 41, 0]
    for i in range(19):
        for j in range(19):
            expected = float("nan") if 16 in (i, j) else np.sqrt(((vectors[i] - vectors[j]) ** 2).sum())
            assert anchors.pairwise[i, j] == pytest.approx(expected, rel=1e-6, nan_ok=True)
        assert i == 16 or np.array_equal(anchors.vectors[i], vectors[i].astype(np.float32))
    assert np.isnan(anchors.vectors[16]).all() and np.isnan(anchors.spread).all() and anchors.mean_distance > 0
    assert attributes["categories"] == list(TABLE.names) and attributes["counted"] == "images"
    assert attributes["provenance"]["made_by"] == "convert-anchors"
    assert list(attributes["provenance"]["inputs"]) == [str(tmp_path / "category_anchors")]


def test_what_the_authors_script_writes_has_no_counts(tmp_path: Path) -> None:
    vectors = authors_anchors()["objective_vectors"]
    torch.save(vectors, tmp_path / "anchors_on_gta5_from_deeplab101")
    convert_anchors(configuration(), tmp_path / "anchors_on_gta5_from_deeplab101", tmp_path / "anchors.h5")
    anchors, _ = load_anchors(tmp_path / "anchors.h5")
    assert anchors.pixel_count.tolist() == [int(i != 16) for i in range(19)]
    assert np.array_equal(anchors.vectors[:16], vectors[:16].astype(np.float32))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda content: {"vectors": content["objective_vectors"]}, r"found arrays of shapes \[\]"),
        (lambda content: content | {"objective_num": np.ones(18)}, r"shapes \[\(19, 256\), \(18,\)\]"),
        (lambda content: {name: value[:16] for name, value in content.items()}, "of 19 categories are needed"),
        (lambda content: content | {"objective_num": "many"}, r"shapes \[\(19, 256\)\]"),
        (lambda content: list(content.values()), r"found arrays of shapes \[\]"),
        (
            lambda content: content | {"objective_num": np.zeros(19)},
            "two finite anchors or more are needed, found 0",
        ),
        (lambda content: content | {"objective_vectors": np.full((19, 4), np.inf)}, "two finite anchors"),
        (
            lambda content: np.zeros((19, 4)),
            "two finite anchors or more are needed, found 0",
        ),
        (lambda content: content | {"objective_vectors": np.full((19, 4), 1e300)}, "two finite anchors"),
        *(
            (
                lambda content, count=count: content | {"objective_num": np.full(19, count)},
                "objective_num must be whole numbers",
            )
            for count in (float("inf"), float("nan"), -1.0, 0.5, 1e19)
        ),
        (lambda content: np.ones((19, 256)), "anchors must differ between categories, found all of them equal"),
        (lambda content: np.array(1.0), r"found arrays of shapes \[\(\), \(\)\]"),
    ],
)
def test_other_files_are_no_anchors(tmp_path: Path, change: Callable[[Any], Any], found: str) -> None:
    torch.save(change(authors_anchors()), tmp_path / "file")
    with pytest.raises(UserError, match=f"^{tmp_path / 'file'}: .*{found}"):
        convert_anchors(configuration(), tmp_path / "file", tmp_path / "anchors.h5")
    assert not (tmp_path / "anchors.h5").exists()


class Command:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("convert", [convert_anchors, convert_checkpoint])
def test_code_in_a_file_is_not_run(tmp_path: Path, convert: Callable[[Configuration, Path, Path], None]) -> None:
    torch.save({"objective_vectors": Command(f"touch {tmp_path / 'trace'}"), "DeepLab": {}}, tmp_path / "file")
    with pytest.raises(UserError, match="found a reference to posix.system"):
        convert(configuration(), tmp_path / "file", tmp_path / "output.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("convert", [convert_anchors, convert_checkpoint])
def test_truncated_files_are_refused(tmp_path: Path, convert: Callable[[Configuration, Path, Path], None]) -> None:
    torch.save(authors_anchors(), tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damage or another format"):
        convert(configuration(), tmp_path / "file", tmp_path / "output.safetensors")


def released(state: dict[str, Tensor]) -> dict[str, Any]:
    """A file as the authors' training script saves it."""
    optimiser = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    parts = {"model_state": state, "optimizer_state": optimiser, "scheduler_state": {"base_lrs": [1e-4]}}
    return {"DeepLab": parts, "iter": 1000, "best_iou": np.float64(0.5)}


def bare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize("wrap", [released, bare])
@torch.no_grad()
def test_a_converted_checkpoint_computes_what_the_authors_network_does(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]
) -> None:
    torch.manual_seed(3)
    state = reference.random_state(reference.RESNET50, 19)
    torch.save(wrap(state), tmp_path / "model.pkl")
    convert_checkpoint(configuration(), tmp_path / "model.pkl", tmp_path / "model.safetensors")
    network, description = restore_network(tmp_path / "model.safetensors", torch.device("cpu"), TABLE)
    for height, width in ((33, 321), (64, 34)):
        images = torch.rand(2, 3, height, width)
        expected = reference.features_and_logits(state, images)
        for ours, theirs in zip(network(images)[:2], expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
        assert float(expected[0].std()) > 0.1, "features that could be told apart"
    assert description["classes"] == list(TABLE.names) and description["target_statistics"] is False
    assert description["metrics"] == {} and description["provenance"]["made_by"] == "convert-checkpoint"


def test_the_released_file_has_the_names_of_our_resnet101(tmp_path: Path) -> None:
    shapes = reference.shapes(reference.RESNET101, 19)
    weights = sum(int(np.prod(shape)) for name, shape in shapes.items() if name.endswith(("weight", "bias")))
    assert (len(shapes), weights) == (680, 59_343_795)
    state = stub(reference.RESNET101)
    torch.save(released(state), tmp_path / "model.pkl")
    convert_checkpoint(configuration(backbone="resnet101"), tmp_path / "model.pkl", tmp_path / "model.safetensors")
    assert len(load_checkpoint(tmp_path / "model.safetensors")[0]) == 680


def stub(blocks: tuple[int, ...]) -> dict[str, Tensor]:
    """A state dict of the right names and shapes that takes no room in a file."""
    return {name: torch.zeros(()).expand(shape) for name, shape in reference.shapes(blocks, 19).items()}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda state: {name: value for name, value in state.items() if name != "aspp.bn1.weight"},
            "no aspp.bn1.weight",
        ),
        (lambda state: state | {"decoder.extra": torch.ones(1)}, "found an unknown decoder.extra;"),
        (
            lambda state: state | {"decoder.last_conv.8.bias": torch.ones(16)},
            r"found decoder.last_conv.8.bias of shape \(16,\) instead of \(19,\);",
        ),
        (lambda _: {}, "and 371 more"),
        (lambda _: torch.ones(3), "a state dict is needed, found Tensor"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], found: str) -> None:
    torch.save({"DeepLab": {"model_state": change(stub(reference.RESNET50))}}, tmp_path / "file")
    with pytest.raises(UserError, match=f"^{tmp_path / 'file'}: .*{found}"):
        convert_checkpoint(configuration(), tmp_path / "file", tmp_path / "model.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("network", [{"normalisation": "imagenet"}, {"name": "deeplab_v2"}])
def test_another_configured_network_is_refused(tmp_path: Path, network: dict[str, str]) -> None:
    with pytest.raises(UserError, match="network: the authors' checkpoints are of a deeplab_v3plus"):
        convert_checkpoint(configuration(**network), tmp_path / "file", tmp_path / "model.safetensors")


def test_a_checkpoint_is_safetensors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        convert_checkpoint(configuration(), tmp_path / "file", tmp_path / "model.pkl")
