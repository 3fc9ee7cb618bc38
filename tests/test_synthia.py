"""SYNTHIA-RAND-CITYSCAPES: 16-bit RGB labels with ids of their own, beside Cityscapes in one experiment."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniature import HEIGHT, WIDTH, Miniature, label_files
from PIL import Image
from sixteen_bit_png import byte_of_pixels, write

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.atomic import read_json
from caguda.classes import CITYSCAPES_19, IGNORE, class_table
from caguda.config_frames import Domain
from caguda.datasets.io import read_label
from caguda.datasets.listing import list_frames
from caguda.datasets.manifest import read_manifest
from caguda.equations.grid import labels_at
from caguda.errors import UserError
from caguda.paper.figures import Block
from caguda.runs import method_of
from caguda.stages import figure
from caguda.stages.check import check
from caguda.stages.evaluate import evaluate
from caguda.stages.labelling import open_labelling
from caguda.stages.training_frames import open_frames
from caguda.street import write_street

SHARED = Path(os.environ.get("CAGUDA_SHARED", Path(__file__).parents[2] / "shared"))
# Written down from the data set's description, not from the package: class id of SYNTHIA, train id of Cityscapes.
TRAIN_IDS = {
    3: 0,
    4: 1,
    2: 2,
    21: 3,
    5: 4,
    7: 5,
    15: 6,
    9: 7,
    6: 8,
    1: 10,
    10: 11,
    17: 12,
    8: 13,
    19: 15,
    12: 17,
    11: 18,
}
VOID, SKY, ROAD, TERRAIN, TRUCK, TRAIN, LANE_MARKING = 0, 1, 3, 16, 18, 20, 22
DOMAIN = Domain(layout="synthia")


def table(name: str = "cityscapes19") -> Any:
    configuration = Miniature(Path("data"), Path("results")).configuration(classes=name, ignore=[255])
    return class_table(configuration, DOMAIN)


def mapped(raw: np.ndarray) -> np.ndarray:
    """The train ids of SYNTHIA's class ids, pixel by pixel."""
    return np.array([[TRAIN_IDS.get(value, IGNORE) for value in row] for row in raw.tolist()], dtype=np.uint8)


# One label file


def test_every_class_id_with_instances_in_green(tmp_path: Path) -> None:
    raw = np.arange(23).reshape(1, 23).repeat(3, 0)
    write(tmp_path / "label.png", raw, green=np.array([[0], [1], [65535]]))
    label = read_label(tmp_path / "label.png", table())
    assert label.dtype == torch.uint8
    assert np.array_equal(label.numpy(), mapped(raw))
    assert label[0, [VOID, TERRAIN, TRUCK, TRAIN, LANE_MARKING]].tolist() == [IGNORE] * 5


@pytest.mark.parametrize(("name", "last"), [("cityscapes16", "bicycle"), ("cityscapes13", "bicycle")])
def test_fewer_categories_are_counted_through(tmp_path: Path, name: str, last: str) -> None:
    write(tmp_path / "label.png", np.arange(23).reshape(1, 23))
    fewer = table(name)
    found, names = read_label(tmp_path / "label.png", fewer)[0].tolist(), CITYSCAPES_19.names
    for raw, train in enumerate(found):
        expected = names[TRAIN_IDS[raw]] if raw in TRAIN_IDS else None
        assert (fewer.names[train] if train != IGNORE else None) == (expected if expected in fewer.names else None)
    assert sorted(set(found) - {IGNORE}) == list(range(fewer.count)) and fewer.names[-1] == last


@pytest.mark.parametrize("value", [23, 255, 256 + ROAD, 65535])
def test_unknown_class_ids_are_refused(tmp_path: Path, value: int) -> None:
    """256 + 3 would be road for a reader that keeps the lower byte, and void for one that keeps the upper."""
    raw = np.full((4, 5), ROAD)
    raw[1, 2] = value
    write(tmp_path / "label.png", raw)
    with pytest.raises(UserError, match=rf"label\.png: label values outside the class table: {value} \(1 pixels\)"):
        read_label(tmp_path / "label.png", table())


