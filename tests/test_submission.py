"""Predictions and the zip for Cityscapes' test server: judged by its own evaluation, and refused fault by fault."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import yaml
from cityscapesscripts.helpers.labels import trainId2label
from miniature import edit_sealed
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.checkpoint import save_checkpoint
from caguda.artifacts.provenance import new_provenance
from caguda.classes import CITYSCAPES_19
from caguda.cli import main
from caguda.config import Configuration
from caguda.configfile import load_configuration
from caguda.datasets.io import read_image
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.stages import predict as stage
from caguda.stages.check import check, check_test
from caguda.stages.evaluate import evaluate
from caguda.stages.predict import predict_part
from caguda.stages.predictions import list_predictions
from caguda.stages.submission import submission
from caguda.street import write_street

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH, FRAMES = 48, 96, 5
STREET = {"seed": 0, "height": HEIGHT, "width": WIDTH, "source_frames": 1, "target_frames": 3,
          "evaluation_frames": FRAMES, "strength": 0.5, "photo": 0.5}  # fmt: skip
FIRST = "essenheim_000000_000019.png"
IDS = [f"essenheim_{number:06}_000019" for number in range(FRAMES)]


@dataclass(frozen=True)
class Desk:
    """Frames below `data`, two checkpoints, both manifests and, once predicted, the artifacts in `folder`."""

    folder: Path

    @property
    def manifests(self) -> dict[str, Path]:
        sets = dict.fromkeys(("source", "target", "evaluation"), self.folder / "manifest.json")
        return {**sets, "test": self.folder / "manifest.test.json"}

    def yaml(self, **changes: Any) -> Path:
        values = yaml.safe_load((ROOT / "tests" / "smoke.yaml").read_text(encoding="utf-8"))
        values |= {
            "data_root": str(self.folder / "data"), "street": STREET, "compute": {"inference_batch_size": 2},
            "test": {"layout": "cityscapes", "root": "target", "split": "test", "labels": None},
        }  # fmt: skip
        path = self.folder / "experiment.yaml"
        path.write_text(yaml.safe_dump(values | changes), encoding="utf-8")
        return path

    def configuration(self, **changes: Any) -> Configuration:
        return load_configuration(self.yaml(**changes))

    def predict(
        self, name: Any = "test", checkpoint: str = "one", place: str = "run", parts: int = 1, **changes: Any
    ) -> Path:
        """The JSON of the predictions of a set, made in `parts` parts, the last one first."""
        output, settings = self.folder / place / f"{name}.json", self.configuration(**changes)
        given = (
            settings,
            self.manifests[name],
            self.folder / f"{checkpoint}.safetensors",
            name,
            output.with_suffix(""),
        )
        files = [output.parent / "parts" / f"{name}.{part}-of-{parts}.json" for part in range(1, parts + 1)]
        for part in range(parts, 0, -1):
            predict_part(*given, part, parts, files[part - 1])
        list_predictions(*given, files, output)
        return output

    def submit(self, predictions: Path) -> Path:
        output = predictions.with_name("submission.zip")
        submission(self.manifests[predictions.stem], predictions, output)
        return output


def save_random_network(configuration: Configuration, image: Path, path: Path, seed: int) -> None:
    """A checkpoint of random weights whose classifier has no favourite category on an image."""
    torch.manual_seed(seed)
    network = configuration.network.build(CITYSCAPES_19.count).eval()
    with torch.no_grad():
        network.classifier.weight.normal_()
        assert network.classifier.bias is not None
        network.classifier.bias.sub_(network(read_image(image)[None] / 255)[1].mean(dim=(0, 2, 3)))
    description = {
        "architecture": configuration.network.model_dump(mode="json"), "classes": list(CITYSCAPES_19.names),
        "target_statistics": False, "metrics": {}, "provenance": new_provenance("train", {}, [path.with_name("manifest.json")], 3, 0.0, path),
    }  # fmt: skip
    save_checkpoint(path, network.state_dict(), description)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("submission"))
    configuration = desk.configuration()
    assert configuration.street is not None
    write_street(configuration.root, configuration.street)
    images = configuration.root / "target" / "leftImg8bit"
    (images / "test" / "essenheim").mkdir(parents=True)
    for path in sorted((images / "val").rglob("*.png")):
        shutil.copy(path, images / "test" / "essenheim" / path.name.replace("dornbach", "essenheim"))
    check(configuration, desk.manifests["evaluation"])
    check_test(configuration, desk.manifests["test"])
    for seed, name in enumerate(("one", "other")):
        save_random_network(configuration, path, desk.folder / f"{name}.safetensors", seed)
    desk.predict()
    return desk


@pytest.fixture
def desk(pristine: Desk, tmp_path: Path) -> Desk:
    """A copy of the test set's predictions, to be spoilt."""
    shutil.copytree(pristine.folder, tmp_path / "desk")
    moved = Desk(tmp_path / "desk")
    for path in moved.manifests.values():
        edit_sealed(path, lambda text: text.replace(str(pristine.folder), str(moved.folder)))
    return moved


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# Predictions


