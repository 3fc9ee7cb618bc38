"""A made-up experiment on disk, for the tests of tables, figures and the report. None of its numbers was measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caguda.ablations import labelling_of, rules_of
from caguda.artifacts.atomic import read_json, sha256, write_json
from caguda.artifacts.chain import recorded_sha256
from caguda.artifacts.provenance import content_of
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.configfile import parse_configuration
from caguda.version import METHOD_VERSION

TRAINING = {
    "iterations": 100,
    "batch_size": 4,
    "optimiser": {"name": "adamw", "learning_rate": 1e-3},
    "batch_norm": "train",
}
QUALITY = {
    "pretrain": ("source only", 0.45, 0.7),
    "warmup": ("warm-up", 0.68, 0.72),
    "control": ("control", 0.63, 0.71),
    "oracle": ("oracle", 0.82, 0.82),
}
TERMS = {
    "pretrain": ("source_cross_entropy",),
    "warmup": ("source_cross_entropy", "adversarial", "discriminator"),
    "stage": (
        "source_cross_entropy",
        "source_distance",
        "target_distance",
        "anchor_cross_entropy",
        "probability_cross_entropy",
    ),
}


def configuration(seeds: tuple[int, ...] = (0,), stages: int = 3, **changes: Any) -> Configuration:
    """A whole configuration with 19 classes unless changed."""
    values: dict[str, Any] = {
        "experiment": "sample",
        "seeds": seeds,
        "data_root": "data",
        "classes": "cityscapes19",
        "source": {"layout": "gta5"},
        "target": {"layout": "cityscapes", "split": "train"},
        "evaluation": {"layout": "cityscapes", "split": "val"},
        "network": {"name": "small", "width": 8, "blocks": [1, 1, 1, 1], "feature_channels": 16},
        "pretrain": TRAINING,
        "warmup": TRAINING
        | {"adversarial_weight": 0.01, "discriminator_learning_rate": 1e-3, "target_statistics": True},
        "labels": {"margin": 0.15, "margin_unit": "mean_anchor_distance", "p0": 0.95},
        "stages": TRAINING | {"count": stages, "target_statistics": False},
        "recipes": {"cag": {"distance": 0.3, "anchor_cross_entropy": 0.7, "probability_cross_entropy": 0.7}},
    }
    return parse_configuration(values | changes, Path("sample.yaml"))


def confusion(categories: int, quality: float, seed: int) -> list[list[int]]:
    """A confusion matrix whose last category but two occurs nowhere."""
    random = np.random.default_rng([int(1000 * quality), seed])
    sizes = np.geomspace(200_000, 1_500, categories)
    habit = np.random.default_rng(7).uniform(-0.3, 0.15, categories) + np.linspace(0.2, -0.1, categories)
    recall = np.clip(quality + habit + random.uniform(-0.04, 0.04, categories), 0.04, 0.99)
    matrix = np.outer(sizes * (1 - recall), sizes / sizes.sum())
    matrix[np.arange(categories), np.arange(categories)] = sizes * recall
    matrix[categories - 3, :] = matrix[:, categories - 3] = 0
    rows: list[list[int]] = matrix.round().astype(int).tolist()
    return rows


def score(matrix: list[list[int]]) -> dict[str, Any]:
    """The entry of evaluation.json for a confusion matrix."""
    counts = np.array(matrix)
    hits, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    iou = [float(h / u) if u else None for h, u in zip(hits, union, strict=True)]
    return {"confusion": matrix, "iou": iou, "miou": float(np.mean([v for v in iou if v is not None]))}


def provenance(
    verb: str, seed: int, seconds: float, of: Path, inputs: Sequence[Path] = (), recipe: str | None = None
) -> dict[str, Any]:
    """What the artifact `of` says of its making."""
    return {
        "made_by": verb,
        "caguda": "0.1.0",
        "method_version": METHOD_VERSION,
        "settings": {} if recipe is None else {"recipe": {"name": recipe}},
        "inputs": {
            path.as_posix(): {
                "sha256": recorded_sha256(path),
                "content": content_of(path),
                "from_here": os.path.relpath(path, of.parent),
            }
            for path in inputs
        },
        "seed": seed,
        "libraries": {"python": "3.11", "torch": "2.11.0"},
        "machine": {"host": "sample", "cores": 2},
        "seconds": seconds,
        "created": "2030-01-02T03:04:05+00:00",
    }


def _history(terms: tuple[str, ...], seed: int) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    return [
        {"iteration": 4 * i}
        | {t: (0.2 + k * 0.1 + 2.0 * 0.85**i / (k + 1)) * random.uniform(0.9, 1.1) for k, t in enumerate(terms)}
        for i in range(1, 26)
    ]


def _statistics(names: tuple[str, ...], k: int, truth: bool) -> dict[str, Any]:
    """What `diagnose` tells of the pseudo-labels of stage k."""
    share = {
        "anchor": 0.80 + 0.02 * k,
        "probability": 0.70 + 0.03 * k,
        "both": 0.66 + 0.03 * k,
        "either": 0.84 + 0.02 * k,
    }
    weights = np.geomspace(1, 0.01, len(names))
    weights /= weights.sum()
    each = [
        {"name": n, "anchor": share["anchor"] * w, "probability": share["probability"] * w}
        for n, w in zip(names, weights.tolist(), strict=True)
    ]
    told = {"images": 500, "margin": 1.2345, "p0": 0.95, "share": share, "per_category": each}
    return told | {"images_with_truth": 500 if truth else 0, "accuracy": _accuracy(names) if truth else None}


def _accuracy(names: tuple[str, ...]) -> dict[str, Any]:
    def kind(accuracy: float) -> dict[str, Any]:
        each = [{"name": n, "precision": accuracy - 0.02 * i, "recall": 0.9 - 0.03 * i} for i, n in enumerate(names)]
        each[-3] |= {"precision": None, "recall": None}
        return {"accuracy": accuracy, "coverage": 0.8, "per_category": each}

    kinds = {
        "anchor": 0.971,
        "probability": 0.988,
        "anchor_only": 0.74,
        "nearest_anchor_all": 0.9,
        "predicted_all": 0.92,
    }
    return {name: kind(value) for name, value in kinds.items()}


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write_json(path, content)
    return path


def write_model(path: Path, made: dict[str, Any], history: list[dict[str, float]]) -> Path:
    """Writes the JSON of a checkpoint beside weights that stand for any; the path of the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.as_posix())
    content = {"metrics": {"history": history}, "weights_sha256": sha256(path), "provenance": made}
    _write(path.with_suffix(".json"), content)
    return path


