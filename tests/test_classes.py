"""Class tables against the published ids of Cityscapes, and tables of one's own."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from caguda.classes import CITYSCAPES_19, IGNORE, UNWRITTEN, class_table
from caguda.config import Configuration
from caguda.configfile import parse_configuration

DEMO = Path(__file__).parents[1] / "config" / "demo.yaml"


def configuration(**keys: object) -> Configuration:
    return parse_configuration(yaml.safe_load(DEMO.read_text(encoding="utf-8")) | keys, DEMO)


def test_cityscapes_ids_are_the_published_ones() -> None:
    raw = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert CITYSCAPES_19.lookup[raw].tolist() == list(range(19))
    void = [value for value in (*range(35), 255) if value not in raw]
    assert set(CITYSCAPES_19.lookup[void].tolist()) == {IGNORE}
    assert set(CITYSCAPES_19.lookup[[35, 200, 254, 256, 65535]].tolist()) == {-1}


def test_cityscapes_names_and_colours() -> None:
    assert CITYSCAPES_19.count == len(CITYSCAPES_19.colors) == 19
    assert (CITYSCAPES_19.names[0], CITYSCAPES_19.names[10], CITYSCAPES_19.names[18]) == ("road", "sky", "bicycle")
    palette = CITYSCAPES_19.palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert palette[13].tolist() == [0, 0, 142]
    assert not palette[[19, UNWRITTEN, IGNORE]].any()


def test_lookup_is_read_only_and_int16() -> None:
    assert CITYSCAPES_19.lookup.shape == (65536,) and CITYSCAPES_19.lookup.dtype == np.int16
    with pytest.raises(ValueError, match="read-only"):
        CITYSCAPES_19.lookup[0] = 1


def test_named_table_is_cityscapes() -> None:
    assert class_table(configuration()) is CITYSCAPES_19


def test_table_of_ones_own_follows_the_order_of_the_list() -> None:
    classes = [{"id": 300, "name": "b", "color": [1, 2, 3]}, {"id": 0, "name": "a", "color": [4, 5, 6]}]
    table = class_table(configuration(classes=classes, ignore=[255, 9]))
    assert table.names == ("b", "a")
    assert table.lookup[[300, 0, 255, 9, 1]].tolist() == [0, 1, IGNORE, IGNORE, -1]
    assert table.palette()[:2].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_label_ids_lead_back_from_train_ids() -> None:
    assert CITYSCAPES_19.label_ids.tolist() == [
        7,
        8,
        11,
        12,
        13,
        17,
        19,
        20,
        21,
        22,
        23,
        24,
        25,
        26,
        27,
        28,
        31,
        32,
        33,
    ]
    own = [{"id": 700, "name": "a", "color": [0, 0, 0]}, {"id": 3, "name": "b", "color": [0, 0, 1]}]
    table = class_table(configuration(classes=own, ignore=[0, 65535]))
    assert table.label_ids.tolist() == [700, 3]
    assert table.lookup[table.label_ids].tolist() == [0, 1]
