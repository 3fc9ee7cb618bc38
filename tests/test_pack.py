"""Training from the packed cache: the same samples and the same weights as from the frames' files."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from miniature import Miniature, as_if_made_with, label_files, values
from PIL import Image
from workflow_runs import SMOKE, Workflow

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.packed import open_packed
from caguda.classes import class_table
from caguda.cli import main
from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_image, read_image, read_label
from caguda.datasets.loader import Sample, training_batches
from caguda.datasets.manifest import SetName, read_manifest
from caguda.errors import UserError
from caguda.runs import method_of
from caguda.stages.check import check
from caguda.stages.pack import pack
from caguda.stages.training_frames import open_frames

EVERYTHING = {"flip": True, "scale": [0.7, 1.6], "crop": [20, 40], "color_jitter": 0.3, "blur": 1.0}
CHANGES = {
    **{f"runs__{run}__augmentation": EVERYTHING for run in ("pretrain", "warmup", "cag", "control")},
    "runs__warmup__target_statistics": False,
    "runs__cag__target_augmentation": EVERYTHING,
}


@pytest.fixture(scope="session")
def caches(mini: Miniature, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The packed caches of the miniature experiment."""
    folder = tmp_path_factory.mktemp("packed")
    domains: tuple[SetName, ...] = ("source", "target")
    for domain in domains:
        pack(mini.configuration(), mini.manifest, domain, folder / f"{domain}.h5")
    return [folder / f"{domain}.h5" for domain in domains]


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that forbids image and label files from then on."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("a file was read")

    def forbid() -> None:
        monkeypatch.setattr("caguda.datasets.loader.frame_image", refuse)
        monkeypatch.setattr("caguda.stages.training_frames.frame_labels", refuse)

    return forbid


def test_a_cache_holds_the_checked_frames(mini: Miniature, caches: list[Path]) -> None:
    manifest, table = read_manifest(mini.manifest), class_table(mini.configuration())
    for path, domain in zip(caches, ("source", "target"), strict=True):
        cache, frames = open_packed(path), manifest.frames(domain)  # type: ignore[arg-type]
        assert cache.ids == tuple(frame.id for frame in frames)
        assert cache.attributes["domain"] == domain and cache.attributes["provenance"]["made_by"] == "pack"
        assert cache.labelled == (domain == "source"), "the target's truth is not for adaptation"
        everything = slice(0, 1000)
        for index, frame in enumerate(frames):
            assert torch.equal(cache.image(index)[..., everything, everything], read_image(frame.image))
            if domain == "source":
                assert frame.label is not None
                label = cache.label(index)[..., everything, everything]
                assert torch.equal(label, read_label(frame.label, table))


def same(first: list[Sample], second: list[Sample]) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_samples_depend_on_neither_workers_nor_start_nor_cache(
    mini: Miniature, caches: list[Path], no_files: Callable[[], None]
) -> None:
    """Ten frames in batches of three: the batches 4 to 7 begin in the middle of an epoch and reach into the next."""
    configuration = mini.configuration(runs__pretrain__augmentation=EVERYTHING)
    method = method_of(configuration, "pretrain")

    def batches(packed: list[Path], start: int, workers: int) -> list[Sample]:
        opened = open_frames(configuration, mini.manifest, packed, method)
        frames = opened.training("source", method, "pretrain", 0, opened.truth("source"))
        return list(training_batches(frames, 3, start, 8, workers))

    expected = batches([], 0, 0)
    assert [tuple(batch["label"].shape) for batch in expected] == [(3, 20, 40)] * 8
    assert all(same(expected[start:], batches([], start, workers)) for start, workers in [(0, 3), (4, 1)])
    no_files()
    for start, workers in [(0, 0), (4, 0), (0, 3), (4, 1)]:
        assert same(expected[start:], batches(caches[:1], start, workers))


