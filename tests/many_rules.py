"""Label stores of many rules, one of them a plugin's, made of the evidence of the miniature experiment."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from miniature import Miniature, at_cells
from test_rules_added import FILE, plugin

from caguda.artifacts.atomic import write_json
from caguda.artifacts.labels import LABELS
from caguda.artifacts.vouched import vouched_store
from caguda.classes import class_table
from caguda.datasets.io import read_label
from caguda.datasets.manifest import read_manifest
from caguda.runs import rules_by_folder
from caguda.stages.labels import make_labels

RULES: dict[str, dict[str, Any]] = {
    "agreement": {"p0": 0.2},
    "class_balanced": {"portion": 0.2, "growth": 0.05},
    "class_quantile": {"share": 0.5, "cap": 0.9},
}
RUN = {"method": "self_training", "start": "warmup", "iterations": 6, "pseudo_labels": RULES}


def labelled_by_many_rules(mini: Miniature, folder: Path) -> Miniature:
    """A copy of the miniature's artifacts in a folder, with `config.json` and labels/RULE/labels.json of five rules."""
    kept = replace(mini, folder=Path(shutil.copytree(mini.folder, folder)))
    write_json(kept.folder / "config.json", kept.configuration().model_dump(mode="json"))
    evidence = kept.folder / "labels" / "evidence.json"
    with plugin():
        configuration = kept.configuration(runs__many=RUN, plugins=[str(FILE)])
        for rule in rules_by_folder(configuration):
            output = evidence.parent / rule / "labels.json"
            if not output.exists():
                make_labels(configuration, evidence, rule, output.with_suffix(".zarr"), output)
    return kept


def stores_of(kept: Miniature) -> list[Path]:
    """The JSONs of all label stores, in the order in which a shell lists them."""
    return sorted((kept.folder / "labels").glob("*/labels.json"))


def label_arrays(files: list[Path]) -> dict[str, np.ndarray]:
    """All labels (n, h, w) of each store, by the name of its folder."""
    stores = {file.parent.name: vouched_store(file, LABELS) for file in files}
    return {name: np.stack([store.read(i, "label") for i in range(store.count)]) for name, store in stores.items()}


def truth_array(kept: Miniature) -> np.ndarray:
    """The truth (n, h, w) of the target frames at the cells of f_D."""
    table, truths = class_table(kept.configuration()), []
    for frame in read_manifest(kept.manifest).frames("target"):
        assert frame.label is not None
        truths.append(at_cells(read_label(frame.label, table)[None])[0].numpy())
    return np.stack(truths)
