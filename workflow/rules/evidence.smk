# Evidence: one pass of a frozen model over the target, stored before any threshold (Eq. 5, and the classifier's probabilities).
# Several jobs fill the store, so the store as a whole is no output. Its group file is an output: it is written once, when the
# store is created, so that a deleted store is made again. `evidence` reads all of it back and writes the JSON that readers
# open first.


rule evidence_store:
    input:
        manifest=MANIFEST,
        checkpoint=checkpoint_of_job,
        anchors=anchors_of_job,
    output:
        created=f"{EVIDENCE}/evidence.created.json",
        group=f"{EVIDENCE}/evidence.zarr/zarr.json",
    log:
        f"{EVIDENCE}/log/evidence_store.txt",
    benchmark:
        f"{EVIDENCE}/benchmark/evidence_store.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=CONFIG,
        settings=settings_json(**settings_of_pass(configuration)),
        feature_stride=configuration.network.feature_stride,
        method_version=METHOD_VERSION,
        store=subpath(output.group, parent=True),
    shell:
        "python -m caguda evidence-store --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --anchors {input.anchors:q} --store {params.store:q}"
        " --output {output.created:q} > {log:q} 2>&1"


rule evidence_part:
    input:
        created=rules.evidence_store.output.created,
        group=rules.evidence_store.output.group,
        manifest=MANIFEST,
        checkpoint=checkpoint_of_job,
        anchors=anchors_of_job,
    output:
        f"{EVIDENCE}/parts/evidence.{{part}}-of-{{parts}}.json",
    log:
        f"{EVIDENCE}/log/evidence_part.{{part}}-of-{{parts}}.txt",
    benchmark:
        f"{EVIDENCE}/benchmark/evidence_part.{{part}}-of-{{parts}}.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: configuration.compute.threads
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=480,
    params:
        config=CONFIG,
        settings=settings_json(**settings_of_pass(configuration)),
        method_version=METHOD_VERSION,
        store=subpath(input.group, parent=True),
    shell:
        "python -m caguda evidence-part --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --anchors {input.anchors:q} --store {params.store:q}"
        " --part {wildcards.part:q} --parts {wildcards.parts:q} --output {output:q}"
        " > {log:q} 2>&1"


rule evidence:
    input:
        created=rules.evidence_store.output.created,
        group=rules.evidence_store.output.group,
        parts=lambda wildcards: parts_of(of_job(wildcards, "evidence"), "evidence.json"),
    output:
        f"{EVIDENCE}/evidence.json",
    log:
        f"{EVIDENCE}/log/evidence.txt",
    benchmark:
        f"{EVIDENCE}/benchmark/evidence.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        method_version=METHOD_VERSION,
        store=subpath(input.group, parent=True),
    shell:
        "python -m caguda evidence --store {params.store:q} --part-files {input.parts:q} --output {output:q} > {log:q} 2>&1"