def test_trainings_from_the_cache_end_with_the_same_weights(
    mini: Miniature, elsewhere: Miniature, caches: list[Path], no_files: Callable[[], None]
) -> None:
    settings = elsewhere.configuration(**CHANGES)
    source_only, warm = (
        as_if_made_with(settings, mini.weights(name), elsewhere.folder / "of" / name) for name in ("pretrain", "warmup")
    )
    labelling = elsewhere.label("labels", settings, warm)
    stage = {"start": warm, "anchors": labelling.with_name("anchors.h5"), "labels": label_files(labelling)}
    given: dict[str, dict[str, Any]] = {
        "pretrain": {},
        "warmup": {"start": source_only},
        "cag/stage1": stage,
        "control": {"start": warm},
    }
    expected = {
        model: elsewhere.train(f"{model} files", model, settings, **inputs).read_bytes()
        for model, inputs in given.items()
    }
    no_files()
    for model, inputs in given.items():
        packed = caches if model in ("warmup", "cag/stage1") else caches[:1]
        found = elsewhere.train(f"{model} cache", model, settings, packed=packed, **inputs).read_bytes()
        assert found == expected[model], model
    assert len(set(expected.values())) == len(given)


def test_the_oracle_takes_images_from_the_cache_and_truth_from_files(
    elsewhere: Miniature, caches: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = elsewhere.configuration(**CHANGES, runs__pretrain__iterations=3)
    expected = elsewhere.train("files", "oracle", settings).read_bytes()
    monkeypatch.setattr("caguda.datasets.loader.frame_image", None)
    assert elsewhere.train("cache", "oracle", settings, packed=caches[1:]).read_bytes() == expected


def test_a_training_goes_on_with_the_cache_where_it_stopped_without(
    elsewhere: Miniature, caches: list[Path], monkeypatch: pytest.MonkeyPatch, no_files: Callable[[], None]
) -> None:
    settings = elsewhere.configuration(**CHANGES)
    expected = elsewhere.train("whole", "pretrain", settings).read_bytes()
    reads = 0

    def some(frame: Frame) -> Any:
        nonlocal reads
        reads += 1
        if reads > 17:
            raise UserError("enough")
        return frame_image(frame)

    monkeypatch.setattr("caguda.datasets.loader.frame_image", some)
    with pytest.raises(UserError, match="enough"):
        elsewhere.train("stopped", "pretrain", settings)
    no_files()
    found = elsewhere.train("stopped", "pretrain", settings, packed=caches[:1])
    assert found.read_bytes() == expected
    history = read_json(found.with_suffix(".json"))["metrics"]
    assert history["attempts"] == 2


def test_a_training_takes_the_caches_that_it_reads_and_each_once(
    elsewhere: Miniature, caches: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="must be given caches of the source alone, found one of the target"):
        elsewhere.train("p", "pretrain", elsewhere.configuration(), packed=caches)
    copy = shutil.copy(caches[0], tmp_path / "copy.h5")
    with pytest.raises(UserError, match="each domain must have one packed cache, found two of the source"):
        elsewhere.train("p", "pretrain", elsewhere.configuration(), packed=[caches[0], copy])


def test_a_cache_of_other_frames_is_refused(elsewhere: Miniature, caches: list[Path]) -> None:
    content = read_json(elsewhere.manifest)
    content["source"]["digest"] = "0" * 64
    write_json(elsewhere.manifest, content)
    with pytest.raises(UserError, match=r"source\.h5: a packed cache must be of the manifest's frames"):
        elsewhere.train("p", "pretrain", elsewhere.configuration(), packed=caches)


def test_a_cache_for_other_classes_is_refused(mini: Miniature, elsewhere: Miniature, caches: list[Path]) -> None:
    classes = values(mini.root)["classes"]
    settings = elsewhere.configuration(classes=[*classes[1:], classes[0]])
    check(settings, elsewhere.manifest)
    with pytest.raises(UserError, match=r"source\.h5: a packed cache must be for the configured classes"):
        elsewhere.train("p", "pretrain", settings, packed=caches)


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_file_that_changed_since_its_check_is_refused(
    mini: Miniature, elsewhere: Miniature, tmp_path: Path, kind: str
) -> None:
    moved = replace(elsewhere, root=tmp_path / "data")
    shutil.copytree(mini.root, moved.root)
    content = read_json(moved.manifest)
    content["source"]["root"] = str(moved.root / "source")
    write_json(moved.manifest, content)
    frame: Frame = read_manifest(moved.manifest).frames("source")[3]
    path = frame.image if kind == "image" else frame.label
    assert path is not None and path.is_relative_to(moved.root)
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    output = tmp_path / "packed" / "source.h5"
    with pytest.raises(UserError, match=f"{path.name}: this file must be as it was when it was checked"):
        pack(moved.configuration(), moved.manifest, "source", output)
    assert list(output.parent.iterdir()) == []


def test_the_verb_writes_what_the_function_does(mini: Miniature, elsewhere: Miniature, caches: list[Path]) -> None:
    output = elsewhere.folder / "target.h5"
    arguments = ["--manifest", str(mini.manifest), "--domain", "target", "--output", str(output)]
    assert main(["pack", "--config", str(elsewhere.yaml()), *arguments]) == 0
    made, expected = open_packed(output), open_packed(caches[1])
    assert (made.ids, made.sizes, made.digests) == (expected.ids, expected.sizes, expected.digests)


def test_with_a_cache_every_training_waits_for_it_and_reads_it(tmp_path: Path) -> None:
    content = yaml.safe_load(SMOKE.read_text(encoding="utf-8")) | {"cache": True}
    path = tmp_path / "cached.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    jobs = Workflow(tmp_path, path).plan()
    assert sorted(job.output[0] for job in jobs if job.rule == "pack") == ["packed/source.h5", "packed/target.h5"]
    readers = {
        re.sub(r"seed0/|/checkpoint.*", "", job.output[0]): {name for name in job.input if name.startswith("packed/")}
        for job in jobs
    }
    source, target = {"packed/source.h5"}, {"packed/target.h5"}
    both = source | target
    expected = {"pretrain": source, "control": source, "oracle": target, "warmup": both}
    expected |= {"cag/stage1": both, "cag/stage2": both}
    assert {made: read for made, read in readers.items() if read} == expected
    without = Workflow(tmp_path, SMOKE).plan()
    assert not any("packed" in " ".join(job.input + job.output) for job in without)
    assert {job.output[0] for job in jobs} == {job.output[0] for job in without} | both


@pytest.mark.slow
def test_the_workflow_with_a_cache_ends_with_the_same_weights(finished: Workflow, tmp_path: Path) -> None:
    """The frames and their manifest are there; what is deleted of the cache comes back alone, and only where needed."""
    workflow, cached = finished.copy(tmp_path), ("--config", "cache=true")
    shutil.rmtree(workflow.results / "seed0")
    runs = ["pretrain", "warmup", "control", "oracle", "cag/stage1"]
    checkpoints = [f"results/smoke/seed0/{run}/checkpoint.safetensors" for run in runs]
    done = workflow.run(*checkpoints, *cached)
    assert done.returncode == 0, done.stdout + done.stderr
    for checkpoint in checkpoints:
        assert (tmp_path / checkpoint).read_bytes() == (finished.directory / checkpoint).read_bytes(), checkpoint
    packed = workflow.results / "packed" / "source.h5"
    before = open_packed(packed).digests
    shutil.rmtree(packed.parent)
    assert workflow.planned(*checkpoints, *cached) == set(), "nothing is to be trained that would read it"
    done = workflow.run("results/smoke/packed/source.h5", *cached)
    assert done.returncode == 0 and open_packed(packed).digests == before, done.stdout + done.stderr
    assert [path.name for path in packed.parent.iterdir()] == ["source.h5"]
    assert not any(job.output[0].startswith(("data", "manifest")) for job in workflow.plan(*cached))
