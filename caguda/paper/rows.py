"""The rows of a report or table: their models, and their names. No numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from caguda.config import Configuration, Table
from caguda.config_run import STAGE, Method, RunSettings, run_name
from caguda.errors import UserError
from caguda.runs import last_models, models_before, models_listed, run_of, trained_models

YAML_OF_TABLE = {"table4": "config/ablations.yaml", "sweep": "config/sweep.yaml"}
"""The files of this project with the runs of a table, by the table."""
ADABN = "AdaBN"
"""The name of the row with re-estimated statistics of batch normalisation, which is of no run."""
RESERVED_NAMES = (ADABN, "input", "truth", "last stage")
"""The names of that row, and of columns in the figure: the row of a run has none of them."""


class ModelRow(NamedTuple):
    """A row: its model, RUN or RUN/stageK, its short name and its title, and what its method does.

    `adapts`: the model was adapted to the target without target labels. `is_reference`: it has seen target labels.
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

    The name of a row is that of its run, with spaces for underscores. A stage is called `stage K`, after the name of its run
    where the models are of several chains. A name that two rows would share, or that is reserved, is replaced by the name of
    the model; a title that two rows would share, or that is AdaBN, by the row's name.
    """
    chains = {stage[1] for model in models if (stage := STAGE.fullmatch(model))}
    rows = []
    for model in models:
        run, stage = run_of(configuration, model), STAGE.fullmatch(model)
        name = run_name(model).replace("_", " ")
        title = run.title or name
        if stage:
            number = f"stage {stage[2]}"
            is_only_chain = len(chains) == 1
            title = number if is_only_chain and run.title is None else f"{title} {number}"
            name = number if is_only_chain else f"{name} {number}"
        lineage = [run, *(run_of(configuration, before) for before in models_before(configuration, model))]
        is_reference = any(ancestor.is_reference for ancestor in lineage)
        adapts = not is_reference and any(ancestor.adapts for ancestor in lineage)
        rows.append(ModelRow(model, name, title, _about(run), adapts, is_reference))
    return [_with_unique_names(row, rows) for row in rows]


def rows_of_runs(configuration: Configuration) -> list[ModelRow]:
    """The rows of the last model of every run, in the order of the YAML; before all others those that have seen the source alone.

    A stage is called after its run and its number, also where the YAML has one chain only.
    """
    rows = []
    for row in rows_of(configuration, last_models(configuration)):
        if (stage := STAGE.fullmatch(row.model)) and row.name == f"stage {stage[2]}":
            name = f"{run_name(row.model).replace('_', ' ')} {row.name}"
            row = row._replace(name=name, title=name if row.title == row.name else row.title)
        rows.append(row)
    return sorted(rows, key=lambda row: not row.is_source_only)


def _about(run: RunSettings) -> str:
    """A few words about a run, which say whether its source images were translated elsewhere."""
    is_translated = isinstance(run, Method) and run.source_images == "translated"
    return f"{run.about}, translated source images" if is_translated else run.about


def _with_unique_names(row: ModelRow, rows: Sequence[ModelRow]) -> ModelRow:
    name, title = row.name, row.title
    if name in RESERVED_NAMES or sum(other.name == name for other in rows) > 1:
        name = f"{row.model} (run)" if row.model in RESERVED_NAMES else row.model
    if title == ADABN or sum(other.title == title for other in rows) > 1:
        title = name
    return row._replace(name=name, title=title)


def main_model(rows: Sequence[ModelRow]) -> ModelRow:
    """The row that a report is about: the last adapted one, or else the last one that is no reference."""
    unsupervised = [row for row in rows if not row.is_reference]
    return next((row for row in reversed(rows) if row.adapts), (unsupervised or rows)[-1])


def models_of_curves(configuration: Configuration, rows: Sequence[ModelRow]) -> list[str]:
    """The models whose losses a report draws: the main one and those before it, if they have a row and were trained here."""
    main = main_model(rows).model
    lineage = [*reversed(list(models_before(configuration, main))), main]
    trained, listed = trained_models(configuration), {row.model for row in rows}
    return [model for model in lineage if model in listed and model in trained]


def models_of_figure(configuration: Configuration, rows: Sequence[ModelRow]) -> list[str]:
    """The models whose predictions a report shows: the main one, and the last of each run before it, if they have a row."""
    main = main_model(rows).model
    last_of_run = {run_name(main): main}
    for before in models_before(configuration, main):
        last_of_run.setdefault(run_name(before), before)
    listed = {row.model for row in rows}
    return [model for model in reversed(last_of_run.values()) if model in listed]


def notes_of(configuration: Configuration, rows: Sequence[ModelRow]) -> list[str]:
    """The notes of the rows' runs, each once."""
    return list(dict.fromkeys(note for row in rows if (note := run_of(configuration, row.model).note)))


def table_models(configuration: Configuration, table: Table) -> list[str]:
    """The models of a table, in order; UserError where the configuration lists no run, or only runs that are left out."""
    if table not in configuration.tables:
        raise UserError(f"tables.{table}: the runs of this table must be listed, found no such key; list them, or add "
                        f"{YAML_OF_TABLE.get(table, 'a YAML that does')} to --configfile")  # fmt: skip
    if models := models_listed(configuration, configuration.tables[table]):
        return models
    raise UserError(f"tables.{table}: at least one run that is made must be listed, found none; list another")
