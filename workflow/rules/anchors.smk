# CAC: the category anchors of a model (Eq. 4). Each part sums features over a share of the source, then all sums are added.


rule anchor_part:
    input:
        manifest=MANIFEST,
        checkpoint=checkpoint_of_job,
    output:
        f"{OWN_ANCHORS}/parts/anchors.{{part}}-of-{{parts}}.h5",
    log:
        f"{OWN_ANCHORS}/log/anchor_part.{{part}}-of-{{parts}}.txt",
    benchmark:
        f"{OWN_ANCHORS}/benchmark/anchor_part.{{part}}-of-{{parts}}.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: configuration.compute.threads
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=240,
    params:
        config=CONFIG,
        settings=settings_json(anchors=without("anchors", "every_stage"), **settings_of_pass(configuration)),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda anchor-part --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --part {wildcards.part:q} --parts {wildcards.parts:q} --output {output:q}"
        " > {log:q} 2>&1"


rule anchors:
    input:
        manifest=MANIFEST,
        checkpoint=checkpoint_of_job,
        parts=lambda wildcards: parts_of(of_model(wildcards.seed, wildcards.model, "evidence"), "anchors.h5"),
    output:
        f"{OWN_ANCHORS}/anchors.h5",
    log:
        f"{OWN_ANCHORS}/log/anchors.txt",
    benchmark:
        f"{OWN_ANCHORS}/benchmark/anchors.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda anchors --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --part-files {input.parts:q} --output {output:q} > {log:q} 2>&1"
