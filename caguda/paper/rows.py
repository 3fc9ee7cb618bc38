"""The rows of a report or table: which models they are of, and what they are called. No numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from caguda.config import Configuration, Table
from caguda.errors import UserError
from caguda.runs import STAGE, expanded, models_before, run_of, trained_models

ADDED = {"table4": "config/ablations.yaml", "sweep": "config/sweep.yaml"}
"""The files of this project with the runs of a table, by the table."""


class ModelRow(NamedTuple):
    """A row: its model (RUN or RUN/stageK), its name in short and in full, and what the model has seen.

    `adapts`: it was adapted to the target without its labels. `is_reference`: it has seen them.
    """

    model: str
    name: str
    title: str
    about: str
    adapts: bool
    is_reference: bool

    @property
    def is_source_only(self) -> bool:
        """Whether the model has seen nothing of the target."""
        return not self.adapts and not self.is_reference


def rows_of(configuration: Configuration, models: Sequence[str]) -> list[ModelRow]:
    """The rows of some models, in their order.

    A row has the name of its run, with spaces for underscores; a stage is called `stage K`, with the run before it where
    the models are of several chains. Where two would have the same name, both are called as their models are.
    """
    chains = {stage[1] for model in models if (stage := STAGE.fullmatch(model))}
    found = []
    for model in models:
        run, stage = run_of(configuration, model), STAGE.fullmatch(model)
        name = model.partition("/")[0].replace("_", " ")
        title = run.title or name
        if stage:
            of_one = len(chains) == 1
            name, title = (f"stage {stage[2]}" if of_one else f"{text} stage {stage[2]}" for text in (name, title))
        lineage = [run, *(run_of(configuration, before) for before in models_before(configuration, model))]
        is_reference = any(each.is_reference for each in lineage)
        adapts = not is_reference and any(each.adapts for each in lineage)
        found.append(ModelRow(model, name, title, run.about, adapts, is_reference))
    return [_told_apart(row, found) for row in found]


def _told_apart(row: ModelRow, rows: Sequence[ModelRow]) -> ModelRow:
    """The row, called as its model where another row has its name, and by its name where another one has its title."""
    name = row.model if sum(other.name == row.name for other in rows) > 1 else row.name
    title = name if sum(other.title == row.title for other in rows) > 1 else row.title
    return row._replace(name=name, title=title)


def main_model(rows: Sequence[ModelRow]) -> ModelRow:
    """The row that a report is about: the last one that is adapted, or else the last one that is no reference."""
    own = [row for row in rows if not row.is_reference]
    return next((row for row in reversed(rows) if row.adapts), (own or rows)[-1])


def models_of_curves(configuration: Configuration, rows: Sequence[ModelRow]) -> list[str]:
    """The rows' models whose losses a report draws: those trained here that led to the main one, and that one itself."""
    main = main_model(rows).model
    story = [*reversed(list(models_before(configuration, main))), main]
    trained, shown = trained_models(configuration), {row.model for row in rows}
    return [model for model in story if model in shown and model in trained]


def models_of_figure(configuration: Configuration, rows: Sequence[ModelRow]) -> list[str]:
    """The rows' models whose predictions a report shows: the main one, and the last of each run that led to it."""
    main = main_model(rows).model
    found = {main.partition("/")[0]: main}
    for before in models_before(configuration, main):
        found.setdefault(before.partition("/")[0], before)
    shown = {row.model for row in rows}
    return [model for model in reversed(found.values()) if model in shown]


def notes_of(configuration: Configuration, rows: Sequence[ModelRow]) -> list[str]:
    """What the runs of some rows say of themselves, each once."""
    return list(dict.fromkeys(note for row in rows if (note := run_of(configuration, row.model).note)))


def table_models(configuration: Configuration, table: Table) -> list[str]:
    """The models of a table, in order; UserError where the configuration lists none, or none that is made."""
    if table not in configuration.tables:
        raise UserError(f"tables.{table}: the runs of this table must be listed, found no such key; list them, or add "
                        f"{ADDED.get(table, 'a YAML that does')} to --configfile")  # fmt: skip
    if found := expanded(configuration, configuration.tables[table]):
        return found
    raise UserError(f"tables.{table}: at least one run that is made must be listed, found none; list another")
