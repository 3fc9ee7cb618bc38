"""The examples of docs/label_stores.md run on evidence and labels, and find in them what numpy finds."""

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import Miniature

from caguda.configfile import load_configuration
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.runs import labelling_name, models, rules_of
from caguda.stages.labelling import Labelling, open_labelling
from caguda.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "label_stores.md").read_text(encoding="utf-8")


@pytest.fixture
def store(mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labelling:
    """The miniature's evidence and labels, found from here by the paths that the examples have."""
    labels = mini.folder / "labels"
    made = {"evidence": labels} | {rule.name.split("-")[0]: rule for rule in labels.iterdir() if rule.is_dir()}
    named = [Path(path) for path in set(re.findall(r'"(results/\S+\.zarr)"', PAGE))]
    assert sorted(path.name for path in named) == ["evidence.zarr", "labels.zarr", "labels.zarr"]
    for path in named:
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).symlink_to(made[path.parent.name.split("-")[0]] / path.name)
    monkeypatch.chdir(tmp_path)
    return open_labelling(labels / "labels.json")


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


def everything(store: Labelling, name: str) -> np.ndarray:
    return np.stack([getattr(store.read(index), name) for index in range(store.count)])


def test_zarr_reads_one_image_and_gives_it_other_labels(store: Labelling, capsys: pytest.CaptureFixture[str]) -> None:
    space, row = run(example("zarr")), store.read(0)
    np.testing.assert_array_equal(space["label"], row.anchor_label)
    rule = AnchorRule(margin=2 * store.anchor_rule.margin, unit=store.anchor_rule.unit)
    fewer = rule.labels({"margin": row.margin, "nearest_anchor": row.nearest_anchor}, store.anchor_distance, None)
    np.testing.assert_array_equal(space["fewer"], fewer)
    told, image, shares = capsys.readouterr().out.splitlines()
    assert told == f"{store.anchor_rule.described()} {store.anchor_distance}"
    names = [store.categories[category] for category in np.unique(row.anchor_label) if category != 255]
    assert image == f"{store.image_ids[0]} {names}"
    assert (
        shares == f"active {np.mean(row.anchor_label != 255):.1%}, under twice the margin {np.mean(fewer != 255):.1%}"
    )


def test_xarray_names_dimensions_and_categories(store: Labelling, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xarray")
    pytest.importorskip("cf_xarray")
    space = run(example("xarray"))
    active, anchor, probability = (everything(store, name) for name in ("active", "anchor_label", "probability_label"))
    for name in ("evidence", "by_anchor", "by_probability"):
        assert dict(space[name].sizes) == {"image": store.count, "y": store.shape[0], "x": store.shape[1]}
        assert list(space[name].image.values) == list(store.image_ids)
    np.testing.assert_array_equal(space["road"], anchor == store.categories.index("road"))
    two = [store.categories.index(name) for name in ("motorcycle", "bicycle")]
    np.testing.assert_array_equal(space["two_wheelers"], np.isin(everything(store, "predicted"), two))
    np.testing.assert_array_equal(space["both"], active == 3)
    differ = ((active == 3) & (anchor != probability)).mean((1, 2))
    np.testing.assert_allclose(space["worst"].values, np.sort(differ)[::-1][:5])
    worst = store.image_ids.index(str(space["image"].image.values))
    np.testing.assert_array_equal(space["image"].predicted.values, store.read(worst).predicted)
    near = everything(store, "nearest_anchor") == store.categories.index("person")
    margins = everything(store, "margin")
    *_, median, coverage = capsys.readouterr().out.split()
    assert float(median) == pytest.approx(float(np.median(margins[near])), nan_ok=True)
    assert float(coverage) == pytest.approx((margins > 2).mean())


def test_napari_gets_an_array_and_a_colour_for_every_label(store: Labelling) -> None:
    until, _, after = example("napari").partition("import napari\n")
    assert "add_labels(labels" in after and "add_image(margins" in after
    assert 'contrast_limits=(0, evidence.attrs["anchor_distance"])' in after
    space = run(until)
    np.testing.assert_array_equal(space["labels"], everything(store, "anchor_label"))
    np.testing.assert_array_equal(space["margins"], everything(store, "margin"), strict=True)
    assert len(space["names"]) == len(store.categories) + 1 and space["names"][6] == "traffic_light"
    assert set(np.unique(space["labels"])) <= space["colors"].keys()
    assert (space["colors"][0], space["colors"][255]) == ("#804080", "transparent")


def test_the_commands_of_the_page_have_the_options_of_the_verb() -> None:
    calls = re.findall(r"caguda inspect (.*)", PAGE)
    known = {option.flag for option in VERBS["inspect"].options}
    used = {option for call in calls for option in re.findall(r"--[a-z0-9]+", call)}
    assert len(calls) >= 2 and used == {"--margin", "--p0", "--plot"} and used | {"--json", "--plot"} <= known


def test_the_paths_of_the_page_are_those_of_the_demo() -> None:
    """Rules and their values are parts of the paths."""
    demo = load_configuration(ROOT / "config" / "demo.yaml")
    folders = {rule.folder for rule in rules_of(demo, "cag/stage1").values()}
    assert set(re.findall(r"labels/([^/\s+]+)/labels\.zarr", PAGE)) - {"RULE"} == folders
    assert set(re.findall(r"labels/(\S+\+\S+)\.json", PAGE)) - {"RULE+RULE"} == {labelling_name(demo, "cag/stage1")}
    named = set(re.findall(r"results/street/seed0/([^\s\"]+?)/(?:evidence|labels)/", PAGE))
    assert named and named <= set(models(demo))