def write_evaluation(path: Path, row: str, recipe: str | None, seed: int, scores: Sequence[Any], model: Path) -> Path:
    """Writes an evaluation of a model: what `score` gives of two confusion matrices, the second one or None."""
    made = provenance("evaluate", seed, 3.25, path, [model])
    content = {"row": row, "recipe": recipe, "seed": seed, "frames": 150, "classes": scores[2]}
    return _write(path, content | {"as_trained": scores[0], "target_statistics": scores[1], "provenance": made})


def write_labels(model: Path, config: Configuration, seed: int, k: int, truth: bool) -> tuple[list[Path], Path]:
    """Writes what lies beside the weights `model` for stage k: the JSONs of both rules' labels, and what is told of them."""
    folder, evidence = model.with_name("labels"), model.with_name("evidence") / "evidence.json"
    _write(evidence, {"store": "evidence.zarr", "provenance": provenance("evidence", seed, 20.0, evidence, [model])})
    files = {}
    for name, rule in rules_of(config.labels).items():
        files[name] = folder / rule.folder / "labels.json"
        made = provenance("labels", seed, 4.0, files[name], [evidence])
        _write(files[name], {"store": "labels.zarr", "rule": rule.described(), "provenance": made})
    told = folder / f"{labelling_of(config, 'cag')}.json"
    named = {name: os.path.relpath(file, folder) for name, file in files.items()}
    made = provenance("diagnose", seed, 8.5, told, [evidence, *files.values()])
    content = {"evidence": os.path.relpath(evidence, folder), "labels": named, "seed": seed}
    _write(told, content | _statistics(class_table(config).names, k, truth) | {"provenance": made})
    return list(files.values()), told


def write_experiment(root: Path, config: Configuration, *, truth: bool = True) -> dict[str, list[Path]]:
    """Writes evaluations, checkpoints' JSON, and what is told of the labels of every stage; the paths by kind."""
    names = class_table(config).names
    paths: dict[str, list[Path]] = {"evaluations": [], "checkpoints": [], "labels": []}
    jobs = QUALITY | {
        f"cag/stage{k}": (f"stage {k}", 0.69 + 0.015 * k, 0.73 + 0.01 * k) for k in range(1, config.stages.count + 1)
    }
    for seed in config.seeds:
        within = root / config.experiment / f"seed{seed}"
        before = within / "warmup" / "checkpoint.safetensors"
        for number, (folder, (row, trained, target)) in enumerate(jobs.items()):
            at, k = within / folder, int(row[-1]) if "stage" in row else 0
            model, terms = at / "checkpoint.safetensors", TERMS.get("stage" if k else folder, TERMS["pretrain"])
            recipe, inputs = ("cag" if k else None), list[Path]()
            if k:
                inputs, told = write_labels(before, config, seed, k, truth)
                paths["labels"].append(told)
                before = model
            made = provenance(row if k else folder, seed, 75.0, model, inputs, recipe)
            paths["checkpoints"].append(write_model(model, made, _history(terms, number)).with_suffix(".json"))
            scores = (score(confusion(len(names), trained, seed)), score(confusion(len(names), target, seed + 50)))
            paths["evaluations"].append(
                write_evaluation(at / "evaluation.json", row, recipe, seed, (*scores, list(names)), model)
            )
    return paths


def rewrite(path: Path, **changes: Any) -> None:
    """Changes keys of a JSON file."""
    _write(path, read_json(path) | changes)
