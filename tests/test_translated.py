"""Source frames that were translated elsewhere: found by name, refused by name, and read by the runs that say so alone."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from documentation import FENCED, read
from frame_trees import HEIGHT, PROJECT, WIDTH, Tree, configuration, make_root, make_tree, write_image, write_label
from miniature import Miniature
from PIL import Image
from workflow_runs import SMOKE, Workflow

from caguda.artifacts.atomic import read_json
from caguda.artifacts.packed import open_packed
from caguda.artifacts.provenance import content_digest
from caguda.cli import main
from caguda.config import Configuration
from caguda.configfile import load_configuration
from caguda.datasets.io import read_image
from caguda.datasets.loader import Sample
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.files import sha256
from caguda.paper.rows import rows_of
from caguda.recorded_settings import differing_settings, settings_of_run
from caguda.runs import method_of
from caguda.stages.check import check, check_translated
from caguda.stages.pack import pack
from caguda.stages.train import training_fingerprint
from caguda.stages.training_frames import batches_of, open_frames
from caguda.staleness import stale_artifacts

LAYOUTS = ("gta5", "synthia", "cityscapes", "folder")
Said = pytest.CaptureFixture[str]
SECTION = {"translated": {"root": "translated"}}


# The check


@pytest.fixture(params=LAYOUTS)
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    """A source of three frames in each layout, in a folder with a space and an umlaut, beside the other sets."""
    return make_tree(make_root(tmp_path / "straßen bilder"), request.param)


def place_of(tree: Tree) -> Path:
    """The folder that has the data of a tree."""
    return next(folder for folder in tree.images[0].parents if folder.name == "straßen bilder")


def translate(tree: Tree, suffix: str | None = None) -> list[Path]:
    """Writes other pixels for every image of a tree into the same place below `translated`, with this suffix."""
    root, made = place_of(tree), []
    for number, image in enumerate(tree.images):
        path = root / "translated" / image.relative_to(root / tree.domain["root"])
        made.append(path if suffix is None else path.with_suffix(suffix))
        write_image(made[-1], 100 + number)
    return made


def checked(tree: Tree, **keys: Any) -> Path:
    """The manifest of the translated frames of a tree, beside that of its other sets."""
    root = place_of(tree)
    settings = configuration(root, **{"source": dict(tree.domain), **SECTION} | keys)
    check(settings, root.parent / "manifest.json")
    output = root.parent / "manifest.translated.json"
    check_translated(settings, root.parent / "manifest.json", output)
    return output


def refused(tree: Tree, **keys: Any) -> str:
    """The one problem of the translated frames of a tree; no manifest of them is written."""
    with pytest.raises(UserError) as caught:
        checked(tree, **keys)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(
        "the check found 1 problem(s), no manifest was written: translated: "
    ), said
    assert not (place_of(tree).parent / "manifest.translated.json").exists()
    return said.partition(": translated: ")[2]


@pytest.mark.parametrize("suffix", [None, ".jpg", ".JPEG"])
def test_every_source_frame_has_the_translated_image_of_its_name(tree: Tree, suffix: str | None) -> None:
    made = translate(tree, suffix)
    manifest = read_manifest(checked(tree), ["translated"])
    frames = manifest.frames("translated")
    assert [frame.id for frame in frames] == list(tree.ids)
    assert [frame.image for frame in frames] == made and {frame.label for frame in frames} == {None}
    assert [frame.image_sha256 for frame in frames] == [sha256(path) for path in made]
    assert all(entry["height"] == HEIGHT and entry["width"] == WIDTH for entry in manifest.entries("translated"))


def test_the_manifest_of_the_other_sets_does_not_depend_on_the_translated_set(tree: Tree) -> None:
    translate(tree)
    manifest = checked(tree).with_name("manifest.json")
    found = read_json(manifest)
    check(configuration(place_of(tree), source=dict(tree.domain)), manifest)
    without = read_json(manifest)
    made = {key: content.pop("provenance")["settings"] for key, content in (("with", found), ("without", without))}
    assert found == without and made["with"] == made["without"]
    assert set(found) == {"source", "target", "evaluation", "classes", "warnings"}
    assert set(made["without"]) == {"street", "classes", "ignore", "source", "target", "evaluation"}


def test_a_translated_frame_without_a_source_frame_is_refused(tree: Tree) -> None:
    made = translate(tree)
    stray = made[1].with_name(made[1].name.replace("2", "7"))
    shutil.copy(made[1], stray)
    assert refused(tree).startswith(
        f"{stray}: every translated frame must have a source frame of its name, found 1 of 4 without; remove them"
    )


def test_source_frames_without_a_translated_one_are_counted_and_named(tree: Tree) -> None:
    made = translate(tree)
    for path in made[1:]:
        path.unlink()
    made[-1].parent.mkdir(exist_ok=True)
    names = ", ".join(str(image.relative_to(place_of(tree) / tree.domain["root"])) for image in tree.images[1:])
    assert refused(tree).startswith(
        f"{names}: every source frame must have a translated frame of its name, found 2 of 3 without; translate them too"
    )


def test_a_translated_frame_of_another_size_is_refused(tree: Tree) -> None:
    made = translate(tree)
    write_image(made[2], size=(HEIGHT // 2, WIDTH))
    assert refused(tree).startswith(
        f"{made[2]} {WIDTH}x{HEIGHT // 2}, not {WIDTH}x{HEIGHT}: every translated frame must have the size of its source "
        "frame, found 1 of 3 with another; resize them"
    )


def test_two_translated_images_of_one_frame_are_refused(tree: Tree) -> None:
    made = translate(tree)
    write_image(made[0].with_suffix(".jpg"))
    assert "two images have the same id; rename one of the two" in refused(tree)


def test_a_damaged_translated_image_is_one_problem(tree: Tree) -> None:
    made = translate(tree)
    made[0].write_bytes(made[0].read_bytes()[:-30])
    assert refused(tree).startswith(f"{made[0]}: this image is damaged (")


def test_a_folder_without_its_counterpart_is_named(tree: Tree) -> None:
    made = translate(tree)
    shutil.rmtree(made[-1].parent)
    assert refused(tree).startswith(
        f"{made[-1].parent}: translated images must lie below the key root as those of the "
    )


def test_frames_that_are_left_out_of_the_source_are_left_out_and_counted(tree: Tree, capsys: Said) -> None:
    translate(tree)
    output = checked(tree, source={**tree.domain, "skip": [tree.ids[1]]})
    frames = read_manifest(output, ["translated"]).frames("translated")
    assert [frame.id for frame in frames] == [tree.ids[0], tree.ids[2]]
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[-1] for line in lines if line.startswith(("images on disk", "  not in the list", "frames  "))]
    assert rows[-3:] == ["3", "1", "2"]


def test_images_with_another_suffix_are_no_other_files_and_others_are_told(tree: Tree, capsys: Said) -> None:
    made = translate(tree, ".jpg")
    (made[0].parent / "notes.txt").write_text("x")
    (warning,) = read_json(checked(tree))["warnings"]
    assert warning.startswith(
        f"translated: {made[0].parent}: 1 .txt file(s) among the images are no images of the layout "
    )


def test_the_content_follows_the_translated_pixels_alone(tree: Tree) -> None:
    made = translate(tree)
    first = content_digest(checked(tree))
    os.utime(made[0])
    assert content_digest(checked(tree)) == first
    write_label(tree.labels[0], [7])
    assert content_digest(checked(tree)) == first
    write_image(made[0], 5)
    assert content_digest(checked(tree)) != first


# The configuration


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "runs.source_only.source_images: translated needs the section translated, found none; add it"),
        (
            SECTION | {"runs": {"oracle": {"source_images": "translated"}}},
            "runs.oracle.source_images: must be original for a run that reads no source labels, found translated",
        ),
        ({"translated": {}}, "translated.root: "),
        ({"translated": {"root": "a", "layout": "gta5"}}, "translated.layout: unknown key"),
    ],
)
def test_a_fault_names_the_key(tmp_path: Path, keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        runs = {"source_only": {"source_images": "translated"}, "oracle": None}
        configuration(tmp_path, **{"runs": runs} | keys)
    assert expected in str(caught.value)


def test_the_verb_needs_the_section(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="check-translated: the configuration must have a section `translated`, found none"
    ):
        check_translated(configuration(tmp_path), tmp_path / "m.json", tmp_path / "t.json")


def test_the_example_of_the_page_is_an_experiment(tmp_path: Path) -> None:
    own, above = (
        text for language, text in FENCED.findall(read(PROJECT / "docs" / "own_data.md")) if language == "yaml"
    )
    (tmp_path / "own.yaml").write_text(own, encoding="utf-8")
    (tmp_path / "above.yaml").write_text(above, encoding="utf-8")
    found = load_configuration(tmp_path / "above.yaml")
    read_by = {name: run.source_images for name, run in found.active_runs.items() if hasattr(run, "source_images")}
    assert {name for name, images in read_by.items() if images == "translated"} == {
        "source_translated",
        "cycada",
        "bdl",
    }


# The training


@pytest.fixture
def translated(own: Miniature) -> Miniature:
    """The miniature, where every source frame has a translated one: its negative. The trainings are short."""
    for image in (own.root / "source" / "images").iterdir():
        path = own.root / "translated" / "images" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(image) as pixels:
            pixels.convert("RGB").point(lambda value: 255 - value).save(path)
    check_translated(settings_of(own), own.manifest, manifest_of(own))
    return own


def settings_of(mini: Miniature, **changes: Any) -> Configuration:
    augmentation = {"flip": True, "crop": [20, 40], "scale": [0.7, 1.6]}
    twin = {"like": "pretrain", "source_images": "translated", "iterations": 4, "augmentation": augmentation}
    plain = {"like": "twin", "source_images": "original"}
    return mini.configuration(
        **{"translated": {"root": "translated"}, "runs__twin": twin, "runs__plain": plain} | changes
    )


def manifest_of(mini: Miniature) -> Path:
    return mini.folder / "manifest.translated.json"


def batches(mini: Miniature, run: str, packed: list[Path] | None = None, **changes: Any) -> list[dict[str, Sample]]:
    """The batches of a run: 6 of two frames for the twin of miniature's pretrain, more than an epoch of ten frames."""
    settings = settings_of(mini, runs__twin__iterations=6, **changes)
    method = method_of(settings, run)
    given = manifest_of(mini) if method.source_images == "translated" else None
    frames = open_frames(settings, mini.manifest, packed or [], method, given)
    return [dict(batch) for batch in batches_of(frames, method, "pretrain", 0, {})(0)]  # type: ignore[arg-type]


