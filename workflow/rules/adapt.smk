# One stage of Algorithm 1: training on the source and on the target's pseudo-labels (Eq. 12), from M(k-1) to Mk.


rule adapt:
    input:
        manifest=MANIFEST,
        packed=caches("source", "target"),
        initial=lambda wildcards: model_before(wildcards.seed, wildcards.recipe, int(wildcards.stage)),
        anchors=lambda wildcards: anchors_for(wildcards.seed, wildcards.recipe, int(wildcards.stage)),
        labels=lambda wildcards: labels_for(wildcards.seed, wildcards.recipe, int(wildcards.stage)),
    output:
        checkpoint=f"{STAGE}/checkpoint.safetensors",
        description=f"{STAGE}/checkpoint.json",
    log:
        f"{STAGE}/log/adapt.txt",
    benchmark:
        f"{STAGE}/benchmark/adapt.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: TRAINER_CORES
    resources:
        gpu=configuration.compute.processes,
        mem_mb=16000,
        runtime=2880,
    params:
        config=CONFIG,
        settings=lambda wildcards: fingerprint(
            "losses",
            stages=without("stages", "count"),
            weights=CHAINS[wildcards.recipe].model_dump(mode="json"),
            training=TRAINING,
        ),
        method_version=METHOD_VERSION,
        state=placed(f"{STAGE}/state"),
    shell:
        "exec python -m caguda adapt --config {params.config:q} --seed {wildcards.seed:q} --recipe {wildcards.recipe:q}"
        " --stage {wildcards.stage:q} --manifest {input.manifest:q} --initial {input.initial:q}"
        " --anchors {input.anchors:q} --labels {input.labels:q} --output {output.checkpoint:q} --state {params.state:q} --packed {input.packed:q}"
        " > {log:q} 2>&1"
