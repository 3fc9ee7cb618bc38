# Inputs of rules, by model and by job.


def of_model(seed: int | str, model: str, name: str) -> str:
    """An artifact in the folder of a model."""
    return f"{EXPERIMENT}/seed{seed}/{model}/{name}"


def imported_inputs(run: str) -> list[str]:
    """The weights of an imported model, and the JSON beside them if there is one."""
    weights = Path(imported_files(configuration)[run])
    return [local(str(path)) for path in (weights, weights.with_suffix(".json")) if path == weights or path.exists()]


def model_of_job(wildcards) -> str:
    """The model of a job; ends with one line if the configuration has no model of that name."""
    if wildcards.model not in MODELS:
        explain_unknown_model(workflow.dag_settings.targets, below_prefix(EXPERIMENT), MODELS, configuration_name())
    return wildcards.model


# `..._of(model)` is made with that model. `..._given_to(model)` is an input of its training, made with the model that it
# starts from; `..._behind(model)` is what that input is made of, or the report on it. `..._of_job(wildcards)` is made with the
# model of a job, and lies in its GIVEN.


def evidence_of_labels_job(wildcards) -> str:
    """The evidence that the labels of a job are made of; ends with one line if no run has their rule."""
    if RULE_BY_FOLDER.get(wildcards.rule) is None:
        sys.exit(
            f"caguda: {configuration_name()}: the labels must be of a run, found {printable(wildcards.rule)}, where runs have "
            f"{first(list(RULE_BY_FOLDER)) or 'none'}; give a run such pseudo_labels, or ask for others"
        )
    return of_job(wildcards, "evidence/evidence.json")


def of_job(wildcards, name: str) -> str:
    """An artifact beside the model of a job."""
    return of_model(wildcards.seed, f"{model_of_job(wildcards)}{wildcards.given}", name)


def checkpoint_of_job(wildcards) -> str:
    """The checkpoint of a job's model."""
    return of_model(wildcards.seed, model_of_job(wildcards), "checkpoint.safetensors")


def anchors_of(seed: int | str, model: str, given: str) -> str:
    """The anchors for the evidence of a model: those from elsewhere of the folder `given`.

    Without such a folder they are its own, or with `every_stage: false` those of the model before its chain.
    """
    if given:
        return f"{EXPERIMENT}/{given}/{CONVERTED}"
    return of_model(seed, model_of_anchors(configuration, model), "evidence/anchors.h5")


def anchors_of_job(wildcards) -> str:
    """The anchors for the evidence of a job."""
    return anchors_of(wildcards.seed, model_of_job(wildcards), wildcards.given.removeprefix("/"))


def folder_given_to(model: str) -> str:
    """The folder of the anchors from elsewhere that a training reads; empty if it reads none or those of a model."""
    return FOLDER_BY_RUN.get(run_name(model), "")


def beside_start(seed: int | str, model: str, name: str) -> str:
    """An artifact beside the model that a training starts from, made with the anchors that the training reads."""
    before, given = model_before(configuration, model), folder_given_to(model)
    return of_model(seed, f"{before}/{given}" if given else before, name)


def manifests_given_to(model: str) -> list[str]:
    """The manifest, and that of the translated frames for a training that reads them."""
    return [MANIFEST, *([TRANSLATED] if "translated" in run_of(configuration, model).sets_read else [])]


def start_given_to(seed: int | str, model: str) -> list[str]:
    """The checkpoint that a training starts from; none for a run without `start`."""
    before = model_of_first_weights(configuration, model)
    return [] if before is None else [of_model(seed, before, "checkpoint.safetensors")]


def anchors_given_to(seed: int | str, model: str) -> list[str]:
    """The anchors that a training reads; none if its method uses none."""
    before, given = model_before(configuration, model), folder_given_to(model)
    return [anchors_of(seed, before, given)] if run_of(configuration, model).uses_anchors else []


def reads_labels(model: str) -> bool:
    """Whether a model is trained on cached pseudo-labels."""
    run = run_of(configuration, model)
    return isinstance(run, Method) and run.reads_pseudo_labels


def labels_given_to(seed: int | str, model: str) -> list[str]:
    """The pseudo-labels that a training reads, one JSON for each rule; none if its method reads none."""
    if not reads_labels(model):
        return []
    rules = rules_of(configuration, model).values()
    return [beside_start(seed, model, f"labels/{rule.folder}/labels.json") for rule in rules]


def evidence_behind(seed: int | str, model: str) -> str:
    """The evidence that the pseudo-labels of a training are made of."""
    return beside_start(seed, model, "evidence/evidence.json")


def label_report_behind(seed: int | str, model: str) -> str:
    """The label report of the pseudo-labels that a training reads."""
    return beside_start(seed, model, f"labels/{labelling_name(configuration, model)}.json")


def parts_of(folder: str, artifact: str) -> list[str]:
    """The files of all parts of an artifact: for `evidence.json`, `FOLDER/parts/evidence.1-of-2.json` and so on.

    `compute.parts` says how many. If not all of these are on disk, but all of another division are, those are taken: finished
    parts stay when the number is changed.
    """
    name, suffix = artifact.split(".")

    def files(count: int) -> list[str]:
        return [f"{folder}/parts/{name}.{part}-of-{count}.{suffix}" for part in range(1, count + 1)]

    first_parts = sorted(path.stem for path in Path(below_prefix(folder), "parts").glob(f"{name}.1-of-*.{suffix}"))
    counts = filter(str.isdecimal, (stem.rpartition("-")[2] for stem in first_parts))
    divisions = map(files, (configuration.compute.parts, *map(int, counts)))
    finished = (paths for paths in divisions if all(os.path.exists(below_prefix(path)) for path in paths))
    return next(finished, files(configuration.compute.parts))


def of_all_seeds(models: list[str], artifact: str) -> list[str]:
    """One artifact of each of these models, seed by seed."""
    return [of_model(seed, model, artifact) for seed in configuration.seeds for model in models]
