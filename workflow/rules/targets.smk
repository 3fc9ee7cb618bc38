# What every target, table and picture is made of.

from caguda.ablations import ablations


def run_artifacts(run: str) -> list[str]:
    """What every run leaves."""
    return [f"{run}/{name}" for name in ("checkpoint.safetensors", "checkpoint.json", "evaluation.json")]


def given_artifacts(seed: int, recipe: str, stage: int) -> list[str]:
    """What a stage trains on, what that is made of, and what is told of it."""
    anchors, evidence = anchors_for(seed, recipe, stage), evidence_for(seed, recipe, stage)
    folder, labels = os.path.dirname(evidence), labels_for(seed, recipe, stage)
    made = [anchors, evidence, f"{folder}/evidence.created.json", f"{folder}/evidence.zarr/zarr.json"]
    made += parts_of(os.path.dirname(anchors), "anchors.h5") + parts_of(folder, "evidence.json")
    made += [path for file in labels for path in (file, f"{os.path.dirname(file)}/labels.zarr/zarr.json")]
    return [*made, labelling_for(seed, recipe, stage)]


def labellings_of(recipe: str) -> list[str]:
    """What is told of the pseudo-labels of every stage, seed by seed."""
    return [labelling_for(seed, recipe, stage) for seed in configuration.seeds for stage in STAGES]


def oracle_artifacts() -> list[str]:
    """The oracles of all seeds; or one line and the end, where the target has no labels."""
    if not DIAGNOSED:
        sys.exit(
            f"caguda: {configuration_name()}: the oracle needs target.labels, found null; add labels and name them"
        )
    return [path for seed in configuration.seeds for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/oracle")]


def seed_artifacts(seed: int) -> list[str]:
    """Everything below a seed's folder."""
    stages = [(recipe, stage) for recipe in configuration.recipes for stage in STAGES]
    runs = [*RUNS, *BOUNDS, *(f"{recipe}/stage{stage}" for recipe, stage in stages)]
    artifacts = [path for run in runs for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    return artifacts + [path for recipe, stage in stages for path in given_artifacts(seed, recipe, stage)]


# Table 4: the ablations, one stage each, then the stages of the first recipe and one more, which the paper found saturated.
ABLATED = [(name, 1) for name in ablations(configuration.recipes[FIRST_RECIPE])]
ABLATED += [(FIRST_RECIPE, stage) for stage in (*STAGES, len(STAGES) + 1)]


def ablation_artifacts(seed: int) -> list[str]:
    """What the rows of Table 4 are made from."""
    runs = ["pretrain", "warmup", *(f"{recipe}/stage{stage}" for recipe, stage in ABLATED)]
    artifacts = [path for run in runs for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    made = [path for recipe, stage in ABLATED for path in given_artifacts(seed, recipe, stage)]
    return artifacts + list(dict.fromkeys(made))


def compared_artifacts(seed: int) -> list[str]:
    """What our rows of Tables 1 and 3 are made from: the chain of the first recipe."""
    artifacts = [path for run in chain_of(FIRST_RECIPE) for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    return artifacts + [path for stage in STAGES for path in given_artifacts(seed, FIRST_RECIPE, stage)]


# The sweep: one stage of the first recipe under every other threshold, beside its own stage 1.
SWEPT = [(name, 1) for name in (*SWEEP, FIRST_RECIPE)]


def sweep_artifacts(seed: int) -> list[str]:
    """What the sweep is made from."""
    runs = ["warmup", *(f"{recipe}/stage{stage}" for recipe, stage in SWEPT)]
    artifacts = [path for run in runs for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    return artifacts + list(dict.fromkeys(path for swept in SWEPT for path in given_artifacts(seed, *swept)))


TABLE_CLASSES = {1: ("cityscapes19",), 2: ("cityscapes19",), 3: ("cityscapes16", "cityscapes19")}


def table_inputs(number: int) -> list[str]:
    """The evaluations of a table of the paper, seed by seed; for Table 2 what describes the submissions."""
    if configuration.classes not in TABLE_CLASSES.get(number, (configuration.classes,)):
        needed = " or ".join(TABLE_CLASSES[number])
        sys.exit(f"caguda: {configuration_name()}: classes must be {needed} for table{number}, found other ones")
    if number == 2:
        return of_all_seeds([chain_of(FIRST_RECIPE)[-1]], "submission.json")
    ablated = [source_only(f"table{number}"), "warmup", *(f"{recipe}/stage{stage}" for recipe, stage in ABLATED)]
    return of_all_seeds(ablated if number == 4 else chain_of(FIRST_RECIPE), "evaluation.json")


def source_only(what: str) -> str:
    """The run that a table or picture measures gains against; or one line and the end, where there is none."""
    if "pretrain" not in RUNS:
        sys.exit(
            f"caguda: {configuration_name()}: {what} needs a source-only model; bring it too, by start_from.pretrain"
        )
    return "pretrain"


def table_artifacts(number: int) -> list[str]:
    """A table of the paper in all its formats."""
    return [f"{EXPERIMENT}/tables/table{number}.{suffix}" for suffix in ("csv", "md", "tex", "html")]


def submission_artifacts(seed: int, recipe: str) -> list[str]:
    """The submission of a recipe's last model, and what makes it."""
    runs = [f"{EXPERIMENT}/seed{seed}/{run}" for run in chain_of(recipe)]
    made = [f"{run}/checkpoint.{suffix}" for run in runs for suffix in ("safetensors", "json")]
    made += [path for stage in STAGES for path in given_artifacts(seed, recipe, stage)]
    made += parts_of(f"{runs[-1]}/predictions", f"{PREDICTED}.json")
    return made + [
        f"{runs[-1]}/{name}" for name in (f"predictions/{PREDICTED}.json", "submission.zip", "submission.json")
    ]


def label_pictures(recipe: str) -> list[str]:
    """The first stage's pseudo-labels: some frames, and charts of all; their precision where a truth is known."""
    return [f"{EXPERIMENT}/{recipe}/labels/{name}" for name in ("frames", "charts")]


def every_artifact() -> list[str]:
    """What all targets that train list."""
    of_seeds = [
        made(seed) for seed in configuration.seeds for made in (seed_artifacts, ablation_artifacts, sweep_artifacts)
    ]
    return list(dict.fromkeys(path for made in (DATA_ARTIFACTS, *of_seeds) for path in made))


def recipe_artifacts(recipe: str) -> list[str]:
    """What is told about a recipe over all seeds."""
    names = ("table.csv", "table.md", "figure.png", "curves.png", "report.html")
    return [f"{EXPERIMENT}/{recipe}/{name}" for name in names]
