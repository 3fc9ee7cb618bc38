# One stage of Algorithm 1: training on the source and on the target's pseudo-labels (Eq. 12), from M(k-1) to Mk.


rule adapt:
    input:
        manifest=MANIFEST,
        packed=caches("source", "target"),
        initial=lambda wildcards: model_before(wildcards.seed, wildcards.recipe, int(wildcards.stage)),
        anchors=lambda wildcards: given_to(wildcards, "anchors.h5"),
        labels=lambda wildcards: given_to(wildcards, "labels.json"),
    output:
        checkpoint=f"{STAGE}/checkpoint.safetensors",
        description=f"{STAGE}/checkpoint.json",
    log:
        f"{STAGE}/log/adapt.txt",
    benchmark:
        f"{STAGE}/benchmark/adapt.tsv"
    priority: 100
    threads: configuration.compute.threads * configuration.compute.processes
    resources:
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
        state=f"{STAGE}/state",
    shell:
        "{TRAINER} adapt --config {params.config} --seed {wildcards.seed} --recipe {wildcards.recipe}"
        " --stage {wildcards.stage} --manifest {input.manifest} --initial {input.initial}"
        " --anchors {input.anchors} --labels {input.labels} --output {output.checkpoint} --state {params.state} --packed {input.packed}"
        " > {log} 2>&1"
