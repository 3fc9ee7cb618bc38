"""The verbs that read artifacts, each on the experiment of `specimen.py` as the workflow calls it, but into a new folder."""

import hashlib
import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from specimen import PARTS, RUNS, Tree, draw, inputs_of, lasting

from caguda.artifacts.atomic import write_json
from caguda.paper.charts import write_curves
from caguda.paper.class_charts import write_class_chart
from caguda.paper.report import write_report
from caguda.paper.table import write_table
from caguda.stages.anchors import construct_anchors, sum_part
from caguda.stages.diagnose import diagnose
from caguda.stages.evaluate import evaluate
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import create_evidence, verify_evidence
from caguda.stages.inspect import inspect
from caguda.stages.labels import make_labels
from caguda.stages.predict import predict_part
from caguda.stages.predictions import list_predictions
from caguda.stages.submission import submission
from caguda.stages.train import train_model


def _trains(run: str, *, packed: bool = False, resumed: bool = False) -> Callable[[Tree, Path], list[Path]]:
    """A training of seed 0 from its start, or from where it was killed."""

    def read(tree: Tree, new: Path) -> list[Path]:
        state = tree / f"seed0/{run}/state" if resumed else new / "state"
        domains = ("source",) if run == "pretrain" else ("source", "target")
        caches = [tree / f"packed/{domain}.h5" for domain in domains] if packed else []
        output = new / "checkpoint.safetensors"
        given = inputs_of(tree, run)
        train_model(tree.configuration, 0, run, [tree.manifest], output, state, packed=caches, **given)
        return [output]

    return read


def _sums(tree: Tree, new: Path) -> list[Path]:
    sum_part(tree.configuration, tree.manifest, tree.weights("warmup"), 1, 1, new / "part.h5")
    return [new / "part.h5"]


def _anchors(tree: Tree, new: Path) -> list[Path]:
    sums = tree.parts(1, "anchors.h5")
    construct_anchors(tree.configuration, tree.manifest, tree.weights("warmup"), sums, new / "anchors.h5")
    return [new / "anchors.h5"]


def _store(tree: Tree, new: Path) -> list[Path]:
    given = (tree.configuration, tree.manifest, tree.weights("warmup"), tree.evidence(1, "anchors.h5"))
    create_evidence(*given, new / "evidence.zarr", new / "evidence.created.json")
    return [new / "evidence.created.json", new / "evidence.zarr"]


def _part(tree: Tree, new: Path) -> list[Path]:
    given = (tree.configuration, tree.manifest, tree.weights("warmup"), tree.evidence(1, "anchors.h5"))
    for part in range(1, PARTS + 1):
        write_part(*given, tree / "begun/evidence.zarr", part, PARTS, new / f"{part}.json")
    files = [new / f"{part}.json" for part in range(1, PARTS + 1)]
    verify_evidence(tree / "begun/evidence.zarr", files, tree / "begun/evidence.again.json")
    return [tree / "begun/evidence.again.json"]


def _evidence(tree: Tree, new: Path) -> list[Path]:
    store = tree.evidence(1, "evidence.zarr")
    verify_evidence(store, tree.parts(1, "evidence.json"), store.with_name("evidence.again.json"))
    return [store.with_name("evidence.again.json")]


def _labels(tree: Tree, new: Path) -> list[Path]:
    made = []
    for rule in tree.rules:
        store, output = new / rule / "labels.zarr", new / rule / "labels.json"
        make_labels(tree.configuration, tree.evidence(1), rule, store, output)
        made += [store, output]
    return made


def _diagnose(tree: Tree, new: Path) -> list[Path]:
    diagnose(tree.configuration, tree.manifest, tree.evidence(1), tree.labels(1), new / "told.json")
    return [new / "told.json"]


