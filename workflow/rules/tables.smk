# The paper's tables, with the measured scores beside the published ones, and the sweep, a table of our own.


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
        printed=lambda wildcards: printed_beside_scores(table_models_of(f"table{wildcards.number}")),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda paper-table --config {params.config:q} --number {wildcards.number:q}"
        " --evaluations {input.evaluations:q} --output {output.csv:q} > {log:q} 2>&1"


rule sweep_table:
    input:
        evaluations=lambda wildcards: of_all_seeds(table_models_of("sweep"), "evaluation.json"),
        label_reports=lambda wildcards: label_reports(table_models_of("sweep")),
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
        printed=lambda wildcards: printed_beside_scores(table_models_of("sweep")),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda sweep --config {params.config:q} --evaluations {input.evaluations:q}"
        " --label-reports {input.label_reports:q} --output {output.csv:q} > {log:q} 2>&1"
