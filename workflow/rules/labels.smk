# ATI and PLA: the pseudo-labels that a rule makes of the evidence (Eq. 6 and 7, or Eq. 11). No network, no GPU.


rule labels:
    input:
        evidence=evidence_of_labels_job,
        group=f"{EVIDENCE}/evidence.zarr/zarr.json",  # so that a store that was deleted is made again
    output:
        labels=f"{LABELS}/{{rule}}/labels.json",
        group=f"{LABELS}/{{rule}}/labels.zarr/zarr.json",
    log:
        f"{LABELS}/{{rule}}/log/labels.txt",
    benchmark:
        f"{LABELS}/{{rule}}/benchmark/labels.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        config=CONFIG,
        settings=lambda wildcards: json.dumps(
            {"rule": RULE_BY_FOLDER[wildcards.rule].described(), **plugins_of_rule(RULE_BY_FOLDER[wildcards.rule])}
        ),
        method_version=METHOD_VERSION,
        store=subpath(output.group, parent=True),
    shell:
        "python -m caguda labels --config {params.config:q} --evidence {input.evidence:q} --rule {wildcards.rule:q}"
        " --store {params.store:q} --output {output.labels:q} > {log:q} 2>&1"


# A label report: how much the rules of a run label together, and how right that is if the truth is known. No training reads it.
rule diagnose:
    input:
        manifest=MANIFEST,
        evidence=f"{EVIDENCE}/evidence.json",
        labels=lambda wildcards: [
            of_job(wildcards, f"labels/{rule}/labels.json") for rule in wildcards.labelling.split("+")
        ],
    output:
        f"{LABELS}/{{labelling}}.json",
    log:
        f"{LABELS}/log/{{labelling}}.txt",
    benchmark:
        f"{LABELS}/benchmark/diagnose.{{labelling}}.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda diagnose --config {params.config:q} --manifest {input.manifest:q}"
        " --evidence {input.evidence:q} --labels {input.labels:q} --output {output:q} > {log:q} 2>&1"
