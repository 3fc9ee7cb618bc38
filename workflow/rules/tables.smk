# The paper's tables, what was measured here beside what is published, and a picture of every category.


rule paper_table:
    input:
        evaluations=lambda wildcards: table_inputs(int(wildcards.number)),
    output:
        multiext(f"{EXPERIMENT}/tables/table{{number}}", ".csv", ".md", ".tex", ".html"),
    log:
        f"{EXPERIMENT}/log/table{{number}}.txt",
    benchmark:
        f"{EXPERIMENT}/benchmark/table{{number}}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda paper-table --config {params.config} --number {wildcards.number}"
        " --evaluations {input.evaluations} --output {output[0]} > {log} 2>&1"


rule class_chart:
    input:
        evaluations=lambda wildcards: of_all_seeds(["pretrain", chain_of(wildcards.recipe)[-1]], "evaluation.json"),
    output:
        f"{EXPERIMENT}/{{recipe}}/classes.png",
    log:
        f"{EXPERIMENT}/{{recipe}}/log/classes.txt",
    benchmark:
        f"{EXPERIMENT}/{{recipe}}/benchmark/classes.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda class-chart --config {params.config} --evaluations {input.evaluations} --output {output}"
        " > {log} 2>&1"