@pytest.mark.parametrize(
    ("mode", "found"), [("RGB", "8 bits and type 2"), ("L", "8 bits and type 0"), ("RGBA", "8 bits")]
)
def test_other_kinds_of_png_are_refused(tmp_path: Path, mode: str, found: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "label.png")
    with pytest.raises(UserError, match=rf"label\.png: a SYNTHIA label must be .* found {found}"):
        read_label(tmp_path / "label.png", table())


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    write(path, np.random.default_rng(0).integers(0, 23, (40, 50)))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"IDAT") + 100] ^= 4
    for content in (whole[: len(whole) // 2], bytes(flipped), whole[:20] + b"IEND"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"label\.png: this label is damaged"):
            read_label(path, table())


def test_the_table_of_another_layout_refuses_the_file(tmp_path: Path) -> None:
    write(tmp_path / "label.png", np.full((4, 4), ROAD))
    with pytest.raises(UserError, match="found mode RGB"):
        read_label(tmp_path / "label.png", CITYSCAPES_19)


def test_a_listed_table_gives_the_class_ids_themselves(tmp_path: Path) -> None:
    listed = [{"id": i, "name": f"c{i}", "color": [i, i, i]} for i in (ROAD, SKY)]
    configuration = Miniature(tmp_path, tmp_path).configuration(classes=listed, ignore=[VOID])
    write(tmp_path / "label.png", np.array([[VOID, SKY, ROAD]]))
    label = read_label(tmp_path / "label.png", class_table(configuration, DOMAIN))
    assert label.tolist() == [[IGNORE, 1, 0]]


def test_genuine_label_against_a_reader_byte_by_byte() -> None:
    path = SHARED / "data" / "fixtures" / "synthia" / "000000_LABELS_16bit.png"
    if not path.exists():
        pytest.skip(f"genuine frames are absent: {path}; name their folder with CAGUDA_SHARED")
    assert not byte_of_pixels(path, 0).any(), "the upper byte, which is all that Pillow keeps"
    raw = byte_of_pixels(path, 1)
    assert raw.shape == (760, 1280) and set(np.unique(raw)) > {VOID, SKY, ROAD}
    assert np.array_equal(read_label(path, table()).numpy(), mapped(raw))


# A set of frames


def test_frames_are_found_in_their_folders(tmp_path: Path) -> None:
    for number in (2, 1):
        (tmp_path / "RGB").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (number, 2, 3)).save(tmp_path / "RGB" / f"{number:07}.png")
    write(tmp_path / "GT" / "LABELS" / "0000001.png", np.full((4, 6), ROAD))
    frames = list_frames(DOMAIN, tmp_path)
    assert [frame.id for frame in frames] == ["0000001", "0000002"]
    assert frames[0].label == tmp_path / "GT" / "LABELS" / "0000001.png" and frames[1].label is None
    assert [frame.label for frame in list_frames(Domain(layout="synthia", labels=None), tmp_path)] == [None, None]


def test_an_empty_or_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"RGB: there is no such folder; correct the key root"):
        list_frames(DOMAIN, tmp_path)
    (tmp_path / "RGB").mkdir()
    with pytest.raises(UserError, match=r"no frames found; layout synthia needs them in RGB/\*\.png"):
        list_frames(DOMAIN, tmp_path)


# An experiment: SYNTHIA as the source, Cityscapes with train ids as the target, 16 categories

CHANGES: dict[str, Any] = {
    "classes": "cityscapes16",
    "ignore": [255],
    "source": {"layout": "synthia", "root": "synthia"},
    "target": {"layout": "cityscapes", "root": "target", "split": "train", "labels": "labelTrainIds"},
    "training__iterations": 2,
    "runs__pretrain__iterations": 2,
    "runs__cag__stages": 1,
}


