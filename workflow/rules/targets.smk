# What every target, table and picture is made of.

from caguda.paper.rows import main_model, models_of_curves, models_of_figure, notes_of, rows_of, table_models


def run_artifacts(seed: int, model: str) -> list[str]:
    """What a model leaves, what it is trained on, and what that is made of."""
    names = ("checkpoint.safetensors", "checkpoint.json")
    return [of_model(seed, model, name) for name in names] + given_artifacts(seed, model)


def given_artifacts(seed: int, model: str) -> list[str]:
    """What a training is given beside frames and weights, what that is made of, and what is told of it."""
    run, made = run_of(configuration, model), []
    if isinstance(run, Method) and (run.uses_anchors or run.reads_pseudo_labels):
        anchors = anchors_beside(seed, model_before(configuration, model))
        made += [anchors, *parts_of(os.path.dirname(anchors), "anchors.h5")]
    if reads_labels(model):
        folder = os.path.dirname(evidence_for(seed, model))
        made += [f"{folder}/{name}" for name in ("evidence.json", "evidence.created.json", "evidence.zarr/zarr.json")]
        made += parts_of(folder, "evidence.json")
        labels = labels_for(seed, model)
        made += [path for file in labels for path in (file, f"{os.path.dirname(file)}/labels.zarr/zarr.json")]
        made.append(labelling_for(seed, model))
    return made


def lineage_of(names) -> list[str]:
    """Some models and all before them, each once, in the order of the YAML."""
    every = [model for name in names for model in (*models_before(configuration, name), name)]
    return sorted(set(every), key=MODELS.index)


def trained_artifacts(names) -> list[str]:
    """What some models and all before them leave before they are evaluated, of every seed."""
    every = lineage_of(names)
    made = [path for seed in configuration.seeds for model in every for path in run_artifacts(seed, model)]
    return list(dict.fromkeys(made))


def lineage_artifacts(names) -> list[str]:
    """What some models and all before them leave, of every seed."""
    every = lineage_of(names)
    return trained_artifacts(every) + of_all_seeds(every, "evaluation.json")


def every_artifact() -> list[str]:
    """What all targets that train list."""
    return [*DATA_ARTIFACTS, *lineage_artifacts(MODELS)]


# Reports


def report_rows(report: str) -> list:
    """The rows of a report."""
    return rows_of(configuration, REPORTS[report])


def names_of(names: list[str]) -> str:
    """What is printed of some models beside their scores: a param of what prints it."""
    rows = rows_of(configuration, names)
    return json.dumps([rows, notes_of(configuration, rows), configuration.left_out])


def main_of(report: str) -> str:
    """The model that a report is about."""
    return main_model(report_rows(report)).model


def shown_evidence(report: str) -> list[str]:
    """The evidence of the pseudo-labels that a report's figure shows; none where its model was trained on none."""
    return [evidence_for(FIRST_SEED, main_of(report))] if reads_labels(main_of(report)) else []


def labellings_of(names: list[str]) -> list[str]:
    """What is told of the pseudo-labels of some models, seed by seed."""
    return [labelling_for(seed, model) for seed in configuration.seeds for model in names if reads_labels(model)]


def report_artifacts(report: str) -> list[str]:
    """What a report consists of."""
    names = ("table.csv", "table.md", "figure.png", "curves.png", "report.html")
    return [f"{EXPERIMENT}/reports/{report}/{name}" for name in names]


def pictures_of(report: str) -> list[str]:
    """The pictures of a report's scores; gains of categories where it has two models to compare."""
    return ["figure", "curves", *(["classes"] if REPORTS[report][0] != main_of(report) else [])]


def pictured_model(report: str) -> str | None:
    """The first model of a report that is trained on pseudo-labels by anchors and by probability, which can be drawn together."""
    both = {"anchor", "probability"}
    return next(
        (model for model in REPORTS[report] if reads_labels(model) and set(rules_of(configuration, model)) == both),
        None,
    )


def pictured_labels(report: str) -> str:
    """The pseudo-labels that pictures of a report show."""
    return labelling_for(FIRST_SEED, pictured_model(report))


def label_pictures(report: str) -> list[str]:
    """Pictures of pseudo-labels: some frames, and charts of all; their precision where a truth is known."""
    if pictured_model(report) is None:
        return []
    return [f"{EXPERIMENT}/reports/{report}/labels/{name}" for name in ("frames", "charts")]


# Tables of the paper

TABLE_CLASSES = {1: ("cityscapes19",), 2: ("cityscapes19",), 3: ("cityscapes16", "cityscapes19")}


def table_runs(table: str) -> list[str]:
    """The models that a table lists; or one line and the end, where none are listed."""
    with one_line():
        return table_models(configuration, table)


def table_inputs(number: int) -> list[str]:
    """The evaluations of a table of the paper, seed by seed; for Table 2 what describes the submissions."""
    if configuration.classes not in TABLE_CLASSES.get(number, (configuration.classes,)):
        needed = " or ".join(TABLE_CLASSES[number])
        sys.exit(f"caguda: {configuration_name()}: classes must be {needed} for table{number}, found other ones")
    return of_all_seeds(table_runs(f"table{number}"), "submission.json" if number == 2 else "evaluation.json")


def table_artifacts(number: int) -> list[str]:
    """A table of the paper in all its formats."""
    return [f"{EXPERIMENT}/tables/table{number}.{suffix}" for suffix in ("csv", "md", "tex", "html")]


def submission_artifacts(model: str) -> list[str]:
    """The submission of a model, and what makes it, of every seed."""
    made = trained_artifacts([model])
    for seed in configuration.seeds:
        made += parts_of(of_model(seed, model, "predictions"), f"{PREDICTED}.json")
        names = (f"predictions/{PREDICTED}.json", "submission.zip", "submission.json")
        made += [of_model(seed, model, name) for name in names]
    return made