def _inspect(tree: Tree, new: Path) -> list[Path]:
    """What it prints of the labels of stage 1, but for where they and their inputs lie and how these fare."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        inspect([tree.told(1)], as_json=True, plot=None, margins=[0.1], p0s=[0.5])
    told = json.loads(printed.getvalue())
    print("inputs:", *told.pop("inputs").values())
    write_json(new / "inspection.json", told)
    return [new / "inspection.json"]


def _evaluates(run: str) -> Callable[[Tree, Path], list[Path]]:
    def read(tree: Tree, new: Path) -> list[Path]:
        evaluate(tree.configuration, tree.manifest, tree.weights(run), new / "evaluation.json")
        return [new / "evaluation.json"]

    return read


def _predict_part(tree: Tree, new: Path) -> list[Path]:
    folder = tree.predictions("evaluation")
    given = (tree.configuration, tree.manifest, tree.weights("cag/stage2"), "evaluation", folder)
    for part in range(1, PARTS + 1):
        predict_part(*given, part, PARTS, new / f"{part}.json")
    return sorted(folder.iterdir())


def _predictions(tree: Tree, new: Path) -> list[Path]:
    folder, output = tree.predictions("evaluation"), tree.predictions("again.json")
    files = [tree.predictions(f"parts/evaluation.{part}-of-{PARTS}.json") for part in range(1, PARTS + 1)]
    given = (tree.configuration, tree.manifest, tree.weights("cag/stage2"), "evaluation", folder)
    list_predictions(*given, files, output)
    return [output, *sorted(folder.iterdir())]


def _submission(tree: Tree, new: Path) -> list[Path]:
    submission(tree.manifest, tree.predictions("evaluation.json"), new / "submission.zip")
    return [new / "submission.zip"]


def _table(tree: Tree, new: Path) -> list[Path]:
    write_table(tree.configuration, "cag", tree.evaluations(), new / "table.csv", new / "table.md")
    return [new / "table.csv", new / "table.md"]


def _classes(tree: Tree, new: Path) -> list[Path]:
    chosen = [path for path in tree.evaluations() if path.parent.name in ("pretrain", "stage2")]
    write_class_chart(tree.configuration, chosen, new / "classes.png")
    return [new / "classes.png"]


def _curves(tree: Tree, new: Path) -> list[Path]:
    models = [tree.weights(run).with_suffix(".json") for run in RUNS]
    write_curves(tree.configuration, "cag", models, new / "curves.png")
    return [new / "curves.png"]


def _report(tree: Tree, new: Path) -> list[Path]:
    seeds, pages = tree.configuration.seeds, {name: tree / f"reports/cag/{name}.png" for name in ("figure", "curves")}
    write_report(
        tree.configuration, "cag", table=tree / "reports/cag/table.csv", **pages,
        evaluations=tree.evaluations(), label_reports=[tree.told(stage, seed) for seed in seeds for stage in (1, 2)],
        checkpoints=[path.with_name("checkpoint.json") for path in tree.evaluations()], output=new / "report.html",
    )  # fmt: skip
    return [new / "report.html"]


def _drawn(tree: Tree, new: Path) -> list[Path]:
    draw(tree, new / "figure.png")
    return [new / "figure.png"]


READERS: dict[str, Callable[[Tree, Path], list[Path]]] = {
    **{run: _trains(run) for run in RUNS},
    **{f"{run} with caches": _trains(run, packed=True) for run in RUNS},
    **{f"{run} resumed": _trains(run, resumed=True) for run in RUNS},
    **{f"evaluate {run}": _evaluates(run) for run in RUNS},
    "anchor-part": _sums, "anchors": _anchors, "evidence-store": _store, "evidence-part": _part, "evidence": _evidence,
    "labels": _labels, "diagnose": _diagnose, "inspect": _inspect, "predict-part": _predict_part, "predict": _predictions, "submission": _submission,
    "table": _table, "class-chart": _classes, "curves": _curves, "report": _report, "figure": _drawn,
}  # fmt: skip


def read(tree: Tree, reader: str) -> tuple[str, str]:
    """A digest of what a verb makes, but for times and names of folders, and what it prints but for times."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        made = READERS[reader](tree, tree / "new")
    digest = hashlib.sha256()
    for path in made:
        digest.update(f"{path.name}\0{lasting(path)!r}\0".encode())
    return digest.hexdigest(), re.sub(r"\d+ s\b", "some s", printed.getvalue())