def written(root: Path, settings: Any) -> dict[str, np.ndarray]:
    """Street scenes in both layouts; the label of every frame, by the file that holds it, in train ids of 19."""
    write_street(root, settings.street)
    truths = {}
    synthia = {train: raw for raw, train in TRAIN_IDS.items()} | {
        IGNORE: LANE_MARKING,
        9: TERRAIN,
        14: TRUCK,
        16: TRAIN,
    }
    for image in sorted((root / "source" / "images").iterdir()):
        (root / "synthia" / "RGB").mkdir(parents=True, exist_ok=True)
        image.rename(root / "synthia" / "RGB" / image.name)
        truth = read_label(root / "source" / "labels" / image.name, CITYSCAPES_19).numpy()
        path = root / "synthia" / "GT" / "LABELS" / image.name
        write(path, np.vectorize(synthia.__getitem__)(truth), green=7)
        truths[image.name] = truth
    for path in sorted((root / "target" / "gtFine").rglob("*_gtFine_labelIds.png")):
        truth = read_label(path, CITYSCAPES_19).numpy()
        if path.parent.parent.name == "train":
            path.unlink()
            path = path.with_name(path.name.replace("labelIds", "labelTrainIds"))
            Image.fromarray(truth).save(path)
        truths[path.name] = truth
    return truths


def of_sixteen(truth: np.ndarray) -> np.ndarray:
    """Train ids among 19 as those among 16."""
    kept = [train for train, name in enumerate(CITYSCAPES_19.names) if name not in ("terrain", "truck", "train")]
    lookup = np.full(256, IGNORE, dtype=np.uint8)
    lookup[kept] = np.arange(16)
    return lookup[truth]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Miniature, dict[str, np.ndarray]]]:
    """The whole chain in miniature, and the truth of every label file among 16 categories."""
    folder = tmp_path_factory.mktemp("synthia")
    mini = _Sixteen(folder / "data", folder / "results")
    mini.folder.mkdir()
    truths = written(mini.root, mini.configuration())
    check(mini.configuration(), mini.manifest)
    mini.chain()
    yield mini, {name: of_sixteen(truth) for name, truth in truths.items()}


class _Sixteen(Miniature):
    def configuration(self, **changes: Any) -> Any:
        return super().configuration(**(CHANGES | changes))


def counts(truths: list[np.ndarray]) -> list[int]:
    return np.bincount(np.concatenate([truth.ravel() for truth in truths]), minlength=256)[:16].tolist()


def test_the_check_counts_pixels_of_either_kind_of_label(experiment: tuple[Miniature, dict[str, np.ndarray]]) -> None:
    mini, truths = experiment
    content = json.loads(mini.manifest.read_text())
    for name in ("source", "target", "evaluation"):
        labels = [truths[Path(frame["label"]).name] for frame in content[name]["frames"]]
        assert list(content[name]["pixels"].values()) == counts(labels)
        assert content[name]["void_pixels"] == sum(int((label == IGNORE).sum()) for label in labels)


def test_training_and_anchors_read_the_source(experiment: tuple[Miniature, dict[str, np.ndarray]]) -> None:
    mini, truths = experiment
    read = open_frames(mini.configuration(), mini.manifest, (), method_of(mini.configuration(), "pretrain"))
    frames, truth = read.manifest.frames("source"), read.truth("source")
    for index, frame in enumerate(frames):
        assert np.array_equal(truth(index)["label"].numpy(), truths[frame.image.name])
    anchors, _ = load_anchors(mini.folder / "labels" / "anchors.h5")
    size = open_labelling(mini.folder / "labels" / "labels.json").shape
    small = [labels_at(torch.from_numpy(truths[f.image.name])[None], size) for f in frames]
    assert anchors.pixel_count.tolist() == counts([label.numpy() for label in small])


