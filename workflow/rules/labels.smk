# Active target pixels and their pseudo-labels (Eq. 5-7 and the probability rule), for every target image once.
# The store is filled by several jobs, so it is no output as a whole. Its group file, written once when the store is
# created, is one: a store that was deleted is made again. `labels` reads all of it back; what trains opens its JSON.


rule label_store:
    input:
        manifest=MANIFEST,
        checkpoint=before,
        anchors=anchors_of,
    output:
        created=f"{STAGE}/labels.created.json",
        group=f"{STAGE}/labels.zarr/zarr.json",
    log:
        f"{STAGE}/log/label_store.txt",
    benchmark:
        f"{STAGE}/benchmark/label_store.tsv"
    priority: 100
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=CONFIG,
        settings=fingerprint(labels=without("labels", "parts")),
        method_version=METHOD_VERSION,
        store=subpath(output.group, parent=True),
    shell:
        "python -m caguda label-store --config {params.config} --manifest {input.manifest}"
        " --checkpoint {input.checkpoint} --anchors {input.anchors} --store {params.store}"
        " --output {output.created} > {log} 2>&1"


rule label_part:
    input:
        created=rules.label_store.output.created,
        group=rules.label_store.output.group,
        manifest=MANIFEST,
        checkpoint=before,
        anchors=anchors_of,
    output:
        f"{STAGE}/parts/{{part}}-of-{{parts}}.json",
    log:
        f"{STAGE}/log/label_part.{{part}}-of-{{parts}}.txt",
    benchmark:
        f"{STAGE}/benchmark/label_part.{{part}}-of-{{parts}}.tsv"
    priority: 100
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
        "python -m caguda label-part --config {params.config} --manifest {input.manifest}"
        " --checkpoint {input.checkpoint} --anchors {input.anchors} --store {params.store}"
        " --part {wildcards.part} --parts {wildcards.parts} --output {output}"
        " > {log} 2>&1"


rule labels:
    input:
        created=rules.label_store.output.created,
        group=rules.label_store.output.group,
        parts=expand(f"{STAGE}/parts/{{part}}.json", part=PARTS, allow_missing=True),
    output:
        f"{STAGE}/labels.json",
    log:
        f"{STAGE}/log/labels.txt",
    benchmark:
        f"{STAGE}/benchmark/labels.tsv"
    priority: 100
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        method_version=METHOD_VERSION,
        store=subpath(input.group, parent=True),
    shell:
        "python -m caguda labels --store {params.store} --output {output} > {log} 2>&1"


rule diagnose:
    input:
        manifest=MANIFEST,
        labels=f"{STAGE}/labels.json",
    output:
        f"{STAGE}/label_accuracy.json",
    log:
        f"{STAGE}/log/diagnose.txt",
    benchmark:
        f"{STAGE}/benchmark/diagnose.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda diagnose --config {params.config} --manifest {input.manifest} --labels {input.labels}"
        " --output {output} > {log} 2>&1"
