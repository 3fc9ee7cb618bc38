# The page of methods: the last model of every run beside all others.


rule methods_figure:
    input:
        manifest=MANIFEST,
        checkpoints=lambda wildcards: [
            of_model(FIRST_SEED, model, "checkpoint.safetensors") for model in last_models(configuration)
        ],
    output:
        report(
            f"{EXPERIMENT}/methods/frames.png",
            caption="../report/methods_figure.rst",
            category="All runs",
            labels={"content": "predictions of every run"},
        ),
    log:
        f"{EXPERIMENT}/log/methods_figure.txt",
    benchmark:
        f"{EXPERIMENT}/benchmark/methods_figure.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: configuration.compute.threads
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=30,
    params:
        config=CONFIG,
        printed=lambda wildcards: printed_beside_scores(last_models(configuration)),
        settings=settings_json("inference", **settings_of_pass(configuration)),
        method_version=METHOD_VERSION,
        seed=FIRST_SEED,
    shell:
        "python -m caguda methods-figure --config {params.config:q} --manifest {input.manifest:q} --seed {params.seed:q}"
        " --checkpoints {input.checkpoints:q} --output {output:q} > {log:q} 2>&1"


rule methods_page:
    input:
        manifest=MANIFEST,  # whose frames decide the FLOPs
        figure=f"{EXPERIMENT}/methods/frames.png",
        evaluations=lambda wildcards: of_all_seeds(MODELS, "evaluation.json"),
        label_reports=lambda wildcards: label_reports(MODELS),
        checkpoints=lambda wildcards: of_all_seeds(MODELS, "checkpoint.json"),
    output:
        page=report(
            f"{EXPERIMENT}/methods/methods.html",
            caption="../report/methods.rst",
            category="All runs",
            labels={"content": "every run beside all others"},
        ),
        tables=multiext(f"{EXPERIMENT}/methods/", "table.csv", "table.md", "pairs.csv"),
    log:
        f"{EXPERIMENT}/log/methods.txt",
    benchmark:
        f"{EXPERIMENT}/benchmark/methods.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=CONFIG,
        printed=lambda wildcards: printed_beside_scores(MODELS),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda methods --config {params.config:q} --evaluations {input.evaluations:q}"
        " --label-reports {input.label_reports:q} --checkpoints {input.checkpoints:q} --figure {input.figure:q}"
        " --output {output.page:q} > {log:q} 2>&1"
