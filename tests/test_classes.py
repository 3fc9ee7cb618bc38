"""Class tables against the published ids of Cityscapes, and tables of one's own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from cityscapesscripts.helpers.labels import labels as official_labels

from caguda.classes import CITYSCAPES_19, IGNORE, UNWRITTEN, class_table, smaller_sets
from caguda.config import Configuration
from caguda.config_frames import Domain
from caguda.configfile import parse_configuration
from caguda.datasets.layout import layout_of

CITYSCAPES = Domain(layout="cityscapes", split="train")
TRAIN_IDS = Domain(layout="cityscapes", split="train", labels="labelTrainIds")
LEFT_OUT = {
    "cityscapes19": set[str](),
    "cityscapes16": {"terrain", "truck", "train"},
    "cityscapes13": {"terrain", "truck", "train", "wall", "fence", "pole"},
}
DEMO = Path(__file__).parents[1] / "config" / "demo.yaml"


def configuration(**keys: object) -> Configuration:
    return parse_configuration(yaml.safe_load(DEMO.read_text(encoding="utf-8")) | keys, DEMO)


def test_cityscapes_ids_are_the_published_ones() -> None:
    raw = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert CITYSCAPES_19.lookup[raw].tolist() == list(range(19))
    void = [value for value in (*range(35), 255) if value not in raw]
    assert set(CITYSCAPES_19.lookup[void].tolist()) == {IGNORE}
    assert set(CITYSCAPES_19.lookup[[35, 200, 254, 256, 65535]].tolist()) == {UNWRITTEN}


def test_cityscapes_names_and_colours() -> None:
    assert CITYSCAPES_19.count == len(CITYSCAPES_19.colors) == 19
    assert (CITYSCAPES_19.names[0], CITYSCAPES_19.names[10], CITYSCAPES_19.names[18]) == ("road", "sky", "bicycle")
    palette = CITYSCAPES_19.palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert palette[13].tolist() == [0, 0, 142]
    assert not palette[[19, UNWRITTEN, IGNORE]].any()


def test_lookup_is_read_only_and_of_bytes() -> None:
    assert CITYSCAPES_19.lookup.shape == (65536,) and CITYSCAPES_19.lookup.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        CITYSCAPES_19.lookup[0] = 1


def test_named_table_is_cityscapes() -> None:
    assert class_table(configuration()) is CITYSCAPES_19


def test_table_of_ones_own_follows_the_order_of_the_list() -> None:
    classes = [{"id": 300, "name": "b", "color": [1, 2, 3]}, {"id": 0, "name": "a", "color": [4, 5, 6]}]
    table = class_table(configuration(classes=classes, ignore=[255, 9]))
    assert table.names == ("b", "a")
    assert table.lookup[[300, 0, 255, 9, 1]].tolist() == [0, 1, IGNORE, IGNORE, UNWRITTEN]
    assert table.palette()[:2].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_label_ids_lead_back_from_train_ids() -> None:
    assert CITYSCAPES_19.label_ids.tolist() == [
        int(v)
        for v in [
            "7",
            "8",
            "11",
            "12",
            "13",
            "17",
            "19",
            "20",
            "21",
            "22",
            "23",
            "24",
            "25",
            "26",
            "27",
            "28",
            "31",
            "32",
            "33",
        ]
    ]
    own = [{"id": 700, "name": "a", "color": [0, 0, 0]}, {"id": 3, "name": "b", "color": [0, 0, 1]}]
    table = class_table(configuration(classes=own, ignore=[0, 65535]))
    assert table.label_ids.tolist() == [700, 3]
    assert table.lookup[table.label_ids].tolist() == [0, 1]


@pytest.mark.parametrize("classes", LEFT_OUT)
@pytest.mark.parametrize("domain", [CITYSCAPES, TRAIN_IDS], ids=["labelIds", "labelTrainIds"])
def test_named_tables_map_every_label_of_cityscapes(classes: str, domain: Domain) -> None:
    """Against the labels of cityscapesScripts; -1, the licence plate in both, becomes 255 in a file of 8 bits."""
    table = class_table(configuration(classes=classes), domain)
    assert table.names == tuple(name for name in CITYSCAPES_19.names if name not in LEFT_OUT[classes])
    for label in official_labels:
        written = np.array(label.trainId if domain is TRAIN_IDS else label.id).astype(np.uint8)
        train_id = table.lookup[written]
        judged = not label.ignoreInEval and label.name not in LEFT_OUT[classes]
        assert (
            (table.names[train_id], table.colors[train_id]) == (label.name, label.color)
            if judged
            else (train_id == IGNORE)
        ), label


def test_values_that_only_one_kind_of_file_has() -> None:
    """34 is GTA5's licence plate; among train ids it can only be a file of the other kind."""
    by_id, by_train_id = (class_table(configuration(), domain).lookup for domain in (CITYSCAPES, TRAIN_IDS))
    assert by_id[34] == by_id[255] == by_train_id[255] == IGNORE
    assert set(by_train_id[[19, 26, 33, 34, 254, 65535]].tolist()) == {UNWRITTEN}
    assert by_id[65535] == UNWRITTEN, "-1 in 16 bits: no tool writes such files"


def test_the_layout_decides_what_raw_values_mean() -> None:
    settings = configuration(classes="cityscapes16")
    layouts = [Domain(layout="gta5"), Domain(layout="folder"), Domain(layout="folder", labels="labelTrainIds")]
    for domain in layouts:
        table = class_table(settings, domain)
        assert table is class_table(settings, domain) and table.decoder == layout_of(domain)
        assert (
            replace(table, decoder=None)
            == class_table(settings)
            == replace(class_table(settings, CITYSCAPES), decoder=None)
        )
    synthia = class_table(settings, Domain(layout="synthia"))
    assert synthia.names == class_table(settings).names
    assert synthia.decoder == layout_of(Domain(layout="synthia"))
    assert synthia.lookup[22] == IGNORE and synthia.lookup[23] == UNWRITTEN
    assert synthia.names[synthia.lookup[12]] == "motorcycle" and synthia.names[synthia.lookup[11]] == "bicycle"


def test_smaller_sets_are_told_for_cityscapes_alone() -> None:
    names = {classes: class_table(configuration(classes=classes)).names for classes in LEFT_OUT}
    nineteen = smaller_sets(names["cityscapes19"])
    assert {n: [CITYSCAPES_19.names[i] for i in kept] for n, kept in nineteen.items()} == {
        16: list(names["cityscapes16"]),
        13: list(names["cityscapes13"]),
    }
    sixteen = smaller_sets(names["cityscapes16"])
    assert {n: [names["cityscapes16"][i] for i in kept] for n, kept in sixteen.items()} == {
        13: list(names["cityscapes13"])
    }
    assert smaller_sets(names["cityscapes13"]) == smaller_sets((*CITYSCAPES_19.names, "unicorn")) == {}
