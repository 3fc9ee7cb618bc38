# What is told about a recipe: its table over all seeds, pictures and curves of the first one, and the report.


rule table:
    input:
        evaluations=lambda wildcards: of_all_seeds([*chain_of(wildcards.recipe), *BOUNDS], "evaluation.json"),
    output:
        csv=report(
            f"{EXPERIMENT}/{{recipe}}/table.csv",
            caption="../report/table.rst",
            category="Recipe {recipe}",
            labels={"content": "scores of every model"},
        ),
        md=f"{EXPERIMENT}/{{recipe}}/table.md",
    log:
        f"{EXPERIMENT}/{{recipe}}/log/table.txt",
    benchmark:
        f"{EXPERIMENT}/{{recipe}}/benchmark/table.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda table --config {params.config:q} --recipe {wildcards.recipe:q}"
        " --evaluations {input.evaluations:q} --output-csv {output.csv:q} --output-md {output.md:q} > {log:q} 2>&1"


rule figure:
    input:
        manifest=MANIFEST,
        checkpoints=lambda wildcards: [
            f"{EXPERIMENT}/seed{FIRST_SEED}/{run}/checkpoint.safetensors"
            for run in (*RUNS, chain_of(wildcards.recipe)[-1])
        ],
        evidence=lambda wildcards: evidence_for(FIRST_SEED, wildcards.recipe, STAGES[-1]),
        labels=lambda wildcards: labels_for(FIRST_SEED, wildcards.recipe, STAGES[-1]),
    output:
        report(
            f"{EXPERIMENT}/{{recipe}}/figure.png",
            caption="../report/figure.rst",
            category="Recipe {recipe}",
            labels={"content": "predictions and pseudo-labels"},
        ),
    log:
        f"{EXPERIMENT}/{{recipe}}/log/figure.txt",
    benchmark:
        f"{EXPERIMENT}/{{recipe}}/benchmark/figure.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=30,
    params:
        config=CONFIG,
        settings=fingerprint("inference"),
        method_version=METHOD_VERSION,
        seed=FIRST_SEED,
    shell:
        "python -m caguda figure --config {params.config:q} --manifest {input.manifest:q}"
        " --recipe {wildcards.recipe:q} --seed {params.seed:q} --checkpoints {input.checkpoints:q}"
        " --evidence {input.evidence:q} --labels {input.labels:q} --output {output:q} > {log:q} 2>&1"


rule curves:
    input:
        checkpoints=lambda wildcards: [
            f"{EXPERIMENT}/seed{FIRST_SEED}/{run}/checkpoint.json"
            for run in chain_of(wildcards.recipe)
            if run not in configuration.start_from
        ],
    output:
        report(
            f"{EXPERIMENT}/{{recipe}}/curves.png",
            caption="../report/curves.rst",
            category="Recipe {recipe}",
            labels={"content": "loss curves"},
        ),
    log:
        f"{EXPERIMENT}/{{recipe}}/log/curves.txt",
    benchmark:
        f"{EXPERIMENT}/{{recipe}}/benchmark/curves.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda curves --checkpoints {input.checkpoints:q} --output {output:q} > {log:q} 2>&1"


rule report:
    input:
        table=f"{EXPERIMENT}/{{recipe}}/table.csv",
        figure=f"{EXPERIMENT}/{{recipe}}/figure.png",
        curves=f"{EXPERIMENT}/{{recipe}}/curves.png",
        evaluations=rules.table.input.evaluations,
        labels=lambda wildcards: labellings_of(wildcards.recipe),
        checkpoints=lambda wildcards: of_all_seeds([*chain_of(wildcards.recipe), *BOUNDS], "checkpoint.json"),
    output:
        report(
            f"{EXPERIMENT}/{{recipe}}/report.html",
            caption="../report/report.rst",
            category="Recipe {recipe}",
            labels={"content": "all results on one page"},
        ),
    log:
        f"{EXPERIMENT}/{{recipe}}/log/report.txt",
    benchmark:
        f"{EXPERIMENT}/{{recipe}}/benchmark/report.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda report --config {params.config:q} --recipe {wildcards.recipe:q} --table {input.table:q}"
        " --figure {input.figure:q} --curves {input.curves:q} --evaluations {input.evaluations:q}"
        " --labels {input.labels:q} --checkpoints {input.checkpoints:q}"
        " --output {output:q} > {log:q} 2>&1"
