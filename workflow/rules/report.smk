# A report: its table and its chart of categories over all seeds; its figure, loss curves and label pictures of the first seed;
# and the page.


rule table:
    input:
        evaluations=lambda wildcards: of_all_seeds(REPORTS[wildcards.report], "evaluation.json"),
    output:
        csv=report(
            f"{REPORT}/table.csv",
            caption="../report/table.rst",
            category="Report {report}",
            labels={"content": "scores of every model"},
        ),
        md=f"{REPORT}/table.md",
    log:
        f"{REPORT}/log/table.txt",
    benchmark:
        f"{REPORT}/benchmark/table.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=CONFIG,
        printed=lambda wildcards: printed_beside_scores(REPORTS[wildcards.report]),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda table --config {params.config:q} --report {wildcards.report:q}"
        " --evaluations {input.evaluations:q} --output-csv {output.csv:q} --output-md {output.md:q} > {log:q} 2>&1"


rule figure:
    input:
        manifest=MANIFEST,
        checkpoints=lambda wildcards: [
            of_model(FIRST_SEED, model, "checkpoint.safetensors")
            for model in models_of_figure(configuration, report_rows(wildcards.report))
        ],
        evidence=lambda wildcards: evidence_of_figure(wildcards.report),
        labels=lambda wildcards: labels_given_to(FIRST_SEED, main_model_of(wildcards.report)),
    output:
        report(
            f"{REPORT}/figure.png",
            caption="../report/figure.rst",
            category="Report {report}",
            labels={"content": "predictions and pseudo-labels"},
        ),
    log:
        f"{REPORT}/log/figure.txt",
    benchmark:
        f"{REPORT}/benchmark/figure.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: configuration.compute.threads
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=30,
    params:
        config=CONFIG,
        printed=lambda wildcards: printed_beside_scores(REPORTS[wildcards.report]),
        settings=settings_json("inference", **settings_of_pass(configuration)),
        method_version=METHOD_VERSION,
        seed=FIRST_SEED,
    shell:
        "python -m caguda figure --config {params.config:q} --manifest {input.manifest:q}"
        " --report {wildcards.report:q} --seed {params.seed:q} --checkpoints {input.checkpoints:q}"
        " --evidence {input.evidence:q} --labels {input.labels:q} --output {output:q} > {log:q} 2>&1"


rule curves:
    input:
        checkpoints=lambda wildcards: [
            of_model(FIRST_SEED, model, "checkpoint.json")
            for model in models_of_curves(configuration, report_rows(wildcards.report))
        ],
    output:
        report(
            f"{REPORT}/curves.png",
            caption="../report/curves.rst",
            category="Report {report}",
            labels={"content": "loss curves"},
        ),
    log:
        f"{REPORT}/log/curves.txt",
    benchmark:
        f"{REPORT}/benchmark/curves.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=CONFIG,
        printed=lambda wildcards: printed_beside_scores(REPORTS[wildcards.report]),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda curves --config {params.config:q} --report {wildcards.report:q}"
        " --checkpoints {input.checkpoints:q} --output {output:q} > {log:q} 2>&1"


rule label_frames:
    input:
        label_report=lambda wildcards: labels_of_pictures(wildcards.report),
        manifest=MANIFEST,  # which the evidence names, and the verb opens
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
        "python -m caguda view {input.label_report:q} --output {output:q} > {log:q} 2>&1"


rule label_charts:
    input:
        label_report=lambda wildcards: labels_of_pictures(wildcards.report),
        manifest=MANIFEST,  # which the evidence names, and the verb opens
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
        "python -m caguda inspect {input.label_report:q} --plot {output:q} > {log:q} 2>&1"


rule class_chart:
    input:
        evaluations=lambda wildcards: of_all_seeds(
            [REPORTS[wildcards.report][0], main_model_of(wildcards.report)], "evaluation.json"
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
        printed=lambda wildcards: printed_beside_scores(REPORTS[wildcards.report]),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda class-chart --config {params.config:q} --evaluations {input.evaluations:q} --output {output:q}"
        " > {log:q} 2>&1"


rule report_page:
    input:
        table=f"{REPORT}/table.csv",
        figure=f"{REPORT}/figure.png",
        curves=f"{REPORT}/curves.png",
        evaluations=rules.table.input.evaluations,
        label_reports=lambda wildcards: label_reports(REPORTS[wildcards.report]),
        checkpoints=lambda wildcards: of_all_seeds(REPORTS[wildcards.report], "checkpoint.json"),
    output:
        report(
            f"{REPORT}/report.html",
            caption="../report/report.rst",
            category="Report {report}",
            labels={"content": "all results on one page"},
        ),
    log:
        f"{REPORT}/log/report.txt",
    benchmark:
        f"{REPORT}/benchmark/report.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        config=CONFIG,
        printed=lambda wildcards: printed_beside_scores(REPORTS[wildcards.report]),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda report --config {params.config:q} --report {wildcards.report:q} --table {input.table:q}"
        " --figure {input.figure:q} --curves {input.curves:q} --evaluations {input.evaluations:q}"
        " --label-reports {input.label_reports:q} --checkpoints {input.checkpoints:q}"
        " --output {output:q} > {log:q} 2>&1"