def is_same(first: list[dict[str, Sample]], second: list[dict[str, Sample]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a["source"][name], b["source"][name])
        for a, b in zip(first, second, strict=True)
        for name in ("image", "label")
    )


def test_translated_batches_have_the_frames_labels_and_augmentation_of_the_original_ones(translated: Miniature) -> None:
    exact = {"runs__twin__augmentation": {"flip": True, "crop": [20, 40]}}
    original, found = batches(translated, "plain", **exact), batches(translated, "twin", **exact)
    assert len(found) == 6 and found[0].keys() == {"source"} and found[0]["source"].keys() == {"image", "label"}
    for before, after in zip(original, found, strict=True):
        assert torch.equal(after["source"]["label"], before["source"]["label"])
        assert torch.equal(after["source"]["image"], 255 - before["source"]["image"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_translated_batches_depend_on_neither_workers_nor_caches(
    translated: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = batches(translated, "twin")
    assert not is_same(expected, batches(translated, "plain"))
    assert is_same(expected, batches(translated, "twin", compute__workers=2))
    caches = [translated.folder / f"{name}.h5" for name in ("source", "translated")]
    pack(settings_of(translated), translated.manifest, "source", caches[0])
    pack(settings_of(translated), manifest_of(translated), "translated", caches[1])
    assert not open_packed(caches[1]).labelled
    assert is_same(expected, batches(translated, "twin", caches[:1])), "images from files, labels from the cache"
    monkeypatch.setattr("caguda.datasets.loader.frame_image", None)
    monkeypatch.setattr("caguda.stages.training_frames.frame_labels", None)
    assert is_same(expected, batches(translated, "twin", caches))
    with pytest.raises(
        UserError, match=r"translated\.h5: a packed cache must be of frames that the training reads, found those"
    ):
        batches(translated, "plain", caches)


def test_a_training_on_translated_frames_resumes_to_the_same_weights_and_names_their_manifest(
    translated: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, manifests = settings_of(translated), [manifest_of(translated)]
    plain = translated.train("plain", "plain", settings)
    whole = translated.train("twin", "twin", settings, translated=manifests)
    assert whole.read_bytes() != plain.read_bytes()
    reads = 0

    def some(frame: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads > 14:  # pretrain has batches of two and saves its state every three iterations
            raise UserError("enough")
        return read_image(frame.image, frame.image_sha256)

    monkeypatch.setattr("caguda.datasets.loader.frame_image", some)
    longer = settings_of(translated, runs__twin__iterations=10)
    with pytest.raises(UserError, match="enough"):
        translated.train("stopped", "twin", longer, translated=manifests)
    monkeypatch.undo()
    again = translated.train("stopped", "twin", longer, translated=manifests)
    assert again.read_bytes() == translated.train("longer", "twin", longer, translated=manifests).read_bytes()
    assert read_json(again.with_suffix(".json"))["metrics"]["attempts"] == 2
    inputs = {name: set(read_json(weights.with_suffix(".json"))["provenance"]["inputs"]) for name, weights in
              (("plain", plain), ("twin", whole))}  # fmt: skip
    assert inputs["plain"] == {str(translated.manifest)}
    assert inputs["twin"] == {str(translated.manifest), str(manifests[0])}


def test_exactly_the_manifests_that_a_run_reads_must_be_given(translated: Miniature) -> None:
    settings = settings_of(translated)
    with pytest.raises(
        UserError, match="--manifest: must be that of `check` and then that of `check-translated` for twin, "
    ):
        translated.train("twin", "twin", settings)
    with pytest.raises(
        UserError, match="--manifest: must be that of `check` alone for plain, whose source_images are original"
    ):
        translated.train("plain", "plain", settings, translated=[manifest_of(translated)])


def test_translated_frames_of_other_source_frames_are_refused(translated: Miniature) -> None:
    settings = settings_of(translated)
    read_manifest(translated.manifest).frames("source")[0].image.unlink()
    check(settings, translated.manifest)
    with pytest.raises(
        UserError, match=r"manifest\.translated\.json: the translated frames must be of the manifest's source"
    ):
        translated.train("twin", "twin", settings, translated=[manifest_of(translated)])


def test_only_runs_that_read_translated_frames_record_the_key(translated: Miniature) -> None:
    settings = settings_of(translated)
    before = translated.configuration()
    assert "source_images" not in settings_of_run(before, "pretrain")["run"]
    assert settings_of_run(settings, "pretrain") == settings_of_run(before, "pretrain")
    assert settings_of_run(settings, "twin")["run"]["source_images"] == "translated"
    recorded = {
        name: {"settings": settings_of_run(settings, name), "method_version": None} for name in ("twin", "plain")
    }
    exchanged = settings_of(translated, runs__twin__source_images="original")
    exchanged = replace_runs(exchanged, plain="translated")
    assert [line for line in differing_settings(exchanged, recorded["twin"]) if "source_images" in line] == [
        "runs.twin.source_images translated, not original"
    ]
    assert [line for line in differing_settings(exchanged, recorded["plain"]) if "source_images" in line] == [
        "runs.plain.source_images original, not translated"
    ]
    assert not [line for line in differing_settings(settings, recorded["plain"]) if "source_images" in line]


def replace_runs(settings: Configuration, **images: str) -> Configuration:
    runs = {
        name: run if name not in images or run is None else run.model_copy(update={"source_images": images[name]})
        for name, run in settings.runs.items()
    }
    return settings.model_copy(update={"runs": runs})


def test_a_row_says_that_its_source_images_were_translated(translated: Miniature) -> None:
    rows = rows_of(settings_of(translated), ["plain", "twin"])
    assert [row.about for row in rows] == ["no adaptation", "no adaptation, translated source images"]


def test_a_changed_translated_frame_makes_the_runs_that_read_it_stale_and_no_others(translated: Miniature) -> None:
    settings, folder = settings_of(translated), translated.folder
    runs = {"seed0/plain": "plain", "seed0/twin": "twin"}
    given = {"seed0/plain": [], "seed0/twin": [manifest_of(translated)]}
    for name, run in runs.items():
        translated.train(name, run, settings, translated=given[name])
    described = {name: translated.weights(name).with_suffix(".json") for name in runs}

    def stale() -> set[str]:
        found = stale_artifacts(settings, folder)
        return {path.name if path.parent == folder else path.parent.name for path in found} & {
            "manifest.json", "manifest.translated.json", *runs.values()
        }  # fmt: skip

    def fingerprint(run: str) -> str:
        manifests = given[f"seed0/{run}"]
        frames = open_frames(settings, translated.manifest, [], method_of(settings, run), *manifests)
        return training_fingerprint(frames, 0, settings_of_run(settings, run), [])

    assert stale() == set() and described["seed0/twin"].exists()
    before = {run: fingerprint(run) for run in runs.values()}
    image = read_manifest(manifest_of(translated), ["translated"]).frames("translated")[3].image
    with Image.open(image) as pixels:
        pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image)
    assert stale() == {"manifest.translated.json"}
    check_translated(settings, translated.manifest, manifest_of(translated))
    assert stale() == {"twin"}
    assert fingerprint("plain") == before["plain"] and fingerprint("twin") != before["twin"]
    image.unlink()
    assert stale() == {"manifest.translated.json", "twin"}


def test_a_changed_source_frame_makes_the_manifests_of_both_sets_stale(translated: Miniature) -> None:
    settings, folder = settings_of(translated), translated.folder
    check(settings, translated.manifest)  # the fixture's copy has no record of its files
    image = read_manifest(translated.manifest).frames("source")[0].image
    with Image.open(image) as pixels:
        pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image)
    manifests = {translated.manifest, manifest_of(translated)}
    assert manifests & stale_artifacts(settings, folder).keys() == {translated.manifest}
    check(settings, translated.manifest)
    assert manifests & stale_artifacts(settings, folder).keys() == {manifest_of(translated)}


def test_verify_reads_translated_frames_again(translated: Miniature, capsys: Said) -> None:
    assert main(["verify", str(manifest_of(translated))]) == 0
    image = read_manifest(manifest_of(translated), ["translated"]).frames("translated")[0].image
    image.write_bytes(image.read_bytes()[:-1] + b"\0")
    capsys.readouterr()
    assert main(["verify", str(manifest_of(translated))]) == 1
    assert f"{image}: image {image.stem}: this image of the translated set must be as it was" in capsys.readouterr().out


def test_the_verbs_do_what_the_functions_do(translated: Miniature, capsys: Said) -> None:
    changes = {"translated": {"root": "translated"}, "runs__pretrain__source_images": "translated",
               "runs__pretrain__iterations": 2, "runs__oracle__source_images": "original"}  # fmt: skip
    config, folder = translated.yaml(**changes), translated.folder / "by verb"
    folder.mkdir()
    shutil.copy(translated.manifest, folder / "manifest.json")
    manifests = [str(folder / "manifest.json"), str(folder / "manifest.translated.json")]
    words = ["--config", str(config), "--manifest", manifests[0], "--output", manifests[1]]
    assert main(["check-translated", *words]) == 0
    assert content_digest(Path(manifests[1])) == content_digest(manifest_of(translated))
    output = folder / "seed0" / "pretrain" / "checkpoint.safetensors"
    words = ["--config", str(config), "--manifest", *manifests, "--seed", "0", "--model", "pretrain", "--start", "--anchors",
             "--labels", "--output", str(output), "--state", str(output.with_name("state")), "--packed"]  # fmt: skip
    assert main(["train", *words]) == 0, capsys.readouterr().err
    assert main(["train", *words]) == 0, "the same call again replaces its own output"


# The workflow


def workflow_with(tmp_path: Path, **keys: Any) -> Workflow:
    content = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    content["runs"] |= {"twin": {"like": "pretrain", "source_images": "translated"}}
    content["reports"]["cag"].append("twin")
    path = tmp_path / "translated.yaml"
    path.write_text(yaml.safe_dump(content | SECTION | keys), encoding="utf-8")
    return Workflow(tmp_path, path)


def test_a_plan_has_the_packed_cache_of_translated_frames_where_a_run_reads_them(tmp_path: Path, capsys: Said) -> None:
    config = workflow_with(tmp_path, cache=True).configfile
    shared = []
    for run in ("pretrain", "twin"):
        assert main(["plan", str(config), run, "--json"]) == 0
        shared.append(json.loads(capsys.readouterr().out)["shared_bytes"])
    assert "packed translated" not in shared[0]
    assert shared[1] == shared[0] | {"packed translated": 3 * 24 * 48 * 96}


@pytest.mark.parametrize("cache", [False, True])
def test_only_the_training_that_reads_translated_frames_waits_for_their_check(tmp_path: Path, cache: bool) -> None:
    jobs = {job.output[0]: job for job in workflow_with(tmp_path, cache=cache).plan()}
    manifest = "manifest.translated.json"
    assert jobs[manifest].rule == "check_translated" and "manifest.json" in jobs[manifest].input
    readers = {made for made, job in jobs.items() if manifest in job.input}
    twin, packed = "seed0/twin/checkpoint.safetensors", "packed/translated.h5"
    assert readers == {twin} | ({packed} if cache else set())
    caches = {"packed/source.h5", packed} if cache else set()
    assert {name for name in jobs[twin].input if name.startswith("packed/")} == caches
    assert not {made for made, job in jobs.items() if packed in job.input} - {twin}
    without = {job.output[0] for job in Workflow(tmp_path, SMOKE).plan("--config", f"cache={cache}".lower())}
    assert {made for made in jobs if "twin" not in made} == without | {manifest} | ({packed} if cache else set())
