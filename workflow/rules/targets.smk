# The files that each target, table and picture is made of.

from caguda.paper.rows import main_model, models_of_curves, models_of_figure, notes_of, rows_of, table_models
from caguda.pseudo_labels import are_papers_rules


def model_artifacts(seed: int, model: str) -> list[str]:
    """The checkpoint of a model, and what its training is given."""
    names = ("checkpoint.safetensors", "checkpoint.json")
    return [of_model(seed, model, name) for name in names] + artifacts_given_to(seed, model)


def artifacts_given_to(seed: int, model: str) -> list[str]:
    """What a training is given: the manifest of translated frames, anchors and pseudo-labels, and what these are made of.

    The label report of the pseudo-labels is one of them.
    """
    run, paths = run_of(configuration, model), []
    if isinstance(run, Method) and "translated" in run.sets_read:
        paths.append(TRANSLATED)
    if isinstance(run, Method) and run.uses_frozen_model:
        given = folder_given_to(model)
        anchors = anchors_of(seed, model_before(configuration, model), given)
        paths += [anchors, *([] if given else parts_of(os.path.dirname(anchors), "anchors.h5"))]
    if reads_labels(model):
        folder = os.path.dirname(evidence_behind(seed, model))
        paths += [f"{folder}/{name}" for name in ("evidence.json", "evidence.created.json", "evidence.zarr/zarr.json")]
        paths += parts_of(folder, "evidence.json")
        for labels in labels_given_to(seed, model):
            paths += [labels, f"{os.path.dirname(labels)}/labels.zarr/zarr.json"]
        paths.append(label_report_behind(seed, model))
    return paths


def lineage_of(models) -> list[str]:
    """These models and all that they start from, each once, in the order of the YAML."""
    lineage = {before for model in models for before in (model, *models_before(configuration, model))}
    return sorted(lineage, key=MODELS.index)


def trained_artifacts(models) -> list[str]:
    """What the trainings of these models, and of all that they start from, leave and are given, of every seed."""
    lineage = lineage_of(models)
    paths = [path for seed in configuration.seeds for model in lineage for path in model_artifacts(seed, model)]
    return list(dict.fromkeys(paths))


def lineage_artifacts(models) -> list[str]:
    """The artifacts of these models and of all that they start from, evaluations included, of every seed."""
    lineage = lineage_of(models)
    return trained_artifacts(lineage) + of_all_seeds(lineage, "evaluation.json")


def training_artifacts() -> list[str]:
    """The check of the frames, and the artifacts of every model of the YAML."""
    return [*DATA_ARTIFACTS, *lineage_artifacts(MODELS)]


def unreported_runs() -> list[str]:
    """The runs whose models neither a report nor another model of a report needs."""
    reported = {run_name(model) for model in lineage_of(model for models in REPORTS.values() for model in models)}
    return [name for name in configuration.active_runs if name not in reported]


# Reports


def report_rows(report: str) -> list:
    """The rows of a report."""
    return rows_of(configuration, REPORTS[report])


def printed_beside_scores(models: list[str]) -> str:
    """JSON of what is printed beside the scores of these models: names, notes, and which runs are left out. A param."""
    rows = rows_of(configuration, models)
    return json.dumps([rows, notes_of(configuration, rows), configuration.left_out])


def main_model_of(report: str) -> str:
    """The model that a report is about."""
    return main_model(report_rows(report)).model


def evidence_of_figure(report: str) -> list[str]:
    """The evidence behind the pseudo-labels in a report's figure; none if its main model was trained without any."""
    model = main_model_of(report)
    return [evidence_behind(FIRST_SEED, model)] if reads_labels(model) else []


def label_reports(models: list[str]) -> list[str]:
    """The label reports behind these models, seed by seed, each once; none for a model trained without pseudo-labels."""
    labelled = [model for model in models if reads_labels(model)]
    return list(dict.fromkeys(label_report_behind(seed, model) for seed in configuration.seeds for model in labelled))


def report_artifacts(report: str) -> list[str]:
    """The files of a report."""
    names = ("table.csv", "table.md", "figure.png", "curves.png", "report.html")
    return [f"{EXPERIMENT}/reports/{report}/{name}" for name in names]


def model_of_label_pictures(report: str) -> str | None:
    """The first model of a report that is trained on labels of both rules, anchor and probability: these can be compared."""
    models = [model for model in REPORTS[report] if reads_labels(model)]
    return next((model for model in models if are_papers_rules(rules_of(configuration, model))), None)


def labels_of_pictures(report: str) -> str:
    """The label report of the pseudo-labels that a report's label pictures show."""
    return label_report_behind(FIRST_SEED, model_of_label_pictures(report))


def pictures_of(report: str) -> list[str]:
    """The pictures of a report: gains by category if it compares two models, and label pictures if a model has both rules."""
    names = ["figure.png", "curves.png"]
    if REPORTS[report][0] != main_model_of(report):
        names.append("classes.png")
    if model_of_label_pictures(report) is not None:
        names += ["labels/frames", "labels/charts"]
    return [f"{EXPERIMENT}/reports/{report}/{name}" for name in names]


# Tables of the paper

TABLE_CLASSES = {1: ("cityscapes19",), 2: ("cityscapes19",), 3: ("cityscapes16", "cityscapes19")}


def table_models_of(table: str) -> list[str]:
    """The models that a table lists; ends with one line if there are none."""
    with one_line():
        return table_models(configuration, table)


def table_inputs(number: int) -> list[str]:
    """The evaluations of a table of the paper, seed by seed; for Table 2 the descriptions of the submissions."""
    if configuration.classes not in TABLE_CLASSES.get(number, (configuration.classes,)):
        needed = " or ".join(TABLE_CLASSES[number])
        sys.exit(f"caguda: {configuration_name()}: classes must be {needed} for table{number}, found other ones")
    return of_all_seeds(table_models_of(f"table{number}"), "submission.json" if number == 2 else "evaluation.json")


def table_artifacts(number: int) -> list[str]:
    """A table of the paper in all its formats."""
    return [f"{EXPERIMENT}/tables/table{number}.{suffix}" for suffix in ("csv", "md", "tex", "html")]


def prediction_artifacts(model: str, *sets: str) -> list[str]:
    """The predictions of a model for the frames of these sets, and the artifacts of its lineage, of every seed."""
    paths = trained_artifacts([model])
    for seed in configuration.seeds:
        for name in sets:
            paths += parts_of(of_model(seed, model, "predictions"), f"{name}.json")
            paths.append(of_model(seed, model, f"predictions/{name}.json"))
    return paths


def submission_artifacts(model: str) -> list[str]:
    """The submission of a model, its predictions, and the artifacts of its lineage, of every seed."""
    archives = [
        of_model(seed, model, name) for seed in configuration.seeds for name in ("submission.zip", "submission.json")
    ]
    return prediction_artifacts(model, PREDICTED) + archives
