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
        names=lambda wildcards: names_of(table_runs(f"table{wildcards.number}")),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda paper-table --config {params.config:q} --number {wildcards.number:q}"
        " --evaluations {input.evaluations:q} --output {output.csv:q} > {log:q} 2>&1"


rule sweep_table:
    input:
        evaluations=lambda wildcards: of_all_seeds(table_runs("sweep"), "evaluation.json"),
        accuracy=lambda wildcards: labellings_of(table_runs("sweep")),
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
        names=lambda wildcards: names_of(table_runs("sweep")),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda sweep --config {params.config:q} --evaluations {input.evaluations:q}"
        " --accuracy {input.accuracy:q} --output {output.csv:q} > {log:q} 2>&1"


rule label_frames:
    input:
        labels=lambda wildcards: pictured_labels(wildcards.report),
        manifest=MANIFEST,
    output:
        report(
            directory(f"{REPORT}/labels/frames"),
            patterns=["{name}.png"],
            caption="../report/label_frames.rst",
            category="Report {report}",
            labels={"content": "pseudo-labels of {name}"},
        ),
    log:
        f"{REPORT}/log/label_frames.txt",
    benchmark:
        f"{REPORT}/benchmark/label_frames.tsv"
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
        labels=lambda wildcards: pictured_labels(wildcards.report),
        manifest=MANIFEST,
    output:
        report(
            directory(f"{REPORT}/labels/charts"),
            patterns=["{name}.png"],
            caption="../report/label_charts.rst",
            category="Report {report}",
            labels={"content": "pseudo-labels: {name}"},
        ),
    log:
        f"{REPORT}/log/label_charts.txt",
    benchmark:
        f"{REPORT}/benchmark/label_charts.tsv"
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
            [REPORTS[wildcards.report][0], main_of(wildcards.report)], "evaluation.json"
        ),
    output:
        report(
            f"{REPORT}/classes.png",
            caption="../report/classes.rst",
            category="Report {report}",
            labels={"content": "gains and confusions of every category"},
        ),
    log:
        f"{REPORT}/log/classes.txt",
    benchmark:
        f"{REPORT}/benchmark/classes.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=CONFIG,
        names=lambda wildcards: names_of(REPORTS[wildcards.report]),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda class-chart --config {params.config:q} --evaluations {input.evaluations:q} --output {output:q}"
        " > {log:q} 2>&1"
