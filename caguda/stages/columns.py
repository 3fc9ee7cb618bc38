"""Labels of the same frames by several rules or models, a column each: from label stores, predictions or checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import inputs_of, provenance_of, recorded_sha256
from caguda.artifacts.checks import refuse_other_origin
from caguda.artifacts.identity import contents_of_inputs, model_of
from caguda.artifacts.predictions import FORMAT, prediction_file, read_predictions
from caguda.artifacts.provenance import content_digest
from caguda.classes import IGNORE, ClassTable, class_table
from caguda.config import Configuration
from caguda.configfile import configuration_beside
from caguda.datasets.frame import Frame
from caguda.datasets.image_batches import scaled
from caguda.datasets.io import decode_label, frame_image, frame_labels, read_bytes, to_train_ids
from caguda.datasets.manifest import SetName, read_manifest
from caguda.equations.grid import enlarged_labels, labels_at
from caguda.errors import UserError
from caguda.networks.layers.inference import most_probable
from caguda.stages.known_frames import KnownFrames, Truth
from caguda.stages.runtime import configure_torch, restore_network
from caguda.stages.traced_labelling import TracedLabelling, labelled_frames, unchanged_input
from caguda.viewer.columns import PANELS, ComparedFrame, write_columns_sheet
from caguda.viewer.columns_page import ColumnHead, write_columns_page
from caguda.viewer.overlays import agreement

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Column:
    """The labels of frames by one rule or model. `label` reads those of the frame with an id, (h, w), IGNORE for none."""

    rule: str
    model: str
    path: Path
    align_corners: bool
    label: Callable[[str], Labels]


@dataclass(frozen=True, eq=False)
class Source:
    """A file that some columns are of: its frames by id, the missing ones, and the digests of what it was made of."""

    path: Path
    set_name: SetName
    image_ids: Sequence[str]
    missing: frozenset[str]
    table: ClassTable
    contents: set[str]
    columns: Sequence[Column]
    frames: Callable[[], Sequence[Frame]]
    truth: Callable[[], Truth]


def is_model(path: Path) -> bool:
    """Whether a path names a checkpoint or the JSON of predictions, not pseudo-labels."""
    if path.suffix == ".safetensors":
        return True
    return path.suffix == ".json" and path.is_file() and read_json(path).get("format") == FORMAT


def source_of_labels(traced: TracedLabelling) -> Source:
    """A column for each rule of a labelling."""
    labelling = traced.labelling
    index = {name: i for i, name in enumerate(labelling.image_ids)}

    def column(rule: str) -> Column:
        return Column(labelling.folder(rule), labelling.model, labelling.path, labelling.align_corners,
                      lambda name: labelling.label(rule, index[name]))  # fmt: skip

    missing = frozenset(labelling.image_ids[i] for i in labelling.missing())
    contents = contents_of_inputs(labelling.evidence.attributes.get("provenance", {"inputs": {}}))
    columns = [column(rule) for rule in labelling.rules]
    return Source(labelling.path, "target", labelling.image_ids, missing, traced.table, contents, columns,
                  lambda: traced.frames, traced.truth)  # fmt: skip


def sources_of_models(paths: Sequence[Path], set_name: SetName | None) -> list[Source]:
    """Sources of the predictions and checkpoints at `paths`, whose frames are of one set.

    Checkpoints predict the set of the predictions, or `set_name`, or without both the evaluation frames.
    """
    recorded = {path: read_predictions(path) for path in paths if path.suffix != ".safetensors"}
    of_predictions: list[SetName] = [content["set"] for content in recorded.values()]
    chosen = set_name or (*of_predictions, "evaluation")[0]
    return [_of_predictions(path, recorded[path]) if path in recorded else _of_checkpoint(path, chosen)
            for path in paths]  # fmt: skip


def _configuration_of(path: Path) -> Configuration:
    configuration = configuration_beside(path)
    if configuration is None:
        raise UserError(f"{path}: the categories must be known, found no config.json of an experiment above it; put the file back "
                        "into its results")  # fmt: skip
    return configuration


def _of_predictions(path: Path, content: Mapping[str, Any]) -> Source:
    """The cached predictions that a JSON vouches for; each file is compared with its digest when it is read."""
    configuration, folder = _configuration_of(path), path.parent / content["folder"]
    refuse_other_origin(path, configuration)
    table = class_table(configuration)
    digests = {entry["id"]: entry["sha256"] for entry in content["files"]}

    def label(name: str) -> Labels:
        file = prediction_file(folder, name)
        return to_train_ids(decode_label(read_bytes(file, digests[name]), file), table, file).numpy()

    def manifest() -> Path:
        return unchanged_input(path, inputs_of(path, recorded_sha256), ".json", "the predictions")

    column = Column("", _model_behind(path) or str(path), path, False, label)
    return _source_of_model(column, content["set"], list(digests), configuration, manifest,
                            contents_of_inputs(content["provenance"]))  # fmt: skip


def _model_behind(predictions: Path) -> str:
    """The model whose checkpoint made predictions; empty if that is not there."""
    inputs = [file.path for file in inputs_of(predictions, recorded_sha256) if file.path.suffix == ".safetensors"]
    return model_of(provenance_of(inputs[0])) if inputs and inputs[0].is_file() else ""


def _of_checkpoint(path: Path, name: SetName) -> Source:
    """The predictions of a checkpoint for the frames of a set, by the manifest in a folder above; computed frame by frame."""
    configuration = _configuration_of(path)
    file = "manifest.test.json" if name == "test" else "manifest.json"
    manifest = next((folder / file for folder in path.absolute().parents if (folder / file).is_file()), None)
    if manifest is None:
        raise UserError(f"{path}: the frames must be known, found no {file} of an experiment above it; put the checkpoint back "
                        "into its results")  # fmt: skip
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    network, description = restore_network(
        path, device, class_table(configuration), configuration, None if name == "test" else manifest
    )
    by_id = {frame.id: frame for frame in read_manifest(manifest, [name], configuration).frames(name)}

    @torch.inference_mode()
    def label(name: str) -> Labels:
        image = scaled(frame_image(by_id[name])[None], device)
        predicted: Labels = (
            most_probable(network, image, configuration.inference, network.align_corners)[0].cpu().numpy()
        )
        return predicted

    column = Column("", model_of(description["provenance"]) or str(path), path, False, label)
    return _source_of_model(column, name, list(by_id), configuration, lambda: manifest, {content_digest(manifest)})


def _source_of_model(
    column: Column, name: SetName, ids: Sequence[str], configuration: Configuration, manifest: Callable[[], Path],
    contents: set[str],
) -> Source:  # fmt: skip
    def frames() -> Sequence[Frame]:
        return read_manifest(manifest(), [name], configuration).frames(name)

    def truth() -> Truth:
        return labelled_frames(frames(), manifest(), name), class_table(configuration, getattr(configuration, name))

    return Source(column.path, name, ids, frozenset(), class_table(configuration), contents, [column], frames, truth)


def _titles(columns: Sequence[Column]) -> list[str]:
    """The titles of columns: rules of one model by their rule, else with the model; numbered unless each is a name of its own."""
    several = len({column.model for column in columns}) > 1
    titles = [
        ", ".join(filter(None, (column.rule, column.model if several or not column.rule else ""))) for column in columns
    ]
    if len({*titles, *PANELS}) == len(titles) + len(PANELS):
        return titles
    return [f"{number}: {title}" for number, title in enumerate(titles, 1)]


def open_columns(sources: Sequence[Source]) -> Columns:
    """The columns of all sources; UserError unless these are of the same frames and categories."""
    first = sources[0]
    for other in sources[1:]:
        if (other.set_name, set(other.image_ids)) != (first.set_name, set(first.image_ids)):
            found = f"the {other.set_name} set and other ones than the {first.set_name} set in {first.path}"
            raise UserError(
                f"{other.path}: what is compared must be of the same frames, found those of {found}; name files of one set"
            )
        if other.table.names != first.table.names:
            raise UserError(f"{other.path}: what is compared must have the same categories, found other ones than in {first.path}; name files "
                            "of one experiment")  # fmt: skip
        if other.contents.isdisjoint(first.contents):
            raise UserError(f"{other.path}: what is compared must be of the same frames, found none of the files that {first.path} was made "
                            "of; name files of one experiment")  # fmt: skip
    columns = [column for source in sources for column in source.columns]
    missing = frozenset().union(*(source.missing for source in sources))
    known = KnownFrames.found(first.frames, first.truth)
    return Columns(first.path, first.image_ids, missing, first.table, columns, known)


@dataclass
class Columns:
    """The columns of labels of the frames `image_ids`, and what is known of these frames."""

    path: Path
    image_ids: Sequence[str]
    missing: frozenset[str]
    table: ClassTable
    columns: Sequence[Column]
    known: KnownFrames

    @cached_property
    def titles(self) -> list[str]:
        """The title of every column."""
        return _titles(self.columns)

    @property
    def written(self) -> list[int]:
        """The indices of the frames of which every column has labels."""
        return [index for index, name in enumerate(self.image_ids) if name not in self.missing]

    def frame(self, index: int) -> ComparedFrame:
        """The image, truth and labels of a frame, at the size of the largest labels."""
        name = self.image_ids[index]
        labels = [column.label(name) for column in self.columns]
        largest = max(range(len(labels)), key=lambda number: labels[number].size)
        size, align_corners = labels[largest].shape, self.columns[largest].align_corners
        enlarged = [
            label
            if label.shape == size
            else enlarged_labels(torch.from_numpy(label), size, column.align_corners).numpy()
            for column, label in zip(self.columns, labels, strict=True)
        ]

        def truth(frame: Frame, table: ClassTable) -> Labels:
            return labels_at(frame_labels(frame, table)[None], size, align_corners)[0].numpy()

        image, reason = self.known.image(index)
        return ComparedFrame(name, image, reason, self.known.truth(index, truth), enlarged)

    def worst(self, count: int) -> tuple[list[int], str]:
        """The `count` frames in which two columns differ most; of another number of columns those whose first is least right.

        Without any truth these have the fewest labelled pixels in the first column.
        """
        right: list[tuple[float, int]] = []
        others: list[tuple[float, int]] = []
        for index in tqdm(self.written, desc="worst", disable=not sys.stderr.isatty()):
            frame = self.frame(index)
            if len(self.columns) == 2:
                others.append((-float(np.mean(frame.labels[0] != frame.labels[1])), index))
                continue
            others.append((float(np.mean(frame.labels[0] != IGNORE)), index))
            if frame.truth is not None and (share := agreement(frame.labels[0], frame.truth)) is not None:
                right.append((share, index))
        reason = (
            "lowest agreement of the first column with the truth"
            if right
            else "fewest pixels labelled in the first column"
        )
        reason = "most pixels that differ" if len(self.columns) == 2 else reason
        return [index for _, index in sorted(right or others)[:count]], reason

    def write_sheet(self, index: int, output: Path) -> None:
        """Writes the picture of a frame into a folder."""
        frame = self.frame(index)
        write_columns_sheet(frame, self.titles, self.table, frame.name, output / f"{frame.name}.png")

    def write_page(self, chosen: str, indices: Iterable[int], output: Path) -> Path:
        """Writes a page of some frames into a folder."""
        heads = [ColumnHead(title, str(column.path)) for title, column in zip(self.titles, self.columns, strict=True)]
        return write_columns_page(chosen, self.table, heads, map(self.frame, indices), output)