def test_the_oracle_reads_train_ids_of_the_target(experiment: tuple[Miniature, dict[str, np.ndarray]]) -> None:
    mini, truths = experiment
    method = method_of(mini.configuration(), "oracle")
    assert method.reads == {"target": "truth"}
    truth = open_frames(mini.configuration(), mini.manifest, (), method).truth("target")
    for index, frame in enumerate(read_manifest(mini.manifest).frames("target")):
        assert frame.label is not None
        assert np.array_equal(truth(index)["label"].numpy(), truths[frame.label.name])
    assert mini.train("oracle", "oracle", mini.configuration()).exists()


def test_evaluation_and_diagnosis_read_their_own_labels(experiment: tuple[Miniature, dict[str, np.ndarray]]) -> None:
    mini, truths = experiment
    evaluate(mini.configuration(), mini.manifest, mini.weights("stage"), mini.folder / "evaluation.json")
    scores = json.loads((mini.folder / "evaluation.json").read_text())["as_trained"]
    evaluated = [truths[frame.label.name] for frame in read_manifest(mini.manifest).frames("evaluation") if frame.label]
    assert np.array(scores["confusion"]).sum(1).tolist() == counts(evaluated)
    assert "miou16" not in scores
    known = [scores["iou"][i] for i in (0, 1, 2, *range(6, 16)) if scores["iou"][i] is not None]
    assert scores["miou13"] == pytest.approx(np.mean(known))

    labels = mini.folder / "labels" / "labels.json"
    found = read_json(labels)["accuracy"]["predicted_all"]
    store, hits, total = open_labelling(labels), 0, 0
    for index, frame in enumerate(read_manifest(mini.manifest).frames("target")):
        assert frame.label is not None
        predicted = store.read(index).predicted
        truth = labels_at(torch.from_numpy(truths[frame.label.name])[None], predicted.shape)[0].numpy()
        hits, total = hits + int((truth == predicted).sum()), total + int((truth != IGNORE).sum())
    assert found["accuracy"] == pytest.approx(hits / total)


def test_the_figure_shows_the_truth_of_either_set(
    experiment: tuple[Miniature, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mini, truths = experiment
    blocks: list[Block] = []
    monkeypatch.setattr(figure, "write_figure", lambda drawn, *_: blocks.extend(drawn))
    checkpoints = [mini.weights(name) for name in ("pretrain", "warmup", "stage")]
    evidence, labels = mini.folder / "labels" / "evidence.json", label_files(mini.folder / "labels" / "labels.json")
    output = mini.folder / "figure.png"
    figure.draw_figure(mini.configuration(), mini.manifest, "cag", 0, checkpoints, output, evidence, labels)
    known = {truth.tobytes() for truth in truths.values()}
    shown = [row["truth"].tobytes() for block in blocks for row in block.frames]
    assert shown and set(shown) <= known
    assert all(row["truth"].shape == (HEIGHT, WIDTH) for block in blocks for row in block.frames)


def test_a_label_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    mini = _Sixteen(tmp_path / "data", tmp_path)
    written(mini.root, mini.configuration())
    first = min((mini.root / "synthia" / "GT" / "LABELS").iterdir())
    write(first, np.full((HEIGHT, WIDTH - 1), ROAD))
    with pytest.raises(UserError, match=rf"this label is {WIDTH - 1}x{HEIGHT} and its image .* is {WIDTH}x{HEIGHT}"):
        check(mini.configuration(), mini.manifest)


def test_train_ids_that_were_not_made_are_asked_for(tmp_path: Path) -> None:
    mini = _Sixteen(tmp_path / "data", tmp_path)
    written(mini.root, mini.configuration())
    domain = {"layout": "cityscapes", "root": "target", "split": "val", "labels": "labelTrainIds"}
    with pytest.raises(
        UserError, match=r"_gtFine_labelTrainIds\.png: none of the 9 images of the folder .* has a label"
    ):
        check(mini.configuration(evaluation=domain), mini.manifest)
