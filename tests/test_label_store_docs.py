"""The examples of docs/label_stores.md run on a store, and find in it what numpy finds."""

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import Miniature

from caguda.artifacts.labels import LabelStore, open_label_store
from caguda.cli import OPTIONS, VERBS

PAGE = (Path(__file__).parents[1] / "docs" / "label_stores.md").read_text(encoding="utf-8")


@pytest.fixture
def store(mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelStore:
    """The miniature's label store, found from here by the path that the examples have."""
    (named,) = set(re.findall(r'"(results/\S+/labels\.zarr)"', PAGE))
    (tmp_path / named).parent.mkdir(parents=True)
    (tmp_path / named).symlink_to(mini.folder / "labels" / "labels.zarr")
    monkeypatch.chdir(tmp_path)
    return open_label_store(mini.folder / "labels" / "labels.zarr")


def example(section: str) -> str:
    """The Python of a section."""
    found = re.search(rf"^## {section}\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert found, section
    return found[1]


def run(program: str) -> dict[str, Any]:
    """The names that a program leaves, run in the current folder."""
    path = Path("example.py")
    path.write_text(program, encoding="utf-8")
    return runpy.run_path(str(path))


def everything(store: LabelStore, name: str) -> np.ndarray:
    return np.stack([store.read_array(index, name) for index in range(store.count)])


def test_xarray_names_dimensions_and_categories(store: LabelStore, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xarray")
    pytest.importorskip("cf_xarray")
    space = run(example("xarray"))
    active, anchor, probability = (everything(store, name) for name in ("active", "anchor_label", "probability_label"))
    opened = space["store"]
    assert dict(opened.sizes) == {"image": store.count, "y": store.shape[0], "x": store.shape[1]}
    assert list(opened.image.values) == list(store.image_ids)
    np.testing.assert_array_equal(space["road"], anchor == store.categories.index("road"))
    two = [store.categories.index(name) for name in ("motorcycle", "bicycle")]
    np.testing.assert_array_equal(space["two_wheelers"], np.isin(everything(store, "predicted"), two))
    differ = ((active == 3) & (anchor != probability)).mean((1, 2))
    np.testing.assert_allclose(space["worst"].values, np.sort(differ)[::-1][:5])
    worst = store.image_ids.index(str(space["image"].image.values))
    np.testing.assert_array_equal(space["image"].predicted.values, store.read_array(worst, "predicted"))
    near = everything(store, "nearest_anchor") == store.categories.index("person")
    margins = everything(store, "margin").astype(np.float32)
    *_, median, coverage = capsys.readouterr().out.split()
    assert float(median) == pytest.approx(float(np.median(margins[near])), nan_ok=True)
    assert float(coverage) == pytest.approx((margins > 2).mean())


def test_napari_gets_an_array_and_a_colour_for_every_label(store: LabelStore) -> None:
    until, _, after = example("napari").partition("import napari\n")
    assert "add_labels(labels" in after and "add_image(margins" in after
    space = run(until)
    np.testing.assert_array_equal(space["labels"], everything(store, "anchor_label"))
    assert space["margins"].dtype == np.float32 and space["margins"].shape == space["labels"].shape
    assert len(space["names"]) == len(store.categories) + 1 and space["names"][6] == "traffic_light"
    assert set(np.unique(space["labels"])) <= space["colors"].keys()
    assert (space["colors"][0], space["colors"][255]) == ("#804080", "transparent")


def test_the_commands_of_the_page_have_the_options_of_the_verb() -> None:
    calls = re.findall(r"caguda inspect (.*)", PAGE)
    known = {OPTIONS[option][0] for option in VERBS["inspect"][2].split()}
    used = {option for call in calls for option in re.findall(r"--[a-z0-9]+", call)}
    assert len(calls) >= 2 and used == {"--margin", "--p0"} and used | {"--json", "--plot"} <= known
