# The paper's tables, what was measured here beside what is published, and a picture of every category.


rule paper_table:
    input:
        evaluations=lambda wildcards: table_inputs(int(wildcards.number)),
    output:
        csv=report(
            f"{EXPERIMENT}/tables/table{{number}}.csv",
            caption="../report/paper_table.rst",
            category="Tables of the paper",
            labels={"content": "Table {number}"},
        ),
        others=multiext(f"{EXPERIMENT}/tables/table{{number}}", ".md", ".tex", ".html"),
    log:
        f"{EXPERIMENT}/log/table{{number}}.txt",
    benchmark:
        f"{EXPERIMENT}/benchmark/table{{number}}.tsv"
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
        "python -m caguda paper-table --config {params.config:q} --number {wildcards.number:q}"
        " --evaluations {input.evaluations:q} --output {output.csv:q} > {log:q} 2>&1"


rule sweep_table:
    input:
        evaluations=of_all_seeds([f"{recipe}/stage{stage}" for recipe, stage in SWEPT], "evaluation.json"),
        accuracy=[labelling_for(seed, *swept) for seed in configuration.seeds for swept in SWEPT],
    output:
        csv=report(
            f"{EXPERIMENT}/tables/sweep.csv",
            caption="../report/sweep.rst",
            category="Tables of the paper",
            labels={"content": "other thresholds"},
        ),
        png=report(
            f"{EXPERIMENT}/tables/sweep.png",
            caption="../report/sweep.rst",
            category="Tables of the paper",
            labels={"content": "other thresholds, drawn"},
        ),
        others=multiext(f"{EXPERIMENT}/tables/sweep", ".md", ".tex", ".html"),
    log:
        f"{EXPERIMENT}/log/sweep.txt",
    benchmark:
        f"{EXPERIMENT}/benchmark/sweep.tsv"
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
        "python -m caguda sweep --config {params.config:q} --evaluations {input.evaluations:q}"
        " --accuracy {input.accuracy:q} --output {output.csv:q} > {log:q} 2>&1"


rule label_frames:
    input:
        labels=lambda wildcards: labelling_for(FIRST_SEED, wildcards.recipe, 1),
        manifest=MANIFEST,
    output:
        report(
            directory(f"{EXPERIMENT}/{{recipe}}/labels/frames"),
            patterns=["{name}.png"],
            caption="../report/label_frames.rst",
            category="Recipe {recipe}",
            labels={"content": "pseudo-labels of {name}"},
        ),
    log:
        f"{EXPERIMENT}/{{recipe}}/log/label_frames.txt",
    benchmark:
        f"{EXPERIMENT}/{{recipe}}/benchmark/label_frames.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda view {input.labels:q} --output {output:q} > {log:q} 2>&1"


rule label_charts:
    input:
        labels=lambda wildcards: labelling_for(FIRST_SEED, wildcards.recipe, 1),
        manifest=MANIFEST,
    output:
        report(
            directory(f"{EXPERIMENT}/{{recipe}}/labels/charts"),
            patterns=["{name}.png"],
            caption="../report/label_charts.rst",
            category="Recipe {recipe}",
            labels={"content": "pseudo-labels: {name}"},
        ),
    log:
        f"{EXPERIMENT}/{{recipe}}/log/label_charts.txt",
    benchmark:
        f"{EXPERIMENT}/{{recipe}}/benchmark/label_charts.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda inspect {input.labels:q} --plot {output:q} > {log:q} 2>&1"


rule class_chart:
    input:
        evaluations=lambda wildcards: of_all_seeds(
            [source_only("classes.png"), chain_of(wildcards.recipe)[-1]], "evaluation.json"
        ),
    output:
        report(
            f"{EXPERIMENT}/{{recipe}}/classes.png",
            caption="../report/classes.rst",
            category="Recipe {recipe}",
            labels={"content": "gains and confusions of every category"},
        ),
    log:
        f"{EXPERIMENT}/{{recipe}}/log/classes.txt",
    benchmark:
        f"{EXPERIMENT}/{{recipe}}/benchmark/classes.tsv"
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
        "python -m caguda class-chart --config {params.config:q} --evaluations {input.evaluations:q} --output {output:q}"
        " > {log:q} 2>&1"