def test_a_file_holds_the_label_ids_of_its_frame(pristine: Desk) -> None:
    configuration, seen = pristine.configuration(), set()
    network = configuration.network.build(CITYSCAPES_19.count).eval()
    network.load_state_dict(load_file(pristine.folder / "one.safetensors"))
    for frame in read_manifest(pristine.manifests["test"], ["test"]).frames("test"):
        with torch.inference_mode():
            logits = network(read_image(frame.image)[None] / 255)[1]
        best = functional.interpolate(logits, (HEIGHT, WIDTH), mode="bilinear")[0].argmax(dim=0)
        expected = [[trainId2label[int(train)].id for train in row] for row in best]
        with Image.open(pristine.folder / "run" / "test" / f"{frame.id}.png") as image:
            assert image.mode == "L" and image.size == (WIDTH, HEIGHT)
            found = np.asarray(image)
        assert (found != np.array(expected)).mean() < 1e-3, "but for ties in the last digit of a batch"
        seen |= set(found.ravel().tolist())
    assert len(seen) > 5, "the network must tell categories apart for this to mean anything"


def test_the_json_counts_and_vouches(pristine: Desk) -> None:
    content = json.loads((pristine.folder / "run" / "test.json").read_text())
    assert (content["set"], content["folder"], content["images"]) == ("test", "test", FRAMES)
    folder = pristine.folder / "run" / "test"
    assert content["files"] == [
        {"id": frame, "height": HEIGHT, "width": WIDTH,
         "sha256": sha256((folder / f"{frame}.png").read_bytes()).hexdigest()}
        for frame in IDS
    ]  # fmt: skip
    assert content["provenance"]["made_by"] == "predict" and content["provenance"]["seed"] == 3
    assert sorted(path.name for path in folder.iterdir()) == [f"{frame}.png" for frame in IDS]


