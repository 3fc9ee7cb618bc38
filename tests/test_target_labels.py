"""No training opens a label of the target: without these files every step gives the same bytes."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from miniature import Miniature, make_miniature

from caguda.artifacts.atomic import read_json
from caguda.errors import UserError
from caguda.stages.supervised import oracle


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    """The experiment in miniature whose target has, after the check, a folder in the place of every label."""
    made = make_miniature(tmp_path_factory.mktemp("blind"))
    labels = sorted((made.root / "target" / "gtFine").rglob("*.png"))
    assert len(labels) == 17  # of the target and of the evaluation set, which is the target's too
    for label in labels:
        label.unlink()
        label.mkdir()
    made.chain()
    return made


@pytest.mark.parametrize("name", ["pretrain", "warmup", "stage"])
def test_networks_are_the_same_without_target_labels(mini: Miniature, blind: Miniature, name: str) -> None:
    assert blind.weights(name).read_bytes() == mini.weights(name).read_bytes()


def test_anchors_are_the_same_without_target_labels(mini: Miniature, blind: Miniature) -> None:
    with (
        h5py.File(mini.folder / "labels" / "anchors.h5") as expected,
        h5py.File(blind.folder / "labels" / "anchors.h5") as found,
    ):
        assert set(found) == set(expected) and len(expected) > 2
        assert all(np.array_equal(found[name][()], expected[name][()], equal_nan=True) for name in expected)


def test_pseudo_labels_are_the_same_without_target_labels(mini: Miniature, blind: Miniature) -> None:
    expected, found = (read_json(each.folder / "labels" / "labels.json")["digest"] for each in (mini, blind))
    assert found == expected


def test_a_verb_that_opens_target_labels_would_fail(blind: Miniature, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gtFine_labelIds\.png: this file cannot be read \(Is a directory\)"):
        oracle(blind.configuration(), 0, blind.manifest, tmp_path / "checkpoint.safetensors", tmp_path / "state")
