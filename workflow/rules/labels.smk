# Active target pixels and their pseudo-labels (Eq. 5-7 and the probability rule), for every target image once.
# The store is filled by several jobs, so it is no output as a whole. Its group file, written once when the store is
# created, is one: a store that was deleted is made again. `labels` reads all of it back; what trains opens its JSON.


rule label_store:
    input:
        manifest=MANIFEST,
        checkpoint=labeller,
        anchors=anchors_of,
    output:
        created=f"{GIVEN}/labels.created.json",
        group=f"{GIVEN}/labels.zarr/zarr.json",
    log:
        f"{GIVEN}/log/label_store.txt",
    benchmark:
        f"{GIVEN}/benchmark/label_store.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=CONFIG,
        settings=fingerprint("labels"),
        method_version=METHOD_VERSION,
        store=subpath(output.group, parent=True),
        margin=lambda wildcards: thresholds(wildcards)["margin"],
        p0=lambda wildcards: thresholds(wildcards)["p0"],
    shell:
        "python -m caguda label-store --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --anchors {input.anchors:q} --store {params.store:q}"
        " --margin {params.margin:q} --p0 {params.p0:q} --output {output.created:q} > {log:q} 2>&1"


rule label_part:
    input:
        created=rules.label_store.output.created,
        group=rules.label_store.output.group,
        manifest=MANIFEST,
        checkpoint=labeller,
        anchors=anchors_of,
    output:
        f"{GIVEN}/parts/labels.{{part}}-of-{{parts}}.json",
    log:
        f"{GIVEN}/log/label_part.{{part}}-of-{{parts}}.txt",
    benchmark:
        f"{GIVEN}/benchmark/label_part.{{part}}-of-{{parts}}.tsv"
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
        method_version=METHOD_VERSION,
        store=subpath(input.group, parent=True),
    shell:
        "python -m caguda label-part --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --anchors {input.anchors:q} --store {params.store:q}"
        " --part {wildcards.part:q} --parts {wildcards.parts:q} --output {output:q}"
        " > {log:q} 2>&1"


rule labels:
    input:
        created=rules.label_store.output.created,
        group=rules.label_store.output.group,
        parts=lambda wildcards: parts_of(f"{EXPERIMENT}/seed{wildcards.seed}/{wildcards.given}", "labels.json"),
    output:
        f"{GIVEN}/labels.json",
    log:
        f"{GIVEN}/log/labels.txt",
    benchmark:
        f"{GIVEN}/benchmark/labels.tsv"
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
        "python -m caguda labels --store {params.store:q} --part-files {input.parts:q} --output {output:q} > {log:q} 2>&1"


rule diagnose:
    input:
        manifest=MANIFEST,
        labels=f"{GIVEN}/labels.json",
    output:
        f"{GIVEN}/label_accuracy.json",
    log:
        f"{GIVEN}/log/diagnose.txt",
    benchmark:
        f"{GIVEN}/benchmark/diagnose.tsv"
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
        "python -m caguda diagnose --config {params.config:q} --manifest {input.manifest:q} --labels {input.labels:q}"
        " --output {output:q} > {log:q} 2>&1"