@pytest.mark.parametrize(("name", "frames"), [("source", 1), ("target", 3)])
def test_training_images_are_predicted_and_their_labels_are_not_opened(desk: Desk, name: Any, frames: int) -> None:
    """Algorithm 1, line 12."""
    listed = read_manifest(desk.manifests[name]).frames(name)
    for frame in listed:
        assert frame.label is not None
        frame.label.unlink()
    content = json.loads(desk.predict(name, parts=(frames + 1) // 2).read_text())
    assert content["set"] == name and [entry["id"] for entry in content["files"]] == [frame.id for frame in listed]
    assert len(listed) == frames
    for frame in listed:
        with Image.open(desk.folder / "run" / name / f"{frame.id}.png") as image:
            assert image.size == (WIDTH, HEIGHT)
            assert set(np.unique(np.asarray(image))) <= set(CITYSCAPES_19.label_ids)


def test_a_target_without_labels_is_predicted(desk: Desk) -> None:
    target = yaml.safe_load((ROOT / "tests" / "smoke.yaml").read_text(encoding="utf-8"))["target"] | {"labels": None}
    desk.manifests["target"].unlink()
    check(desk.configuration(target=target), desk.manifests["target"])
    assert {frame.label for frame in read_manifest(desk.manifests["target"]).frames("target")} == {None}
    save_random_network(
        desk.configuration(), next((desk.folder / "data").rglob("*.png")), desk.folder / "fresh.safetensors", 7
    )
    assert json.loads(desk.predict("target", "fresh", target=target).read_text())["images"] == 3


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file was written again."""
    return {path.stem: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.png")}


def test_what_is_finished_is_kept_and_what_is_spoilt_is_not(desk: Desk) -> None:
    folder = desk.folder / "run" / "test"
    before, digest = stamps(folder), json.loads((desk.folder / "run" / "test.json").read_text())["digest"]
    kept = contents(folder)
    (folder / f"{IDS[4]}.png").write_bytes(kept[f"{IDS[4]}.png"][:-20])
    (folder / "other_000000_000000.png").write_bytes(b"of an earlier set")
    with (desk.folder / "run" / "test.1-of-1.journal").open("a") as journal:
        journal.write('{"id": "other_000000_000000", "key": "", "sha256": ""}\n')
    (folder / f"{IDS[0]}.png.12345678.partial").write_bytes(b"left by a killed writer")
    content = json.loads(desk.predict().read_text())
    after = stamps(folder)
    assert contents(folder) == kept and content["digest"] == digest
    assert {frame for frame in IDS if after[frame] != before[frame]} == {IDS[4]}
    (folder / f"{IDS[1]}.png").unlink()
    desk.predict()
    again = stamps(folder)
    assert contents(folder) == kept
    assert {frame for frame in IDS if again[frame] != after[frame]} == {IDS[0], IDS[1]}, "batches stay as they are"


@pytest.mark.parametrize(
    "change", [{"checkpoint": "other"}, {"inference": {"flip": True}}, {"inference": {"scales": [0.5, 1.0]}}]
)
def test_nothing_is_kept_of_another_checkpoint_or_other_settings(desk: Desk, change: dict[str, Any]) -> None:
    folder = desk.folder / "run" / "test"
    before, content = stamps(folder), contents(folder)
    desk.predict(**change)
    after = stamps(folder)
    assert all(after[frame] != before[frame] for frame in IDS)
    assert all(contents(folder)[name] != content[name] for name in content)
    desk.predict()
    assert contents(folder) == content


def test_another_image_is_predicted_again(desk: Desk) -> None:
    folder = desk.folder / "run" / "test"
    before = stamps(folder)
    manifest = read_json(desk.manifests["test"])
    entry = manifest["test"]["frames"][4]
    image = Path(manifest["test"]["root"], entry["image"])
    image.write_bytes(Path(manifest["test"]["root"], manifest["test"]["frames"][3]["image"]).read_bytes())
    with pytest.raises(UserError, match=f"{image.name}: this file must be as it was when it was checked"):
        desk.predict(place="again")
    entry["image_sha256"] = sha256(image.read_bytes()).hexdigest()
    write_json(desk.manifests["test"], manifest)
    desk.predict()
    assert {frame for frame in IDS if stamps(folder)[frame] != before[frame]} == {IDS[4]}


KILLED = """
import os, signal, sys
from pathlib import Path
from caguda.cli import main
from caguda.artifacts import atomic, predictions
replace, write_bytes, count = os.replace, Path.write_bytes, 0

def die():
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)

def half(path, content):
    if path.suffix == ".partial" and count == 3:
        write_bytes(path, content[: len(content) // 2])
    die()
    return write_bytes(path, content)

def renamed(*arguments):
    die()
    return replace(*arguments)

if sys.argv[1] == "half":
    Path.write_bytes = half
elif sys.argv[1] == "unnamed":
    os.replace = renamed
else:
    os.replace = lambda *arguments: (replace(*arguments), die())
main(sys.argv[2:])
"""


@pytest.mark.parametrize(("moment", "named"), [("half", 3), ("unnamed", 3), ("unlisted", 4)])
def test_a_kill_leaves_whole_files_and_the_next_call_goes_on(desk: Desk, moment: str, named: int) -> None:
    """Killed while a file is half written, before it gets its name, and before the journal has it."""
    undisturbed = contents(desk.folder / "run" / "test")
    output = desk.folder / "killed" / "test.json"
    options = {
        "config": desk.yaml(), "manifest": desk.manifests["test"], "checkpoint": desk.folder / "one.safetensors",
        "set": "test", "folder": output.with_suffix(""), "part": 1, "parts": 1, "output": output,
    }  # fmt: skip
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    done = subprocess.run([sys.executable, "-c", KILLED, moment, "predict-part", *arguments], check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and not output.exists()
    left = {path.name: path.read_bytes() for path in output.with_suffix("").glob("*.png")}
    assert len(left) == named and all(undisturbed[name] == content for name, content in left.items())
    assert len(list(output.with_suffix("").glob("*.partial"))) == (moment != "unlisted")
    before = stamps(output.with_suffix(""))
    assert main(["predict-part", *arguments]) == 0
    given = (desk.manifests["test"], desk.folder / "one.safetensors", "test", output.with_suffix(""))
    list_predictions(desk.configuration(), *given, [output], output.with_name("vouched.json"))
    assert contents(output.with_suffix("")) == undisturbed
    after = stamps(output.with_suffix(""))
    assert [before[frame] == after[frame] for frame in IDS[:2]] == [True, True], "the first batch is kept"


def test_a_torn_line_of_the_journal_is_passed_over(desk: Desk) -> None:
    journal = desk.folder / "run" / "test.1-of-1.journal"
    text = journal.read_text()
    journal.write_text(text.rstrip("\n")[:-30])  # of the last frame, a batch of its own
    (desk.folder / "run" / "test" / f"{IDS[4]}.png").unlink()  # a line comes before its file
    before = stamps(desk.folder / "run" / "test")
    desk.predict()
    after = stamps(desk.folder / "run" / "test")
    assert {frame for frame in IDS if after[frame] != before.get(frame)} == {IDS[4]}
    desk.predict()
    assert stamps(desk.folder / "run" / "test") == after


def test_a_file_that_no_journal_has_is_somebody_elses(desk: Desk) -> None:
    folder = desk.folder / "run" / "test"
    (desk.folder / "run" / "test.1-of-1.journal").write_text("")
    before = contents(folder)
    with pytest.raises(UserError, match="must hold predictions alone"):
        desk.predict()
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["holiday.png", "notes.partial"])
def test_what_predict_did_not_write_is_never_deleted(desk: Desk, name: str) -> None:
    foreign = desk.folder / "run" / "test" / name
    foreign.write_bytes(b"mine")
    if name.endswith(".png"):
        with pytest.raises(UserError, match=r"holiday.png: the folder of predictions must hold predictions alone"):
            desk.predict()
    else:
        desk.predict()
    assert foreign.read_bytes() == b"mine" and len(contents(desk.folder / "run" / "test")) >= len(IDS)


def test_a_folder_of_something_else_is_left_alone(desk: Desk) -> None:
    (desk.folder / "pictures" / "test").mkdir(parents=True)
    picture = desk.folder / "pictures" / "test" / "cat.png"
    picture.write_bytes(b"a cat")
    with pytest.raises(UserError, match="must be empty or absent before the first ones"):
        desk.predict(place="pictures")
    assert picture.read_bytes() == b"a cat" and len(list(desk.folder.glob("pictures/*"))) == 1


def test_a_file_changed_meanwhile_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    write = stage.write_prediction

    def spoilt(folder: Path, *arguments: Any) -> str:
        digest = write(folder, *arguments)
        (folder / f"{IDS[0]}.png").write_bytes(b"by another process")
        return digest

    monkeypatch.setattr(stage, "write_prediction", spoilt)
    with pytest.raises(UserError, match=rf"{IDS[0]}\.png: this must be the file .* move .*1-of-1\.json"):
        desk.predict(place="new")
    assert not (desk.folder / "new" / "test.json").exists()


def test_label_ids_that_need_more_than_eight_bits_are_refused(desk: Desk) -> None:
    classes = [{"id": 300 + n, "name": f"c{n}", "color": [n, 0, 0]} for n in range(19)]
    with pytest.raises(UserError, match="at most 255 for an 8-bit file, found 318"):
        desk.predict(classes=classes, ignore=[])


@pytest.mark.parametrize("parts", [2, 3])
def test_the_number_of_parts_changes_no_prediction(desk: Desk, parts: int) -> None:
    before = json.loads((desk.folder / "run" / "test.json").read_text())
    folder = desk.folder / "run" / "test"
    kept = stamps(folder)
    content = json.loads(desk.predict(parts=parts).read_text())
    assert stamps(folder) == kept, "what another number of parts has finished is kept"
    again = json.loads(desk.predict(place="new", parts=parts).read_text())
    assert content["files"] == again["files"] == before["files"]
    assert contents(desk.folder / "new" / "test") == contents(folder)
    with pytest.raises(UserError, match=r"compute\.parts: the test frames .* at most 3 parts, found 4"):
        desk.predict(parts=4)


def test_parts_that_do_not_belong_together_are_not_vouched_for(desk: Desk) -> None:
    desk.predict(parts=2)
    parts = sorted((desk.folder / "run" / "parts").glob("test.*-of-2.json"))
    given = (desk.manifests["test"], desk.folder / "one.safetensors", "test", desk.folder / "run" / "test")
    with pytest.raises(UserError, match=r"parts must make a whole, found 2 of 5 units"):
        list_predictions(desk.configuration(), *given, parts[1:], desk.folder / "run" / "new.json")
    flipped = desk.configuration(inference={"flip": True})
    with pytest.raises(UserError, match=r"1-of-2\.json: a part must be made of the given files"):
        list_predictions(flipped, *given, parts, desk.folder / "run" / "new.json")
    assert not (desk.folder / "run" / "new.json").exists()


# The test set


def test_the_test_set_needs_no_labels_and_has_a_manifest_of_its_own(pristine: Desk) -> None:
    content = read_json(pristine.manifests["test"])
    assert content.keys() == {"test", "classes", "warnings", "provenance"}
    frames = read_manifest(pristine.manifests["test"], ["test"]).frames("test")
    assert [(frame.id, frame.label) for frame in frames] == [(frame, None) for frame in IDS]
    assert "test" not in json.loads(pristine.manifests["evaluation"].read_text())


def test_faults_of_the_test_set_are_told(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    image = desk.folder / "data/target/leftImg8bit/test/essenheim" / f"{IDS[2]}_leftImg8bit.png"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(UserError, match=f"test: {image}: this image is damaged"):
        check_test(desk.configuration(), desk.folder / "new.json")
    assert not (desk.folder / "new.json").exists()
    with pytest.raises(UserError, match="a section `test`, found none"):
        check_test(desk.configuration(test=None), desk.folder / "new.json")


def test_a_manifest_without_the_set_is_refused(desk: Desk) -> None:
    with pytest.raises(UserError, match=r"manifest\.json: this is not a manifest with the sets? test"):
        read_manifest(desk.manifests["evaluation"], ["test"])


# The zip


def test_the_official_evaluation_takes_it_and_finds_our_iou(pristine: Desk, tmp_path: Path) -> None:
    """cityscapesScripts as it is shipped, on the unzipped files of a labelled split; all of a category is one instance."""
    evaluate(pristine.configuration(), pristine.manifests["evaluation"], pristine.folder / "one.safetensors",
             tmp_path / "evaluation.json")  # fmt: skip
    ours = json.loads((tmp_path / "evaluation.json").read_text())["as_trained"]
    archive = pristine.submit(pristine.predict("evaluation", place="labelled"))
    with ZipFile(archive) as content:
        content.extractall(tmp_path / "results")
    shutil.copytree(pristine.folder / "data" / "target" / "gtFine", tmp_path / "gtFine")
    for path in sorted((tmp_path / "gtFine").rglob("*_gtFine_labelIds.png")):
        ids = np.asarray(Image.open(path)).astype(np.uint16)
        instances = np.where((ids >= 24) & (ids <= 33), 1000 * ids, ids)
        Image.fromarray(instances).save(path.with_name(path.name.replace("labelIds", "instanceIds")))
    places = {"CITYSCAPES_DATASET": tmp_path, "CITYSCAPES_RESULTS": tmp_path / "results",
              "CITYSCAPES_EXPORT_DIR": tmp_path}  # fmt: skip
    program = (  # the stand-in is what NumPy 2.4 has in the place of in1d, by which instances are scored
        "import numpy; numpy.in1d = numpy.isin\n"
        "from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official\n"
        "official.main()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True,
                   env=os.environ | {key: str(value) for key, value in places.items()})  # fmt: skip
    theirs = json.loads((tmp_path / "resultPixelLevelSemanticLabeling.json").read_text())
    found = [theirs["classScores"][name] for name in CITYSCAPES_19.names]
    expected = [np.nan if value is None else value for value in ours["iou"]]
    assert np.allclose(found, expected, rtol=0, atol=1e-9, equal_nan=True)
    assert abs(theirs["averageScoreClasses"] - ours["miou"]) < 1e-9
    assert sum(value > 0.01 for value in found) > 2, "scores of 0 would agree whatever the ids are"


def test_the_zip_holds_the_files_without_folders(pristine: Desk) -> None:
    archive = pristine.submit(pristine.folder / "run" / "test.json")
    with ZipFile(archive) as content:
        assert {name: content.read(name) for name in content.namelist()} == contents(pristine.folder / "run" / "test")
    described = json.loads(archive.with_suffix(".json").read_text())
    assert described["sha256"] == sha256(archive.read_bytes()).hexdigest()
    assert (described["images"], described["set"]) == (FRAMES, "test")


def test_equal_predictions_give_an_equal_zip(desk: Desk) -> None:
    first = desk.submit(desk.folder / "run" / "test.json").read_bytes()
    second = desk.submit(desk.predict(place="again"))
    for path in (desk.folder / "run" / "test").iterdir():
        os.utime(path, (10**9, 10**9))
        path.chmod(0o600)
    assert second.read_bytes() == first == desk.submit(desk.folder / "run" / "test.json").read_bytes()
    assert desk.submit(desk.predict(checkpoint="other", place="other")).read_bytes() != first


def test_a_zip_beside_a_checkpoint_holds_the_predictions_of_that_model(desk: Desk) -> None:
    theirs = desk.predict(checkpoint="other", place="other")
    for place in ("run", "other"):
        (desk.folder / place / "submission.zip").unlink(missing_ok=True)
        for suffix in (".safetensors", ".json"):
            shutil.copy(desk.folder / f"other{suffix}", desk.folder / place / f"checkpoint{suffix}")
    with pytest.raises(
        UserError, match=r"test\.json: .* must be of .*run/checkpoint\.safetensors, found those of another"
    ):
        desk.submit(desk.folder / "run" / "test.json")
    assert not (desk.folder / "run" / "submission.zip").exists()
    assert desk.submit(theirs).is_file()


def test_what_makes_it_a_rehearsal_is_said(pristine: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    pristine.submit(pristine.predict("evaluation", place="labelled"))
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 3
    assert "frames of the evaluation set" in notes[0]
    assert "5 of the images are not 2048x1024" in notes[1]
    assert "the test split has 1525 frames, these are 5" in notes[2]


def save(values: Any, **options: Any) -> Callable[[Path], None]:
    """A fault: the first file is another PNG."""
    return lambda folder: Image.fromarray(np.asarray(values)).save(folder / FIRST, **options)


def full(value: int, dtype: type = np.uint8, size: tuple[int, ...] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.full(size, value, dtype)


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / FIRST).read_bytes())
    content[content.index(b"IDAT") + 12] ^= 4
    (folder / FIRST).write_bytes(content)


def cut(folder: Path) -> None:
    (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-12])


def palette(folder: Path) -> None:
    image = Image.fromarray(full(7)).convert("P")
    image.save(folder / FIRST)


def four_bits(folder: Path) -> None:
    image = Image.fromarray(full(7)).convert("P")
    image.save(folder / FIRST, bits=4)
    content = bytearray((folder / FIRST).read_bytes())
    content[25] = 0  # grey
    (folder / FIRST).write_bytes(content)


def copy_to(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copy(folder / FIRST, folder / name) and None


FAULTS: list[tuple[str, Callable[[Path], None], str]] = [
    (FIRST, lambda folder: (folder / FIRST).unlink(), "missing"),
    ("aalen_000000_000019.png", copy_to("aalen_000000_000019.png"), "surplus, the set has no frame"),
    (f"{IDS[0]}_again.png", copy_to(f"{IDS[0]}_again.png"), f"surplus, {FIRST} is of the same frame"),
    ("essenheim_1_19.png", copy_to("essenheim_1_19.png"), "a name must be CITY_SEQUENCE_FRAME"),
    ("notes.txt", lambda folder: folder.joinpath("notes.txt").write_text("x") and None, "a name must be"),
    (FIRST, lambda folder: folder.joinpath(FIRST).write_bytes(b"") and None, "not a PNG file"),
    (FIRST, lambda folder: folder.joinpath(FIRST).write_text("<html>" * 9) and None, "not a PNG file"),
    (FIRST, save(full(7), format="JPEG"), "not a PNG file"),
    (FIRST, cut, "damaged (the file is cut off)"),
    (FIRST, flip_a_bit, "damaged ("),
    (FIRST, save(full(7, size=(HEIGHT, WIDTH, 3))), "single channel, grey, found RGB with 8 bits"),
    (FIRST, save(full(7, np.uint16)), "single channel, grey, found grey with 16 bits"),
    (FIRST, palette, "found palette with 8 bits"),
    (FIRST, four_bits, "found grey with 4 bits"),
    (FIRST, save(full(7, size=(HEIGHT, WIDTH - 1))), "must be 96x48 as its image is, found 95x48"),
    (FIRST, save(full(7, size=(WIDTH, HEIGHT))), "must be 96x48 as its image is, found 48x96"),
    (FIRST, save(full(0)), "7 8 11 12 13 17 19 20 21 22 23 24 25 26 27 28 31 32 33, found 0 (4608 pixels)"),
    (FIRST, save(full(18)), "found 18 (4608 pixels); are these train ids?"),
    (FIRST, save(full(255)), "found 255 (4608 pixels)"),
    (FIRST, save(full(29)), "found 29 (4608 pixels)"),
    (FIRST, save(full(7)), "this is not the file that `predict` wrote"),
]


def submit(desk: Desk) -> int:
    options = {"manifest": desk.manifests["test"], "predictions": desk.folder / "run" / "test.json",
               "output": desk.folder / "new" / "submission.zip"}  # fmt: skip
    return main(["submission", *(str(part) for name, value in options.items() for part in (f"--{name}", value))])


@pytest.mark.parametrize(("name", "spoil", "words"), FAULTS, ids=[f"{words}" for _, _, words in FAULTS])
def test_every_fault_is_refused_by_name(
    desk: Desk, capsys: pytest.CaptureFixture[str], name: str, spoil: Callable[[Path], None], words: str
) -> None:
    assert submit(desk) == 0
    shutil.rmtree(desk.folder / "new")
    spoil(desk.folder / "run" / "test")
    capsys.readouterr()
    assert submit(desk) == 2
    printed = capsys.readouterr()
    told = [line for line in printed.out.splitlines() if line.startswith("problem: ")]
    assert len(told) == 1 and told[0].startswith(f"problem: {name}: ") and words in told[0], told
    assert printed.err.count("\n") == 1 and f"would refuse 1 file(s), no zip was written: {name}: " in printed.err
    assert not list((desk.folder / "new").iterdir())


def test_all_faults_are_told_at_once(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    folder = desk.folder / "run" / "test"
    for frame in IDS[1:]:
        (folder / f"{frame}.png").unlink()
    save(full(3))(folder)
    assert submit(desk) == 2
    printed = capsys.readouterr()
    told = [line.split(": ")[1] for line in printed.out.splitlines() if line.startswith("problem: ")]
    assert sorted(told) == [f"{frame}.png" for frame in IDS]
    assert "and 2 more, all listed above" in printed.err


def test_another_layout_is_refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = desk.manifests["test"]
    edit_sealed(manifest, lambda text: text.replace('"layout": "cityscapes"', '"layout": "folder"'))
    assert submit(desk) == 2
    assert "takes frames of layout cityscapes, found layout folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["source", "target"])
def test_a_zip_of_training_images_is_refused(desk: Desk, capsys: pytest.CaptureFixture[str], name: str) -> None:
    given = ["--manifest", str(desk.manifests[name]), "--predictions", str(desk.predict(name))]
    assert main(["submission", *given, "--output", str(desk.folder / "run" / "training.zip")]) == 2
    assert f"{name}.json: a zip must be of the set test or evaluation, found {name}" in capsys.readouterr().err


def test_a_json_of_something_else_is_refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    (desk.folder / "run" / "test.json").write_text('{"format": "something"}')
    assert submit(desk) == 2
    assert "test.json: the file must be as a verb of caguda wrote it" in capsys.readouterr().err


def test_the_zip_is_made_without_torch() -> None:
    program = "import sys, caguda.stages.submission, caguda.stages.predictions; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
