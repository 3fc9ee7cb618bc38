"""The chain back to the frames: what `provenance` says of it, and a table that is not made where it is broken."""

import json
import os
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from miniature import Miniature
from paper_samples import configuration, rewrite, write_experiment

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.chain import inputs_of
from caguda.artifacts.provenance import new_provenance
from caguda.cli import main
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.table import write_table
from caguda.runs import deciding_settings as of_run
from caguda.version import METHOD_VERSION

BY_ANCHOR = "anchor-0.05-mean_anchor_distance"


@pytest.fixture
def stage(mini: Miniature, tmp_path: Path) -> Path:
    """The results of the miniature experiment at another place, where each artifact was made of those beside it."""
    folder = tmp_path / "results"
    shutil.copytree(mini.folder, folder)
    for path in [*folder.rglob("*.json"), *folder.rglob("zarr.json")]:
        path.write_text(path.read_text().replace(f"{mini.folder}/", "results/"))
        if path.name != "zarr.json":
            content = json.loads(path.read_text())
            content.pop("sha256_of_all_above")
            path.unlink()
            write_json(path, content)
    return folder / "stage" / "checkpoint.safetensors"


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["provenance", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_chain_goes_back_to_frames_and_settings(mini: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, mini.weights("stage"))
    lines = found.splitlines()
    seen = [(len(line) - len(line.lstrip()), line.strip()) for line in lines if str(mini.folder) in line]
    made_of = [(depth // 4, Path(path.split(": ")[0]).relative_to(mini.folder).as_posix()) for depth, path in seen]
    warm_up = [(1, "warmup/checkpoint.safetensors"), (2, "manifest.json"), (2, "pretrain/checkpoint.safetensors"),
               (3, "manifest.json")]  # fmt: skip
    assert made_of == [
        (0, "stage/checkpoint.safetensors"), (1, "manifest.json"), *warm_up,
        (1, "labels/anchors.h5"), (2, "manifest.json"), (2, "warmup/checkpoint.safetensors"),
        (1, f"labels/{BY_ANCHOR}/labels.json"), (2, "labels/evidence.json"),
        (3, "manifest.json"), (3, "warmup/checkpoint.safetensors"), (3, "labels/anchors.h5"),
        (1, "labels/probability-0.3/labels.json"), (2, "labels/evidence.json"),
    ]  # fmt: skip
    assert {line.split(": ")[1] for line in lines if str(mini.folder) in line} == {
        "asked for", "unchanged", "unchanged, see above"}  # fmt: skip
    manifest = read_json(mini.manifest)
    assert f"target: 8 frames in {manifest['target']['root']}, digest {manifest['target']['digest'][:12]}" in found
    made = read_json(mini.weights("stage").with_suffix(".json"))["provenance"]
    assert (
        f"by train cag/stage1, seed 0, settings {made['configuration'][:12]}" in found
        and made["machine"]["host"] in found
    )


def test_the_same_as_json_has_the_settings(mini: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    chain = json.loads(told(capsys, mini.weights("stage"), "--json"))
    run = chain["made"]["settings"]["run"]
    assert (run["name"], run["method"], run["start"], run["weights"]["distance"]) == (
        "cag/stage1",
        "cag",
        "warmup",
        0.3,
    )
    assert [Path(item["path"]).name for item in chain["inputs"]] == [
        "manifest.json", "checkpoint.safetensors", "anchors.h5", "labels.json", "labels.json"]  # fmt: skip
    assert chain["inputs"][0]["frames"]["source"]["frames"] == 10 and "made" not in chain["inputs"][1]["inputs"][0]
    assert [item["made"]["settings"]["rule"] for item in chain["inputs"][3:]] == [
        {"name": "anchor", "margin": 0.05, "unit": "mean_anchor_distance"}, {"name": "probability", "p0": 0.3}]  # fmt: skip
    assert run["pseudo_labels"] == {
        "anchor": {"margin": 0.05, "unit": "mean_anchor_distance"}, "probability": {"p0": 0.3}}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["labels/evidence.zarr", "labels/evidence.json", "labels/evidence.created.json", "labels/1.json", "labels/anchors.h5",
     f"labels/{BY_ANCHOR}/labels.zarr", "labels/probability-0.3/labels.json", "labels/labels.json", "manifest.json"],
)  # fmt: skip
def test_every_kind_of_artifact_can_be_asked(mini: Miniature, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{name}: asked for" in told(capsys, mini.folder / name)


def test_what_changed_or_is_missing_is_told(
    stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = stage.parents[1]
    shutil.rmtree(results / "pretrain")
    (results / "labels" / "probability-0.3" / "labels.json").write_text("{")
    for folder in (tmp_path, Path("/")):  # names of inputs are found from anywhere
        monkeypatch.chdir(folder)
        found = told(capsys, stage)
        assert re.search(r"results/pretrain/checkpoint\.safetensors: missing\n", found)
        assert re.search(r"results/labels/probability-0\.3/labels\.json: changed since\n", found)
        assert re.search(rf"results/labels/{BY_ANCHOR}/labels\.json: unchanged\n", found)
        assert re.search(r"results/labels/evidence\.json: unchanged\n", found)
        assert re.search(r"results/labels/anchors\.h5: unchanged\n", found)
    (results / "labels" / "evidence.json").unlink()
    found = told(capsys, stage)
    assert re.search(r"results/labels/evidence\.json: missing\n", found)
    assert found.count("anchors.h5: unchanged\n") == 1, "what lies behind what is missing is not told"


def test_what_has_no_provenance_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{}")
    with h5py.File(tmp_path / "text.h5", "w") as text, h5py.File(tmp_path / "other.h5", "w") as other:
        text.attrs["provenance"], other.attrs["provenance"] = np.bytes_(b"a lake"), np.bytes_(b'{"made_by": "hand"}')
    names = ("a.json", "none.json", "text.h5", "other.h5", "")
    for path in (tmp_path / name for name in names):
        assert main(["provenance", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(path) in error


# --- the table


def write_chain(folder: Path, config: Configuration) -> dict[Path, Path]:
    """The evaluations of an experiment, each with the checkpoint that it says it was made of."""
    evaluations = write_experiment(folder, config)["evaluations"]
    made_of: dict[Path, Path] = {}
    for path in evaluations:
        checkpoint = path.with_name("checkpoint.safetensors")
        checkpoint.write_bytes(b"gigabytes, which no table reads")
        seed = next(folder for folder in path.parents if folder.name.startswith("seed"))
        before = seed / "source_only" / "checkpoint.safetensors"
        inputs = (
            {str(before): {"sha256": "weights of source_only", "from_here": os.path.relpath(before, checkpoint.parent)}}
            if before != checkpoint
            else {}
        )
        model = path.parent.relative_to(seed).as_posix()
        deciding_settings = {
            "weights_sha256": f"weights of {path.parent.name}",
            "provenance": {
                "made_by": "train",
                "settings": {"run": of_run(config, model)},
                "inputs": inputs,
                "method_version": METHOD_VERSION,
            },
        }
        checkpoint.with_suffix(".json").unlink(missing_ok=True)
        write_json(checkpoint.with_suffix(".json"), deciding_settings)
        recorded = {str(checkpoint): {"sha256": deciding_settings["weights_sha256"], "from_here": checkpoint.name}}
        made = {"made_by": "evaluate", "settings": {}, "inputs": recorded, "method_version": METHOD_VERSION}
        rewrite(path, provenance=made)
        made_of[path] = checkpoint
    return made_of


def test_a_table_is_not_made_of_a_broken_chain(tmp_path: Path) -> None:
    config = configuration(seeds=(0, 1), stages=1)
    made_of = write_chain(tmp_path, config)
    evaluations, manifest = list(made_of), tmp_path / "manifest.json"
    write_json(manifest, {"frames": 3})
    outputs = (tmp_path / "table.csv", tmp_path / "table.md")
    write_table(config, "cag", evaluations, *outputs)
    for output in outputs:
        output.unlink()

    def refused(artifact: Path, state: str, changed: Path) -> None:
        expected = (
            f"{artifact}: all that it was made of must be there unchanged, found {changed} {state}; make it again"
        )
        with pytest.raises(UserError) as error:
            write_table(config, "cag", evaluations, *outputs)
        assert str(error.value) == expected and not any(output.exists() for output in outputs)

    last = evaluations[-1]
    side = made_of[last].with_suffix(".json")
    before = side.read_bytes()
    rewrite_sealed(side, weights_sha256="weights of another run")
    refused(last, "changed since", made_of[last])
    side.write_bytes(before)
    first = evaluations[0].parents[1]
    (first / "source_only" / "checkpoint.safetensors").rename(first / "away")
    refused(evaluations[0], "missing", first / "source_only" / "checkpoint.safetensors")
    (first / "away").rename(first / "source_only" / "checkpoint.safetensors")
    write_table(config, "cag", evaluations, *outputs)
    for output in outputs:
        output.unlink()
    trained = next(path for path in evaluations if path.parent.name == "stage1")
    deciding_settings = made_of[trained].with_suffix(".json")
    rewrite_sealed(
        deciding_settings,
        provenance={
            "inputs": {
                str(manifest): {
                    "sha256": "of earlier frames",
                    "from_here": os.path.relpath(manifest, deciding_settings.parent),
                }
            },
            "method_version": METHOD_VERSION,
        },
    )
    refused(made_of[trained], "changed since", manifest)


def rewrite_sealed(path: Path, **changes: object) -> None:
    """Changes keys of a JSON that a verb wrote, as the verb would."""
    write_json(path, read_json(path) | changes)


def test_inputs_are_looked_for_where_they_lay_from_the_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renamed copy has inputs of its own: one that is missing there is not taken from the original."""
    monkeypatch.chdir(tmp_path)
    manifest, artifact = Path("results/manifest.json"), Path("results/run/a.json")
    write_json(manifest, {"a": 1})
    write_json(artifact, {"provenance": new_provenance("verb", {}, [manifest], None, 0.0, artifact)})
    assert [(item.path, item.state) for item in inputs_of(artifact)] == [(manifest, "unchanged")]
    shutil.copytree("results", "renamed")
    Path("renamed/manifest.json").unlink()
    for folder in (tmp_path, Path("/")):
        monkeypatch.chdir(folder)
        (found,) = inputs_of(tmp_path / "renamed/run/a.json")
        assert found.state == "missing" and found.path.absolute() == tmp_path / "renamed/manifest.json"
        (found,) = inputs_of(tmp_path / artifact)
        assert found.state == "unchanged" and found.path.absolute() == tmp_path / manifest
